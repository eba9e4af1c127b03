//! The classifiers, at tcx or clsact of a device: what no socket of this node was asked about.

use aya_ebpf::{macros::classifier, programs::TcContext};
use podium_proxy_ebpf::{Hook, Place};

use crate::{
    frame::Buffer,
    icmp,
    packet::{self, Kind},
    path, scratch, verdict,
};

/// Packets that come in through a device towards other machines.
#[classifier]
pub fn uplink_ingress(context: TcContext) -> i32 {
    // A frame for another node, flooded or listened to, is that node's to answer.
    if !(Buffer { skb: context.skb.skb }).is_for_us() {
        return verdict::PASS;
    }
    ingress(&context, Place::UplinkIngress)
}

/// Packets that come in through a device towards a pod.
#[classifier]
pub fn pod_ingress(context: TcContext) -> i32 {
    ingress(&context, Place::PodIngress)
}

/// Packets that leave through any device.
#[classifier]
pub fn egress(context: TcContext) -> i32 {
    let buffer = Buffer { skb: context.skb.skb };
    let Some(scratch) = scratch::get() else { return verdict::PASS };
    match packet::parse(&buffer, &mut scratch.packet) {
        Kind::Foreign => verdict::PASS,
        Kind::Transport => verdict::of_leaving(path::egress(&buffer, scratch)),
        Kind::Error => verdict::of_leaving(icmp::translate(&buffer, scratch, Hook::Egress)),
    }
}

#[inline(always)]
fn ingress(context: &TcContext, place: Place) -> i32 {
    let buffer = Buffer { skb: context.skb.skb };
    let Some(scratch) = scratch::get() else { return verdict::PASS };
    match packet::parse(&buffer, &mut scratch.packet) {
        Kind::Foreign => verdict::PASS,
        Kind::Transport => {
            let outcome = path::ingress(&buffer, scratch, place);
            verdict::of_packet(&buffer, &scratch.packet, outcome)
        }
        Kind::Error => verdict::of_leaving(icmp::translate(&buffer, scratch, Hook::Ingress)),
    }
}
