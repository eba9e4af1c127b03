//! Sends a packet on by the node's own routes and neighbours, without its stack.

use core::ptr;

use aya_ebpf::{
    helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh},
    macros::map,
    maps::PerCpuArray,
};
use podium_proxy_ebpf::{Tuple, checksum::words};

use crate::{
    frame::{Buffer, Frame},
    packet::{Packet, map_v4, unmap_v4},
    scratch::copy,
    service::{self, Refusal},
    translate::ports_word,
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `TC_ACT_REDIRECT`, what the helpers answer and the program then does.
pub const REDIRECT: i64 = 7;

/// Answers of `bpf_fib_lookup`, from `linux/bpf.h`.
const FOUND: i64 = 0;
const NO_NEIGHBOUR: i64 = 7;
const TOO_LONG: i64 = 8;

/// `struct bpf_fib_lookup`, its unions resolved to what is used of them.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
struct Lookup {
    family: u8,
    protocol: u8,
    src_port: [u8; 2],
    dst_port: [u8; 2],
    total_len: u16,
    ifindex: u32,
    traffic_class: u32,
    src: [u8; 16],
    dst: [u8; 16],
    vlan: u32,
    src_mac: [u8; 6],
    dst_mac: [u8; 6],
}

const _: () = assert!(size_of::<Lookup>() == 64);

impl Lookup {
    #[inline(always)]
    fn new<F: Frame>(frame: &F, packet: &Packet, to: &Tuple) -> Self {
        let mut lookup = Self {
            family: if packet.v6 { AF_INET6 } else { AF_INET },
            protocol: packet.protocol,
            src_port: to.src_port,
            dst_port: to.dst_port,
            total_len: 0,
            ifindex: frame.ifindex(),
            traffic_class: 0,
            src: to.src,
            dst: to.dst,
            vlan: 0,
            src_mac: [0; 6],
            dst_mac: [0; 6],
        };
        if !packet.v6 {
            // The address is the first word.
            [lookup.src[0], lookup.src[1], lookup.src[2], lookup.src[3]] = unmap_v4(&to.src);
            [lookup.dst[0], lookup.dst[1], lookup.dst[2], lookup.dst[3]] = unmap_v4(&to.dst);
        }
        lookup
    }

    #[inline(always)]
    fn ask<F: Frame>(&mut self, frame: &F, flags: u32) -> i64 {
        let len = size_of::<Self>() as i32;
        // SAFETY: the helper takes this hook's context and a structure of this size.
        unsafe { bpf_fib_lookup(frame.context(), ptr::from_mut(self).cast(), len, flags) }
    }
}

/// Where a packet goes next.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Hop {
    pub ifindex: u32,
    /// `struct bpf_redir_neigh`: the neighbour's address and its family.
    family: u32,
    next: [u8; 16],
    /// The link addresses of destination and source, as a frame begins, where the neighbour is known.
    pub link: [u32; 3],
    pub is_resolved: bool,
    /// The device takes no packet of this length; nothing else of this is filled in.
    pub is_too_narrow: bool,
}

/// A way that was found, and what it was found for.
#[repr(C)]
#[derive(Clone, Copy)]
struct Found {
    to: Tuple,
    /// The device the packet came in through.
    from_ifindex: u32,
    at_ns: u64,
    hop: Hop,
    mtu: u16,
    protocol: u8,
}

/// For each CPU the ways it found last, at a place that follows from the packet's ends: all packets
/// of a flow have the same, while a look-up costs more than all else that is done for them.
#[map]
static FOUND_LATELY: PerCpuArray<Found> = PerCpuArray::with_max_entries(FOUND_LEN, 0);

const FOUND_LEN: u32 = 256;

/// How long the answers of routes and neighbours are good: less than it takes anyone to tell of a
/// change of them.
const GOOD_NS: u64 = 20_000_000;

#[inline(always)]
const fn place_of(to: &Tuple) -> u32 {
    let [.., a, b, c, d] = to.src;
    let [.., e, f, g, h] = to.dst;
    let ends = u32::from_ne_bytes([a, b, c, d]) ^ u32::from_ne_bytes([e, f, g, h]).rotate_left(13);
    let ports = ports_word(to);
    // Odd multiplier (2^32 over the golden ratio): each bit reaches the highest ones.
    (ends ^ ports.rotate_left(7)).wrapping_mul(0x9e37_79b1) >> (32 - FOUND_LEN.ilog2())
}

