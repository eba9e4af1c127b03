//! The state the kernel should hold, in the words of Kubernetes: what `index` makes and `plan` takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use podium_proxy_ebpf::{AddressPort, Family, Protocol, ServiceName, service::LABEL_LEN_MAX};

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
            protocol: protocol_from_number(from.protocol)?,
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

/// The protocol with an IANA number.
pub const fn protocol_from_number(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        _ => None,
    }
}

/// The protocol as Kubernetes spells it.
pub const fn protocol_text(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

/// The family of an address.
pub const fn family_of(ip: IpAddr) -> Family {
    match ip {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// Which endpoints an address of a service leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    Cluster,
    /// Those on this node (`internalTrafficPolicy: Local`).
    Node,
}

/// A service port in one IP family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its identity.
    pub name: PortName,
    /// Every address it is reached at: ClusterIP, external, load balancer.
    pub addresses: BTreeMap<AddressPort, Reach>,
    /// The endpoints to choose from, sorted, without duplicates.
    pub endpoints: Vec<AddressPort>,
    /// Those on this node, likewise; empty unless an address reaches only the node.
    pub local: Vec<AddressPort>,
    /// How long a client keeps its endpoint; 0: no session affinity.
    pub affinity_secs: u32,
}

/// All the kernel should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Every service port.
    pub ports: BTreeMap<PortName, Arc<ServicePort>>,
    /// Every ClusterIP, whose unknown ports are refused.
    pub cluster_ips: BTreeSet<IpAddr>,
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
