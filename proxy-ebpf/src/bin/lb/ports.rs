//! Ports for rewritten sources: none that a node port, another flow or a socket of the host has.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, bpf_sock_tuple},
    helpers::generated::{
        bpf_get_prandom_u32, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp,
    },
};
use podium_proxy_ebpf::{
    AddressPort, Config, Endpoint, FlowEntry, FlowKey, Hook, PortRange, Protocol, ServiceKey,
    Tuple, choice, config::NAT_RANGES, flow::flags,
};

use crate::{
    frame::{Buffer, Frame},
    maps::{FLOWS, SERVICES},
    packet::Packet,
    report, route,
    service::{self, Refusal},
};

/// Ports tried before giving up. With nine of ten taken, all of them are in one case of thirty.
const TRIES: u32 = 32;

/// The same for a client's own ports, of which few can be taken.
const CLIENT_TRIES: u32 = 4;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// `BPF_F_CURRENT_NETNS`.
const CURRENT_NETNS: u64 = u64::MAX;

/// `struct bpf_sock_tuple` in its IPv4 form; the IPv6 form is that of a [`Tuple`].
#[repr(C, align(4))]
#[derive(Clone, Copy)]
struct SocketTupleV4 {
    src: [u8; 4],
    dst: [u8; 4],
    ports: [[u8; 2]; 2],
}

/// Finds a port for the flow's source and claims it by putting the entry for answers in its place;
/// the flow's tuple then starts there.
#[inline(always)]
pub fn claim(
    buffer: &Buffer,
    packet: &Packet,
    config: &Config,
    place: u8,
    flow: &mut FlowEntry,
    key: &mut FlowKey,
    back: &FlowEntry,
) -> Result<(), Refusal> {
    let mut node = if packet.v6 { config.node_v6 } else { config.node_v4 };
    if place == Endpoint::ELSEWHERE {
        // What the node itself would use on that way, so that answers come back by it.
        route::source_towards(buffer, packet, &flow.to, &mut node);
    }
    if service::is_unset(&node) {
        return Err(Refusal::NoNodeAddress);
    }
    let protocol = Protocol::from_number(packet.protocol).ok_or(Refusal::NotAService)?;
    let endpoint = flow.to.to();
    // The first try is the same each time: a flow whose entries were lost finds itself again.
    let mut number = choice::flow_hash(&packet.tuple.from(), packet.protocol);
    for _ in 0..TRIES {
        let Some(port) = nth_port(config, number) else { break };
        number = random();
        let source = AddressPort::new(node, port.to_be_bytes());
        *key = FlowKey::new(Tuple::new(&endpoint, &source), packet.protocol, Hook::Ingress);
        if is_free(buffer, packet, protocol, &key.tuple) && take(key, back) {
            flow.to = Tuple::new(&source, &endpoint);
            return Ok(());
        }
    }
    Err(Refusal::NatPortsExhausted)
}

/// Finds another port for a client whose own is taken on the way to this endpoint: by another of
/// its flows, to another address of a service. Its address is kept.
#[inline(always)]
pub fn claim_for_client(
    packet: &Packet,
    flow: &mut FlowEntry,
    key: &mut FlowKey,
    back: &mut FlowEntry,
) -> Result<(), Refusal> {
    const UNPRIVILEGED: PortRange = PortRange { first: 1024, len: u16::MAX - 1023 };
    flow.flags |= flags::PORT_REWRITTEN;
    back.flags |= flags::PORT_REWRITTEN;
    for _ in 0..CLIENT_TRIES {
        flow.to.src_port = within(UNPRIVILEGED).to_be_bytes();
        *key = FlowKey::new(flow.to.reversed(), packet.protocol, Hook::Egress);
        if take(key, back) {
            return Ok(());
        }
    }
    Err(Refusal::NatPortsExhausted)
}

#[inline(always)]
fn within(range: PortRange) -> u16 {
    range.first.wrapping_add(((u64::from(random()) * u64::from(range.len)) >> 32) as u16)
}

#[inline(always)]
fn random() -> u32 {
    // SAFETY: a plain helper without arguments.
    unsafe { bpf_get_prandom_u32() }
}

/// The configured port that a number stands for, all equally likely.
#[inline(always)]
fn nth_port(config: &Config, number: u32) -> Option<u16> {
    let mut total = 0_u32;
    for index in 0..NAT_RANGES {
        total += u32::from(config.nat_ports[index].len);
    }
    let mut left = ((u64::from(number) * u64::from(total)) >> 32) as u32;
    for index in 0..NAT_RANGES {
        let range = config.nat_ports[index];
        if left < u32::from(range.len) {
            return Some(range.first.wrapping_add(left as u16));
        }
        left = left.wrapping_sub(u32::from(range.len));
    }
    None
}

/// Whether neither a node port nor a socket of the host is there.
#[inline(never)]
fn is_free(buffer: &Buffer, packet: &Packet, protocol: Protocol, answers: &Tuple) -> bool {
    if SERVICES.get_ptr(ServiceKey::new(&answers.to(), protocol)).is_some() {
        return false;
    }
    match protocol {
        Protocol::Tcp | Protocol::Udp => !has_socket(buffer, packet, protocol, answers),
        // The kernel offers no look-up of SCTP's.
        Protocol::Sctp => true,
    }
}

/// Whether a socket of the host would take such answers.
#[inline(always)]
fn has_socket(buffer: &Buffer, packet: &Packet, protocol: Protocol, answers: &Tuple) -> bool {
    let v4;
    let v6;
    let (tuple, size): (*const bpf_sock_tuple, u32) = if packet.v6 {
        v6 = *answers;
        ((&raw const v6).cast(), size_of::<Tuple>() as u32)
    } else {
        v4 = SocketTupleV4 {
            src: crate::packet::unmap_v4(&answers.src),
            dst: crate::packet::unmap_v4(&answers.dst),
            ports: [answers.src_port, answers.dst_port],
        };
        ((&raw const v4).cast(), size_of::<SocketTupleV4>() as u32)
    };
    let tuple = tuple.cast_mut();
    let context = buffer.context();
    // Two calls: a program cannot call what a variable points to.
    let socket = if let Protocol::Tcp = protocol {
        // SAFETY: the helper only reads `size` bytes of the tuple.
        unsafe { bpf_skc_lookup_tcp(context, tuple, size, CURRENT_NETNS, 0) }
    } else {
        // SAFETY: as above.
        unsafe { bpf_sk_lookup_udp(context, tuple, size, CURRENT_NETNS, 0) }
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: the reference the look-up gave.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}

/// Puts the entry for answers into the map, if no living flow has its place.
#[inline(always)]
fn take(key: &FlowKey, entry: &FlowEntry) -> bool {
    if FLOWS.insert(key, entry, BPF_NOEXIST.into()).is_ok() {
        return true;
    }
    let Some(taken) = FLOWS.get_ptr(key) else { return false };
    // SAFETY: map memory stays readable; a torn value only makes this port be passed over or be
    // given away a little early.
    let taken = unsafe { &*taken };
    let is_own = taken.to.from().order() == entry.to.from().order()
        && taken.to.to().order() == entry.to.to().order();
    (is_own || is_over(taken, key.protocol)) && FLOWS.insert(key, entry, BPF_ANY.into()).is_ok()
}

/// Whether a flow has outlived its last packet by all it may, as far as one entry tells.
#[inline(always)]
pub fn is_over(entry: &FlowEntry, protocol: u8) -> bool {
    let idle_secs = report::now_ns().saturating_sub(entry.used_at_ns) / NANOS_PER_SEC;
    idle_secs > entry.timeout_secs(protocol, entry.flags)
}
