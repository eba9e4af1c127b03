//! Answers of our own, worded and framed as nginx's.

pub mod pages;

use super::target::RequestTarget;
use super::{IngressProxy, RequestState, errors, response, values};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType, Result};

/// An answer of our own, in place of an endpoint's.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Headers beside those of its body.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What to send instead of nginx's page for the status.
    pub body: Option<Bytes>,
}

impl Answer {
    /// nginx's page for a status.
    pub const fn status(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: None }
    }

    /// A redirect. What a client sent may be part of the address; 400 where that cannot be.
    pub fn redirect(status: u16, location: Vec<u8>) -> Answer {
        match HeaderValue::from_maybe_shared(Bytes::from(location)) {
            Ok(location) => {
                Answer { status, headers: vec![(header::LOCATION, location)], body: None }
            }
            Err(_) => Answer::status(400),
        }
    }
}

/// Answers a request, or has the default backend answer it.
pub async fn respond(
    proxy: &IngressProxy,
    session: &mut Session,
    mut answer: Answer,
    state: &RequestState,
) -> Result<()> {
    // What is left of a body would have to be read before the connection can be used again.
    if ends_connection(answer.status) || !session.as_downstream_mut().is_body_empty() {
        session.set_keepalive(None);
    }
    if let Some(route) = &state.route
        && errors::replaces_own(route, answer.status)
        && let Some(target) = RequestTarget::read(session.req_header())
    {
        let values = values(session.req_header(), &target, state, Some(route));
        match errors::ask(proxy, route, answer.status, &values, state).await {
            Ok(page) => return errors::forward(session, page, route, answer, state).await,
            Err(status) => answer = Answer::status(status),
        }
    }
    send(proxy, session, answer, state).await
}

async fn send(
    proxy: &IngressProxy,
    session: &mut Session,
    answer: Answer,
    state: &RequestState,
) -> Result<()> {
    let mut head = ResponseHeader::build(answer.status, Some(8 + answer.headers.len()))?;
    head.set_reason_phrase(Some(pages::reason(answer.status)))?;
    // These have no body by their nature (RFC 9110 section 6.4.1).
    let body = match answer.body {
        _ if matches!(answer.status, 204 | 304) => None,
        Some(body) => Some(body),
        None => {
            let page = pages::page(answer.status);
            if page.is_some() {
                head.insert_header(header::CONTENT_TYPE, HeaderValue::from_static("text/html"))?;
            }
            Some(page.unwrap_or_default())
        }
    };
    if let Some(body) = &body {
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
    }
    for (name, value) in answer.headers {
        head.append_header(name, value)?;
    }
    match &state.route {
        Some(route) => {
            response::to_client(&mut head, &route.options, session.req_header(), state)?;
        }
        None => {
            let options = proxy.snapshot.load().options.clone();
            response::to_client(&mut head, &options, session.req_header(), state)?;
        }
    }
    match body.filter(|_| session.req_header().method != Method::HEAD) {
        Some(body) => {
            session.write_response_header(Box::new(head), false).await?;
            session.write_response_body(Some(body), true).await
        }
        None => session.write_response_header(Box::new(head), true).await,
    }
}

/// After these nginx trusts nothing on the connection.
fn ends_connection(status: u16) -> bool {
    matches!(status, 400 | 413 | 414 | 500 | 501)
}

/// The status for a request that failed on its way; 0 when the client is gone.
pub fn status_of(error: &Error) -> u16 {
    use ErrorType::{
        ConnectTimedout, ConnectionClosed, HTTPStatus, ReadError, ReadTimedout,
        TLSHandshakeTimedout, WriteError, WriteTimedout,
    };
    match (error.etype(), error.esource()) {
        (HTTPStatus(status), _) => *status,
        (
            ConnectTimedout | ReadTimedout | WriteTimedout | TLSHandshakeTimedout,
            ErrorSource::Upstream,
        ) => 504,
        (_, ErrorSource::Upstream) => 502,
        (WriteError | ReadError | ConnectionClosed, ErrorSource::Downstream) => 0,
        (ReadTimedout, ErrorSource::Downstream) => 408,
        (_, ErrorSource::Downstream) => 400,
        (_, ErrorSource::Internal | ErrorSource::Unset) => 500,
    }
}
