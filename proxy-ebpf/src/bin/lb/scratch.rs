//! Memory of one run of a program that does not fit on its stack of 512 bytes.

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

/// One for each CPU. The hooks run with softirqs off, so that none interrupts another there.
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// The memory of this run; what is in it is left from another.
#[inline(always)]
pub fn get() -> Option<&'static mut Scratch> {
    // SAFETY: no other program runs on this CPU meanwhile, and every program takes it once.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}
