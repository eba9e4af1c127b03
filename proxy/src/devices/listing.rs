//! The devices of a network namespace, as the kernel lists them: links, addresses, and whether
//! routes lead to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use super::{
    Device,
    netlink::{Body, Message, Socket},
};

/// Message types, attributes and constants of `linux/rtnetlink.h` and its neighbours.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const IFINFOMSG_LEN: usize = 16;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFADDRMSG_LEN: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTMSG_LEN: usize = 12;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_KERNEL: u8 = 2;
const RTNH_LEN: usize = 8;
const RTM_F_CLONED: u32 = 0x200;

/// Bits of `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR` and
/// `RTMGRP_IPV6_ROUTE`.
pub const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Lists every device.
pub fn list(socket: &mut Socket) -> io::Result<Vec<Device>> {
    let mut devices = BTreeMap::new();
    for message in socket.dump(RTM_GETLINK, &Body::new(&[0; IFINFOMSG_LEN]))? {
        if let Some(device) = device(&message) {
            devices.insert(device.index, device);
        }
    }
    for message in socket.dump(RTM_GETADDR, &Body::new(&[0; IFADDRMSG_LEN]))? {
        let Some((index, ip, global)) = address(&message) else { continue };
        let Some(device) = devices.get_mut(&index) else { continue };
        device.addresses.insert(ip);
        device.has_global_address |= global;
    }
    for message in socket.dump(RTM_GETROUTE, &Body::new(&[0; RTMSG_LEN]))? {
        let Some(route) = route(&message) else { continue };
        for index in route.devices {
            let Some(device) = devices.get_mut(&index) else { continue };
            device.has_default_route |= route.is_default;
            device.has_route |= !route.is_default && !route.is_subnet;
        }
    }
    Ok(devices.into_values().collect())
}

/// The devices for which it matters whether any route leads to them, and none is known to.
pub fn without_routes(devices: &[Device]) -> BTreeSet<u32> {
    (devices.iter())
        .filter(|device| !device.has_route && !device.is_loopback())
        .filter(|device| device.is_overlay() || !device.is_ethernet())
        .map(|device| device.index)
        .collect()
}

/// Whether a notification can change what matters of what [`list`] returns. Routes are many:
/// default routes matter, and the first one to a device of `without_routes`. That the last one is
/// gone may be noticed later.
pub fn matters(message: &Message, without_routes: &BTreeSet<u32>) -> bool {
    let route_matters = || {
        route(message).is_some_and(|route| {
            let is_first = || route.devices.iter().any(|index| without_routes.contains(index));
            route.is_default || message.kind == RTM_NEWROUTE && !route.is_subnet && is_first()
        })
    };
    match message.kind {
        RTM_NEWROUTE | RTM_DELROUTE => route_matters(),
        RTM_NEWADDR | RTM_DELADDR => true,
        kind => (RTM_NEWLINK..RTM_NEWADDR).contains(&kind),
    }
}

fn device(message: &Message) -> Option<Device> {
    let [_family, _pad, t0, t1, i0, i1, i2, i3, flags @ ..] = *message.fixed::<IFINFOMSG_LEN>()?;
    let attributes = message.attributes(IFINFOMSG_LEN);
    // An index in another network namespace says nothing here.
    let link = match attributes.get(IFLA_LINK_NETNSID) {
        Some(_) => None,
        None => attributes.u32(IFLA_LINK).filter(|index| *index != 0),
    };
    Some(Device {
        index: u32::from_ne_bytes([i0, i1, i2, i3]),
        name: attributes.text(IFLA_IFNAME)?,
        link_type: u16::from_ne_bytes([t0, t1]),
        kind: attributes.nested(IFLA_LINKINFO).text(IFLA_INFO_KIND),
        master: attributes.u32(IFLA_MASTER).filter(|index| *index != 0),
        link,
        is_up: u32::from_ne_bytes(*flags.first_chunk()?) & IFF_UP != 0,
        ..Device::default()
    })
}

fn address(message: &Message) -> Option<(u32, IpAddr, bool)> {
    let [_family, _prefix_len, _flags, scope, index @ ..] = *message.fixed::<IFADDRMSG_LEN>()?;
    let attributes = message.attributes(IFADDRMSG_LEN);
    // On point-to-point links IFA_ADDRESS is the other end.
    let bytes = attributes.get(IFA_LOCAL).or_else(|| attributes.get(IFA_ADDRESS))?;
    let ip = match bytes.len() {
        4 => IpAddr::from(*bytes.first_chunk::<4>()?),
        16 => IpAddr::from(*bytes.first_chunk::<16>()?),
        _ => return None,
    };
    Some((u32::from_ne_bytes(index), ip, scope == RT_SCOPE_UNIVERSE))
}

/// A route of other tables than that of local addresses.
struct Route {
    is_default: bool,
    /// The kernel made it for an address.
    is_subnet: bool,
    /// Where it leads.
    devices: Vec<u32>,
}

fn route(message: &Message) -> Option<Route> {
    let fixed = message.fixed::<RTMSG_LEN>()?;
    let [_family, prefix_len, _src_len, _tos, table, protocol, _scope, _type, flags @ ..] = *fixed;
    let is_cached = u32::from_ne_bytes(flags) & RTM_F_CLONED != 0;
    if table == RT_TABLE_LOCAL || is_cached {
        return None;
    }
    let attributes = message.attributes(RTMSG_LEN);
    let paths = attributes.get(RTA_MULTIPATH).map(next_hops).unwrap_or_default();
    Some(Route {
        is_default: prefix_len == 0,
        is_subnet: protocol == RTPROT_KERNEL,
        devices: attributes.u32(RTA_OIF).into_iter().chain(paths).collect(),
    })
}

/// `struct rtnexthop`: length, flags, hops, index; attributes of its own behind it.
fn next_hops(mut bytes: &[u8]) -> Vec<u32> {
    let mut found = Vec::new();
    while let Some([l0, l1, _flags, _hops, index @ ..]) = bytes.first_chunk::<RTNH_LEN>() {
        found.push(u32::from_ne_bytes(*index));
        let len = usize::from(u16::from_ne_bytes([*l0, *l1])).max(RTNH_LEN);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}
