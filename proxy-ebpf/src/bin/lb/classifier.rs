//! The classifiers, at tcx or clsact of a device: what no socket of this node was asked about.

use aya_ebpf::{macros::classifier, programs::TcContext};

use crate::verdict;

/// Packets that come in through a device towards other machines.
#[classifier]
pub fn uplink_ingress(_context: TcContext) -> i32 {
    verdict::PASS
}

/// Packets that come in through a device towards a pod.
#[classifier]
pub fn pod_ingress(_context: TcContext) -> i32 {
    verdict::PASS
}

/// Packets that leave through any device.
#[classifier]
pub fn egress(_context: TcContext) -> i32 {
    verdict::PASS
}
