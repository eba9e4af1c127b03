//! Direct server return: the client's address is kept, and the service's travels to the endpoint's
//! node in an IP option, for it to put into the answers.
//!
//! The option is one of those set aside for such agreements (RFC 4727): 158 in IPv4, a destination
//! option 0x1e in IPv6, which a host that does not know it skips. It goes with what opens a
//! connection, and with each datagram that has room for it; a flow that begins without room is not
//! returned directly.

use aya_ebpf::helpers::generated::bpf_skb_adjust_room;
use podium_proxy_ebpf::{
    AddressPort, FlowKey, FrontendKind, Hook, Protocol, ServiceEntry, ServiceKey, Tuple, checksum,
    config::flags::DIRECT_RETURN, flow::flags,
};

use crate::{
    flows,
    frame::{Buffer, Frame, L3},
    maps::CONFIG,
    packet::{Ipv4Header, Ipv6Header, Packet, map_v4, unmap_v4},
    report,
    scratch::Scratch,
    service::{self, Refusal},
};

/// Longest packet that gets the option: leaves room for it and for a tunnel on the usual link.
const BYTES_MAX: u32 = 1400;

/// `BPF_ADJ_ROOM_NET`: room behind the fixed network header.
const BEHIND_NETWORK_HEADER: u32 = 0;

const DESTINATION_OPTIONS: u8 = 60;

/// The IPv4 option.
#[repr(C)]
#[derive(Clone, Copy)]
struct OptionV4 {
    kind: u8,
    len: u8,
    port: [u8; 2],
    ip: [u8; 4],
}

impl OptionV4 {
    const KIND: u8 = 0x9e;
    const LEN: u8 = 8;
}

/// The IPv6 destination options header with the one option.
#[repr(C)]
#[derive(Clone, Copy)]
struct OptionsV6 {
    next: u8,
    /// In units of 8 bytes, less the first.
    len: u8,
    kind: u8,
    option_len: u8,
    port: [u8; 2],
    zero: [u8; 2],
    ip: [u8; 16],
}

impl OptionsV6 {
    const KIND: u8 = 0x1e;
    const OPTION_LEN: u8 = 20;
    const LEN: u8 = 24;
}

/// Whether a packet of a flow with direct return tells the service's address.
#[inline(always)]
pub const fn is_sent_with(packet: &Packet) -> bool {
    packet.needs_live_endpoint() && packet.bytes <= BYTES_MAX && has_plain_header(packet)
}

/// Bytes that the option adds to a packet.
#[inline(always)]
pub const fn room_for(packet: &Packet) -> u32 {
    if !is_sent_with(packet) {
        0
    } else if packet.v6 {
        OptionsV6::LEN as u32
    } else {
        OptionV4::LEN as u32
    }
}

#[inline(always)]
const fn has_plain_header(packet: &Packet) -> bool {
    packet.l4 == if packet.v6 { L3 + 40 } else { L3 + 20 }
}

/// Puts the option into a packet whose ends are translated already; `packet` is as it came.
#[inline(never)]
pub fn send_along(buffer: &Buffer, packet: &Packet) -> bool {
    try_send_along(buffer, packet).is_some()
}

#[inline(always)]
fn try_send_along(buffer: &Buffer, packet: &Packet) -> Option<()> {
    let service = packet.tuple.to();
    let room = if packet.v6 { OptionsV6::LEN } else { OptionV4::LEN };
    // SAFETY: the helper takes this hook's context.
    let made =
        unsafe { bpf_skb_adjust_room(buffer.skb, i32::from(room), BEHIND_NETWORK_HEADER, 0) == 0 };
    if !made {
        return None;
    }
    let stored = if packet.v6 {
        let mut header: Ipv6Header = buffer.load(L3)?;
        let options = OptionsV6 {
            next: header.next,
            len: OptionsV6::LEN / 8 - 1,
            kind: OptionsV6::KIND,
            option_len: OptionsV6::OPTION_LEN,
            port: service.port,
            zero: [0; 2],
            ip: service.ip,
        };
        header.next = DESTINATION_OPTIONS;
        let payload = u16::from_be_bytes(header.payload_len).wrapping_add(room.into());
        header.payload_len = payload.to_be_bytes();
        buffer.store(L3, &header) && buffer.store(L3 + 40, &options)
    } else {
        let old: Ipv4Header = buffer.load(L3)?;
        let option = OptionV4 {
            kind: OptionV4::KIND,
            len: OptionV4::LEN,
            port: service.port,
            ip: unmap_v4(&service.ip),
        };
        let total = u16::from_be_bytes(old.total_len).wrapping_add(room.into());
        let mut new = old;
        new.version_len += OptionV4::LEN / 4;
        new.total_len = total.to_be_bytes();
        let first = |header: &Ipv4Header| {
            let [high, low] = header.total_len;
            [u32::from_ne_bytes([header.version_len, header.tos, high, low])]
        };
        let [a, b] = option.port;
        let added =
            [u32::from_ne_bytes([option.kind, option.len, a, b]), u32::from_ne_bytes(option.ip)];
        let difference = checksum::join(
            checksum::difference(&first(&old), &first(&new)),
            checksum::difference(&[0; 2], &added),
        );
        new.checksum = checksum::apply(old.checksum, difference);
        buffer.store(L3, &new) && buffer.store(L3 + 20, &option)
    };
    stored.then_some(())
}

