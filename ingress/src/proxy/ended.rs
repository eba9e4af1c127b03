//! The end of a request: what is counted and logged of it.

use super::{IngressProxy, RequestState, answered};
use crate::access_log::line::header_bytes;
use crate::access_log::{AccessLog, Attempt, Entry};
use crate::metrics::series::Finished;
use crate::metrics::traffic::TRAFFIC;
use crate::variables::Values;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Attempts that a line of the access log tells of.
const ATTEMPTS_MAX: usize = 8;
/// `HTTP/1.1 200 ` and the end of the header.
const STATUS_LINE_BYTES: usize = 15;
/// Two spaces, `HTTP/1.1` and the end of the header.
const REQUEST_LINE_BYTES: usize = 12;

/// A request that has ended, and what its client got.
pub struct Ended<'a> {
    /// What was asked.
    pub request: &'a RequestHeader,
    /// The answer's header, where it is needed.
    pub answer: Option<&'a ResponseHeader>,
    /// Its status; `None` if the client got none.
    pub status: Option<u16>,
    /// Length of the answer's header.
    pub header_bytes: u64,
    /// What followed it.
    pub body_bytes: u64,
    /// The content of the endpoint's answer.
    pub upstream_bytes: u64,
}

impl<'a> Ended<'a> {
    /// A request of pingora's.
    pub fn of(session: &'a Session) -> Ended<'a> {
        let answer = session.response_written();
        let header = answer.map_or(0, |answer| {
            let reason = answer.get_reason_phrase().map_or(0, str::len);
            header_bytes(STATUS_LINE_BYTES + reason, &answer.headers)
        });
        Ended {
            request: session.req_header(),
            answer,
            status: answer.filter(|_| answered(session)).map(|answer| answer.status.as_u16()),
            header_bytes: header,
            body_bytes: session.body_bytes_sent() as u64,
            upstream_bytes: session.upstream_body_bytes_received() as u64,
        }
    }
}

/// Counts and logs a request.
pub fn record(
    proxy: &IngressProxy,
    ended: &Ended<'_>,
    error: Option<&dyn Display>,
    state: &RequestState,
) {
    // 499 is nginx's status for a client that went away before it got an answer.
    let status = ended.status.unwrap_or(499);
    let mut all = [NO_ATTEMPT; ATTEMPTS_MAX];
    let attempts = attempts(state, &mut all);
    let last = attempts.last();
    if let Some(more @ 1..) = i64::try_from(attempts.len()).ok().map(|count| count - 1) {
        TRAFFIC.retries.add(more);
    }
    if let Some(error) = error.filter(|_| !state.replaced) {
        let endpoint = last.map(|attempt| attempt.address);
        tracing::warn!(status, ?endpoint, tries = attempts.len(), "request failed: {error}");
    }
    let Ended { request, answer, .. } = *ended;
    let request_line =
        request.method.as_str().len() + request.raw_path().len() + REQUEST_LINE_BYTES;
    let duration = state.started.elapsed();
    let received_bytes = header_bytes(request_line, &request.headers) + state.body_bytes;
    let sent_body_bytes = ended.body_bytes;
    let sent_bytes = ended.header_bytes + sent_body_bytes;
    let alternative_upstream_name = state.attempts.alternative_upstream_name();
    let route = state.route.as_deref();
    proxy.metrics.observe(
        route,
        &Finished {
            method: &request.method,
            status,
            canary: alternative_upstream_name,
            took: duration,
            connected: last.and_then(|attempt| attempt.connected),
            answered: last.and_then(|attempt| attempt.answered),
            ended: last.map(|attempt| attempt.took),
            request_bytes: received_bytes,
            response_bytes: sent_bytes,
        },
    );
    let snapshot = proxy.snapshot.load();
    let options = &snapshot.options.access_log;
    if !AccessLog::wants(options, route, request.raw_path()) {
        return;
    }
    let values = Values {
        request,
        request_uri: request.raw_path(),
        path: request.uri.path().as_bytes(),
        host: "",
        tls: state.connection.tls,
        forwarded_scheme: state.forwarded.scheme(),
        client: state.forwarded.client,
        port: state.connection.port,
        request_id: state.forwarded.request_id(),
        route,
    };
    let entry = Entry {
        values,
        answer,
        status,
        sent_body_bytes,
        sent_bytes,
        received_bytes,
        duration,
        attempts,
        upstream_bytes: ended.upstream_bytes,
        alternative_upstream_name,
    };
    proxy.access_log.write(options, &entry);
}

const NO_ATTEMPT: Attempt = Attempt {
    address: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    connected: None,
    answered: None,
    took: Duration::ZERO,
    status: None,
};

fn attempts<'a>(state: &RequestState, all: &'a mut [Attempt; ATTEMPTS_MAX]) -> &'a [Attempt] {
    let attempts = state.attempts.all();
    // The last one answered the client: it is among those told of.
    let skipped = state.attempts.count().saturating_sub(ATTEMPTS_MAX);
    let mut count = 0;
    for (place, attempt) in all.iter_mut().zip(attempts.skip(skipped)) {
        *place = Attempt {
            address: attempt.address(),
            connected: attempt.connected,
            answered: attempt.answered,
            took: attempt.took(),
            status: attempt.status,
        };
        count += 1;
    }
    &all[..count]
}
