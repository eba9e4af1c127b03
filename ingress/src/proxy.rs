//! The pingora glue: one request from its first byte to its log line.
//!
//! Routing is the snapshot's, headers are `headers`', answers of our own are `answers`'. A request takes
//! its route, with backend and settings, once; only a retry looks for newer endpoints.

mod answers;
mod headers;
mod target;

use crate::access_log::{AccessLog, Entry};
use crate::annotations::BackendProtocol;
use crate::listener::header_deadline;
use crate::metrics::Metrics;
use crate::rewrite::Rewritten;
use crate::snapshot::{Backend, Route, Snapshot};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
pub use headers::ForwardedTrust;
use http::{StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::ALPN;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorSource, ErrorType, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use target::RequestTarget;

/// How long an idle connection to an endpoint is kept, as nginx's `upstream-keepalive-timeout`.
const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The proxy itself, shared by all connections.
pub struct IngressProxy {
    /// What to serve.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Whose forwarded headers to believe.
    pub trust: ForwardedTrust,
    /// The https port to name in redirects; `None` leaves it to the default.
    pub https_redirect_port: Option<u16>,
    /// There is an https listener to redirect to.
    pub https_enabled: bool,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The access log, if there is one.
    pub access_log: Option<AccessLog>,
}

/// What is known of a request so far.
pub struct RequestState {
    started: Instant,
    client: IpAddr,
    tls: bool,
    forwarded: headers::Forwarded,
    route: Option<Arc<Route>>,
    backend: Option<Arc<Backend>>,
    upstream_target: Option<Vec<u8>>,
    body_bytes: u64,
    tries: usize,
    tried: Vec<SocketAddr>,
    endpoint: Option<SocketAddr>,
    upstream_started: Option<Instant>,
    upstream_time: Option<Duration>,
    upstream_status: Option<u16>,
}

/// What to do with a request after routing.
enum Decision {
    /// To an endpoint.
    Forward,
    /// Answered here with a status.
    Answer(u16),
    /// Answered here with a status and a Location.
    Redirect(u16, Vec<u8>),
}

impl IngressProxy {
    fn decide(&self, session: &Session, state: &mut RequestState) -> Decision {
        let request = session.req_header();
        let Some(target) = RequestTarget::read(request) else {
            return Decision::Answer(400);
        };
        let snapshot = self.snapshot.load();
        let (route, host_has_tls) = snapshot.route(&target.host, &target.path);
        let Some(route) = route.cloned() else {
            return Decision::Answer(404);
        };
        let settings = route.settings.clone();
        state.backend = Some(route.backend.clone());
        state.route = Some(route.clone());
        if state.forwarded.scheme() == "http" && !target.is_acme_challenge() {
            let certified = || host_has_tls || snapshot.certificates.get(&target.host).is_some();
            let wanted = settings.force_ssl_redirect
                || (settings.ssl_redirect && self.https_enabled && certified());
            if wanted && !route.ingress.name.is_empty() {
                let location = target
                    .https_location(self.https_redirect_port, settings.preserve_trailing_slash);
                return Decision::Redirect(308, location);
            }
        }
        drop(snapshot);
        if !settings.admits(state.client) {
            return Decision::Answer(403);
        }
        if route.closed || route.backend.endpoints.is_empty() {
            return Decision::Answer(503);
        }
        if settings.body_size_max > 0
            && content_length(request).is_some_and(|n| n > settings.body_size_max)
        {
            return Decision::Answer(413);
        }
        match &route.rewrite {
            Some(rewrite) => {
                match rewrite.apply(&target.path, target.query.as_deref(), target.quoted) {
                    Some(Rewritten::Path(path)) => state.upstream_target = Some(path),
                    Some(Rewritten::Redirect(location)) => {
                        return Decision::Redirect(302, location);
                    }
                    None => {}
                }
            }
            None => state.upstream_target = target.origin_form,
        }
        Decision::Forward
    }

    /// The current endpoints for a retry: those of the request's own snapshot may be gone.
    fn newer_backend(&self, state: &RequestState) -> Option<Arc<Backend>> {
        let own = state.backend.as_ref()?;
        let current = self.snapshot.load().backends.get(&own.key).cloned();
        Some(current.filter(|backend| !backend.endpoints.is_empty()).unwrap_or_else(|| own.clone()))
    }

    fn may_retry(state: &RequestState) -> bool {
        let tries_max = state.route.as_ref().map_or(1, |route| route.settings.tries_max);
        tries_max == 0 || state.tries < tries_max
    }
}

fn content_length(request: &RequestHeader) -> Option<u64> {
    request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn expects_continue(session: &Session) -> bool {
    let request = session.req_header();
    let expected = request.headers.get(header::EXPECT);
    request.version == Version::HTTP_11
        && expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether a final answer is on its way to the client.
fn answered(session: &Session) -> bool {
    session.response_written().is_some_and(|response| {
        !response.status.is_informational() || response.status == StatusCode::SWITCHING_PROTOCOLS
    })
}

#[async_trait]
impl ProxyHttp for IngressProxy {
    type CTX = RequestState;

    fn new_ctx(&self) -> RequestState {
        header_deadline::request_started();
        RequestState {
            started: Instant::now(),
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            tls: false,
            forwarded: headers::Forwarded::default(),
            route: None,
            backend: None,
            upstream_target: None,
            body_bytes: 0,
            tries: 0,
            tried: Vec::new(),
            endpoint: None,
            upstream_started: None,
            upstream_time: None,
            upstream_status: None,
        }
    }

    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {
        // No compression: endpoints decide about their own content.
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        state: &mut RequestState,
    ) -> Result<bool> {
        if let Some(address) = session.client_addr().and_then(|address| address.as_inet()) {
            state.client = address.ip().to_canonical();
        }
        state.tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let port = session.server_addr().and_then(|a| a.as_inet()).map_or(0, |a| a.port());
        state.forwarded = self.trust.read(session.req_header(), state.client, state.tls, port);
        state.client = state.forwarded.client;
        match self.decide(session, state) {
            Decision::Forward => {
                // Answered here, as nginx does: many endpoints never do, and clients wait for it.
                if expects_continue(session) {
                    session.as_downstream_mut().write_continue_response().await?;
                }
                Ok(false)
            }
            Decision::Answer(status) => {
                answers::respond(session, status, None).await.map(|()| true)
            }
            Decision::Redirect(status, location) => {
                answers::respond(session, status, Some(&location)).await.map(|()| true)
            }
        }
    }

    async fn upstream_peer(
        &self,
        _: &mut Session,
        state: &mut RequestState,
    ) -> Result<Box<HttpPeer>> {
        if state.tries > 0 {
            state.backend = self.newer_backend(state);
        }
        state.tries += 1;
        let (Some(route), Some(backend)) = (&state.route, &state.backend) else {
            return Error::e_explain(ErrorType::HTTPStatus(503), "request without a route");
        };
        let Some(endpoint) = backend.pick(&state.tried) else {
            return Error::e_explain(ErrorType::HTTPStatus(503), "no endpoint left");
        };
        let settings = &route.settings;
        let protocol = settings.backend_protocol;
        let tls = matches!(protocol, BackendProtocol::Https | BackendProtocol::Grpcs);
        // An address as the name sends no SNI, as nginx does by default; rustls takes no empty name.
        let name = if tls { endpoint.ip().to_string() } else { String::new() };
        let mut peer = Box::new(HttpPeer::new(endpoint, tls, name));
        peer.options.connection_timeout = Some(settings.connect_timeout);
        peer.options.total_connection_timeout = Some(settings.connect_timeout);
        peer.options.read_timeout = Some(settings.read_timeout);
        peer.options.write_timeout = Some(settings.send_timeout);
        peer.options.idle_timeout = Some(UPSTREAM_IDLE_TIMEOUT);
        peer.options.verify_cert = false;
        peer.options.verify_hostname = false;
        if matches!(protocol, BackendProtocol::Grpc | BackendProtocol::Grpcs) {
            peer.options.alpn = ALPN::H2;
            peer.options.max_h2_streams = 100;
        }
        state.endpoint = Some(endpoint);
        state.upstream_started = Some(Instant::now());
        Ok(peer)
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        upstream: &mut RequestHeader,
        state: &mut RequestState,
    ) -> Result<()> {
        let Some(route) = &state.route else {
            return Ok(());
        };
        upstream.remove_header(&header::EXPECT);
        if let Some(target) = &state.upstream_target {
            upstream.set_raw_path(target)?;
        }
        headers::write(upstream, &mut state.forwarded, route)
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        state: &mut RequestState,
    ) -> Result<()> {
        state.body_bytes += body.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let limit = state.route.as_ref().map_or(0, |route| route.settings.body_size_max);
        if limit > 0 && state.body_bytes > limit {
            return Error::e_explain(
                ErrorType::HTTPStatus(413),
                "request body larger than allowed",
            );
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        state: &mut RequestState,
    ) -> Result<()> {
        state.upstream_status = Some(response.status.as_u16());
        // As ingress-nginx with its default `server-tokens: false`.
        response.remove_header(&header::SERVER);
        Ok(())
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &RequestState,
        error: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        // A retry that works is not worth a warning; under load there are many of them.
        tracing::debug!("trying another endpoint: {error}");
        true
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        state: &mut RequestState,
        mut error: Box<Error>,
    ) -> Box<Error> {
        state.tried.extend(state.endpoint);
        // Nothing was sent yet, so any method may go to another endpoint.
        error.set_retry(IngressProxy::may_retry(state));
        error
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        state: &mut RequestState,
        _client_reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("endpoint {}", peer.address()));
        state.tried.extend(state.endpoint);
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
        let upstream = *error.esource() == ErrorSource::Upstream;
        error.set_retry(broken && upstream && repeatable && IngressProxy::may_retry(state));
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        _: &mut RequestState,
    ) -> FailToProxy {
        let code = answers::status_of(error);
        if code > 0 && !answered(session) {
            session.set_keepalive(None);
            if let Err(error) = answers::respond(session, code, None).await {
                tracing::debug!("answering {code}: {error}");
            }
        }
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _: &Session, _: &RequestState, _: &Error) -> bool {
        // The access log has status and endpoint; one line a failed request is enough.
        true
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        end_of_stream: bool,
        state: &mut RequestState,
    ) -> Result<Option<Duration>> {
        if end_of_stream {
            state.upstream_time = state.upstream_started.map(|started| started.elapsed());
        }
        Ok(None)
    }

    async fn logging(
        &self,
        session: &mut Session,
        error: Option<&Error>,
        state: &mut RequestState,
    ) {
        // 499 is nginx's status for a client that went away before it got an answer.
        let written = session.response_written().map(|response| response.status.as_u16());
        let status = written.filter(|_| answered(session)).unwrap_or(499);
        let duration = state.started.elapsed();
        header_deadline::request_ended();
        let sent = session.body_bytes_sent();
        if let Some(error) = error {
            tracing::warn!(status, endpoint = ?state.endpoint, tries = state.tries, "request failed: {error}");
        }
        self.metrics.observe(
            state.route.as_deref(),
            &session.req_header().method,
            status,
            duration,
            sent,
        );
        if let Some(log) = &self.access_log {
            let upstream_time = state
                .upstream_time
                .or_else(|| state.upstream_started.map(|started| started.elapsed()));
            log.write(&Entry {
                client: state.client,
                request: session.req_header(),
                status,
                sent_bytes: sent,
                received_bytes: state.body_bytes,
                duration,
                route: state.route.as_deref(),
                endpoint: state.endpoint,
                upstream_time,
                upstream_status: state.upstream_status,
                upstream_bytes: session.upstream_body_bytes_received(),
                request_id: state.forwarded.request_id(),
            });
        }
    }
}
