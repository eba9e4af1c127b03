//! The pingora glue: one request from its first byte to its log line.
//!
//! A request goes through stages, each in a file of its own, in the order in which nginx has them: its
//! connection and target are read, the snapshot gives its route, then `redirects` and the guards (`limits`,
//! `access`) may answer it, and what is left goes to an endpoint by way of `upstream`. Its answer passes
//! `response`. A request takes its route, with backend and settings, once.

mod access;
mod answers;
mod client_certificate;
mod connection;
mod cors;
mod ended;
mod errors;
pub mod fast_path;
mod forwarded;
pub mod framing;
mod headers;
mod limits;
mod mirror;
mod redirects;
mod response;
mod rewritten;
pub mod target;
mod upgrade;
mod upstream;

use crate::access_log::AccessLog;
use crate::htpasswd::Verifier;
use crate::http_client::HttpClient;
use crate::listener::link::{InFlight, Link};
use crate::metrics::Metrics;
use crate::metrics::traffic::{OpenRequest, request_begun};
use crate::rates::Slot;
use crate::rewrite::Rewritten;
use crate::snapshot::{Route, Snapshot};
use crate::tls::client_auth::Judged;
use crate::variables::Values;
pub use access::AnswersCache;
use answers::Answer;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use connection::Connection;
use ended::Ended;
use forwarded::Forwarded;
use http::{HeaderValue, Method, StatusCode, Version, header};
pub use mirror::Mirrors;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::{ALPN, Digest};
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use std::any::Any;
use std::fmt::Display;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use target::RequestTarget;
use upstream::{Attempts, Choice, Client};

/// Until a client takes the next piece of an answer (nginx's `send_timeout`).
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// For the rest of a body nobody wants, until the connection is given up instead (`lingering_time`).
const UNWANTED_BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The proxy itself, shared by all connections.
pub struct IngressProxy {
    /// What to serve.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The https port to name in redirects; `None` leaves it to the default.
    pub https_redirect_port: Option<u16>,
    /// Our https port, if there is a listener to redirect to.
    pub https_port: Option<u16>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub access_log: AccessLog,
    /// For requests of our own: to authorities and mirrors.
    pub http_client: HttpClient,
    /// Verifies passwords.
    pub passwords: Verifier,
    /// What authorities said.
    pub authority_answers: AnswersCache,
    /// Room for copies of requests.
    pub mirrors: Mirrors,
}

/// The proxy as pingora knows it: it wants one of its own.
pub struct PingoraProxy(pub Arc<IngressProxy>);

impl Deref for PingoraProxy {
    type Target = IngressProxy;

    fn deref(&self) -> &IngressProxy {
        &self.0
    }
}

/// What is known of a request so far.
pub struct RequestState {
    counted: Option<OpenRequest>,
    started: Instant,
    connection: Connection,
    /// Held until the request is done with; its connection waits for the next one then.
    in_flight: Option<InFlight>,
    client_certificate: Option<Arc<Judged>>,
    forwarded: Forwarded,
    route: Option<Arc<Route>>,
    cors_origin: Option<HeaderValue>,
    mirror: Option<Box<mirror::Copy>>,
    replaced: bool,
    upstream_target: Option<Vec<u8>>,
    body_bytes: u64,
    attempts: Attempts,
    slot: Option<Slot>,
    said: Option<Arc<access::Said>>,
    paced: Option<limits::Paced>,
}

impl RequestState {
    /// Of a request whose header is there.
    fn new() -> RequestState {
        RequestState {
            counted: None,
            started: Instant::now(),
            connection: Connection::default(),
            in_flight: None,
            client_certificate: None,
            forwarded: Forwarded::default(),
            route: None,
            cors_origin: None,
            mirror: None,
            replaced: false,
            upstream_target: None,
            body_bytes: 0,
            attempts: Attempts::default(),
            slot: None,
            said: None,
            paced: None,
        }
    }
}

