//! Access to the address a socket call carries: `struct bpf_sock_addr`.
//!
//! The verifier rewrites each field access of the context, and knows only those of the declared
//! width at a fixed offset. Volatile accesses keep the compiler from merging or splitting them.

use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

use aya_ebpf::{bindings::bpf_sock_addr, programs::SockAddrContext};
use podium_proxy_ebpf::{AddressPort, Protocol};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

/// How a hook's family lays its address out in the context.
pub trait Layout {
    /// The address and port the call names.
    fn read(context: &SockAddrContext) -> AddressPort;
    /// Puts another in their place.
    fn write(context: &SockAddrContext, to: &AddressPort);
}

/// `user_ip4`.
pub struct V4;
/// `user_ip6`, which carries IPv4 in mapped form when an IPv6 socket talks IPv4.
pub struct V6;

impl Layout for V4 {
    #[inline(always)]
    fn read(context: &SockAddrContext) -> AddressPort {
        let raw = context.sock_addr;
        // SAFETY: the context is valid for the length of the program.
        let ip = unsafe { read_volatile(addr_of!((*raw).user_ip4)) };
        let [a, b, c, d] = ip.to_ne_bytes();
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
        AddressPort::new(mapped, read_port(raw))
    }

    #[inline(always)]
    fn write(context: &SockAddrContext, to: &AddressPort) {
        let raw = context.sock_addr;
        let [.., a, b, c, d] = to.ip;
        // SAFETY: the context is valid for the length of the program.
        unsafe { write_volatile(addr_of_mut!((*raw).user_ip4), u32::from_ne_bytes([a, b, c, d])) };
        write_port(raw, to.port);
    }
}

impl Layout for V6 {
    #[inline(always)]
    fn read(context: &SockAddrContext) -> AddressPort {
        let raw = context.sock_addr;
        let [a, b, c, d] = read_word(raw, 0).to_ne_bytes();
        let [e, f, g, h] = read_word(raw, 1).to_ne_bytes();
        let [i, j, k, l] = read_word(raw, 2).to_ne_bytes();
        let [m, n, o, p] = read_word(raw, 3).to_ne_bytes();
        AddressPort::new([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p], read_port(raw))
    }

    #[inline(always)]
    fn write(context: &SockAddrContext, to: &AddressPort) {
        let raw = context.sock_addr;
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = to.ip;
        write_word(raw, 0, [a, b, c, d]);
        write_word(raw, 1, [e, f, g, h]);
        write_word(raw, 2, [i, j, k, l]);
        write_word(raw, 3, [m, n, o, p]);
        write_port(raw, to.port);
    }
}

/// The protocol of the socket, if it is one that services have.
#[inline(always)]
pub fn protocol(context: &SockAddrContext) -> Option<Protocol> {
    let raw = context.sock_addr;
    // SAFETY: the context is valid for the length of the program.
    let kind = unsafe { read_volatile(addr_of!((*raw).type_)) };
    // SAFETY: as above.
    let number = unsafe { read_volatile(addr_of!((*raw).protocol)) };
    if kind == SOCK_STREAM && number == Protocol::Tcp as u32 {
        Some(Protocol::Tcp)
    } else if kind == SOCK_DGRAM && number == Protocol::Udp as u32 {
        Some(Protocol::Udp)
    } else {
        None
    }
}

#[inline(always)]
fn read_port(raw: *mut bpf_sock_addr) -> [u8; 2] {
    // SAFETY: the context is valid for the length of the program.
    let port = unsafe { read_volatile(addr_of!((*raw).user_port)) };
    let [first, second, ..] = port.to_ne_bytes();
    [first, second]
}

#[inline(always)]
fn write_port(raw: *mut bpf_sock_addr, [first, second]: [u8; 2]) {
    let port = u32::from_ne_bytes([first, second, 0, 0]);
    // SAFETY: the context is valid for the length of the program.
    unsafe { write_volatile(addr_of_mut!((*raw).user_port), port) };
}

#[inline(always)]
fn read_word(raw: *mut bpf_sock_addr, index: usize) -> u32 {
    // SAFETY: the context is valid for the length of the program, and callers pass 0 to 3.
    unsafe { read_volatile(addr_of!((*raw).user_ip6[index])) }
}

#[inline(always)]
fn write_word(raw: *mut bpf_sock_addr, index: usize, bytes: [u8; 4]) {
    // SAFETY: the context is valid for the length of the program, and callers pass 0 to 3.
    unsafe { write_volatile(addr_of_mut!((*raw).user_ip6[index]), u32::from_ne_bytes(bytes)) };
}
