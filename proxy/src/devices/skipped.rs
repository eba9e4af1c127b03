//! Devices that can get no program, and what that means.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Device, listing, netlink::Socket, places::Error};

/// A device that gets no program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Why, and what makes it matter.
    pub reason: &'static str,
    /// Whether traffic of services is likely to pass there, unseen.
    pub matters: bool,
}

impl Skipped {
    pub(super) const MISSING: Self = Self::that_matters("there is no such device");
    pub(super) const LOOPBACK: Self = Self::that_matters("it is the loopback");
    pub(super) const NAMED: Self =
        Self::that_matters("it has no Ethernet header, and is named as an uplink");
    const DEFAULT_ROUTE: Self =
        Self::that_matters("it has no Ethernet header, and a default route leads to it");
    const NODE_ADDRESS: Self =
        Self::that_matters("it has no Ethernet header, and an address of the node is on it");
    const ROUTES: Self = Self::that_matters("it has no Ethernet header, and routes lead to it");
    const UNUSED: Self = Self { reason: "it has no Ethernet header", matters: false };

    const fn that_matters(reason: &'static str) -> Self {
        Self { reason, matters: true }
    }
}

/// Tunnels and the like: the programs look for addresses behind an Ethernet header. Those that are
/// down are not worth a word: the kernel makes some in every network namespace.
pub(super) fn without_header(
    devices: &[Device],
    node_ips: &BTreeSet<IpAddr>,
) -> BTreeMap<String, Skipped> {
    let skipped = |device: &Device| {
        if device.has_default_route {
            Skipped::DEFAULT_ROUTE
        } else if !device.addresses.is_disjoint(node_ips) {
            Skipped::NODE_ADDRESS
        } else if device.has_route {
            Skipped::ROUTES
        } else {
            Skipped::UNUSED
        }
    };
    (devices.iter())
        .filter(|device| device.is_up && !device.is_ethernet() && !device.is_loopback())
        .map(|device| (device.name.clone(), skipped(device)))
        .collect()
}

/// The devices of this network namespace that can get no program, whatever the command line says.
///
/// # Errors
/// If devices cannot be listed.
pub fn skipped() -> Result<BTreeMap<String, Skipped>, Error> {
    let mut socket = Socket::open().map_err(Error::netlink("open a netlink socket"))?;
    let devices = listing::list(&mut socket).map_err(Error::netlink("list devices"))?;
    Ok(without_header(&devices, &BTreeSet::new()))
}
