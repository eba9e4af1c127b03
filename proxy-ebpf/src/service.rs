//! What the `services` and `names` maps hold: an address and port of a Service, and what it leads to.

use core::net::SocketAddr;

use crate::address::{self, AddressPort};

/// A transport protocol, by its IANA number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// SCTP.
    Sctp = 132,
}

impl Protocol {
    /// The protocol with an IANA number, if Services have it.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// An IP family. A dual-stack Service is two sets of endpoints, one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

/// The protocol of the entry which says that an address is a ClusterIP at all.
const ANY_PROTOCOL: u8 = 0;

/// Key of the `services` map.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The service address; IPv4 mapped.
    pub ip: [u8; 16],
    /// The service port, big-endian.
    pub port: [u8; 2],
    /// A [`Protocol`], or 0 in the key of a ClusterIP as a whole.
    pub protocol: u8,
    zero: u8,
}

const _: () = assert!(size_of::<ServiceKey>() == 16 + 2 + 1 + 1);

impl ServiceKey {
    /// The key of a service address and port.
    #[inline(always)]
    pub const fn new(at: &AddressPort, protocol: Protocol) -> Self {
        Self { ip: at.ip, port: at.port, protocol: protocol as u8, zero: 0 }
    }

    /// The key that marks `ip` as a ClusterIP: its unknown ports refuse instead of leaving the node.
    #[inline(always)]
    pub const fn whole_address(ip: [u8; 16]) -> Self {
        Self { ip, port: [0; 2], protocol: ANY_PROTOCOL, zero: 0 }
    }

    /// Whether this is the key of a ClusterIP as a whole.
    pub const fn is_whole_address(&self) -> bool {
        self.protocol == ANY_PROTOCOL
    }

    /// Address and port as a program would show them.
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(address::unmap(self.ip), u16::from_be_bytes(self.port))
    }
}

/// A run of elements in the `endpoints` array, sorted by address and port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Index of the first element.
    pub start: u32,
    /// Number of elements; an empty span starts anywhere.
    pub len: u32,
}

/// Value of the `services` map. A list of endpoints changes by writing a new span and then
/// replacing this entry in one update: a program sees the old list or the new one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceEntry {
    /// The service port: index of its counter, part of its affinity keys, key of its name.
    pub id: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// How long a client keeps its endpoint without using it; 0: no session affinity.
    pub affinity_secs: u32,
    /// Every endpoint that may be chosen.
    pub endpoints: Span,
    /// Those on this node; filled only where a policy asks for it.
    pub local: Span,
    /// Table for the consistent choice ([`crate::choice::slot`]): `len` slots from block `start` of
    /// the `maglev` array on, each an offset into `endpoints`. Empty: none is needed, or none had
    /// room.
    pub maglev: Span,
    /// [`ServiceEntry::seal`] of the fields above. The kernel gives the memory of a replaced
    /// element to the next update at once, so a program that still reads it can meet half of
    /// another entry; the seal tells it to look again.
    pub sealed: u32,
}

const _: () = assert!(size_of::<ServiceEntry>() == 4 + 4 + 4 + 8 + 8 + 8 + 4);

/// Bits of [`ServiceEntry::flags`].
pub mod flags {
    /// The entry stands for a ClusterIP as a whole and leads nowhere.
    pub const WHOLE_ADDRESS: u32 = 1;
    /// Sockets and pods of this node get endpoints of this node only (`internalTrafficPolicy:
    /// Local`).
    pub const INTERNAL_LOCAL: u32 = 1 << 1;
    /// So does traffic from outside (`externalTrafficPolicy: Local`), with its source address kept.
    pub const EXTERNAL_LOCAL: u32 = 1 << 2;
    /// Only sources in `source_ranges` (`loadBalancerSourceRanges`).
    pub const SOURCE_RANGES: u32 = 1 << 3;
    /// Only sockets of the node's own network namespace: a node port on a loopback address.
    pub const HOST_ONLY: u32 = 1 << 4;
    /// Where a [`super::FrontendKind`] stands, for `status`; no program reads it.
    pub const KIND_SHIFT: u32 = 8;
}

