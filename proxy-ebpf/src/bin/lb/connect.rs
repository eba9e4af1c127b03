//! `connect4/6`: a socket that connects to a service address gets an endpoint instead.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    forward::{Use, forward},
    sock_addr::{V4, V6},
    verdict,
};

/// TCP and UDP over IPv4.
#[cgroup_sock_addr(connect4)]
pub fn connect4(context: SockAddrContext) -> i32 {
    verdict::of(forward::<V4>(&context, Use::Connection))
}

/// The same over IPv6, and for IPv6 sockets that talk IPv4.
#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    verdict::of(forward::<V6>(&context, Use::Connection))
}
