//! What the programs count, and what they tell a monitor.

use crate::{AddressPort, flow::Tuple};

/// How a decision ended: index of the `outcomes` array, and part of an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// A socket got an endpoint.
    SocketConnected = 0,
    /// A flow of packets got an endpoint.
    FlowOpened = 1,
    /// Refused: there are no endpoints in the cluster.
    NoEndpoints = 2,
    /// Dropped (a socket: EHOSTUNREACH): the policy wants an endpoint of this node, and there is
    /// none.
    NoLocalEndpoints = 3,
    /// Refused: a ClusterIP, but none of its ports.
    UnknownPort = 4,
    /// Dropped: the source is not in `loadBalancerSourceRanges`.
    SourceNotAllowed = 5,
    /// Refused: the entry changed under each look at it.
    EntryUnreadable = 6,
    /// Refused: the entry names an element beyond an array.
    EndpointUnreadable = 7,
    /// Dropped: no port is left to rewrite the source to.
    NatPortsExhausted = 8,
    /// Dropped: the flow could not be remembered.
    FlowNotInserted = 9,
    /// Dropped: a later fragment whose first one was not seen.
    FragmentWithoutFirst = 10,
    /// Dropped: an address of a service, in a packet whose headers do not hold together.
    Malformed = 11,
    /// Dropped: the node has no route to the endpoint or the client.
    NoRoute = 12,
    /// Dropped: within the blocks of ClusterIPs, but nobody's.
    UnallocatedClusterIp = 13,
    /// The client's choice could not be remembered; the connection goes on.
    AffinityNotInserted = 14,
    /// The socket's peer could not be remembered; the connection goes on.
    PeerNotInserted = 15,
    /// The ports of a first fragment could not be remembered; the others will be dropped.
    FragmentNotInserted = 16,
    /// Dropped: the source has to be rewritten, and no address of the node is known.
    NoNodeAddress = 17,
    /// Dropped: the reset of a connection that is not known.
    NothingToReset = 18,
}

impl Outcome {
    /// How many there are.
    pub const COUNT: u32 = 19;

    /// Every outcome, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::SocketConnected,
        Self::FlowOpened,
        Self::NoEndpoints,
        Self::NoLocalEndpoints,
        Self::UnknownPort,
        Self::SourceNotAllowed,
        Self::EntryUnreadable,
        Self::EndpointUnreadable,
        Self::NatPortsExhausted,
        Self::FlowNotInserted,
        Self::FragmentWithoutFirst,
        Self::Malformed,
        Self::NoRoute,
        Self::UnallocatedClusterIp,
        Self::AffinityNotInserted,
        Self::PeerNotInserted,
        Self::FragmentNotInserted,
        Self::NoNodeAddress,
        Self::NothingToReset,
    ];

    /// The outcome with a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// Value of the `counters` array: what one service port did, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounters {
    /// Connections; of unconnected sockets, datagrams.
    pub connections: u64,
    /// Packets translated, both directions. What sockets were sent to is not seen again.
    pub packets: u64,
    /// Bytes of these, from the IP header on.
    pub bytes: u64,
}

const _: () = assert!(size_of::<ServiceCounters>() == 3 * 8);

/// Where a decision was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Place {
    /// A socket call.
    Socket = 0,
    /// A device towards other machines, in.
    UplinkIngress = 1,
    /// A device towards a pod, in.
    PodIngress = 2,
    /// Any device, out.
    Egress = 3,
    /// A device towards other machines, in, before the kernel made a packet buffer.
    Xdp = 4,
}

/// One decision, as the `events` ring buffer carries it while somebody listens.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When (`CLOCK_MONOTONIC`).
    pub at_ns: u64,
    /// The packet before it; of a socket, only the destination.
    pub before: Tuple,
    /// The service port, where there is one: see `has_service`.
    pub service_id: u32,
    /// The endpoint chosen, and zero where none was.
    pub endpoint: AddressPort,
    /// What the source was rewritten to, and zero where it was not.
    pub source: AddressPort,
    /// A [`crate::Protocol`].
    pub protocol: u8,
    /// An [`Outcome`].
    pub outcome: u8,
    /// A [`Place`].
    pub place: u8,
    /// 1 if `service_id` means something.
    pub has_service: u8,
    /// The device, 0 for sockets.
    pub ifindex: u32,
}

const _: () = assert!(size_of::<Event>() == 8 + 36 + 4 + 24 + 24 + 4 + 4);

/// Element of the `monitor` array: whether decisions are told.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Monitor {
    /// Until when (`CLOCK_MONOTONIC`); the listener moves it on, so that one that was killed costs
    /// nothing for long.
    pub until_ns: u64,
    /// Tell one decision in so many, at random; 0 and 1: all.
    pub one_in: u64,
}

const _: () = assert!(size_of::<Monitor>() == 8 + 8);

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for ServiceCounters {}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for Event {}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for Monitor {}
