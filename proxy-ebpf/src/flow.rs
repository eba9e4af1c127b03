//! What the `flows` map remembers: how the packets of a flow are translated.
//!
//! Every entry leads from a tuple as a hook sees it to the tuple as it shall be. On its way through
//! the node's own stack a packet meets two hooks, and each changes one end, as netfilter does: at
//! ingress the destination, before routing; at egress the source, after it. The stack between them
//! sees addresses it can route and filter by. What goes on to another node skips the stack: both
//! ends change at ingress ([`flags::FORWARD`]).
//!
//! | flow | entries |
//! |---|---|
//! | source kept, endpoint on this node | `client → service` at ingress, `endpoint → client` at egress |
//! | source rewritten, endpoint on this node | these two, and `client → endpoint` at egress, `endpoint → node` at ingress |
//! | source rewritten, endpoint elsewhere | `client → service` and `endpoint → node`, both at ingress, both forwarded |
//! | source kept, the client's port taken by another of its flows | as with the source kept, both ends at each hook ([`flags::PORT_REWRITTEN`]) |
//! | direct server return | `client → service` at ingress, forwarded; on the endpoint's node `endpoint → client` at egress |

use crate::address::AddressPort;

/// Source and destination of a packet.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address; IPv4 mapped.
    pub src: [u8; 16],
    /// Destination address; IPv4 mapped.
    pub dst: [u8; 16],
    /// Source port, big-endian.
    pub src_port: [u8; 2],
    /// Destination port, big-endian.
    pub dst_port: [u8; 2],
}

const _: () = assert!(size_of::<Tuple>() == 16 + 16 + 2 + 2);

impl Tuple {
    /// From both ends.
    #[inline(always)]
    pub const fn new(from: &AddressPort, to: &AddressPort) -> Self {
        Self { src: from.ip, dst: to.ip, src_port: from.port, dst_port: to.port }
    }

    /// The sending end.
    #[inline(always)]
    pub const fn from(&self) -> AddressPort {
        AddressPort::new(self.src, self.src_port)
    }

    /// The receiving end.
    #[inline(always)]
    pub const fn to(&self) -> AddressPort {
        AddressPort::new(self.dst, self.dst_port)
    }

    /// The tuple of an answer.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port }
    }
}

/// Where in its way through the node a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hook {
    /// It just came in through a device: its destination may change.
    Ingress = 0,
    /// It is about to leave through a device: its source may change.
    Egress = 1,
}

/// Key of the `flows` map.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The packet as the hook sees it.
    pub tuple: Tuple,
    /// A [`crate::Protocol`].
    pub protocol: u8,
    /// A [`Hook`].
    pub hook: u8,
    zero: [u8; 2],
}

const _: () = assert!(size_of::<FlowKey>() == size_of::<Tuple>() + 1 + 1 + 2);

impl FlowKey {
    /// The key of a packet at a hook.
    #[inline(always)]
    pub const fn new(tuple: Tuple, protocol: u8, hook: Hook) -> Self {
        Self { tuple, protocol, hook: hook as u8, zero: [0; 2] }
    }
}

/// Value of the `flows` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEntry {
    /// The packet as it shall be, at both ends, whichever of them this entry changes.
    pub to: Tuple,
    /// Bits of [`flags`].
    pub flags: u32,
    /// [`crate::ServiceEntry::id`]: whose counter.
    pub service_id: u32,
    /// The element of `generations` when the endpoint was last known to be in its service's list.
    pub generation: u32,
    /// When a packet was last translated (`CLOCK_MONOTONIC`), to the second or so.
    pub used_at_ns: u64,
}

const _: () = assert!(size_of::<FlowEntry>() == size_of::<Tuple>() + 4 + 4 + 4 + 8);

/// Bits of [`FlowEntry::flags`].
pub mod flags {
    /// The entry of the client's packets as they come in: the one that a flow is renewed, counted
    /// and collected by.
    pub const ORIGIN: u32 = 1;
    /// Both ends change, and the packet leaves by the node's routes without passing its stack.
    pub const FORWARD: u32 = 1 << 1;
    /// The client's address is kept and the service's sent along, for the endpoint's node to put
    /// into the answers (direct server return).
    pub const DIRECT_RETURN: u32 = 1 << 2;
    /// The source is rewritten ([`FlowEntry::to`] differs from the key at both ends).
    pub const SOURCE_REWRITTEN: u32 = 1 << 3;
    /// Both ends change at this hook, and the packet goes on through the stack: the client's address
    /// is kept, but its port is one that another flow to the same endpoint has.
    pub const PORT_REWRITTEN: u32 = 1 << 4;

