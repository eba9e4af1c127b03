//! What is known of the connection a request came on.

use crate::listener::link::{InFlight, Link};
use pingora::proxy::Session;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The client's connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The other end.
    pub peer: IpAddr,
    /// The port the client connected to.
    pub port: u16,
    /// The client speaks TLS with us.
    pub tls: bool,
}

impl Default for Connection {
    fn default() -> Connection {
        Connection { peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: 0, tls: false }
    }
}

impl Connection {
    /// A connection, as far as requests differ by it.
    pub fn of(link: &Link) -> Connection {
        Connection {
            peer: link.peer.ip(),
            port: link.local.port(),
            tls: link.tls.is_some() || link.tls_in_front,
        }
    }
}

/// A request begins. Also says whether its connection ends with it.
pub fn begin(link: &Arc<Link>) -> (InFlight, bool) {
    let (in_flight, requests) = InFlight::begin(link);
    let limits = &link.options.connections;
    let is_last = requests >= limits.keep_alive_requests;
    if is_last {
        link.stop.send_replace(true);
    }
    let ends = is_last || *link.stop.borrow() || limits.keep_alive.is_zero();
    (in_flight, ends)
}

/// What lives as long as the connection of a request.
pub fn link(session: &Session) -> Option<&Arc<Link>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref::<Arc<Link>>()
}