/// The service address that a packet tells, if any.
#[inline(always)]
fn told(buffer: &Buffer, packet: &Packet) -> Option<AddressPort> {
    if packet.v6 {
        let next: u8 = buffer.load(L3 + 6)?;
        if next != DESTINATION_OPTIONS {
            return None;
        }
        let options: OptionsV6 = buffer.load(L3 + 40)?;
        (options.kind == OptionsV6::KIND && options.option_len == OptionsV6::OPTION_LEN)
            .then(|| AddressPort::new(options.ip, options.port))
    } else {
        if packet.l4 < L3 + 28 {
            return None;
        }
        let option: OptionV4 = buffer.load(L3 + 20)?;
        (option.kind == OptionV4::KIND && option.len == OptionV4::LEN)
            .then(|| AddressPort::new(map_v4(option.ip), option.port))
    }
}

/// Remembers what a packet tells of its service, if this node knows it to be one with this
/// endpoint: nobody else can make it speak for an address.
#[inline(never)]
pub fn learn(buffer: &Buffer, scratch: &mut Scratch) {
    let Scratch { packet, entry, other_key, other, .. } = scratch;
    if has_plain_header(packet) || !packet.needs_live_endpoint() {
        return;
    }
    if CONFIG.get(0).is_none_or(|config| config.flags & DIRECT_RETURN == 0) {
        return;
    }
    let Some(service_at) = told(buffer, packet) else { return };
    let Some(protocol) = Protocol::from_number(packet.protocol) else { return };
    if !is_served_by(&service_at, protocol, &packet.tuple.to(), entry) {
        return;
    }
    *other_key = FlowKey::new(packet.tuple.reversed(), packet.protocol, Hook::Egress);
    other.to = Tuple::new(&service_at, &packet.tuple.from());
    other.flags = flags::DIRECT_RETURN;
    other.service_id = entry.id;
    other.generation = 0;
    other.used_at_ns = report::now_ns();
    flows::insert_unless_same(other_key, other);
}

/// Whether an endpoint serves an address; a node port of another node is known by its port.
#[inline(always)]
fn is_served_by(
    service_at: &AddressPort,
    protocol: Protocol,
    endpoint: &AddressPort,
    entry: &mut ServiceEntry,
) -> bool {
    let mut at = *service_at;
    let mut found = look_up(&at, protocol, entry);
    if found == Err(Refusal::NotAService)
        && let Some(config) = CONFIG.get(0)
    {
        at.ip = if at.is_v4() { config.node_v4 } else { config.node_v6 };
        found = look_up(&at, protocol, entry);
        if FrontendKind::from_flags(entry.flags) != Some(FrontendKind::NodePort) {
            return false;
        }
    }
    found.is_ok() && service::find(entry.endpoints, endpoint).is_some()
}

#[inline(never)]
fn look_up(at: &AddressPort, protocol: Protocol, entry: &mut ServiceEntry) -> Result<(), Refusal> {
    service::look_up_into(at, &ServiceKey::new(at, protocol), entry)
}

/// Whether a flow that begins with this packet can be returned directly.
#[inline(always)]
pub const fn is_possible(packet: &Packet) -> bool {
    packet.bytes <= BYTES_MAX && has_plain_header(packet)
}
