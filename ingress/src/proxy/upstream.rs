//! The attempts of a request at endpoints: where it goes, how, and whether it may go elsewhere.

use super::answered;
use crate::annotations::upstream::BackendProtocol;
use crate::balance::Endpoint;
use crate::snapshot::Route;
use pingora::http::ResponseHeader;
use pingora::protocols::ALPN;
use pingora::proxy::Session;
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorSource, ErrorType, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an idle connection to an endpoint is kept, as nginx's `upstream-keepalive-timeout`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The attempts so far.
#[derive(Default)]
pub struct Attempts {
    /// How many.
    pub tries: usize,
    /// What the last endpoint answered.
    pub status: Option<u16>,
    endpoint: Option<Arc<Endpoint>>,
    tried: Vec<SocketAddr>,
    started: Option<Instant>,
    took: Option<Duration>,
}

impl Attempts {
    /// The endpoint in use.
    pub fn address(&self) -> Option<SocketAddr> {
        self.endpoint.as_ref().map(|endpoint| endpoint.address)
    }

    /// How long it took to answer, so far or in the end.
    pub fn took(&self) -> Option<Duration> {
        self.took.or_else(|| self.started.map(|started| started.elapsed()))
    }

    /// Chooses an endpoint, and says how to speak to it.
    pub fn next_peer(&mut self, route: &Route) -> Result<Box<HttpPeer>> {
        self.tries += 1;
        let Some(endpoint) = route.backend.endpoints().pick(&self.tried) else {
            return Error::e_explain(ErrorType::HTTPStatus(503), "no endpoint left");
        };
        let settings = &route.settings.upstream;
        let protocol = settings.protocol;
        let tls = matches!(protocol, BackendProtocol::Https | BackendProtocol::Grpcs);
        let address = endpoint.address;
        // An address as the name sends no SNI, as nginx does by default; rustls takes no empty name.
        let name = if tls { address.ip().to_string() } else { String::new() };
        let mut peer = Box::new(HttpPeer::new(address, tls, name));
        peer.options.connection_timeout = Some(settings.connect_timeout);
        peer.options.total_connection_timeout = Some(settings.connect_timeout);
        peer.options.read_timeout = Some(settings.read_timeout);
        peer.options.write_timeout = Some(settings.send_timeout);
        peer.options.idle_timeout = Some(IDLE_TIMEOUT);
        peer.options.verify_cert = false;
        peer.options.verify_hostname = false;
        if matches!(protocol, BackendProtocol::Grpc | BackendProtocol::Grpcs) {
            peer.options.alpn = ALPN::H2;
            peer.options.max_h2_streams = 100;
        }
        self.endpoint = Some(endpoint);
        self.started = Some(Instant::now());
        Ok(peer)
    }

    /// An endpoint began to answer.
    pub fn answered(&mut self, answer: &ResponseHeader) {
        self.status = Some(answer.status.as_u16());
    }

    /// An endpoint's answer is complete.
    pub fn ended(&mut self) {
        self.took = self.started.map(|started| started.elapsed());
    }

    /// No connection: nothing was sent yet, so any method may go to another endpoint.
    pub fn failed_to_connect(
        &mut self,
        route: Option<&Route>,
        mut error: Box<Error>,
    ) -> Box<Error> {
        self.tried.extend(self.address());
        error.set_retry(self.may_retry(route));
        error
    }

    /// The connection broke, or the endpoint took too long.
    pub fn failed(
        &mut self,
        route: Option<&Route>,
        peer: &HttpPeer,
        session: &Session,
        error: Box<Error>,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("endpoint {}", peer.address()));
        self.tried.extend(self.address());
        let broken = matches!(
            error.etype(),
            ErrorType::ConnectionClosed
                | ErrorType::ReadError
                | ErrorType::WriteError
                | ErrorType::ReadTimedout
                | ErrorType::WriteTimedout
                | ErrorType::H2Error
                | ErrorType::H2Downgrade
        );
        let repeatable = session.req_header().method.is_idempotent()
            && !session.as_ref().retry_buffer_truncated()
            && !answered(session);
        let is_upstream = *error.esource() == ErrorSource::Upstream;
        error.set_retry(broken && is_upstream && repeatable && self.may_retry(route));
        error
    }

    fn may_retry(&self, route: Option<&Route>) -> bool {
        let tries_max = route.map_or(1, |route| route.settings.upstream.tries_max);
        tries_max == 0 || self.tries < tries_max
    }
}
