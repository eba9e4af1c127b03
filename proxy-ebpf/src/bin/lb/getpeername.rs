//! `getpeername4/6`: the peer of a socket is the service address it connected to.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    forward::restore,
    sock_addr::{V4, V6},
    verdict,
};

/// TCP and UDP over IPv4.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(context: SockAddrContext) -> i32 {
    restore::<V4>(&context);
    verdict::shown()
}

/// The same over IPv6, and for IPv6 sockets that talk IPv4.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(context: SockAddrContext) -> i32 {
    restore::<V6>(&context);
    verdict::shown()
}
