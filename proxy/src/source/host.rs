//! The addresses of the host this runs on.

use std::{collections::BTreeSet, fs, io, net::IpAddr};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags, sys::socket::SockaddrStorage};

use crate::index::local_node::HostAddress;

/// `RTF_REJECT` of `linux/route.h`: a route that leads nowhere.
const RTF_REJECT: u32 = 0x0200;

/// All addresses of all devices of this network namespace but loopback.
///
/// # Errors
/// If the kernel does not tell.
pub fn addresses() -> io::Result<Vec<HostAddress>> {
    // A kernel without a family has no table of its routes.
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut towards_default = default_devices_v4(&read("/proc/net/route"));
    towards_default.extend(default_devices_v6(&read("/proc/net/ipv6_route")));
    let mut addresses = Vec::new();
    for address in getifaddrs().map_err(io::Error::from)? {
        if address.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        if let Some(ip) = address.address.as_ref().and_then(ip) {
            let has_default_route = towards_default.contains(&address.interface_name);
            addresses.push(HostAddress { ip, has_default_route });
        }
    }
    Ok(addresses)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// Devices of default routes in the form of `/proc/net/route`.
fn default_devices_v4(table: &str) -> BTreeSet<String> {
    let device = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [device, destination, _, flags, _, _, _, mask, ..] = fields.as_slice() else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_default = *destination == "00000000" && *mask == "00000000";
        (is_default && flags & RTF_REJECT == 0).then(|| (*device).to_owned())
    };
    table.lines().filter_map(device).collect()
}

/// Devices of default routes in the form of `/proc/net/ipv6_route`.
fn default_devices_v6(table: &str) -> BTreeSet<String> {
    let device = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, prefix_len, _, _, _, _, _, _, flags, device] = fields.as_slice() else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_default = destination.bytes().all(|digit| digit == b'0') && *prefix_len == "00";
        (is_default && flags & RTF_REJECT == 0).then(|| (*device).to_owned())
    };
    table.lines().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_found_by_family() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(default_devices_v4(v4), BTreeSet::from(["eth0".to_owned()]));
        let zeros = "0".repeat(32);
        let v6 = format!(
            "{zeros} 00 {zeros} 00 fe800000000000000000000000000001 00000400 1 0 00000003 eth2\n\
             {zeros} 00 {zeros} 00 {zeros} ffffffff 1 0 00200200 lo\n\
             fd000000000000000000000000000000 40 {zeros} 00 {zeros} 00000100 1 0 00000001 eth3\n"
        );
        assert_eq!(default_devices_v6(&v6), BTreeSet::from(["eth2".to_owned()]));
    }
}
