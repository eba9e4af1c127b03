//! The fast path: plain HTTP/1.1 requests forwarded from socket to socket.
//!
//! Most requests are GET or HEAD, have no body, and go to an endpoint that speaks HTTP/1.1. Those are served
//! here by the routing, guards, balancing, counters and log of every request, without a header list for
//! pingora, its tasks between the two directions, and its shared pool. Whatever is not plain goes to
//! pingora's proxy as if nobody had read it, and so does a request whose endpoint failed before the client
//! got anything: retries, errors, upgrades, bodies and HTTP/2 are in one place only.
//!
//! `request` says what is plain, `exchange` speaks with the endpoint, `answer` and `body` read what it says.

mod answer;
mod body;
mod buffers;
mod exchange;
mod request;

use super::answers::Answer;
use super::connection::{self, Connection};
use super::ended::{self, Ended};
use super::forwarded::{Forwarded, X_FORWARDED_FOR};
use super::target::RequestTarget;
use super::{IngressProxy, RequestState, headers};
use crate::annotations::upstream::BackendProtocol;
use crate::annotations::upstream::retry::Failure;
use crate::balance::kept::Seats;
use crate::listener::client_stream::ClientStream;
use crate::listener::link::Link;
use crate::metrics::traffic::request_begun;
use crate::snapshot::Route;
use buffers::Buffers;
use exchange::{Broken, Exchange, Sent};
use futures::FutureExt;
use pingora::http::RequestHeader;
use request::{Head, LINES_MAX};
use std::fmt::Display;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use tokio_util::io::poll_read_buf;

/// The longest request head that is read here.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Serves connections of clients.
pub struct FastPath {
    proxy: Arc<IngressProxy>,
    seats: Seats,
}

/// What comes after a request.
pub enum Next {
    /// The next one.
    Request,
    /// The end of the connection.
    End,
    /// Nothing: the client is gone, or the answer could not be completed.
    Gone,
    /// The request is pingora's.
    Pingora(Box<RequestState>),
    /// The connection speaks HTTP/2.
    Http2,
}

/// What becomes of what a client sent.
#[expect(clippy::large_enum_variant, reason = "it lives for a moment, and on the stack")]
enum Decision {
    /// More has to be read.
    Incomplete,
    /// An endpoint is to be asked; what to send it was written.
    Forward(Admitted),
    /// It is pingora's.
    Leave,
    /// It is no HTTP/1.
    Http2,
}

/// A request that may go to an endpoint.
struct Admitted {
    request: RequestHeader,
    route: Arc<Route>,
    head_bytes: usize,
    /// The client wants the connection to end with it.
    closes: bool,
}

impl FastPath {
    /// With room for so many idle connections to endpoints.
    pub fn new(proxy: Arc<IngressProxy>, idle_max: usize) -> FastPath {
        FastPath { proxy, seats: Seats::new(idle_max) }
    }

    /// Serves the next request of a connection. What was read beyond it is put back.
    pub async fn next(&self, stream: &mut ClientStream, link: &Arc<Link>) -> Next {
        let Ok(mut buffers) = first_bytes(stream).await else {
            return Next::Gone;
        };
        let mut state = RequestState::new();
        let decision = loop {
            match self.decide(&mut buffers, link, &mut state) {
                Decision::Incomplete => {}
                decision => break decision,
            }
            let reading =
                poll_fn(|cx| poll_read_buf(Pin::new(&mut *stream), cx, &mut buffers.client));
            if !matches!(reading.await, Ok(1..)) {
                return Next::Gone;
            }
        };
        let (next, used) = match decision {
            Decision::Forward(admitted) => {
                self.forward(stream, &mut buffers, &admitted, link, state).await
            }
            Decision::Http2 => (Next::Http2, 0),
            Decision::Incomplete | Decision::Leave => (Next::Pingora(Box::new(state)), 0),
        };
        stream.unread(&buffers.client[used..]);
        buffers.give_back();
        next
    }

    /// Takes a request through everything that comes before an endpoint.
    fn decide(
        &self,
        buffers: &mut Buffers,
        link: &Arc<Link>,
        state: &mut RequestState,
    ) -> Decision {
        let mut room = [MaybeUninit::uninit(); LINES_MAX];
        let plain = match request::read(&buffers.client, &mut room) {
            Head::Plain(plain) => plain,
            Head::Incomplete if buffers.client.len() < HEAD_BYTES_MAX => {
                return Decision::Incomplete;
            }
            Head::Incomplete | Head::Other => return Decision::Leave,
            Head::Http2 => return Decision::Http2,
        };
        let request = &plain.request;
        state.counted.get_or_insert_with(request_begun);
        state.connection = Connection::of(link);
        {
            let options = &self.proxy.snapshot.load().options;
            let (trust, rules) = (&options.forwarded, &options.headers);
            state.forwarded = Forwarded::read(request, &state.connection, trust, rules);
        }
        let Some(Ok(route)) = self.admit(request, link, state).now_or_never() else {
            return Decision::Leave;
        };
        let target = state.upstream_target.as_deref();
        plain.write(target, &state.forwarded, &route.options, &mut buffers.out);
        let (head_bytes, closes) = (plain.head_bytes, plain.closes);
        Decision::Forward(Admitted { request: plain.request, route, head_bytes, closes })
    }

