//! The attempts of a request at endpoints: where it goes, how, and whether it may go elsewhere.
//!
//! What is said to an endpoint and about its answers is left to `headers` and `response`.

mod choice;
mod delivery;
mod peer;
mod sticky;

use super::answered;
use crate::annotations::upstream::retry::{Attempted, Failure, is_non_idempotent};
use crate::balance::passive::RestPolicy;
use crate::balance::{Endpoint, Moment};
use crate::snapshot::Route;
pub use choice::{Choice, Client};
use delivery::Delivery;
use http::{HeaderValue, Method, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorSource, ErrorType, Result, RetryType};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Marks an answer that is not passed on because another endpoint may give a better one.
const NEXT_UPSTREAM: ErrorType = ErrorType::Custom("proxy-next-upstream");

/// Makes a request one of HTTP/1.0, which knows neither kept connections nor bodies without a length.
pub fn speak_1_0(upstream: &mut RequestHeader) -> Result<()> {
    if upstream.headers.contains_key(header::TRANSFER_ENCODING) {
        return Error::e_explain(ErrorType::HTTPStatus(411), "HTTP/1.0 has no chunked bodies");
    }
    upstream.set_version(Version::HTTP_10);
    upstream.insert_header(header::CONNECTION, HeaderValue::from_static("close"))
}

/// One attempt.
#[derive(Debug)]
pub struct Attempt {
    endpoint: Arc<Endpoint>,
    started: Instant,
    /// The connection was one of before.
    reused: bool,
    /// How long it took to get a connection; `None` without one.
    pub connected: Option<Duration>,
    /// How long it took until the answer's header was there; `None` if it never was.
    pub answered: Option<Duration>,
    /// How long it took in all, once it ended.
    pub ended: Option<Duration>,
    /// What the endpoint answered, or nginx's status for how it failed; `None` while it is open.
    pub status: Option<u16>,
}

impl Attempt {
    /// Where it went.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// How long it took, so far or in the end.
    pub fn took(&self) -> Duration {
        self.ended.unwrap_or_else(|| self.started.elapsed())
    }
}

/// All attempts of a request, and what was decided about it before the first.
#[derive(Default)]
pub struct Attempts {
    choice: Choice,
    /// Those that failed.
    earlier: Vec<Attempt>,
    last: Option<Attempt>,
    /// Endpoints that failed this request.
    tried: Vec<SocketAddr>,
    /// How many attempts count.
    tries: usize,
    /// How the last attempt failed that was not pingora's.
    failure: Option<Failure>,
    delivery: Option<Delivery>,
}

impl Attempts {
    /// Sets what all attempts have in common. An error is the status to answer: an attempt of the fast
    /// path failed, and there may be no other.
    pub fn begin(&mut self, choice: Choice, route: &Route, method: &Method) -> Result<(), u16> {
        self.choice = choice;
        match self.failure.take() {
            Some(failure) if !self.goes_on(route, method, failure, true) => Err(failure.status()),
            _ => Ok(()),
        }
    }

    /// The default backend of the location takes the request, since its own has no endpoints.
    pub fn stands_in(&self) -> bool {
        self.choice.stands_in
    }

    /// All of them in their order.
    pub fn all(&self) -> impl Iterator<Item = &Attempt> {
        self.earlier.iter().chain(&self.last)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.earlier.len() + usize::from(self.last.is_some())
    }

    /// The canary's name in the access log, if it took the request.
    pub fn alternative_upstream_name(&self) -> &str {
        self.choice.canary.as_ref().map_or("", |canary| &canary.backend.upstream_name)
    }

    /// Chooses an endpoint, and says how to speak to it.
    pub fn next_peer(&mut self, route: &Route, client_tls: bool) -> Result<Box<HttpPeer>> {
        let Some(endpoint) = self.next_endpoint(route) else {
            let status = if self.last.is_none() { 503 } else { 502 };
            return Error::e_explain(ErrorType::HTTPStatus(status), "no endpoint left");
        };
        Ok(peer::to(endpoint.address, route, client_tls))
    }

    /// Chooses an endpoint for the next attempt, which begins.
    pub fn next_endpoint(&mut self, route: &Route) -> Option<Arc<Endpoint>> {
        let started = Instant::now();
        let endpoint = self.choice.endpoint(route, &self.tried, Moment::of(started))?;
        self.earlier.extend(self.last.take());
        self.tries += 1;
        self.last = Some(Attempt {
            endpoint: endpoint.clone(),
            started,
            reused: false,
            connected: None,
            answered: None,
            ended: None,
            status: None,
        });
        Some(endpoint)
    }

    /// There is a connection.
    pub fn has_connection(&mut self, reused: bool) {
        let Some(attempt) = &mut self.last else {
            return;
        };
        attempt.connected = Some(attempt.started.elapsed());
        attempt.reused = reused;
        if !reused {
            attempt.endpoint.passive.worked();
        }
    }

    /// There is a connection of pingora's. `fd` is its socket.
    pub fn connected(&mut self, session: &Session, reused: bool, h2: bool, fd: RawFd) {
        self.has_connection(reused);
        // HTTP/2 says itself what it did not get to.
        let guarded = reused && !h2 && is_non_idempotent(&session.req_header().method);
        self.delivery = guarded.then(|| Delivery::watch(fd)).flatten();
    }

    /// An endpoint began to answer. An error where another endpoint is asked instead.
    pub fn answered(
        &mut self,
        route: Option<&Route>,
        session: &Session,
        answer: &ResponseHeader,
    ) -> Result<()> {
        let status = answer.status.as_u16();
        if answer.status.is_informational() && status != 101 {
            return Ok(());
        }
        self.has_answer(status);
        let failure = Failure::Status(status);
        if self.may_go_on(route, session, failure, true) {
            let mut error = Error::explain(NEXT_UPSTREAM, "the answer asks for another endpoint");
            error.as_up();
            return Err(error);
        }
        Ok(())
    }

