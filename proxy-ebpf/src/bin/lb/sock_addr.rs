//! Access to the address a socket call carries: `struct bpf_sock_addr`.
//!
//! The verifier rewrites each field access of the context, and knows only those of the declared
//! width at a fixed offset. Volatile accesses keep the compiler from merging or splitting them.

use core::{
    mem::offset_of,
    ptr::{read_volatile, write_volatile},
};

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

const IP4: usize = offset_of!(bpf_sock_addr, user_ip4);
const IP6: usize = offset_of!(bpf_sock_addr, user_ip6);
const PORT: usize = offset_of!(bpf_sock_addr, user_port);
const TYPE: usize = offset_of!(bpf_sock_addr, type_);
const PROTOCOL: usize = offset_of!(bpf_sock_addr, protocol);

impl Layout for V4 {
    #[inline(always)]
    fn read(context: &SockAddrContext) -> AddressPort {
        let [a, b, c, d] = load::<IP4>(context).to_ne_bytes();
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
        AddressPort::new(mapped, load_port(context))
    }

    #[inline(always)]
    fn write(context: &SockAddrContext, to: &AddressPort) {
        let [.., a, b, c, d] = to.ip;
        store::<IP4>(context, [a, b, c, d]);
        store_port(context, to.port);
    }
}

impl Layout for V6 {
    #[inline(always)]
    fn read(context: &SockAddrContext) -> AddressPort {
        let [a, b, c, d] = load::<IP6>(context).to_ne_bytes();
        let [e, f, g, h] = load::<{ IP6 + 4 }>(context).to_ne_bytes();
        let [i, j, k, l] = load::<{ IP6 + 8 }>(context).to_ne_bytes();
        let [m, n, o, p] = load::<{ IP6 + 12 }>(context).to_ne_bytes();
        AddressPort::new([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p], load_port(context))
    }

    #[inline(always)]
    fn write(context: &SockAddrContext, to: &AddressPort) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = to.ip;
        store::<IP6>(context, [a, b, c, d]);
        store::<{ IP6 + 4 }>(context, [e, f, g, h]);
        store::<{ IP6 + 8 }>(context, [i, j, k, l]);
        store::<{ IP6 + 12 }>(context, [m, n, o, p]);
        store_port(context, to.port);
    }
}

/// The protocol of the socket, if it is one that services have.
#[inline(always)]
pub fn protocol(context: &SockAddrContext) -> Option<Protocol> {
    let (kind, number) = (load::<TYPE>(context), load::<PROTOCOL>(context));
    if kind == SOCK_STREAM && number == Protocol::Tcp as u32 {
        Some(Protocol::Tcp)
    } else if kind == SOCK_DGRAM && number == Protocol::Udp as u32 {
        Some(Protocol::Udp)
    } else {
        None
    }
}

#[inline(always)]
fn load_port(context: &SockAddrContext) -> [u8; 2] {
    let [first, second, ..] = load::<PORT>(context).to_ne_bytes();
    [first, second]
}

#[inline(always)]
fn store_port(context: &SockAddrContext, [first, second]: [u8; 2]) {
    store::<PORT>(context, [first, second, 0, 0]);
}

#[inline(always)]
fn load<const OFFSET: usize>(context: &SockAddrContext) -> u32 {
    let field = context.sock_addr.wrapping_byte_add(OFFSET).cast::<u32>();
    // SAFETY: the context is valid for the length of the program, and the constants above are
    // offsets of its 32-bit fields.
    unsafe { read_volatile(field) }
}

#[inline(always)]
fn store<const OFFSET: usize>(context: &SockAddrContext, bytes: [u8; 4]) {
    let field = context.sock_addr.wrapping_byte_add(OFFSET).cast::<u32>();
    // SAFETY: as in `load`; the programs run one at a time on a context.
    unsafe { write_volatile(field, u32::from_ne_bytes(bytes)) };
}