/// What an address of a Service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrontendKind {
    /// `spec.clusterIPs`.
    ClusterIp = 0,
    /// `spec.externalIPs`.
    ExternalIp = 1,
    /// `status.loadBalancer.ingress`.
    LoadBalancer = 2,
    /// An address of this node with `spec.ports[].nodePort`.
    NodePort = 3,
    /// A loopback address of this node with `spec.ports[].nodePort`, for sockets of the host.
    LoopbackNodePort = 4,
}

impl FrontendKind {
    /// The kind in [`ServiceEntry::flags`]; `None` for one of another version.
    pub const fn from_flags(flags: u32) -> Option<Self> {
        match (flags >> flags::KIND_SHIFT) & 0xf {
            0 => Some(Self::ClusterIp),
            1 => Some(Self::ExternalIp),
            2 => Some(Self::LoadBalancer),
            3 => Some(Self::NodePort),
            4 => Some(Self::LoopbackNodePort),
            _ => None,
        }
    }

    /// Its bits in [`ServiceEntry::flags`].
    pub const fn to_flags(self) -> u32 {
        (self as u32) << flags::KIND_SHIFT
    }
}

/// Where traffic to a service comes from, as its traffic policies tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A socket or a pod of this node.
    Inside,
    /// Another machine.
    Outside,
}

/// Why an entry leads to no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEndpoint {
    /// There is none in the cluster.
    Anywhere,
    /// There are some, but the policy wants one of this node.
    OnThisNode,
}

impl ServiceEntry {
    /// The number that shows that these fields belong together, and to `key`.
    #[inline(always)]
    pub const fn seal(&self, key: &ServiceKey) -> u32 {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = key.ip;
        let [port_high, port_low] = key.port;
        let words = [
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
            u32::from_ne_bytes([port_high, port_low, key.protocol, 0]),
            self.id,
            self.flags,
            self.affinity_secs,
            self.endpoints.start,
            self.endpoints.len,
            self.local.start,
            self.local.len,
            self.maglev.start,
            self.maglev.len,
        ];
        let mut sum = 0_u32;
        let mut index = 0;
        while index < words.len() {
            // Odd multiplier (2^32 over the golden ratio): each word reaches the high bits, the
            // rotation brings them back down.
            sum = (sum ^ words[index]).wrapping_mul(0x9e37_79b1).rotate_left(13);
            index += 1;
        }
        sum
    }

    /// Whether traffic of this origin gets endpoints of this node only.
    #[inline(always)]
    pub const fn local_only(&self, origin: Origin) -> bool {
        let bit = match origin {
            Origin::Inside => flags::INTERNAL_LOCAL,
            Origin::Outside => flags::EXTERNAL_LOCAL,
        };
        self.flags & bit != 0
    }

    /// The span that traffic of this origin may choose from.
    #[inline(always)]
    pub const fn candidates(&self, origin: Origin) -> Result<Span, NoEndpoint> {
        if self.endpoints.len == 0 {
            Err(NoEndpoint::Anywhere)
        } else if !self.local_only(origin) {
            Ok(self.endpoints)
        } else if self.local.len == 0 {
            Err(NoEndpoint::OnThisNode)
        } else {
            Ok(self.local)
        }
    }
}

/// Longest name Kubernetes gives to a namespace, a Service or a port (RFC 1123 label).
pub const LABEL_LEN_MAX: usize = 63;

/// Value of the `names` map: which Service port an id belongs to. No program reads it; it lets
/// `status` work, and a new agent take over, from pinned state alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// Namespace, ended by a zero.
    pub namespace: [u8; LABEL_LEN_MAX + 1],
    /// Name of the Service, ended by a zero.
    pub name: [u8; LABEL_LEN_MAX + 1],
    /// Name of the port, empty for a Service's only one, ended by a zero.
    pub port: [u8; LABEL_LEN_MAX + 1],
    /// A [`Protocol`].
    pub protocol: u8,
    /// A [`Family`].
    pub family: u8,
    /// Zero.
    pub zero: [u8; 6],
}

const _: () = assert!(size_of::<ServiceName>() == 3 * (LABEL_LEN_MAX + 1) + 1 + 1 + 6);

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for ServiceKey {}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for ServiceEntry {}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for ServiceName {}
