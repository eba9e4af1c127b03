//! The state the kernel should hold, in the words of Kubernetes: what `index` makes and `plan` takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use podium_proxy_ebpf::{
    AddressPort, Endpoint, Family, FrontendKind, Protocol, ServiceName, service::LABEL_LEN_MAX,
};

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Identity of a service port in one IP family: what an id in the kernel stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName {
    /// The Service.
    pub service: ObjectName,
    /// Name of the port, empty for a Service's only one.
    pub port: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The family of its addresses and endpoints.
    pub family: Family,
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        if !self.port.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

impl PortName {
    /// The form of the `names` map; `None` if a name is longer than Kubernetes allows.
    pub fn to_abi(&self) -> Option<ServiceName> {
        Some(ServiceName {
            namespace: label(&self.service.namespace)?,
            name: label(&self.service.name)?,
            port: label(&self.port)?,
            protocol: self.protocol as u8,
            family: self.family as u8,
            zero: [0; 6],
        })
    }

    /// From the `names` map; `None` if that is not something [`PortName::to_abi`] wrote.
    pub fn from_abi(from: &ServiceName) -> Option<Self> {
        Some(Self {
            service: ObjectName { namespace: text(&from.namespace)?, name: text(&from.name)? },
            port: text(&from.port)?,
            protocol: Protocol::from_number(from.protocol)?,
            family: match from.family {
                number if number == Family::V4 as u8 => Family::V4,
                number if number == Family::V6 as u8 => Family::V6,
                _ => return None,
            },
        })
    }
}

fn label(from: &str) -> Option<[u8; LABEL_LEN_MAX + 1]> {
    if from.len() > LABEL_LEN_MAX {
        return None;
    }
    let mut to = [0; LABEL_LEN_MAX + 1];
    to[..from.len()].copy_from_slice(from.as_bytes());
    Some(to)
}

fn text(from: &[u8]) -> Option<String> {
    let len = from.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&from[..len]).ok().map(str::to_owned)
}

/// The protocol as Kubernetes spells it.
pub const fn protocol_text(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// The family of an address.
pub const fn family_of(ip: IpAddr) -> Family {
    match ip {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// Which endpoints traffic gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    Cluster,
    /// Those on this node.
    Node,
}

/// An address of a service port, and what its policies make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// What the address is.
    pub kind: FrontendKind,
    /// For sockets and pods of this node: `internalTrafficPolicy` at ClusterIPs, all endpoints at
    /// every other address.
    pub internal: Reach,
    /// For other machines: `externalTrafficPolicy`; at ClusterIPs as `internal`.
    pub external: Reach,
    /// Whether only [`ServicePort::source_ranges`] may come here.
    pub restricted: bool,
}

/// A service port in one IP family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its identity.
    pub name: PortName,
    /// Every address it is reached at.
    pub addresses: BTreeMap<AddressPort, Frontend>,
    /// The endpoints to choose from, topology considered; sorted, without duplicates.
    pub endpoints: Vec<Endpoint>,
    /// Those on this node, likewise; empty unless an address reaches only the node.
    pub local: Vec<Endpoint>,
    /// How long a client keeps its endpoint; 0: no session affinity.
    pub affinity_secs: u32,
    /// Who may use the restricted addresses; of this port's family.
    pub source_ranges: BTreeSet<IpNet>,
}

impl ServicePort {
    /// Whether the kernel needs a table for the consistent choice: some address gives traffic from
    /// outside all endpoints.
    pub fn is_consistent(&self) -> bool {
        (self.addresses.values()).any(|frontend| {
            !matches!(frontend.kind, FrontendKind::ClusterIp | FrontendKind::LoopbackNodePort)
                && frontend.external == Reach::Cluster
        })
    }
}

/// What `/healthz` of a `healthCheckNodePort` answers from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The Service.
    pub service: ObjectName,
    /// Its ready endpoints on this node; terminating ones do not count. One that has several ports,
    /// or an address of each family, counts once.
    pub local_endpoints: usize,
}

/// All the kernel should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Every service port.
    pub ports: BTreeMap<PortName, Arc<ServicePort>>,
    /// Every ClusterIP, whose unknown ports are refused.
    pub cluster_ips: BTreeSet<IpAddr>,
    /// Ports that load balancers ask whether this node has endpoints.
    pub health_checks: BTreeMap<u16, HealthCheck>,
}

/// What matters about the node this runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalNode {
    /// `topology.kubernetes.io/zone` of its Node.
    pub zone: Option<String>,
    /// Addresses on which node ports are served to other machines.
    pub nodeport_ips: BTreeSet<IpAddr>,
    /// Every address of the host; an endpoint with one of them is in the host's network.
    pub host_ips: BTreeSet<IpAddr>,
    /// What sources are rewritten to in IPv4; `None`: this node has no such address.
    pub primary_v4: Option<Ipv4Addr>,
    /// The same in IPv6.
    pub primary_v6: Option<Ipv6Addr>,
    /// The blocks that ClusterIPs are allocated from, at most as many as the programs take.
    pub service_cidrs: Vec<IpNet>,
}

/// Something wrong with an object. It is skipped or trimmed; all others are unaffected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Kind, namespace and name, or the file.
    pub object: String,
    /// Path of the field, empty if it is the object as a whole.
    pub field: String,
    /// What is wrong, and what follows from it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
