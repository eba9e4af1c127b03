//! The same core before the kernel makes a packet buffer, for what leaves the node again.

use aya_ebpf::{macros, programs::XdpContext};

/// Packets that come in through a device towards other machines.
#[macros::xdp]
pub fn uplink_xdp(_context: XdpContext) -> u32 {
    aya_ebpf::bindings::xdp_action::XDP_PASS
}
