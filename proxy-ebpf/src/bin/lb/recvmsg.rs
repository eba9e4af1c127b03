//! `recvmsg4/6`: a datagram from an endpoint appears to come from the service address asked for.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    forward::restore,
    sock_addr::{V4, V6},
    verdict,
};

/// UDP over IPv4.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(context: SockAddrContext) -> i32 {
    restore::<V4>(&context);
    verdict::shown()
}

/// UDP over IPv6, and for IPv6 sockets that talk IPv4.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(context: SockAddrContext) -> i32 {
    restore::<V6>(&context);
    verdict::shown()
}
