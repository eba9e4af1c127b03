//! ICMP errors about translated packets: they carry the beginning of a packet as it was after its
//! translation, and mean something to its sender only with the translation undone.

use podium_proxy_ebpf::{
    AddressPort, FlowKey, Hook, Protocol, Tuple,
    checksum::{self, words},
    flow::flags,
};

use crate::{
    frame::{Buffer, ChecksumKind, Frame, L3},
    maps::FLOWS,
    packet::{self, Ipv4Header, Packet, unmap_v4},
    path::{self, Action},
    route,
    scratch::Scratch,
    service::Refusal,
    translate::{addresses_difference, checksum_offset, network, ports_word},
};

/// Bytes of an ICMP header before the packet it is about.
const HEADER_LEN: u32 = 8;
/// Bytes of a transport header that an error has to quote (RFC 792).
const QUOTED_LEN: u32 = 8;

/// Translates an error that is about a packet of a flow.
#[inline(never)]
pub fn translate(buffer: &Buffer, scratch: &mut Scratch, hook: Hook) -> Result<Action, Refusal> {
    let Scratch { packet: outer, inner, key, ends, inner_ends, .. } = scratch;
    if !packet::parse_inner(buffer, outer.l4 + HEADER_LEN, outer.v6, inner)
        || inner.l4 + QUOTED_LEN > L3 + outer.bytes
    {
        return Err(Refusal::NotAService);
    }
    // The flow is that of the packets that the error's receiver gets: the other direction.
    *key = FlowKey::new(inner.tuple.reversed(), inner.protocol, hook);
    let key: &FlowKey = key;
    let Some(entry) = FLOWS.get_ptr(key) else { return Err(Refusal::NotAService) };
    // SAFETY: map memory stays readable; see `flows::known`.
    let entry = unsafe { &*entry };
    let both = entry.flags & (flags::FORWARD | flags::PORT_REWRITTEN) != 0;
    let forward = entry.flags & flags::FORWARD != 0;
    *inner_ends = inner.tuple;
    if both || matches!(hook, Hook::Ingress) {
        inner_ends.src = entry.to.dst;
        inner_ends.src_port = entry.to.dst_port;
    }
    if both || matches!(hook, Hook::Egress) {
        inner_ends.dst = entry.to.src;
        inner_ends.dst_port = entry.to.src_port;
    }
    // A router speaks for itself, an endpoint for its service.
    *ends = outer.tuple;
    replace(&mut ends.src, &inner.tuple.dst, &inner_ends.dst);
    replace(&mut ends.dst, &inner.tuple.src, &inner_ends.src);
    if !rewrite(buffer, scratch) {
        return Err(Refusal::Malformed);
    }
    if forward { send_on(buffer, scratch) } else { pass_on(buffer, scratch) }
}

#[inline(never)]
fn pass_on(buffer: &Buffer, scratch: &Scratch) -> Result<Action, Refusal> {
    network(buffer, scratch.packet.v6, &scratch.ends, 0).ok_or(Refusal::Malformed)?;
    Ok(Action::Pass)
}

/// Sends an error on whose both ends changed.
#[inline(never)]
fn send_on(buffer: &Buffer, scratch: &mut Scratch) -> Result<Action, Refusal> {
    let Scratch { packet, ends, hop, .. } = scratch;
    let time_to_live = path::time_to_live(buffer, packet).ok_or(Refusal::Malformed)?;
    // No error is sent about an error.
    if time_to_live <= 1 {
        return Err(Refusal::NoRoute);
    }
    route::ask(buffer, packet, ends, 0, hop)?;
    if hop.is_too_narrow {
        return Err(Refusal::NoRoute);
    }
    network(buffer, packet.v6, ends, 1).ok_or(Refusal::Malformed)?;
    route::send(hop)?;
    Ok(Action::Sent)
}

#[inline(always)]
fn replace(address: &mut [u8; 16], old: &[u8; 16], new: &[u8; 16]) {
    let order = |ip: &[u8; 16]| AddressPort::new(*ip, [0; 2]).order();
    if order(address) == order(old) {
        *address = *new;
    }
}

/// Changes the packet inside and the checksum around it.
#[inline(never)]
fn rewrite(buffer: &Buffer, scratch: &Scratch) -> bool {
    let Scratch { packet: outer, inner, ends, inner_ends, .. } = scratch;
    try_rewrite(buffer, outer, inner, ends, inner_ends).is_some()
}

#[inline(always)]
fn try_rewrite(
    buffer: &Buffer,
    outer: &Packet,
    inner: &Packet,
    new_outer: &Tuple,
    new_inner: &Tuple,
) -> Option<()> {
    let inner_at = outer.l4 + HEADER_LEN;
    let addresses = addresses_difference(&inner.tuple, new_inner);
    let (old_ports, new_ports) = (ports_word(&inner.tuple), ports_word(new_inner));
    let ports = checksum::difference(&[old_ports], &[new_ports]);
    // What the changes add to the sum of the error's own bytes.
    let mut covered = ports;
    if outer.v6 {
        covered = checksum::join(covered, addresses);
        stored(buffer.store(inner_at + 8, &[new_inner.src, new_inner.dst]))?;
    } else {
        // Its checksum makes up for the addresses: the sum of an IPv4 header stays as it is.
        let old: Ipv4Header = buffer.load(inner_at)?;
        let new = Ipv4Header {
            src: unmap_v4(&new_inner.src),
            dst: unmap_v4(&new_inner.dst),
            checksum: checksum::apply(old.checksum, addresses),
            ..old
        };
        stored(buffer.store(inner_at, &new))?;
    }
    stored(buffer.store(inner.l4, &new_ports.to_ne_bytes()))?;
    // TCP's checksum is beyond the eight bytes that an error has to carry.
    if let Some(offset) = checksum_offset(inner.protocol)
        && inner.l4 + offset + 2 <= L3 + outer.bytes
        && let Some(old) = buffer.load::<[u8; 2]>(inner.l4 + offset)
        && (inner.protocol != Protocol::Udp as u8 || old != [0; 2])
    {
        let new = checksum::apply(old, checksum::join(addresses, ports));
        stored(buffer.store(inner.l4 + offset, &new))?;
        let word = |[a, b]: [u8; 2]| [u32::from_ne_bytes([a, b, 0, 0])];
        covered = checksum::join(covered, checksum::difference(&word(old), &word(new)));
    }
    stored(buffer.follow_bytes(outer.l4 + 2, covered))?;
    if outer.v6 {
        let pseudo = checksum::join(
            checksum::difference(&words(&outer.tuple.src), &words(&new_outer.src)),
            checksum::difference(&words(&outer.tuple.dst), &words(&new_outer.dst)),
        );
        let kind = ChecksumKind { v6: true, udp: false };
        stored(buffer.follow_addresses(outer.l4 + 2, pseudo, kind))?;
    }
    Some(())
}

#[inline(always)]
fn stored(success: bool) -> Option<()> {
    success.then_some(())
}

const _: () = assert!(L3 == 14, "offsets of 16-bit words stay even behind an Ethernet header");