impl IngressProxy {
    /// Notes that a request is under way, and how long its client may take for the rest.
    fn begin(&self, session: &mut Session, state: &mut RequestState) {
        let Some((in_flight, is_last)) = connection::link(session).map(connection::begin) else {
            return;
        };
        if is_last {
            session.set_keepalive(None);
        }
        let body_timeout = in_flight.link().options.connections.body_timeout;
        session.set_read_timeout(Some(body_timeout));
        session.set_write_timeout(Some(SEND_TIMEOUT));
        session.set_total_drain_timeout(Some(UNWANTED_BODY_TIMEOUT));
        state.in_flight = Some(in_flight);
    }

    /// Takes a request through the stages before an endpoint. An answer ends it.
    async fn admit(&self, session: &Session, state: &mut RequestState) -> Result<(), Answer> {
        framing::check(session.as_downstream())?;
        let request = session.req_header();
        let mut target = RequestTarget::read(request).ok_or(Answer::status(400))?;
        let link = connection::link(session).map(Arc::as_ref);
        let (route, host) = self.locate(request, link, &mut target, state)?;
        self.enter(request, target, (route, host), state).await
    }

    /// Finds the location of a request, unless the whole host answers it.
    fn locate(
        &self,
        request: &RequestHeader,
        link: Option<&Link>,
        target: &mut RequestTarget<'_>,
        state: &mut RequestState,
    ) -> Result<(Arc<Route>, redirects::Host), Answer> {
        if request.method == Method::TRACE {
            // As nginx: it would show a client what is added for endpoints.
            return Err(Answer::status(405));
        }
        let snapshot = self.snapshot.load();
        client_certificate::check(&snapshot, link, target, state)?;
        access::blocked(&snapshot.options.blocked, request, state.forwarded.client)?;
        let rules = snapshot.host(&target.host);
        if let Some(rules) = rules.filter(|rules| rules.sends_elsewhere()) {
            let values = values(request, target, state, None);
            let code = snapshot.options.redirects.code;
            redirects::of_host(self, rules, code, &values, &state.forwarded)?;
        }
        let route = snapshot.route_by(rules, &target.path).cloned();
        // As in ingress-nginx, a host can be reached by the certificate of its wildcard.
        let certified = [rules, snapshot.wildcard(&target.host)]
            .iter()
            .any(|rules| rules.is_some_and(|rules| rules.tls));
        let host = redirects::Host { certified: certified && self.https_port.is_some() };
        let route = route.ok_or(Answer::status(404))?;
        state.route = Some(route.clone());
        Ok((route, host))
    }

    /// Takes a request through the stages of its location.
    async fn enter(
        &self,
        request: &RequestHeader,
        target: RequestTarget<'_>,
        (route, host): (Arc<Route>, redirects::Host),
        state: &mut RequestState,
    ) -> Result<(), Answer> {
        limits::body(&route.settings.limits, request)?;
        if route.closed {
            return Err(Answer::status(503));
        }
        let cors = &route.settings.response.cors;
        if cors.enabled {
            state.cors_origin = cors::allowed_origin(cors, request);
            if state.cors_origin.is_some() {
                cors::preflight(request)?;
            }
        }
        let rewritten = rewrite_or_redirect(self, &route, host, request, &target, state)?;
        limits::rates(&route, state)?;
        access::check(self, &route, &target, request, state).await?;
        if route.settings.response.mirror.target.is_some() {
            let values = values(request, &target, state, Some(&route));
            state.mirror = mirror::begin(self, &route, &state.forwarded, &values);
        }
        let choice = {
            let values = Some(self::values(request, &target, state, Some(&route)));
            let client = Client { request, tls: state.connection.tls, values };
            // ingress-nginx answers 404 by itself while its default backend has no endpoints.
            let unavailable = || Answer::status(if route.unclaimed { 404 } else { 503 });
            Choice::new(&route, &client).ok_or_else(unavailable)?
        };
        state.attempts.begin(choice, &route, &request.method).map_err(Answer::status)?;
        state.upstream_target = rewritten.or(target.origin_form);
        Ok(())
    }
}

