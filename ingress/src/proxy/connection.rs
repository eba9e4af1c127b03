//! What is known of the connection a request came on.

use pingora::proxy::Session;
use std::net::{IpAddr, Ipv4Addr};

/// The client's connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The other end.
    pub peer: IpAddr,
    /// Our port.
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
    /// The connection of a request.
    pub fn of(session: &Session) -> Connection {
        let peer = session.client_addr().and_then(|address| address.as_inet());
        let local = session.server_addr().and_then(|address| address.as_inet());
        let none = Connection::default();
        Connection {
            peer: peer.map_or(none.peer, |address| address.ip().to_canonical()),
            port: local.map_or(0, |address| address.port()),
            tls: session.digest().is_some_and(|digest| digest.ssl_digest.is_some()),
        }
    }
}
