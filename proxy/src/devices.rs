//! Network devices: which of them get the programs of the per-packet path, and as what.
//!
//! [`classify`] decides from a listing of all devices, [`follow`] keeps the kernel as decided.

mod claim;
pub mod follow;
mod listing;
pub mod netlink;
mod places;
mod skipped;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, iter,
    net::IpAddr,
    str::FromStr,
};

use clap::{Args, ValueEnum};

pub use follow::{Devices, Handle};
pub use places::{Error, OnDevice, Programs, attached, cleanup};
pub use skipped::{Skipped, skipped};

/// What the command line says about devices.
#[derive(Args, Clone, Debug, Default)]
pub struct DeviceOptions {
    /// Devices towards other machines; a name may end in + for all that begin so [default: those
    /// with a default route, those with addresses of the Node, and vxlan and geneve devices with
    /// addresses or routes].
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
    /// veth, netkit, tap, macvtap and bridges that are no uplinks.
    #[default]
    Auto,
    /// None: pods are served by their sockets alone, and their devices left alone.
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
    /// Whether another route leads to it that is more than the subnet of an address.
    pub has_route: bool,
    /// Whether it is up.
    pub is_up: bool,
}

/// What a device is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It leads to other machines.
    Uplink,
    /// It leads to other nodes, by way of an uplink: what there is in a driver is there.
    Overlay,
    /// It leads to pods.
    Pod,
    /// It leads somewhere else: answers may leave by it, which need their source put right.
    Other,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uplink => "uplink",
            Self::Overlay => "overlay device",
            Self::Pod => "pod device",
            Self::Other => "other device",
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
    /// Devices that were named or carry traffic and can get none, and why.
    pub skipped: BTreeMap<String, Skipped>,
}

/// Device types of `linux/if_arp.h`.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

/// What a packet passes on its way to or from a device that is part of one.
const BUNDLES: [&str; 3] = ["bridge", "bond", "team"];

/// Devices within devices, as many as the kernel allows.
const NESTED_MAX: usize = 8;

/// Decides. `node_ips` are the addresses this node is known by.
pub fn classify(devices: &[Device], options: &DeviceOptions, node_ips: &BTreeSet<IpAddr>) -> Plan {
    let mut skipped = skipped::without_header(devices, node_ips);
    let uplinks = uplinks(devices, options, node_ips, &mut skipped);
    // What a VLAN device that is an uplink lies on carries the same packets.
    let below_uplinks: BTreeSet<u32> = (devices.iter())
        .filter(|device| uplinks.contains(&device.index))
        .filter(|device| !device.is("veth") && !device.is_overlay())
        .filter_map(|device| device.link)
        .collect();
    let mut roles: BTreeMap<u32, Role> = (devices.iter())
        .filter_map(|device| {
            let role = if uplinks.contains(&device.index) {
                if device.is_overlay() { Role::Overlay } else { Role::Uplink }
            } else if options.pod_devices == PodDevices::Auto
                && leads_to_pods(device)
                && !device.master.is_some_and(|master| uplinks.contains(&master))
                && !below_uplinks.contains(&device.index)
            {
                Role::Pod
            } else {
                return None;
            };
            Some((device.index, role))
        })
        .collect();
    let others: Vec<u32> = (devices.iter())
        .filter(|device| !roles.contains_key(&device.index) && may_be_left_by(device, options))
        .filter(|device| !below_uplinks.contains(&device.index) || device.has_global_address)
        .filter(|device| !is_part_of_served(devices, &roles, device))
        .map(|device| device.index)
        .collect();
    roles.extend(others.into_iter().map(|index| (index, Role::Other)));
    let mut places: Vec<Place> = (devices.iter())
        .filter_map(|device| {
            let role = *roles.get(&device.index)?;
            Some(Place { index: device.index, name: device.name.clone(), role })
        })
        .collect();
    places.sort_by_key(|place| place.index);
    Plan { places, skipped }
}

