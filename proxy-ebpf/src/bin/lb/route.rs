//! Sends a packet on by the node's own routes and neighbours, without its stack.

use core::ptr;

use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh};
use podium_proxy_ebpf::Tuple;

use crate::{
    frame::{Buffer, Frame},
    packet::{Packet, map_v4, unmap_v4},
    service::{self, Refusal},
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
    /// Destination and source, where the neighbour is known.
    pub macs: [[u8; 6]; 2],
    pub is_resolved: bool,
    /// The device takes no packet of this length; nothing else of this is filled in.
    pub is_too_narrow: bool,
}

/// Looks up the way of a packet with these ends. With a length the MTU of the route counts, with 0
/// only that of the device.
#[inline(never)]
pub fn look_up<F: Frame>(
    frame: &F,
    packet: &Packet,
    to: &Tuple,
    total_len: u16,
    hop: &mut Hop,
) -> Result<(), Refusal> {
    let mut lookup = Lookup::new(frame, packet, to);
    lookup.total_len = total_len;
    let answer = lookup.ask(frame, 0);
    hop.ifindex = lookup.ifindex;
    hop.family = lookup.family.into();
    hop.next = lookup.dst;
    hop.macs = [lookup.dst_mac, lookup.src_mac];
    hop.is_resolved = answer == FOUND;
    hop.is_too_narrow = answer == TOO_LONG;
    match answer {
        FOUND | NO_NEIGHBOUR | TOO_LONG => Ok(()),
        _ => Err(Refusal::NoRoute),
    }
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
