//! What is remembered about sockets and clients: `affinity`, `socket_peers` and `stream_peers`.

use crate::address::AddressPort;

/// Who keeps its endpoint, see [`AffinityKey::holder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Holder {
    /// A pod, by the cookie of its network namespace: `sessionAffinity: ClientIP`. A socket that
    /// connects has no source address yet, and a pod is what a client address stands for.
    NetworkNamespace = 0,
    /// One unconnected UDP socket: its datagrams to one service stay on one endpoint, as they
    /// would with conntrack.
    Socket = 1,
    /// The source address of packets.
    Address = 2,
}

/// Key of the `affinity` map.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AffinityKey {
    /// Cookie of the network namespace or of the socket, in the first 8 bytes; or an address.
    pub client: [u8; 16],
    /// [`crate::ServiceEntry::id`].
    pub service_id: u32,
    /// A [`Holder`].
    pub holder: u32,
}

impl AffinityKey {
    /// The key of a cookie's holder.
    #[inline(always)]
    pub const fn of_cookie(cookie: u64, service_id: u32, holder: Holder) -> Self {
        let [a, b, c, d, e, f, g, h] = cookie.to_ne_bytes();
        let client = [a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0];
        Self { client, service_id, holder: holder as u32 }
    }

    /// The key of an address.
    #[inline(always)]
    pub const fn of_address(client: [u8; 16], service_id: u32) -> Self {
        Self { client, service_id, holder: Holder::Address as u32 }
    }
}

const _: () = assert!(size_of::<AffinityKey>() == 16 + 4 + 4);

/// Value of the `affinity` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityEntry {
    /// What the client got last; good only while it is still in the service's span.
    pub endpoint: AddressPort,
    /// When it was used last (`CLOCK_MONOTONIC`).
    pub used_at_ns: u64,
}

const _: () = assert!(size_of::<AffinityEntry>() == size_of::<AddressPort>() + 8);

/// Key of the `socket_peers` map, whose value is the service address a UDP socket asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerKey {
    /// The socket; its protocol goes without saying, a cookie is never used twice.
    pub socket_cookie: u64,
    /// The endpoint it talks to.
    pub endpoint: AddressPort,
}

const _: () = assert!(size_of::<PeerKey>() == 8 + size_of::<AddressPort>());

/// Element of the `stream_peers` array: what a TCP socket asked for, and what it got.
///
/// A TCP socket has one peer, and programs ask for its name seldom, while every connection is to be
/// remembered at once: so each socket has a place that follows from its cookie, which is written
/// without a look at it. Cookies are counted up, so that a place is taken over when the array has gone
/// round. It is one cache line, which nobody waits for.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPeer {
    /// The socket.
    pub socket_cookie: u64,
    /// The endpoint it talks to.
    pub endpoint: AddressPort,
    /// The service address the program asked for.
    pub service: AddressPort,
    /// [`StreamPeer::seal`] of the fields above: two sockets may write to one place at once.
    pub sealed: u64,
}

const _: () = assert!(size_of::<StreamPeer>() == 8 + 2 * size_of::<AddressPort>() + 8);

impl StreamPeer {
    /// What is to be remembered of a socket.
    #[inline(always)]
    pub const fn new(socket_cookie: u64, endpoint: AddressPort, service: AddressPort) -> Self {
        let mut peer = Self { socket_cookie, endpoint, service, sealed: 0 };
        peer.sealed = peer.seal();
        peer
    }

    /// The place of a socket in an array of so many; `None` if there are none.
    #[inline(always)]
    pub const fn place(socket_cookie: u64, len: u32) -> Option<u32> {
        if len == 0 {
            return None;
        }
        // Less than a 32-bit number.
        #[expect(clippy::cast_possible_truncation, reason = "a remainder is less than its divisor")]
        let place = (socket_cookie % len as u64) as u32;
        Some(place)
    }

    /// Whether this is of one piece, and of a socket at all.
    #[inline(always)]
    pub const fn is_whole(&self) -> bool {
        self.socket_cookie != 0 && self.sealed == self.seal()
    }

    /// A sum of the fields: not a secret, only unlikely to fit others.
    #[inline(always)]
    const fn seal(&self) -> u64 {
        let (endpoint_high, endpoint_low, endpoint_port) = self.endpoint.order();
        let (service_high, service_low, service_port) = self.service.order();
        let ports = (endpoint_port as u64) << 16 | service_port as u64;
        let words = [endpoint_high, endpoint_low, service_high, service_low, ports];
        let mut sum = self.socket_cookie;
        let mut index = 0;
        while index < words.len() {
            // Odd multiplier: 2^64 over the golden ratio.
            sum = (sum ^ words[index]).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            index += 1;
        }
        sum
    }
}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for StreamPeer {}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for AffinityKey {}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for AffinityEntry {}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for PeerKey {}