    /// Where the bits begin that packets change; they have a byte of their own, so that no program
    /// ever writes the others.
    pub const STATE_SHIFT: u32 = 8;
    /// A packet of this entry carried FIN (or SCTP SHUTDOWN).
    pub const FIN: u32 = 1 << STATE_SHIFT;
    /// A packet of this entry carried RST (or SCTP ABORT).
    pub const RST: u32 = 1 << (STATE_SHIFT + 1);
    /// A packet of this entry carried more than SYN: for an answer, that there is one.
    pub const ESTABLISHED: u32 = 1 << (STATE_SHIFT + 2);
}

/// How long entries outlive their last packet, by what the flow has come to. Values of
/// `nf_conntrack`, with kube-proxy's for established TCP.
pub mod timeout_secs {
    /// TCP or SCTP, both sides heard of.
    pub const ESTABLISHED: u64 = 24 * 60 * 60;
    /// TCP or SCTP, before that.
    pub const OPENING: u64 = 120;
    /// TCP or SCTP, closed by one side or both: long enough that nothing late leaves untranslated.
    pub const CLOSED: u64 = 120;
    /// UDP.
    pub const DATAGRAMS: u64 = 180;
}

impl FlowEntry {
    /// The key of the entry that the first answer will meet, given this one's key; `self` is the
    /// [`flags::ORIGIN`] entry. `None` where answers leave from another node.
    #[inline(always)]
    pub const fn answer_key(&self, protocol: u8) -> Option<FlowKey> {
        if self.flags & flags::DIRECT_RETURN != 0 {
            None
        } else if self.flags & flags::SOURCE_REWRITTEN != 0 {
            Some(FlowKey::new(self.to.reversed(), protocol, Hook::Ingress))
        } else {
            Some(FlowKey::new(self.to.reversed(), protocol, Hook::Egress))
        }
    }

    /// How long an entry outlives its last packet; `other_flags` are those of the entry of the
    /// other direction, 0 if there is none.
    #[inline(always)]
    pub const fn timeout_secs(&self, protocol: u8, other_flags: u32) -> u64 {
        if protocol == crate::Protocol::Udp as u8 {
            timeout_secs::DATAGRAMS
        } else if (self.flags | other_flags) & (flags::FIN | flags::RST) != 0 {
            timeout_secs::CLOSED
        } else if self.flags & other_flags & flags::ESTABLISHED != 0
            || self.flags & (flags::ESTABLISHED | flags::DIRECT_RETURN)
                == flags::ESTABLISHED | flags::DIRECT_RETURN
        {
            timeout_secs::ESTABLISHED
        } else {
            timeout_secs::OPENING
        }
    }
}

/// Key of the `fragments` map: what the fragments of one packet have in common.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source address; IPv4 mapped.
    pub src: [u8; 16],
    /// Destination address as the hook sees it; IPv4 mapped.
    pub dst: [u8; 16],
    /// Identification; big-endian, IPv4's in the last two bytes.
    pub id: [u8; 4],
    /// A [`crate::Protocol`].
    pub protocol: u8,
    /// A [`Hook`].
    pub hook: u8,
    zero: [u8; 2],
}

const _: () = assert!(size_of::<FragmentKey>() == 16 + 16 + 4 + 1 + 1 + 2);

impl FragmentKey {
    /// From the fields of a packet's header.
    #[inline(always)]
    pub const fn new(src: [u8; 16], dst: [u8; 16], id: [u8; 4], protocol: u8, hook: Hook) -> Self {
        Self { src, dst, id, protocol, hook: hook as u8, zero: [0; 2] }
    }
}

/// Value of the `fragments` map: the ports, which only the first fragment carries.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentPorts {
    /// Source port, big-endian.
    pub src_port: [u8; 2],
    /// Destination port, big-endian.
    pub dst_port: [u8; 2],
}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for FlowKey {}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for FlowEntry {}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for FragmentKey {}

#[cfg(feature = "user")]
// SAFETY: bytes without padding, and every bit pattern is a value.
unsafe impl aya::Pod for FragmentPorts {}