fn uplinks(
    devices: &[Device],
    options: &DeviceOptions,
    node_ips: &BTreeSet<IpAddr>,
    skipped: &mut BTreeMap<String, Skipped>,
) -> BTreeSet<u32> {
    if !options.uplinks.is_empty() {
        return named(devices, &options.uplinks, skipped);
    }
    let is_nodes = |device: &&Device| !device.addresses.is_disjoint(node_ips);
    let probable =
        |device: &&Device| device.has_default_route || (is_nodes(device) && !leads_to_pods(device));
    let mut found = ethernet(devices.iter().filter(probable));
    if found.is_empty() {
        found = ethernet(devices.iter().filter(is_nodes));
    }
    let is_part_of = |device: &Device, kinds: &[&str]| {
        let master = device.master.and_then(|index| of_index(devices, index));
        master.is_some_and(|master| master.is_any(kinds))
    };
    if found.is_empty() {
        let global = (devices.iter())
            .filter(|device| device.has_global_address)
            .filter(|device| !device.is_any(&["bridge", "dummy", "tun", "vxlan", "geneve"]))
            .filter(|device| !is_part_of(device, &["bridge"]));
        found = ethernet(global);
    }
    let overlays = (devices.iter())
        .filter(|device| device.is_overlay() && (device.has_global_address || device.has_route))
        .filter(|device| !is_part_of(device, &["bridge", "bond", "team", "openvswitch"]));
    found.extend(ethernet(overlays));
    // What reaches these passes the bridge or bond they are part of, with the addresses there.
    let part_of_another: BTreeSet<u32> = (devices.iter())
        .filter(|device| device.master.is_some_and(|master| found.contains(&master)))
        .map(|device| device.index)
        .collect();
    &found - &part_of_another
}

fn named(
    devices: &[Device],
    patterns: &[NamePattern],
    skipped: &mut BTreeMap<String, Skipped>,
) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for pattern in patterns {
        let mut is_missing = true;
        for device in devices.iter().filter(|device| pattern.matches(&device.name)) {
            is_missing = false;
            if device.is_ethernet() {
                found.insert(device.index);
            } else if !pattern.is_prefix {
                let why = if device.is_loopback() { Skipped::LOOPBACK } else { Skipped::NAMED };
                skipped.insert(device.name.clone(), why);
            }
        }
        if is_missing {
            skipped.insert(pattern.text.clone(), Skipped::MISSING);
        }
    }
    found
}

fn ethernet<'a>(devices: impl Iterator<Item = &'a Device>) -> BTreeSet<u32> {
    devices.filter(|device| device.is_ethernet()).map(|device| device.index).collect()
}

fn of_index(devices: &[Device], index: u32) -> Option<&Device> {
    devices.iter().find(|device| device.index == index)
}

/// A tun device without Ethernet headers is no Ethernet device either.
fn leads_to_pods(device: &Device) -> bool {
    device.is_ethernet() && device.is_any(&["veth", "netkit", "tun", "bridge", "macvtap"])
}

/// Whether answers may leave by a device that is neither an uplink nor a pod's. What a dummy is
/// given ends there, and what passes an ifb is on its way in.
///
/// Where pods' devices are to be left alone, packets for them must not get a source on the way
/// whose answers only a program at ingress would know.
fn may_be_left_by(device: &Device, options: &DeviceOptions) -> bool {
    let is_pods = leads_to_pods(device) || device.is("openvswitch");
    device.is_up
        && device.is_ethernet()
        && !device.is_any(&["dummy", "ifb"])
        && (options.pod_devices == PodDevices::Auto || !is_pods)
}

/// Whether packets that leave by a device pass another before, which has the program then.
fn is_part_of_served(devices: &[Device], roles: &BTreeMap<u32, Role>, device: &Device) -> bool {
    let master = |device: &&Device| of_index(devices, device.master?);
    iter::successors(master(&device), master)
        .take(NESTED_MAX)
        .take_while(|master| master.is_any(&BUNDLES))
        .any(|master| roles.contains_key(&master.index) || master.is_any(&["bond", "team"]))
}

impl Device {
    const fn is_ethernet(&self) -> bool {
        self.link_type == ARPHRD_ETHER
    }

    const fn is_loopback(&self) -> bool {
        self.link_type == ARPHRD_LOOPBACK
    }

    /// Whether it leads to other machines in packets of the node's own.
    fn is_overlay(&self) -> bool {
        self.is_any(&["vxlan", "geneve"])
    }

    fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    fn is_any(&self, kinds: &[&str]) -> bool {
        kinds.iter().any(|kind| self.is(kind))
    }
}
