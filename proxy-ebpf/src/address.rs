//! An address with a port, in one form for both families.
//!
//! IPv4 is held as an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2), so that one map serves IPv4
//! sockets, IPv6 sockets and IPv6 sockets that talk IPv4.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An IP address and a port, in network order.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressPort {
    /// The address; IPv4 as `::ffff:a.b.c.d`.
    pub ip: [u8; 16],
    /// The port, big-endian.
    pub port: [u8; 2],
    zero: [u8; 6],
}

const _: () = assert!(size_of::<AddressPort>() == 16 + 2 + 6);

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for AddressPort {}

impl AddressPort {
    /// From bytes in network order, the address in its mapped form.
    #[inline(always)]
    pub const fn new(ip: [u8; 16], port: [u8; 2]) -> Self {
        Self { ip, port, zero: [0; 6] }
    }

    /// The address and the port as numbers whose order is that of the bytes. Compares without
    /// calling `memcmp`, which a kernel program does not have.
    #[inline(always)]
    pub const fn order(&self) -> (u64, u64, u16) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.ip;
        (
            u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            u64::from_be_bytes([i, j, k, l, m, n, o, p]),
            u16::from_be_bytes(self.port),
        )
    }

    /// Whether the address is an IPv4 one.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let (high, low, _) = self.order();
        high == 0 && low >> 32 == 0xffff
    }

    /// The socket address a program would show.
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(unmap(self.ip), u16::from_be_bytes(self.port))
    }
}

impl From<SocketAddr> for AddressPort {
    fn from(from: SocketAddr) -> Self {
        Self::new(map(from.ip()), from.port().to_be_bytes())
    }
}

/// An element of the `endpoints` array.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address; IPv4 as `::ffff:a.b.c.d`.
    pub ip: [u8; 16],
    /// The port, big-endian.
    pub port: [u8; 2],
    /// Where it is: [`Endpoint::ON_NODE`], [`Endpoint::ON_HOST`].
    pub place: u8,
    zero: [u8; 5],
}

const _: () = assert!(size_of::<Endpoint>() == 16 + 2 + 1 + 5);

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for Endpoint {}

impl Endpoint {
    /// On another node.
    pub const ELSEWHERE: u8 = 0;
    /// A pod of this node, behind a device of its own.
    pub const ON_NODE: u8 = 1;
    /// This node itself: a pod in the host's network, or a process.
    pub const ON_HOST: u8 = 2;

    /// An endpoint at an address and port.
    #[inline(always)]
    pub const fn new(at: &AddressPort, place: u8) -> Self {
        Self { ip: at.ip, port: at.port, place, zero: [0; 5] }
    }

    /// Where it is reached.
    #[inline(always)]
    pub const fn at(&self) -> AddressPort {
        AddressPort::new(self.ip, self.port)
    }
}

/// The mapped form of an address.
pub const fn map(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address behind the mapped form.
pub const fn unmap(ip: [u8; 16]) -> IpAddr {
    Ipv6Addr::from_octets(ip).to_canonical()
}
