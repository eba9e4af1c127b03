//! How an endpoint is spoken to: protocol, TLS, time limits, and which connections may be shared.

use crate::annotations::upstream::Upstream;
use crate::resources::upstream_tls::{self, EndpointTls};
use crate::snapshot::Route;
use pingora::protocols::ALPN;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

/// Requests at a time on one HTTP/2 connection, as nginx allows them by default the other way round.
const H2_STREAMS_MAX: usize = 100;

/// An endpoint as the peer of a request.
pub fn to(address: SocketAddr, route: &Route, client_tls: bool) -> Box<HttpPeer> {
    let upstream = &route.settings.upstream;
    let tls = upstream.protocol.is_tls(client_tls);
    let name = if tls { server_name(address, upstream) } else { String::new() };
    let mut peer = Box::new(HttpPeer::new(address, tls, name));
    peer.options.connection_timeout = Some(upstream.connect_timeout);
    peer.options.total_connection_timeout = Some(upstream.connect_timeout);
    peer.options.read_timeout = Some(upstream.read_timeout);
    peer.options.write_timeout = Some(upstream.send_timeout);
    peer.options.idle_timeout = Some(route.options.endpoint_connections.idle_timeout);
    if upstream.protocol.is_h2() {
        peer.options.alpn = ALPN::H2;
        peer.options.max_h2_streams = H2_STREAMS_MAX;
    }
    if tls {
        secure(&mut peer, upstream, route.resources.upstream_tls.as_deref());
    }
    peer
}

/// The name to verify and to send as SNI. An address sends none, as nginx does by default. Where a
/// certificate is verified, the name it must have is always sent as well: rustls knows no other way, and
/// a server that has several certificates then shows the right one.
fn server_name(address: SocketAddr, upstream: &Upstream) -> String {
    let name =
        upstream.tls.name.as_ref().filter(|_| upstream.tls.server_name || upstream.tls.verify);
    name.cloned().unwrap_or_else(|| address.ip().to_string())
}

fn secure(peer: &mut HttpPeer, upstream: &Upstream, secret: Option<&EndpointTls>) {
    peer.options.verify_cert = upstream.tls.verify;
    peer.options.verify_hostname = upstream.tls.verify;
    peer.client_cert_key = secret.and_then(|secret| secret.client.clone());
    let authorities = secret.and_then(|secret| secret.authorities.clone());
    peer.options.ca = authorities.or_else(|| NOBODY.clone());
    // The peer tells clients' certificates apart by their serial numbers only, authorities not at all.
    peer.group_key = secret.map_or(0, |secret| secret.digest);
}

/// An authority for connections that verify nothing: rustls wants one, and the system may have none.
static NOBODY: LazyLock<Option<Arc<CaType>>> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(vec!["nobody.invalid".to_string()]).ok()?;
    upstream_tls::trusted(made.cert.pem().as_bytes()).ok()
});