/// Looks up the way of a packet with these ends, of this length by the MTU of the route.
#[inline(always)]
pub fn look_up<F: Frame>(
    frame: &F,
    packet: &Packet,
    to: &Tuple,
    total_len: u16,
    now_ns: u64,
    hop: &mut Hop,
) -> Result<(), Refusal> {
    let Some(found) = FOUND_LATELY.get_ptr_mut(place_of(to)) else {
        return Err(Refusal::NoRoute);
    };
    // SAFETY: of this CPU, on which no other program runs meanwhile.
    let found = unsafe { &mut *found };
    let is_good = now_ns.wrapping_sub(found.at_ns) < GOOD_NS
        && found.from_ifindex == frame.ifindex()
        && found.protocol == packet.protocol
        && total_len != 0
        && total_len <= found.mtu
        && is_same(&found.to, to);
    if is_good {
        copy(hop, &found.hop);
        return Ok(());
    }
    let mtu = ask(frame, packet, to, total_len, hop)?;
    if hop.is_resolved {
        copy(&mut found.to, to);
        found.from_ifindex = frame.ifindex();
        found.at_ns = now_ns;
        copy(&mut found.hop, hop);
        found.mtu = mtu;
        found.protocol = packet.protocol;
    }
    Ok(())
}

/// Asks the kernel; gives the MTU of the way. With a length the MTU of the route counts, with 0 only
/// that of the device.
#[inline(never)]
pub fn ask<F: Frame>(
    frame: &F,
    packet: &Packet,
    to: &Tuple,
    total_len: u16,
    hop: &mut Hop,
) -> Result<u16, Refusal> {
    let mut lookup = Lookup::new(frame, packet, to);
    lookup.total_len = total_len;
    let answer = lookup.ask(frame, 0);
    hop.ifindex = lookup.ifindex;
    hop.family = lookup.family.into();
    hop.next = lookup.dst;
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (lookup.dst_mac, lookup.src_mac);
    let words = [[a, b, c, d], [e, f, g, h], [i, j, k, l]];
    hop.link = words.map(u32::from_ne_bytes);
    hop.is_resolved = answer == FOUND;
    hop.is_too_narrow = answer == TOO_LONG;
    match answer {
        // The helper leaves the MTU where the length was.
        FOUND | NO_NEIGHBOUR | TOO_LONG => Ok(lookup.total_len),
        _ => Err(Refusal::NoRoute),
    }
}

/// In words: a kernel program has no `memcmp`.
#[inline(always)]
const fn is_same(a: &Tuple, b: &Tuple) -> bool {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (words(&a.src), words(&b.src));
    let ([a4, a5, a6, a7], [b4, b5, b6, b7]) = (words(&a.dst), words(&b.dst));
    let src = (a0 ^ b0) | (a1 ^ b1) | (a2 ^ b2) | (a3 ^ b3);
    let dst = (a4 ^ b4) | (a5 ^ b5) | (a6 ^ b6) | (a7 ^ b7);
    src | dst | (ports_word(a) ^ ports_word(b)) == 0
}

/// Gives a buffer to a device and the neighbour there. By the kernel's own neighbour code, even
/// where its address is known: what nobody uses by it is never found to have moved.
#[inline(always)]
pub fn send(hop: &mut Hop) -> Result<(), Refusal> {
    const NEIGHBOUR_LEN: usize = size_of::<u32>() + 16;
    // SAFETY: family and address lie one behind the other, as the helper's structure has them.
    let answer = unsafe {
        bpf_redirect_neigh(hop.ifindex, (&raw mut hop.family).cast(), NEIGHBOUR_LEN as i32, 0)
    };
    if answer == REDIRECT { Ok(()) } else { Err(Refusal::NoRoute) }
}

/// The source address that the node's routes prefer towards these ends' destination; kernels before
/// 6.7 do not tell.
#[inline(never)]
pub fn source_towards(buffer: &Buffer, packet: &Packet, to: &Tuple, source: &mut [u8; 16]) {
    /// `BPF_FIB_LOOKUP_SRC`.
    const WITH_SOURCE: u32 = 1 << 4;
    let mut lookup = Lookup::new(buffer, packet, to);
    lookup.src = [0; 16];
    let answer = lookup.ask(buffer, WITH_SOURCE);
    if answer != FOUND && answer != NO_NEIGHBOUR {
        return;
    }
    let [a, b, c, d, ..] = lookup.src;
    let found = if packet.v6 { lookup.src } else { map_v4([a, b, c, d]) };
    if packet.v6 && !service::is_unset(&found) || !packet.v6 && [a, b, c, d] != [0; 4] {
        *source = found;
    }
}
