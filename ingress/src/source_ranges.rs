//! A set of networks, asked about one address at a time.

use ipnet::IpNet;
use std::collections::HashSet;
use std::net::IpAddr;

/// Up to this many a list is faster than anything else.
const LIST_LEN_MAX: usize = 16;

/// Networks and single addresses, IPv4 and IPv6. IPv4 in IPv6 clothes (`::ffff:192.0.2.1`) is IPv4.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceRanges {
    list: Box<[IpNet]>,
    /// Of a long list: its networks by length, and the lengths there are. One look-up a length.
    index: Option<Box<Index>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Index {
    networks: HashSet<IpNet>,
    lengths_v4: Vec<u8>,
    lengths_v6: Vec<u8>,
}

impl SourceRanges {
    /// A set of these.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> SourceRanges {
        let mut list: Vec<IpNet> = networks.into_iter().map(canonical).collect();
        list.sort();
        list.dedup();
        let index = (list.len() > LIST_LEN_MAX).then(|| {
            let lengths = |v4: bool| {
                let of_family = list.iter().filter(|network| network.addr().is_ipv4() == v4);
                let mut lengths: Vec<u8> = of_family.map(IpNet::prefix_len).collect();
                lengths.sort_unstable();
                lengths.dedup();
                lengths
            };
            Box::new(Index {
                networks: list.iter().copied().collect(),
                lengths_v4: lengths(true),
                lengths_v6: lengths(false),
            })
        });
        SourceRanges { list: list.into(), index }
    }

    /// There is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether an address is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let Some(index) = &self.index else {
            return self.list.iter().any(|network| network.contains(&address));
        };
        let lengths = if address.is_ipv4() { &index.lengths_v4 } else { &index.lengths_v6 };
        lengths.iter().any(|length| {
            IpNet::new(address, *length).is_ok_and(|net| index.networks.contains(&net.trunc()))
        })
    }
}

fn canonical(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
        && let Ok(network) = IpNet::new(v4.into(), length)
    {
        return network.trunc();
    }
    network.trunc()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn both_families_and_mapped_addresses() {
        let ranges = SourceRanges::new(networks(&[
            "10.1.2.3/8",
            "192.0.2.7/32",
            "2001:db8::/32",
            "::ffff:198.51.100.0/120",
        ]));
        for (address, within) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("::ffff:10.0.0.1", true),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
            ("198.51.100.200", true),
        ] {
            assert_eq!(ranges.contains(address.parse().unwrap()), within, "{address}");
        }
        assert!(SourceRanges::default().is_empty());
        assert!(!SourceRanges::default().contains("10.0.0.1".parse().unwrap()));
    }

    proptest! {
        /// The index of a long list says what the list itself says.
        #[test]
        fn long_lists_are_the_same_as_short_ones(
            nets in prop::collection::vec((any::<u32>(), 0u8..=32), 17..60),
            near in any::<prop::sample::Index>(),
            flips in 0u32..16,
        ) {
            let nets: Vec<IpNet> = nets
                .into_iter()
                .map(|(bits, length)| IpNet::new(IpAddr::from(bits.to_be_bytes()), length).unwrap())
                .collect();
            let IpAddr::V4(base) = near.get(&nets).addr() else { unreachable!() };
            let address = IpAddr::V4((u32::from(base) ^ flips).into());
            let plainly = nets.iter().any(|net| net.contains(&address));
            prop_assert_eq!(SourceRanges::new(nets).contains(address), plainly);
        }
    }
}
