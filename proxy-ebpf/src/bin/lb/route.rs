//! Sends a packet on by the node's own routes and neighbours, without its stack.

use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh};
use podium_proxy_ebpf::Tuple;

use crate::{
    frame::Frame,
    packet::{Packet, unmap_v4},
    service::Refusal,
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

/// Where a packet goes next.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Hop {
    pub ifindex: u32,
    /// Destination and source, where the neighbour is known.
    pub macs: [[u8; 6]; 2],
    pub is_resolved: bool,
    /// The device takes no packet of this length; nothing else of this is filled in.
    pub is_too_narrow: bool,
}

/// Looks up the way of a packet with these ends. Its length counts where `total_len` is not 0; a
/// buffer's is known to the kernel.
#[inline(never)]
pub fn look_up<F: Frame>(
    frame: &F,
    packet: &Packet,
    to: &Tuple,
    total_len: u16,
    hop: &mut Hop,
) -> Result<(), Refusal> {
    let mut lookup = Lookup {
        family: if packet.v6 { AF_INET6 } else { AF_INET },
        protocol: packet.protocol,
        src_port: to.src_port,
        dst_port: to.dst_port,
        total_len,
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
    // SAFETY: the helper takes this hook's context and a structure of this size.
    let answer = unsafe {
        bpf_fib_lookup(frame.context(), (&raw mut lookup).cast(), size_of::<Lookup>() as i32, 0)
    };
    hop.ifindex = lookup.ifindex;
    hop.macs = [lookup.dst_mac, lookup.src_mac];
    hop.is_resolved = answer == FOUND;
    hop.is_too_narrow = answer == TOO_LONG;
    match answer {
        FOUND | NO_NEIGHBOUR | TOO_LONG => Ok(()),
        _ => Err(Refusal::NoRoute),
    }
}

/// Redirects a buffer out of a device.
#[inline(always)]
pub fn send<F: Frame>(frame: &F, hop: &Hop) -> Result<(), Refusal> {
    let answer = if hop.is_resolved {
        frame.store(0, &hop.macs);
        // SAFETY: a plain helper.
        unsafe { bpf_redirect(hop.ifindex, 0) }
    } else {
        // SAFETY: no parameters: the kernel looks the next hop up by the packet.
        unsafe { bpf_redirect_neigh(hop.ifindex, core::ptr::null_mut(), 0, 0) }
    };
    if answer == REDIRECT { Ok(()) } else { Err(Refusal::NoRoute) }
}
