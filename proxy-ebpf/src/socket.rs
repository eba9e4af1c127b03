//! What the LRU maps remember about sockets and clients: `affinity` and `socket_peers`.

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

/// Key of the `socket_peers` map, whose value is the service address the program asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerKey {
    /// The socket; its protocol goes without saying, a cookie is never used twice.
    pub socket_cookie: u64,
    /// The endpoint it talks to.
    pub endpoint: AddressPort,
}

const _: () = assert!(size_of::<PeerKey>() == 8 + size_of::<AddressPort>());

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for AffinityKey {}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for AffinityEntry {}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for PeerKey {}