/// The target for the endpoint where the location rewrites it, or an answer that sends the client elsewhere.
fn rewrite_or_redirect(
    proxy: &IngressProxy,
    route: &Route,
    host: redirects::Host,
    request: &RequestHeader,
    target: &RequestTarget<'_>,
    state: &RequestState,
) -> Result<Option<Vec<u8>>, Answer> {
    let values = values(request, target, state, Some(route));
    redirects::everything(route, &values)?;
    let (path, query) = (&*target.path, target.query.as_deref());
    let rewritten = match &route.rewrite {
        Some(rewrite) => rewrite.apply(path, query, target.quoted),
        None => None,
    };
    let rewritten = match rewritten {
        Some(Rewritten::Redirect(to)) => return Err(Answer::redirect(302, to)),
        Some(Rewritten::Path(path)) => Some(path),
        None => None,
    };
    redirects::to_https(proxy, route, host, &values, &state.forwarded)?;
    Ok(rewritten)
}

/// What variables stand for in a request.
fn values<'a>(
    request: &'a RequestHeader,
    target: &'a RequestTarget<'_>,
    state: &'a RequestState,
    route: Option<&'a Route>,
) -> Values<'a> {
    Values {
        request,
        request_uri: target.request_uri(),
        path: &target.path,
        host: &target.host,
        tls: state.connection.tls,
        forwarded_scheme: state.forwarded.scheme(),
        client: state.forwarded.client,
        port: state.connection.port,
        request_id: state.forwarded.request_id(),
        route,
    }
}