    /// An endpoint's answer begins with this status.
    pub fn has_answer(&mut self, status: u16) {
        if let Some(attempt) = &mut self.last {
            attempt.status = Some(status);
            attempt.answered = Some(attempt.started.elapsed());
        }
    }

    /// An attempt of the fast path failed before there was anything of an answer; whatever comes next is
    /// pingora's.
    pub fn failed_early(&mut self, route: &Route, failure: Failure) {
        let Some(attempt) = &self.last else {
            return;
        };
        if attempt.connected.is_none() {
            self.note_unreachable(route);
        } else if attempt.reused && failure == Failure::Error {
            return self.note_stale(failure);
        }
        self.note_failure(failure);
        self.failure = Some(failure);
    }

    /// The cookie that keeps the client where it is, if it needs a new one.
    pub fn set_cookie(&self, route: &Route, client: &Client<'_>) -> Option<String> {
        self.choice.set_cookie(route, client)
    }

    /// An endpoint's answer is complete.
    pub fn ended(&mut self) {
        if let Some(attempt) = &mut self.last {
            attempt.ended = Some(attempt.started.elapsed());
        }
    }

    /// The request is over.
    pub fn finish(&mut self, route: &Route) {
        self.ended_unless_done();
        // As ingress-nginx: what the first endpoint took, even if another one answered.
        if let Some(first) = self.earlier.first().or(self.last.as_ref())
            && self.choice.measures_latency(route)
        {
            first.endpoint.latency.add(first.took(), Moment::now());
        }
    }

    fn ended_unless_done(&mut self) {
        if self.last.as_ref().is_some_and(|attempt| attempt.ended.is_none()) {
            self.ended();
        }
    }

    /// No connection: nothing was sent yet, so any method may go to another endpoint.
    pub fn failed_to_connect(
        &mut self,
        route: Option<&Route>,
        session: &Session,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let timed_out =
            matches!(error.etype(), ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout);
        let failure = if timed_out { Failure::Timeout } else { Failure::Error };
        if let Some(route) = route {
            self.note_unreachable(route);
        }
        self.note_failure(failure);
        error.set_retry(self.may_go_on(route, session, failure, false));
        error
    }

    /// The connection broke, the endpoint took too long, or its answer was not the one to pass on.
    pub fn failed(
        &mut self,
        route: Option<&Route>,
        peer: &HttpPeer,
        session: &Session,
        error: Box<Error>,
    ) -> Box<Error> {
        let delivery = self.delivery.take();
        let failure = self.failure_of(&error);
        let refused = matches!(error.retry, RetryType::Decided(true));
        let undelivered =
            refused || delivery.is_some_and(|delivery| delivery.never_arrived(&error));
        let mut error = error.more_context(format!("endpoint {}", peer.address()));
        let Some(failure) = failure.filter(|_| !answered(session)) else {
            self.ended_unless_done();
            error.set_retry(false);
            return error;
        };
        let reused = self.last.as_ref().is_some_and(|attempt| attempt.reused);
        if reused && failure == Failure::Error {
            self.note_stale(failure);
        } else {
            self.note_failure(failure);
        }
        let sent = !undelivered;
        error.set_retry(self.may_go_on(route, session, failure, sent));
        error
    }

    /// What an error means, if it is the endpoint's.
    fn failure_of(&self, error: &Error) -> Option<Failure> {
        if *error.esource() != ErrorSource::Upstream {
            return None;
        }
        Some(match error.etype() {
            ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::ConnectTimedout => {
                Failure::Timeout
            }
            ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 => Failure::InvalidHeader,
            ErrorType::ConnectionClosed
            | ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::H2Error
            | ErrorType::H2Downgrade => Failure::Error,
            etype if *etype == NEXT_UPSTREAM => Failure::Status(self.last.as_ref()?.status?),
            _ => return None,
        })
    }

    fn note_unreachable(&self, route: &Route) {
        if let Some(attempt) = &self.last {
            let health = &route.settings.upstream.health;
            let policy = RestPolicy { fails_max: health.fails_max, window: health.fail_timeout };
            attempt.endpoint.passive.failed(Moment::now(), policy);
        }
    }

    /// The endpoint may well be fine: it only closed what it had kept long enough. As in nginx such an
    /// attempt does not count.
    fn note_stale(&mut self, failure: Failure) {
        self.tries -= 1;
        self.ended_unless_done();
        self.set_status(failure);
    }

    fn note_failure(&mut self, failure: Failure) {
        self.ended_unless_done();
        self.set_status(failure);
        self.tried.extend(self.last.as_ref().map(Attempt::address));
    }

    fn set_status(&mut self, failure: Failure) {
        if let Some(attempt) = &mut self.last {
            attempt.status = Some(failure.status());
        }
    }

    fn may_go_on(
        &self,
        route: Option<&Route>,
        session: &Session,
        failure: Failure,
        sent: bool,
    ) -> bool {
        // nginx keeps any body whole; here the beginning of a long one is gone once it was sent.
        let has_body = !session.as_ref().retry_buffer_truncated();
        let method = &session.req_header().method;
        has_body && route.is_some_and(|route| self.goes_on(route, method, failure, sent))
    }

    fn goes_on(&self, route: &Route, method: &Method, failure: Failure, sent: bool) -> bool {
        let Some(first) = self.all().next() else {
            return false;
        };
        let attempted = Attempted {
            method,
            sent: sent && !route.options.endpoint_connections.retry_non_idempotent,
            tries: self.tries,
            elapsed: first.started.elapsed(),
        };
        route.settings.upstream.retry.goes_on(failure, attempted)
    }
}
