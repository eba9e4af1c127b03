//! Counts every decision, and tells it to whoever listens.

use aya_ebpf::helpers::generated::{
    bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns,
};
use podium_proxy_ebpf::{AddressPort, Event, Outcome, Place, Tuple};

use crate::maps::{COUNTERS, EVENTS, MONITOR, OUTCOMES};

/// The moment (`CLOCK_MONOTONIC`).
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: a plain helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// The same as of the last tick of the kernel's clock, at most 10 ms ago: much cheaper.
#[inline(always)]
pub fn recently_ns() -> u64 {
    // SAFETY: a plain helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// One decision.
pub struct Decision<'a> {
    pub place: Place,
    pub protocol: u8,
    pub before: &'a Tuple,
    pub service_id: Option<u32>,
    pub endpoint: Option<&'a AddressPort>,
    pub source: Option<&'a AddressPort>,
    pub ifindex: u32,
}

/// Counts an outcome.
#[inline(always)]
pub fn count(outcome: Outcome) {
    if let Some(count) = OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: a slot of this CPU; a lost count under preemption is all that can happen.
        unsafe { *count += 1 };
    }
}

/// Counts an outcome and tells it.
#[inline(always)]
pub fn decided(outcome: Outcome, decision: &Decision<'_>) {
    count(outcome);
    let Some(monitor) = MONITOR.get(0) else { return };
    if monitor.until_ns == 0 {
        return;
    }
    let at_ns = now_ns();
    // SAFETY: a plain helper without arguments.
    let random = u64::from(unsafe { bpf_get_prandom_u32() });
    // Scaled like an endpoint's choice: no division.
    if at_ns > monitor.until_ns || (random * monitor.one_in.max(1)) >> 32 != 0 {
        return;
    }
    let Some(mut slot) = EVENTS.reserve::<Event>(0) else { return };
    let nothing = AddressPort::new([0; 16], [0; 2]);
    slot.write(Event {
        at_ns,
        before: *decision.before,
        service_id: decision.service_id.unwrap_or(0),
        endpoint: decision.endpoint.copied().unwrap_or(nothing),
        source: decision.source.copied().unwrap_or(nothing),
        protocol: decision.protocol,
        outcome: outcome as u8,
        place: decision.place as u8,
        has_service: u8::from(decision.service_id.is_some()),
        ifindex: decision.ifindex,
    });
    slot.submit(0);
}

/// Counts what one packet, or one connection without packets of its own, was for a service.
#[inline(always)]
pub fn account(service_id: u32, connections: u64, packets: u64, bytes: u64) {
    if let Some(counters) = COUNTERS.get_ptr_mut(service_id) {
        // SAFETY: a slot of this CPU; a lost count under preemption is all that can happen.
        let counters = unsafe { &mut *counters };
        counters.connections += connections;
        counters.packets += packets;
        counters.bytes += bytes;
    }
}