/// The same in a later stage, where the target has to be read once more.
fn with_values<T>(
    request: &RequestHeader,
    state: &RequestState,
    route: &Route,
    use_them: impl FnOnce(&Values<'_>) -> Result<T>,
) -> Result<T> {
    match RequestTarget::read(request) {
        Some(target) => use_them(&values(request, &target, state, Some(route))),
        None => Error::e_explain(ErrorType::HTTPStatus(400), "a target that cannot be read"),
    }
}

fn copies_body(route: Option<&Route>) -> bool {
    route.is_some_and(|route| route.settings.response.mirror.body)
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
impl ProxyHttp for PingoraProxy {
    type CTX = RequestState;

    fn new_ctx(&self) -> RequestState {
        RequestState::new()
    }

    /// The fast path began with the request.
    fn on_connection_reuse(
        &self,
        _: &mut Session,
        state: &mut RequestState,
        begun: Box<dyn Any + Send + Sync>,
    ) {
        if let Ok(begun) = begun.downcast::<RequestState>() {
            let RequestState { counted, started, attempts, .. } = *begun;
            *state = RequestState { counted, started, attempts, ..RequestState::new() };
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
        state.counted.get_or_insert_with(request_begun);
        state.connection =
            connection::link(session).map(|link| Connection::of(link)).unwrap_or_default();
        self.begin(session, state);
        {
            let options = &self.snapshot.load().options;
            let request = session.req_header();
            let (forwarded, headers) = (&options.forwarded, &options.headers);
            state.forwarded = Forwarded::read(request, &state.connection, forwarded, headers);
        }
        match self.admit(session, state).await {
            Ok(()) => {
                let all = |_: &mut Box<mirror::Copy>| {
                    session.is_body_empty() || !copies_body(state.route.as_deref())
                };
                if let Some(copy) = state.mirror.take_if(all) {
                    copy.send();
                }
                // Answered here, as nginx does: many endpoints never do, and clients wait for it.
                if expects_continue(session) {
                    session.as_downstream_mut().write_continue_response().await?;
                }
                Ok(false)
            }
            Err(answer) => answers::respond(self, session, answer, state).await.map(|()| true),
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        state: &mut RequestState,
    ) -> Result<Box<HttpPeer>> {
        let Some(route) = &state.route else {
            return Error::e_explain(ErrorType::HTTPStatus(503), "request without a route");
        };
        let mut peer = state.attempts.next_peer(route, state.connection.tls)?;
        if session.is_upgrade_req() {
            upgrade::prepare(&mut peer);
        }
        Ok(peer)
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        fd: RawFd,
        _: Option<&Digest>,
        state: &mut RequestState,
    ) -> Result<()> {
        let h2 = peer.options.alpn == ALPN::H2;
        state.attempts.connected(session, reused, h2, fd);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        state: &mut RequestState,
    ) -> Result<()> {
        // A further attempt sends the body from its beginning.
        state.body_bytes = 0;
        if let Some(copy) = &mut state.mirror {
            copy.restart();
        }
        let Some(route) = &state.route else {
            return Ok(());
        };
        upstream.remove_header(&header::EXPECT);
        if let Some(target) = &state.upstream_target {
            upstream.set_raw_path(target)?;
        }
        client_certificate::write(upstream, state)?;
        if route.settings.upstream.http_1_0 {
            upstream::speak_1_0(upstream)?;
        }
        access::to_endpoint(upstream, route, state.said.as_ref())?;
        headers::identify(upstream, &state.forwarded, &route.options)?;
        let stands_in = state.attempts.stands_in();
        if stands_in || headers::adds_more(route) {
            with_values(session.req_header(), state, route, |values| {
                if stands_in {
                    errors::explain(upstream, route, 503, values)?;
                }
                headers::add_more(upstream, route, values)
            })?;
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        state: &mut RequestState,
    ) -> Result<()> {
        if state.mirror.is_some() {
            mirror::body(&mut state.mirror, body.as_ref(), end_of_stream);
        }
        state.body_bytes += body.as_ref().map_or(0, |bytes| bytes.len() as u64);
        match &state.route {
            // What goes through a WebSocket is no body.
            _ if session.was_upgraded() => Ok(()),
            Some(route) => limits::body_so_far(&route.settings.limits, state.body_bytes),
            None => Ok(()),
        }
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        state: &mut RequestState,
    ) -> Result<()> {
        state.attempts.answered(state.route.as_deref(), session, answer)?;
        let Some(route) = &state.route else {
            return Ok(());
        };
        let status = answer.status.as_u16();
        if errors::replaces_endpoints(route, status) && !state.attempts.stands_in() {
            state.replaced = true;
            return Error::e_explain(ErrorType::HTTPStatus(status), "the default backend answers");
        }
        response::from_endpoint(answer, &route.options.headers)?;
        if route.settings.response.rewrites_headers() {
            with_values(session.req_header(), state, route, |values| {
                rewritten::rewrite(answer, route, values)
            })?;
        }
        let request = session.req_header();
        let client = Client { request, tls: state.connection.tls, values: None };
        if let Some(cookie) = state.attempts.set_cookie(route, &client) {
            answer.append_header(header::SET_COOKIE, cookie)?;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        state: &mut RequestState,
    ) -> Result<()> {
        match &state.route {
            Some(route) => response::to_client(answer, &route.options, session.req_header(), state),
            None => Ok(()),
        }
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
        session: &mut Session,
        _: &HttpPeer,
        state: &mut RequestState,
        error: Box<Error>,
    ) -> Box<Error> {
        state.attempts.failed_to_connect(state.route.as_deref(), session, error)
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        state: &mut RequestState,
        _client_reused: bool,
    ) -> Box<Error> {
        state.attempts.failed(state.route.as_deref(), peer, session, error)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        state: &mut RequestState,
    ) -> FailToProxy {
        let code = answers::status_of(error);
        if code > 0 && !answered(session) {
            session.set_keepalive(None);
            if let Err(error) = answers::respond(self, session, Answer::status(code), state).await {
                tracing::debug!("answering {code}: {error}");
            }
        }
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _: &Session, _: &RequestState, _: &Error) -> bool {
        // The access log has status and endpoint; one line a failed request is enough.
        true
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        state: &mut RequestState,
    ) -> Result<Option<Duration>> {
        let piece_bytes = body.as_ref().map_or(0, Bytes::len);
        Ok(match &state.route {
            // What goes through a WebSocket is no answer.
            _ if session.was_upgraded() => None,
            Some(route) => limits::pace(&route.settings.limits, &mut state.paced, piece_bytes),
            None => None,
        })
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        end_of_stream: bool,
        state: &mut RequestState,
    ) -> Result<Option<Duration>> {
        if end_of_stream {
            state.attempts.ended();
        }
        Ok(None)
    }

    async fn logging(
        &self,
        session: &mut Session,
        error: Option<&Error>,
        state: &mut RequestState,
    ) {
        if let Some(route) = &state.route {
            state.attempts.finish(route);
        }
        let ended = Ended::of(session);
        ended::record(self, &ended, error.map(|error| error as &dyn Display), state);
    }
}
