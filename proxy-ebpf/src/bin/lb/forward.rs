//! The core: from the address a socket call names to the endpoint it gets, and back again.

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{
        bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_ktime_get_ns,
    },
    programs::SockAddrContext,
};
use podium_proxy_ebpf::{
    AddressPort, AffinityEntry, AffinityKey, Endpoint, NoEndpoint, Origin, PeerKey, ServiceEntry,
    ServiceKey, Span, choice, socket::Holder,
};

use crate::{
    maps::{AFFINITY, COUNTERS, ENDPOINTS, SERVICES, SOCKET_PEERS},
    sock_addr::{self, Layout},
};

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// How long an unconnected UDP socket stays with its endpoint after its last datagram: what
/// conntrack gives a UDP stream (`nf_conntrack_udp_timeout_stream`).
const DATAGRAMS_KEPT_SECS: u32 = 120;

/// Looks at an entry before giving up; each miss needs another update of the very same entry.
const LOOK_UPS_MAX: u32 = 4;

/// Why a call is not sent to an endpoint.
pub enum Refusal {
    /// Not ours: another protocol or another address.
    NotAService,
    /// A service without endpoints.
    NoEndpoints,
    /// A service that wants an endpoint of this node, and has them only elsewhere.
    NoLocalEndpoints,
    /// A ClusterIP, but none of its ports.
    UnknownPort,
    /// The entry changed under each look at it.
    EntryUnreadable,
    /// The entry names an element beyond the array: user space and this program disagree.
    EndpointUnreadable,
}

impl From<NoEndpoint> for Refusal {
    #[inline(always)]
    fn from(from: NoEndpoint) -> Self {
        match from {
            NoEndpoint::Anywhere => Self::NoEndpoints,
            NoEndpoint::OnThisNode => Self::NoLocalEndpoints,
        }
    }
}

/// What one choice of an endpoint is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// All that a connected socket will send.
    Connection,
    /// One datagram of an unconnected socket.
    Datagram,
}

/// Puts an endpoint in the place of a service address.
#[inline(always)]
pub fn forward<L: Layout>(context: &SockAddrContext, used_for: Use) -> Result<(), Refusal> {
    let protocol = sock_addr::protocol(context).ok_or(Refusal::NotAService)?;
    let service = L::read(context);
    let entry = look_up(&service, &ServiceKey::new(&service, protocol))?;
    let endpoint = choose(context, &entry, used_for)?;
    remember_peer(context, &service, &endpoint);
    if let Some(count) = COUNTERS.get_ptr_mut(entry.id) {
        // SAFETY: a slot of this CPU; a lost count under preemption is all that can happen.
        unsafe { (*count).connections += 1 };
    }
    L::write(context, &endpoint);
    Ok(())
}

/// Puts the service address back in the place of the endpoint, where this socket reached the
/// endpoint through one.
#[inline(always)]
pub fn restore<L: Layout>(context: &SockAddrContext) {
    let key = PeerKey { socket_cookie: socket_cookie(context), endpoint: L::read(context) };
    // SAFETY: the value is copied; should its element be reused in between, the map was too small
    // and the socket's memory is lost either way.
    if let Some(service) = unsafe { SOCKET_PEERS.get(key) } {
        L::write(context, service);
    }
}

/// The entry of a service port, in one piece.
#[inline(always)]
fn look_up(service: &AddressPort, key: &ServiceKey) -> Result<ServiceEntry, Refusal> {
    for _ in 0..LOOK_UPS_MAX {
        let Some(found) = SERVICES.get_ptr(key) else {
            return Err(miss(service));
        };
        // SAFETY: map memory stays readable; whether the copy is of one piece is checked next.
        let entry = unsafe { read_volatile(found) };
        if entry.sealed == entry.seal(key) {
            return Ok(entry);
        }
    }
    Err(Refusal::EntryUnreadable)
}

/// Tells an unknown port of a ClusterIP from an address that is none of ours.
#[inline(always)]
fn miss(address: &AddressPort) -> Refusal {
    match SERVICES.get_ptr(ServiceKey::whole_address(address.ip)) {
        Some(_) => Refusal::UnknownPort,
        None => Refusal::NotAService,
    }
}

#[inline(always)]
fn choose(
    context: &SockAddrContext,
    entry: &ServiceEntry,
    used_for: Use,
) -> Result<AddressPort, Refusal> {
    let span = entry.candidates(Origin::Inside)?;
    let (holder, client, kept_secs) = if entry.affinity_secs > 0 {
        (Holder::NetworkNamespace, netns_cookie(context), entry.affinity_secs)
    } else if used_for == Use::Datagram {
        (Holder::Socket, socket_cookie(context), DATAGRAMS_KEPT_SECS)
    } else {
        return at_random(span);
    };
    let key = AffinityKey::of_cookie(client, entry.id, holder);
    // SAFETY: a plain helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if let Some(endpoint) = kept(&key, span, u64::from(kept_secs) * NANOS_PER_SEC, now_ns) {
        return Ok(endpoint);
    }
    let endpoint = at_random(span)?;
    // A full map evicts; an insert that fails only means that the next choice is free again.
    let _ = AFFINITY.insert(key, AffinityEntry { endpoint, used_at_ns: now_ns }, 0);
    Ok(endpoint)
}

/// What the client had, if it is recent enough and still an endpoint of the service.
#[inline(always)]
fn kept(key: &AffinityKey, span: Span, kept_ns: u64, now_ns: u64) -> Option<AddressPort> {
    let entry = AFFINITY.get_ptr_mut(key)?;
    // SAFETY: map memory stays valid; a value of another client, should the element be reused
    // while it is read, fails the search below or is as good a choice as any.
    let AffinityEntry { endpoint, used_at_ns } = unsafe { *entry };
    if now_ns.wrapping_sub(used_at_ns) > kept_ns {
        return None;
    }
    choice::find(span, &endpoint, |index| ENDPOINTS.get(index).copied())?;
    // SAFETY: as above; one aligned store.
    unsafe { (*entry).used_at_ns = now_ns };
    Some(endpoint)
}

#[inline(always)]
fn at_random(span: Span) -> Result<AddressPort, Refusal> {
    // SAFETY: a plain helper without arguments.
    let random = unsafe { bpf_get_prandom_u32() };
    choice::pick(span, random)
        .and_then(|index| ENDPOINTS.get(index).map(Endpoint::at))
        .ok_or(Refusal::EndpointUnreadable)
}

#[inline(always)]
fn remember_peer(context: &SockAddrContext, service: &AddressPort, endpoint: &AddressPort) {
    let key = PeerKey { socket_cookie: socket_cookie(context), endpoint: *endpoint };
    // SAFETY: only compared.
    if let Some(known) = unsafe { SOCKET_PEERS.get(key) }
        && known.order() == service.order()
    {
        return;
    }
    // Should it fail, the program sees the endpoint as its peer: no reason to fail the call.
    let _ = SOCKET_PEERS.insert(key, service, 0);
}

#[inline(always)]
fn socket_cookie(context: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes this hook's context.
    unsafe { bpf_get_socket_cookie(context.as_ptr()) }
}

#[inline(always)]
fn netns_cookie(context: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes this hook's context.
    unsafe { bpf_get_netns_cookie(context.as_ptr()) }
}
