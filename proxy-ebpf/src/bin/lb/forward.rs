//! The core of the socket hooks: from the address a call names to the endpoint it gets, and back.

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockAddrContext,
};
use podium_proxy_ebpf::{
    AddressPort, AffinityKey, Origin, Outcome, PeerKey, Place, Protocol, ServiceEntry, ServiceKey,
    StreamPeer, Tuple, flags, socket::Holder,
};

use crate::{
    maps::{CONFIG, SOCKET_PEERS, STREAM_PEERS},
    report::{self, Decision},
    service::{self, Refusal},
    sock_addr::{self, Layout},
};

/// How long an unconnected UDP socket stays with its endpoint after its last datagram: what
/// conntrack gives a UDP stream (`nf_conntrack_udp_timeout_stream`).
const DATAGRAMS_KEPT_SECS: u32 = 120;

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
    let at = L::read(context);
    let mut decision = Decision {
        place: Place::Socket,
        protocol: protocol as u8,
        before: &Tuple::new(&AddressPort::new([0; 16], [0; 2]), &at),
        service_id: None,
        endpoint: None,
        source: None,
        ifindex: 0,
    };
    let chosen = service::look_up(&at, &ServiceKey::new(&at, protocol)).and_then(|entry| {
        decision.service_id = Some(entry.id);
        choose(context, &at, &entry, used_for)
    });
    let endpoint = match chosen {
        Ok(endpoint) => endpoint,
        Err(refusal) => {
            if let Some(outcome) = refusal.outcome() {
                report::decided(outcome, &decision);
            }
            return Err(refusal);
        }
    };
    if let Protocol::Tcp = protocol {
        remember_stream(context, &at, &endpoint);
    } else {
        remember_peer(context, &at, &endpoint);
    }
    decision.endpoint = Some(&endpoint);
    report::decided(Outcome::SocketConnected, &decision);
    if let Some(id) = decision.service_id {
        report::account(id, 1, 0, 0);
    }
    L::write(context, &endpoint);
    Ok(())
}

/// Puts the service address back in the place of the endpoint, where this socket reached the
/// endpoint through one.
#[inline(always)]
pub fn restore<L: Layout>(context: &SockAddrContext) {
    let key = PeerKey { socket_cookie: socket_cookie(context), endpoint: L::read(context) };
    if let Some(service) = stream_service(&key) {
        return L::write(context, &service);
    }
    // SAFETY: the value is copied; should its element be reused in between, the map was too small
    // and the socket's memory is lost either way.
    if let Some(service) = unsafe { SOCKET_PEERS.get(key) } {
        L::write(context, service);
    }
}

#[inline(always)]
fn choose(
    context: &SockAddrContext,
    at: &AddressPort,
    entry: &ServiceEntry,
    used_for: Use,
) -> Result<AddressPort, Refusal> {
    if entry.flags & (flags::HOST_ONLY | flags::SOURCE_RANGES) != 0 {
        admit(context, at, entry)?;
    }
    let span = entry.candidates(Origin::Inside)?;
    let (holder, client, kept_secs) = if entry.affinity_secs > 0 {
        (Holder::NetworkNamespace, netns_cookie(context), entry.affinity_secs)
    } else if used_for == Use::Datagram {
        (Holder::Socket, socket_cookie(context), DATAGRAMS_KEPT_SECS)
    } else {
        return service::at_random(span).map(|endpoint| endpoint.at());
    };
    let key = AffinityKey::of_cookie(client, entry.id, holder);
    service::kept_or(&key, span, kept_secs, || service::at_random(span))
        .map(|endpoint| endpoint.at())
}

/// Node ports on loopback are the host's alone. And where only some sources are let in: a socket
/// that connects has no source yet, but the host's can only be the node's address; a pod's packets
/// are judged when they come out of its device.
#[inline(always)]
fn admit(context: &SockAddrContext, at: &AddressPort, entry: &ServiceEntry) -> Result<(), Refusal> {
    let config = CONFIG.get(0).ok_or(Refusal::NotAService)?;
    let is_host = netns_cookie(context) == config.host_netns_cookie;
    if entry.flags & flags::HOST_ONLY != 0 && !is_host {
        return Err(Refusal::NotAService);
    }
    if entry.flags & flags::SOURCE_RANGES == 0 {
        return Ok(());
    }
    if !is_host {
        return Err(Refusal::SourceUnknown);
    }
    let node = if at.is_v4() { &config.node_v4 } else { &config.node_v6 };
    if !service::is_unset(node) && service::allows(entry.id, node) {
        Ok(())
    } else {
        Err(Refusal::SourceNotAllowed)
    }
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
    if SOCKET_PEERS.insert(key, service, 0).is_err() {
        // The program sees the endpoint as its peer: no reason to fail the call.
        report::count(Outcome::PeerNotInserted);
    }
}

#[inline(always)]
fn remember_stream(context: &SockAddrContext, service: &AddressPort, endpoint: &AddressPort) {
    let cookie = socket_cookie(context);
    if let Some(place) = place_of(cookie).and_then(|place| STREAM_PEERS.get_ptr_mut(place)) {
        // SAFETY: map memory stays writable; another socket that writes here breaks the seal.
        unsafe { place.write(StreamPeer::new(cookie, *endpoint, *service)) };
    }
}

/// What a TCP socket asked for, if that led it to this endpoint.
#[inline(always)]
fn stream_service(key: &PeerKey) -> Option<AddressPort> {
    let found = STREAM_PEERS.get_ptr(place_of(key.socket_cookie)?)?;
    // SAFETY: map memory stays readable; whether the copy is of one piece is checked next.
    let peer = unsafe { read_volatile(found) };
    let is_its_own = peer.socket_cookie == key.socket_cookie
        && peer.endpoint.order() == key.endpoint.order()
        && peer.is_whole();
    is_its_own.then_some(peer.service)
}

#[inline(always)]
fn place_of(cookie: u64) -> Option<u32> {
    StreamPeer::place(cookie, CONFIG.get(0)?.stream_peers)
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
