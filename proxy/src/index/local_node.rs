//! What is known of this node, from its Node object, its devices and the command line. Pure.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;
use podium_proxy_ebpf::config::SERVICE_CIDRS;

use crate::model::{LocalNode, Problem};

/// What matters of this node's Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnNode {
    /// Whether load balancers may send traffic to it (KEP-3458).
    pub is_eligible: bool,
    /// `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// `status.addresses`: the InternalIPs, then the ExternalIPs.
    pub ips: Vec<IpAddr>,
}

/// An address of a device of the host other than loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The address.
    pub ip: IpAddr,
    /// Whether a default route leads through its device.
    pub has_default_route: bool,
}

/// `--nodeport-addresses`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The node's primary address of each family.
    #[default]
    Primary,
    /// Every address of the host in these blocks.
    Within(Vec<IpNet>),
}

impl FromStr for NodePortAddresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "primary" {
            return Ok(Self::Primary);
        }
        let parse = |part: &str| {
            let part = part.trim();
            match part.parse::<IpNet>() {
                Ok(block) => Ok(block.trunc()),
                Err(_) if part == "primary" => {
                    Err("the word primary stands alone, without blocks of addresses".to_owned())
                }
                Err(_) => Err(format!(
                    "{part:?} is no block of addresses (like 192.0.2.0/24), nor the word primary"
                )),
            }
        };
        text.split(',').map(parse).collect::<Result<_, _>>().map(Self::Within)
    }
}

/// What the command line says of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSettings {
    /// `--nodeport-addresses`.
    pub nodeport_addresses: NodePortAddresses,
    /// `--node-ip`, for where the Node object says nothing.
    pub node_ips: Vec<IpAddr>,
    /// `--service-cidrs`, for where there are no ServiceCIDR objects.
    pub service_cidrs: Vec<IpNet>,
}

/// Joins all that is known.
pub fn local_node(
    settings: &NodeSettings,
    own_node: Option<&OwnNode>,
    host: &[HostAddress],
    service_cidrs: &[IpNet],
) -> (LocalNode, Vec<Problem>) {
    let mut problems = Vec::new();
    let of_node = own_node.map_or(&[][..], |node| node.ips.as_slice());
    let known = if of_node.is_empty() { settings.node_ips.as_slice() } else { of_node };
    let mut node = LocalNode {
        zone: own_node.and_then(|node| node.zone.clone()),
        host_ips: host.iter().map(|address| address.ip).collect(),
        primary_v4: primary(known, host, v4),
        primary_v6: primary(known, host, v6),
        ..LocalNode::default()
    };
    match &settings.nodeport_addresses {
        NodePortAddresses::Primary => {
            node.nodeport_ips.extend(node.primary_v4.map(IpAddr::V4));
            node.nodeport_ips.extend(node.primary_v6.map(IpAddr::V6));
        }
        NodePortAddresses::Within(blocks) => {
            let within = |ip: &&IpAddr| blocks.iter().any(|block| block.contains(*ip));
            node.nodeport_ips.extend(node.host_ips.iter().filter(within));
        }
    }
    if node.nodeport_ips.is_empty() {
        problems.push(Problem {
            object: "this node".to_owned(),
            field: "--nodeport-addresses".to_owned(),
            message: "leads to no address; node ports are only served on loopback".to_owned(),
        });
    }
    let from = if service_cidrs.is_empty() { &settings.service_cidrs } else { service_cidrs };
    node.service_cidrs = from.iter().map(IpNet::trunc).collect();
    node.service_cidrs.sort();
    node.service_cidrs.dedup();
    if node.service_cidrs.len() > SERVICE_CIDRS {
        let left_out: Vec<_> =
            node.service_cidrs.split_off(SERVICE_CIDRS).iter().map(ToString::to_string).collect();
        problems.push(Problem {
            object: "ServiceCIDRs".to_owned(),
            field: String::new(),
            message: format!(
                "there are more than {SERVICE_CIDRS} blocks; traffic to addresses of {} that no \
                 Service has is not dropped",
                left_out.join(", ")
            ),
        });
    }
    (node, problems)
}

/// The first address that is known to be the node's; if nothing is known, the first global one of
/// a device with a default route, else of any device.
fn primary<T>(
    known: &[IpAddr],
    host: &[HostAddress],
    of_family: fn(&IpAddr) -> Option<T>,
) -> Option<T> {
    if !known.is_empty() {
        return known.iter().find_map(of_family);
    }
    let global = || host.iter().filter(|address| is_global(&address.ip));
    global()
        .filter(|address| address.has_default_route)
        .find_map(|address| of_family(&address.ip))
        .or_else(|| global().find_map(|address| of_family(&address.ip)))
}

fn v4(ip: &IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    }
}

fn v6(ip: &IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(*ip),
    }
}

/// Whether other links can reach it.
fn is_global(ip: &IpAddr) -> bool {
    !ip.is_loopback()
        && match ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        }
}
