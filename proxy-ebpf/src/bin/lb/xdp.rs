//! The same core before the kernel makes a packet buffer: packets of known flows that leave the
//! node again by the device they came in through. All else is the classifiers' business.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    macros,
    programs::XdpContext,
};
use podium_proxy_ebpf::{Hook, Protocol, flow::flags};

use crate::{
    direct_return, flows,
    frame::{Frame, Received},
    packet::{self, Fragment, Kind},
    path, report, route,
    scratch::{self, Scratch},
    service::Refusal,
    translate::translate,
};

/// Packets that come in through a device towards other machines.
#[macros::xdp]
pub fn uplink_xdp(context: XdpContext) -> u32 {
    let frame = Received { context };
    let Some(scratch) = scratch::get() else { return XDP_PASS };
    if packet::parse(&frame, &mut scratch.packet) != Kind::Transport {
        return XDP_PASS;
    }
    match send_on(&frame, scratch) {
        Ok(true) => XDP_TX,
        Ok(false) => XDP_PASS,
        Err(_) => XDP_DROP,
    }
}

/// Translates a packet of a forwarded flow; `false`, and nothing changed, for any other.
#[inline(always)]
fn send_on(frame: &Received, scratch: &mut Scratch) -> Result<bool, Refusal> {
    let packet = &scratch.packet;
    if packet.fragment != Fragment::Whole || packet.protocol == Protocol::Sctp as u8 {
        return Ok(false);
    }
    if !flows::known(scratch, Hook::Ingress) {
        return Ok(false);
    }
    let Scratch { packet, flow: entry, hop, now_ns, .. } = scratch;
    if entry.flags & flags::FORWARD == 0
        || entry.flags & flags::DIRECT_RETURN != 0 && direct_return::is_sent_with(packet)
    {
        return Ok(false);
    }
    if path::time_to_live(frame, packet).is_none_or(|left| left <= 1) {
        return Ok(false);
    }
    if route::look_up(frame, packet, &entry.to, packet.bytes as u16, *now_ns, hop).is_err()
        || !hop.is_resolved
        || hop.ifindex != frame.ifindex()
    {
        return Ok(false);
    }
    translate(frame, packet, &entry.to, 1)?;
    if !frame.store(0, &hop.link) {
        return Err(Refusal::Malformed);
    }
    report::account(entry.service_id, 0, 1, u64::from(packet.bytes));
    Ok(true)
}
