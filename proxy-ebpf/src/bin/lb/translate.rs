//! Changes a packet's ends, and every checksum that covers them.

use podium_proxy_ebpf::{
    Protocol, Tuple,
    checksum::{self, crc32c, words},
};

use crate::{
    frame::{ChecksumKind, Frame, L3},
    packet::{Fragment, Ipv4Header, Packet, unmap_v4},
    service::Refusal,
};

/// The offset of the checksum in the transport header, of those with an Internet checksum.
#[inline(always)]
pub const fn checksum_offset(protocol: u8) -> Option<u32> {
    if protocol == Protocol::Tcp as u8 {
        Some(16)
    } else if protocol == Protocol::Udp as u8 {
        Some(6)
    } else {
        None
    }
}

/// What changing the addresses adds to a checksum with a pseudo header.
#[inline(always)]
pub fn addresses_difference(from: &Tuple, to: &Tuple) -> u32 {
    checksum::join(
        checksum::difference(&words(&from.src), &words(&to.src)),
        checksum::difference(&words(&from.dst), &words(&to.dst)),
    )
}

/// Both ports as the word they are in a transport header.
#[inline(always)]
pub const fn ports_word(tuple: &Tuple) -> u32 {
    let ([a, b], [c, d]) = (tuple.src_port, tuple.dst_port);
    u32::from_ne_bytes([a, b, c, d])
}

/// Gives the packet other ends; `hops` of its time to live are used up. Everything that could fail
/// for want of bytes was read before.
#[inline(never)]
pub fn translate<F: Frame>(
    frame: &F,
    packet: &Packet,
    to: &Tuple,
    hops: u8,
) -> Result<(), Refusal> {
    if packet.fragment != Fragment::Later {
        transport(frame, packet, to).ok_or(Refusal::Malformed)?;
    }
    network(frame, packet.v6, to, hops).ok_or(Refusal::Malformed)
}

/// Gives the network header other addresses.
#[inline(always)]
pub fn network<F: Frame>(frame: &F, v6: bool, to: &Tuple, hops: u8) -> Option<()> {
    if v6 { network_v6(frame, to, hops) } else { network_v4(frame, to, hops) }
}

#[inline(always)]
fn done(success: bool) -> Option<()> {
    success.then_some(())
}

#[inline(always)]
fn transport<F: Frame>(frame: &F, packet: &Packet, to: &Tuple) -> Option<()> {
    let (old, new) = (ports_word(&packet.tuple), ports_word(to));
    if let Some(offset) = checksum_offset(packet.protocol) {
        let kind = ChecksumKind { v6: packet.v6, udp: packet.protocol == Protocol::Udp as u8 };
        let ports = if old == new { 0 } else { checksum::difference(&[old], &[new]) };
        let addresses = addresses_difference(&packet.tuple, to);
        done(frame.follow(packet.l4 + offset, addresses, ports, kind))?;
    } else if old != new {
        // The checksum of a first fragment covers bytes that are not here.
        done(packet.fragment == Fragment::Whole)?;
        sctp(frame, packet, old, new)?;
    }
    if old == new { Some(()) } else { done(frame.store(packet.l4, &new)) }
}

/// SCTP's checksum covers no addresses, and the ports are its first four bytes.
#[inline(always)]
fn sctp<F: Frame>(frame: &F, packet: &Packet, old: u32, new: u32) -> Option<()> {
    // A sender whose device has it computed leaves zeros, which must stay.
    if frame.is_left_to_device(packet.l4 + 8) {
        return Some(());
    }
    let old_crc = u32::from_le_bytes(frame.load(packet.l4 + 8)?);
    let trailing = (L3 + packet.bytes).checked_sub(packet.l4 + 4)?;
    let (old, new) = (u32::from_le_bytes(old.to_ne_bytes()), u32::from_le_bytes(new.to_ne_bytes()));
    let crc = crc32c::after_change(old_crc, old, new, trailing);
    done(frame.store(packet.l4 + 8, &crc.to_le_bytes()))
}

#[inline(always)]
fn network_v4<F: Frame>(frame: &F, to: &Tuple, hops: u8) -> Option<()> {
    let old: Ipv4Header = frame.load(L3)?;
    let new = Ipv4Header {
        src: unmap_v4(&to.src),
        dst: unmap_v4(&to.dst),
        ttl: old.ttl.wrapping_sub(hops),
        ..old
    };
    let changed = |header: &Ipv4Header| {
        [
            u32::from_ne_bytes([header.ttl, header.protocol, 0, 0]),
            u32::from_ne_bytes(header.src),
            u32::from_ne_bytes(header.dst),
        ]
    };
    let difference = checksum::difference(&changed(&old), &changed(&new));
    let new = Ipv4Header { checksum: checksum::apply(old.checksum, difference), ..new };
    done(frame.store(L3, &new))
}

#[inline(always)]
fn network_v6<F: Frame>(frame: &F, to: &Tuple, hops: u8) -> Option<()> {
    let limit: u8 = frame.load(L3 + 7)?;
    done(frame.store(L3 + 7, &limit.wrapping_sub(hops)))?;
    done(frame.store(L3 + 8, &[words(&to.src), words(&to.dst)]))
}
