//! Memory of one run of a program that does not fit on its stack of 512 bytes.

use core::ptr;

use aya_ebpf::{macros::map, maps::PerCpuArray};
use podium_proxy_ebpf::{Endpoint, FlowEntry, FlowKey, ServiceEntry, Tuple};

use crate::{packet::Packet, route::Hop};

/// What a program is working on. Nothing in it outlives the run.
#[repr(C)]
pub struct Scratch {
    pub packet: Packet,
    /// The packet an ICMP error is about.
    pub inner: Packet,
    pub key: FlowKey,
    /// The translation found or made for the packet.
    pub flow: FlowEntry,
    pub chosen: Chosen,
    pub entry: ServiceEntry,
    /// The ends that the packet, or the packet an ICMP error is about, shall have.
    pub ends: Tuple,
    pub inner_ends: Tuple,
    pub hop: Hop,
    /// The moment, as of the last tick.
    pub now_ns: u64,
    /// Another entry of the flow, while it is being made.
    pub other_key: FlowKey,
    pub other: FlowEntry,
}

/// What was decided for a new flow.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Chosen {
    pub endpoint: Endpoint,
    pub service_id: u32,
    pub generation: u32,
    /// Of [`podium_proxy_ebpf::ServiceEntry`].
    pub flags: u32,
    pub has_service: bool,
    pub has_endpoint: bool,
}

/// Copies a value word by word. Where the compiler cannot know that two places are different ones, it
/// calls a function that copies byte by byte, which takes longer than finding a flow.
#[inline(always)]
pub fn copy<T: Copy>(to: &mut T, from: &T) {
    // SAFETY: a reference may be read.
    unsafe { copy_from(to, from) }
}

/// The same of what others may write meanwhile.
///
/// # Safety
/// `from` is aligned, and as many bytes as a `T` has can be read there; any of them make a `T`.
#[inline(always)]
pub unsafe fn copy_from<T: Copy>(to: &mut T, from: *const T) {
    const { assert!(size_of::<T>() <= LEN_MAX) };
    let to = ptr::from_mut(to);
    match align_of::<T>() {
        8 => copy_words::<u64, { LEN_MAX / 8 }>(to.cast(), from.cast(), size_of::<T>() / 8),
        4 => copy_words::<u32, { LEN_MAX / 4 }>(to.cast(), from.cast(), size_of::<T>() / 4),
        _ => copy_words::<T, 1>(to, from, 1),
    }
}

/// Bytes of the longest value that is copied.
const LEN_MAX: usize = 64;

#[inline(always)]
fn copy_words<W: Copy, const MAX: usize>(to: *mut W, from: *const W, words: usize) {
    for index in 0..MAX {
        if index < words {
            // SAFETY: within the value that the caller may read.
            let word = unsafe { from.wrapping_add(index).read_volatile() };
            // SAFETY: within the value that the caller has.
            unsafe { to.wrapping_add(index).write_volatile(word) };
        }
    }
}

/// Writes a value as these words, each in one store: a processor waits when it reads back in one
/// piece what it has just written in several.
#[inline(always)]
pub fn put<T, const N: usize>(to: &mut T, words: [u64; N]) {
    const { assert!(N * 8 <= size_of::<T>()) };
    let to = ptr::from_mut(to).cast::<u64>();
    for (index, word) in words.into_iter().enumerate() {
        // SAFETY: within the value, and every bit pattern is one of its.
        unsafe { to.wrapping_add(index).write_volatile(word) };
    }
}

/// One for each CPU. The hooks run with softirqs off, so that none interrupts another there.
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// The memory of this run; what is in it is left from another.
#[inline(always)]
pub fn get() -> Option<&'static mut Scratch> {
    // SAFETY: no other program runs on this CPU meanwhile, and every program takes it once.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}
