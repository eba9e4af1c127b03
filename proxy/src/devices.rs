//! Network devices: which of them get the programs of the per-packet path, and as what.
//!
//! [`classify`] decides from a listing of all devices, [`follow`] keeps the kernel as decided.

mod claim;
pub mod follow;
mod listing;
pub mod netlink;
mod places;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
};

use clap::{Args, ValueEnum};

pub use follow::{Devices, Handle};
pub use places::{Error, OnDevice, Programs, attached, cleanup};

/// What the command line says about devices.
#[derive(Args, Clone, Debug, Default)]
pub struct DeviceOptions {
    /// Devices towards other machines; a name may end in + for all that begin so [default: those
    /// with a default route, and those with addresses of the Node].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub uplinks: Vec<NamePattern>,
    /// Devices towards pods.
    #[arg(long, value_enum, default_value_t)]
    pub pod_devices: PodDevices,
    /// Take packets for other nodes in the driver of uplinks already.
    #[arg(long, value_enum, default_value_t)]
    pub xdp: Xdp,
    /// How programs are attached to devices.
    #[arg(long, value_enum, default_value_t)]
    pub tc_attach: TcAttach,
}

/// Which devices lead to pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PodDevices {
    /// veth, tap, macvtap and bridges that are no uplinks.
    #[default]
    Auto,
    /// None: pods are served by their sockets alone.
    None,
}

/// Whether uplinks get the XDP program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Xdp {
    /// No.
    #[default]
    Off,
    /// In the driver, or it is an error.
    Native,
    /// Behind the driver: for tests, it saves nothing.
    Generic,
    /// In the driver where that can do it.
    Auto,
}

/// How programs are attached to devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TcAttach {
    /// tcx where the kernel has it, else clsact.
    #[default]
    Auto,
    /// tcx links (Linux 6.6).
    Tcx,
    /// Filters on a clsact qdisc.
    Clsact,
}

/// The name of a device, or what it begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    text: String,
    is_prefix: bool,
}

impl NamePattern {
    fn matches(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&self.text) } else { name == self.text }
    }
}

impl FromStr for NamePattern {
    type Err = String;

    fn from_str(from: &str) -> Result<Self, String> {
        /// `IFNAMSIZ` less the zero byte.
        const NAME_LEN_MAX: usize = 15;
        let text = from.strip_suffix('+').unwrap_or(from);
        if text.len() > NAME_LEN_MAX || text.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err("is no name of a network device".to_owned());
        }
        let is_prefix = text.len() < from.len();
        if text.is_empty() && !is_prefix {
            return Err("the name of a device is missing".to_owned());
        }
        Ok(Self { text: text.to_owned(), is_prefix })
    }
}

/// A network device, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `ARPHRD_…`.
    pub link_type: u16,
    /// What made it: `veth`, `bridge`, `vlan` …; `None` for hardware.
    pub kind: Option<String>,
    /// The bridge or bond it is part of.
    pub master: Option<u32>,
    /// The device it lies on or is the other end of.
    pub link: Option<u32>,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether one of them has global scope.
    pub has_global_address: bool,
    /// Whether a default route leads to it.
    pub has_default_route: bool,
}

/// What a device is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It leads to other machines.
    Uplink,
    /// It leads to pods.
    Pod,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uplink => "uplink",
            Self::Pod => "pod device",
        })
    }
}

/// A device that gets programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
}

/// Which devices get programs, and what to say about others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Ordered by index.
    pub places: Vec<Place>,
    /// Devices that were named or look like uplinks and get none, and why.
    pub skipped: BTreeMap<String, &'static str>,
}

/// Device types of `linux/if_arp.h`.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

/// Decides. `node_ips` are the addresses this node is known by.
pub fn classify(devices: &[Device], options: &DeviceOptions, node_ips: &BTreeSet<IpAddr>) -> Plan {
    let mut plan = Plan::default();
    let uplinks = uplinks(devices, options, node_ips, &mut plan.skipped);
    // What a VLAN device that is an uplink lies on carries the same packets.
    let below_uplinks: BTreeSet<u32> = (devices.iter())
        .filter(|device| uplinks.contains(&device.index) && !device.is("veth"))
        .filter_map(|device| device.link)
        .collect();
    for device in devices {
        let role = if uplinks.contains(&device.index) {
            Role::Uplink
        } else if options.pod_devices == PodDevices::Auto
            && leads_to_pods(device)
            && !device.master.is_some_and(|master| uplinks.contains(&master))
            && !below_uplinks.contains(&device.index)
        {
            Role::Pod
        } else {
            continue;
        };
        plan.places.push(Place { index: device.index, name: device.name.clone(), role });
    }
    plan.places.sort_by_key(|place| place.index);
    plan
}

fn uplinks(
    devices: &[Device],
    options: &DeviceOptions,
    node_ips: &BTreeSet<IpAddr>,
    skipped: &mut BTreeMap<String, &'static str>,
) -> BTreeSet<u32> {
    if !options.uplinks.is_empty() {
        for pattern in &options.uplinks {
            if !devices.iter().any(|device| pattern.matches(&device.name)) {
                skipped.insert(pattern.text.clone(), "there is no such device");
            }
        }
        let named = |device: &&Device| options.uplinks.iter().any(|one| one.matches(&device.name));
        return ethernet(devices.iter().filter(named), skipped);
    }
    let is_nodes = |device: &&Device| !device.addresses.is_disjoint(node_ips);
    let probable =
        |device: &&Device| device.has_default_route || (is_nodes(device) && !leads_to_pods(device));
    let mut found = ethernet(devices.iter().filter(probable), skipped);
    if found.is_empty() {
        found = ethernet(devices.iter().filter(is_nodes), skipped);
    }
    if found.is_empty() {
        let is_bridge = |index| of_index(devices, index).is_some_and(|one| one.is("bridge"));
        found = (devices.iter())
            .filter(|device| device.link_type == ARPHRD_ETHER && device.has_global_address)
            .filter(|device| !device.is_any(&["bridge", "dummy", "tun", "vxlan", "geneve"]))
            .filter(|device| !device.master.is_some_and(is_bridge))
            .map(|device| device.index)
            .collect();
    }
    // What reaches these passes the bridge or bond they are part of, with the addresses there.
    let part_of_another: BTreeSet<u32> = (devices.iter())
        .filter(|device| device.master.is_some_and(|master| found.contains(&master)))
        .map(|device| device.index)
        .collect();
    &found - &part_of_another
}

fn ethernet<'a>(
    devices: impl Iterator<Item = &'a Device>,
    skipped: &mut BTreeMap<String, &'static str>,
) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for device in devices.filter(|device| device.link_type != ARPHRD_LOOPBACK) {
        if device.link_type == ARPHRD_ETHER {
            found.insert(device.index);
        } else {
            skipped.insert(device.name.clone(), "is not an Ethernet device");
        }
    }
    found
}

fn of_index(devices: &[Device], index: u32) -> Option<&Device> {
    devices.iter().find(|device| device.index == index)
}

/// A tun device without Ethernet headers is no Ethernet device either.
fn leads_to_pods(device: &Device) -> bool {
    device.link_type == ARPHRD_ETHER && device.is_any(&["veth", "tun", "bridge", "macvtap"])
}

impl Device {
    fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    fn is_any(&self, kinds: &[&str]) -> bool {
        kinds.iter().any(|kind| self.is(kind))
    }
}
