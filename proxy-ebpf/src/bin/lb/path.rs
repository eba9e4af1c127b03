//! The way of a packet through the node: what happens to it at ingress and at egress.

use podium_proxy_ebpf::{Hook, Place, Protocol, ServiceKey, flow::flags};

use crate::{
    direct_return, flows,
    frame::{Buffer, Frame, L3},
    maps::{CONFIG, SERVICES},
    packet::{Fragment, Packet},
    report, route,
    scratch::{Scratch, copy},
    service::Refusal,
    translate::translate,
};

/// What to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// It goes on, to the next program and through the stack.
    Pass,
    /// It was given to another device.
    Sent,
}

/// A packet that came in: if it is for a service, or an answer to a rewritten source, it gets its
/// destination.
#[inline(always)]
pub fn ingress(buffer: &Buffer, scratch: &mut Scratch, place: Place) -> Result<Action, Refusal> {
    if scratch.packet.fragment != Fragment::Whole {
        complete_fragment(&mut scratch.packet, Hook::Ingress)?;
    }
    if !flows::known(scratch, Hook::Ingress) {
        match flows::open(buffer, scratch, place) {
            Ok(()) => {}
            Err(Refusal::NotAService) => return not_a_service(buffer, scratch, place),
            Err(refusal) => return Err(refusal),
        }
    }
    report::account(scratch.flow.service_id, 0, 1, u64::from(scratch.packet.bytes));
    if scratch.flow.flags & flags::FORWARD != 0 {
        return forward(buffer, scratch);
    }
    to_endpoint_only(buffer, scratch)
}

/// A packet about to leave: if it belongs to a flow, it gets its source.
#[inline(always)]
pub fn egress(buffer: &Buffer, scratch: &mut Scratch) -> Result<Action, Refusal> {
    if scratch.packet.fragment != Fragment::Whole {
        complete_fragment(&mut scratch.packet, Hook::Egress)?;
    }
    if !flows::known(scratch, Hook::Egress) {
        return if is_unallocated(&scratch.packet.tuple.dst) {
            Err(Refusal::UnallocatedClusterIp)
        } else {
            Ok(Action::Pass)
        };
    }
    let Scratch { packet, flow, ends, .. } = scratch;
    // A rewritten source means that ingress has counted the packet.
    if flow.flags & flags::SOURCE_REWRITTEN == 0 {
        report::account(flow.service_id, 0, 1, u64::from(packet.bytes));
    }
    if flow.flags & flags::PORT_REWRITTEN != 0 {
        copy(ends, &flow.to);
    } else {
        copy(ends, &packet.tuple);
        ends.src = flow.to.src;
        ends.src_port = flow.to.src_port;
    }
    translate(buffer, packet, ends, 0)?;
    Ok(Action::Pass)
}

/// What the programs do not know to be a fragment of anything is left alone, but for addresses
/// that mean nothing without them.
#[inline(never)]
fn complete_fragment(packet: &mut Packet, hook: Hook) -> Result<(), Refusal> {
    match flows::complete_fragment(packet, hook) {
        Err(_) if SERVICES.get_ptr(ServiceKey::whole_address(packet.tuple.dst)).is_none() => {
            Err(Refusal::NotAService)
        }
        other => other,
    }
}

#[inline(always)]
fn not_a_service(buffer: &Buffer, scratch: &mut Scratch, place: Place) -> Result<Action, Refusal> {
    if is_unallocated(&scratch.packet.tuple.dst) {
        return Err(Refusal::UnallocatedClusterIp);
    }
    if scratch.packet.needs_live_endpoint() {
        flows::forget_left_over(scratch);
    }
    if let Place::UplinkIngress = place {
        direct_return::learn(buffer, scratch);
    }
    Ok(Action::Pass)
}

/// Whether an address is of the blocks of ClusterIPs, but no Service's.
#[inline(never)]
fn is_unallocated(ip: &[u8; 16]) -> bool {
    CONFIG.get(0).is_some_and(|config| config.service_cidrs.iter().any(|cidr| cidr.contains(ip)))
        && SERVICES.get_ptr(ServiceKey::whole_address(*ip)).is_none()
}

/// Gives the packet its destination and leaves the way there, and perhaps an error, to the stack.
#[inline(always)]
fn to_endpoint_only(buffer: &Buffer, scratch: &mut Scratch) -> Result<Action, Refusal> {
    let Scratch { packet, flow, ends, .. } = scratch;
    if flow.flags & flags::PORT_REWRITTEN != 0 {
        copy(ends, &flow.to);
    } else {
        copy(ends, &packet.tuple);
        ends.dst = flow.to.dst;
        ends.dst_port = flow.to.dst_port;
    }
    translate(buffer, packet, ends, 0)?;
    Ok(Action::Pass)
}

/// Bytes of the longest packet that will be made of this one on the wire, from the network header
/// on: the device, or the kernel for it, cuts up what it joined.
#[inline(always)]
fn longest(buffer: &Buffer, packet: &Packet) -> Option<u32> {
    let segment = buffer.segment_len();
    if segment == 0 {
        return Some(packet.bytes);
    }
    let header = if packet.protocol == Protocol::Tcp as u8 {
        let words: u8 = buffer.load(packet.l4 + 12)?;
        u32::from(words >> 4) * 4
    } else {
        8
    };
    Some(packet.l4 - L3 + header + segment)
}

/// How many routers the packet may still pass.
#[inline(always)]
pub fn time_to_live<F: Frame>(frame: &F, packet: &Packet) -> Option<u8> {
    frame.load(if packet.v6 { L3 + 7 } else { L3 + 8 })
}

/// Changes both ends and sends the packet on.
#[inline(always)]
fn forward(buffer: &Buffer, scratch: &mut Scratch) -> Result<Action, Refusal> {
    let Scratch { packet, flow, hop, now_ns, .. } = scratch;
    let time_to_live = time_to_live(buffer, packet).ok_or(Refusal::Malformed)?;
    if time_to_live > 1 {
        let room = if flow.flags & flags::DIRECT_RETURN == 0 {
            0
        } else {
            direct_return::room_for(packet)
        };
        let len = longest(buffer, packet).ok_or(Refusal::Malformed)? + room;
        route::look_up(buffer, packet, &flow.to, len as u16, *now_ns, hop)?;
    }
    if time_to_live <= 1 || hop.is_too_narrow {
        flows::expect_detour(scratch)?;
        return to_endpoint_only(buffer, scratch);
    }
    translate(buffer, packet, &flow.to, 1)?;
    if flow.flags & flags::DIRECT_RETURN != 0
        && direct_return::is_sent_with(packet)
        && !direct_return::send_along(buffer, packet)
    {
        return Err(Refusal::Malformed);
    }
    route::send(hop)?;
    Ok(Action::Sent)
}
