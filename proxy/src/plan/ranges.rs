//! Source ranges in the form of the kernel's trie.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podium_proxy_ebpf::{Cidr, SourceRange, address};

use crate::model::ServicePort;

/// Leading bits that all mapped IPv4 addresses have in common.
const MAPPED_LEN: u32 = 96;

/// An element of the trie, and how many leading bits of its address count.
pub type RangeKey = (SourceRange, u32);

/// What the trie must hold for a port: nothing unless an address asks for it.
pub fn wanted(id: u32, port: &ServicePort) -> BTreeSet<RangeKey> {
    if !port.addresses.values().any(|frontend| frontend.restricted) {
        return BTreeSet::new();
    }
    port.source_ranges.iter().map(|range| to_abi(id, *range)).collect()
}

/// The element for a range.
pub fn to_abi(service_id: u32, range: IpNet) -> RangeKey {
    let len = u32::from(range.prefix_len());
    let prefix_len = if range.addr().is_ipv4() { MAPPED_LEN + len } else { len };
    (SourceRange { service_id, ip: address::map(range.network()) }, prefix_len)
}

/// The range of an element; `None` if that is nothing [`to_abi`] made.
pub fn from_abi((range, prefix_len): &RangeKey) -> Option<IpNet> {
    match address::unmap(range.ip) {
        IpAddr::V4(v4) => {
            let len = u8::try_from(prefix_len.checked_sub(MAPPED_LEN)?).ok()?;
            Ipv4Net::new(v4, len).ok().map(IpNet::V4)
        }
        IpAddr::V6(_) => {
            let len = u8::try_from(*prefix_len).ok()?;
            Ipv6Net::new(Ipv6Addr::from_octets(range.ip), len).ok().map(IpNet::V6)
        }
    }
}

/// Whether an address is in one of the ranges.
pub fn allow(ranges: &BTreeSet<RangeKey>, ip: &[u8; 16]) -> bool {
    ranges.iter().any(|(range, prefix_len)| {
        *prefix_len == 0 || Cidr { ip: range.ip, prefix_len: *prefix_len }.contains(ip)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_counted_from_the_start_of_the_mapped_address() {
        for (text, len) in
            [("192.0.2.0/24", 120), ("0.0.0.0/0", 96), ("2001:db8::/32", 32), ("::/0", 0)]
        {
            let range: IpNet = text.parse().unwrap();
            let key = to_abi(7, range);
            assert_eq!((key.0.service_id, key.1), (7, len), "{text}");
            assert_eq!(from_abi(&key), Some(range), "{text}");
        }
        let loose: IpNet = "192.0.2.77/24".parse().unwrap();
        assert_eq!(to_abi(0, loose), to_abi(0, loose.trunc()), "host bits are nothing");
        let (range, _) = to_abi(0, loose);
        assert_eq!(from_abi(&(range, 95)), None);
        assert_eq!(from_abi(&(range, 129)), None);
    }
}
