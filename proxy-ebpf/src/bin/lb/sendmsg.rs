//! `sendmsg4/6`: each datagram of an unconnected UDP socket to a service address gets an endpoint.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    forward::{Use, forward},
    sock_addr::{V4, V6},
    verdict,
};

/// UDP over IPv4, of IPv6 sockets too.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(context: SockAddrContext) -> i32 {
    verdict::of(forward::<V4>(&context, Use::Datagram))
}

/// UDP over IPv6.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(context: SockAddrContext) -> i32 {
    verdict::of(forward::<V6>(&context, Use::Datagram))
}