    /// The stages of every request, for those that are served here. Nothing they do lasts: pingora begins
    /// anew with a request that is left to it.
    async fn admit(
        &self,
        request: &RequestHeader,
        link: &Link,
        state: &mut RequestState,
    ) -> Result<Arc<Route>, Answer> {
        let left = || Answer::status(500);
        let mut target = RequestTarget::read(request).ok_or_else(left)?;
        let (route, host) = self.proxy.locate(request, Some(link), &mut target, state)?;
        if state.client_certificate.is_some() || !is_plain(&route) {
            return Err(left());
        }
        self.proxy.enter(request, target, (route.clone(), host), state).await?;
        if state.attempts.stands_in() { Err(left()) } else { Ok(route) }
    }

    /// Has an endpoint answer. Also says how much of what the client sent was used.
    async fn forward(
        &self,
        stream: &mut ClientStream,
        buffers: &mut Buffers,
        admitted: &Admitted,
        link: &Arc<Link>,
        mut state: RequestState,
    ) -> (Next, usize) {
        let Admitted { request, route, head_bytes, closes } = admitted;
        let (in_flight, ends) = connection::begin(link);
        state.in_flight = Some(in_flight);
        let closes = *closes || ends;
        let mut sent = Sent::default();
        let exchange = Exchange {
            client: stream,
            request,
            route,
            attempts: &mut state.attempts,
            buffers,
            tls: link.tls.is_some(),
            closes,
            seats: &self.seats,
            sent: &mut sent,
        };
        let broken = match exchange.run().await {
            Ok(()) => {
                self.record(request, &sent, None, &mut state);
                return (if closes { Next::End } else { Next::Request }, *head_bytes);
            }
            Err(Broken::Early(failure)) => {
                if let Some(failure) = failure {
                    state.attempts.failed_early(route, failure);
                }
                // It is counted once more when pingora begins with it.
                state.in_flight = None;
                return (Next::Pingora(Box::new(state)), 0);
            }
            Err(Broken::Endpoint(why)) => {
                if sent.status.is_none_or(|status| status < 200) {
                    sent.status = Some(Failure::Error.status());
                }
                why
            }
            Err(Broken::Client(error)) => format!("the client is gone: {error}"),
        };
        self.record(request, &sent, Some(&broken), &mut state);
        (Next::Gone, *head_bytes)
    }

    fn record(
        &self,
        request: &RequestHeader,
        sent: &Sent,
        broken: Option<&dyn Display>,
        state: &mut RequestState,
    ) {
        if let Some(route) = state.route.clone() {
            state.attempts.finish(&route);
        }
        let ended = Ended {
            request,
            answer: None,
            status: sent.status.filter(|status| *status >= 200),
            header_bytes: sent.head_bytes,
            body_bytes: sent.bytes.saturating_sub(sent.head_bytes),
            upstream_bytes: sent.payload_bytes,
        };
        ended::record(&self.proxy, &ended, broken, state);
    }
}

/// Waits for the client to send something. A connection that waits holds no buffers.
async fn first_bytes(stream: &mut ClientStream) -> io::Result<Buffers> {
    poll_fn(|cx| {
        let mut buffers = Buffers::take();
        let read = poll_read_buf(Pin::new(&mut *stream), cx, &mut buffers.client);
        if read.is_pending() {
            buffers.give_back();
            return Poll::Pending;
        }
        Poll::Ready(match ready!(read)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(buffers),
        })
    })
    .await
}

/// Whether a location wants nothing of requests and answers that is done in pingora's proxy only.
fn is_plain(route: &Route) -> bool {
    let (settings, options, resources) = (&*route.settings, &*route.options, &*route.resources);
    let (upstream, response) = (&settings.upstream, &settings.response);
    let to_endpoint = upstream.protocol == BackendProtocol::Http
        && !upstream.http_1_0
        && !upstream.retry.on.any_status()
        && response.mirror.target.is_none()
        && !headers::adds_more(route)
        && !headers::adds_chain(&options.forwarded)
        && options.forwarded.for_header == X_FORWARDED_FOR
        && options.headers.drop_invalid;
    let to_client = response.error_statuses.is_empty()
        && !response.cors.enabled
        && !response.rewrites_headers()
        && settings.limits.answer_bytes_per_second == 0
        && resources.custom_headers.is_empty()
        && options.headers.hidden.is_empty()
        && options.headers.for_clients.is_empty()
        && !options.access_log.format.reads_answer();
    let guarded = resources.passwords.is_some()
        || resources.authority.is_some()
        || resources.clients.is_some();
    to_endpoint && to_client && !guarded
}
