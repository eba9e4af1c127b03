//! `custom-http-errors`: the default backend's answer in place of an error.
//!
//! As with nginx's `error_page STATUS = @location`: the client gets the default backend's status, headers
//! and body. The request is repeated for it without its body.

use super::answers::Answer;
use super::headers::{identify, remove_hop_by_hop};
use super::{IngressProxy, RequestState, response};
use crate::http_client::{Body, Destination};
use crate::snapshot::Route;
use crate::variables::Values;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Version, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::{Error, ErrorType, OrErr, Result};
use std::net::SocketAddr;
use std::time::Duration;

/// Whether the default backend answers in place of a status of an endpoint.
pub fn replaces_endpoints(route: &Route, status: u16) -> bool {
    let response = &route.settings.response;
    response.replaces(status) && response.intercept
}

/// Whether the default backend answers in place of a status of our own.
pub fn replaces_own(route: &Route, status: u16) -> bool {
    route.settings.response.replaces(status) && !route.closed
}

/// Asks the default backend about an error. `Err` is the status to answer when it does not help.
pub async fn ask(
    proxy: &IngressProxy,
    route: &Route,
    status: u16,
    values: &Values<'_>,
    state: &RequestState,
) -> Result<Response<Incoming>, u16> {
    // ingress-nginx's own default backend knows one answer.
    let address = default_endpoint(proxy, route).ok_or(404_u16)?;
    let request = request(route, status, values, state).map_err(|error| {
        tracing::warn!("request to the default backend: {error}");
        500_u16
    })?;
    let destination = Destination {
        https: false,
        host: address.ip().to_string(),
        port: address.port(),
        address: Some(address),
    };
    let timeout = route.settings.upstream.read_timeout;
    proxy.http_client.send(&destination, request, timeout).await.map_err(|error| {
        tracing::warn!(%address, "asking the default backend about a {status}: {error}");
        502
    })
}

/// One of the endpoints of the location's default backend, else of the controller's.
fn default_endpoint(proxy: &IngressProxy, route: &Route) -> Option<SocketAddr> {
    let any = |addresses: Vec<SocketAddr>| {
        let at = rand::random_range(0..addresses.len().max(1));
        addresses.get(at).copied()
    };
    let own = route.default_backend.as_ref();
    let own = own.and_then(|backend| any(backend.endpoints().addresses().collect()));
    own.or_else(|| {
        let snapshot = proxy.snapshot.load();
        let fallback = snapshot.fallback.as_ref()?;
        any(fallback.backend.endpoints().addresses().collect())
    })
}

/// The client's request again, for the root of the default backend, with what happened.
fn request(
    route: &Route,
    status: u16,
    values: &Values<'_>,
    state: &RequestState,
) -> Result<Request<Body>> {
    let mut head: RequestHeader = values.request.clone();
    identify(&mut head, &state.forwarded, &route.options)?;
    explain(&mut head, route, status, values)?;
    head.insert_header("X-Original-URI", values.request_uri)?;
    let query = values.query();
    let target: Vec<u8> = match query.is_empty() {
        true => b"/".into(),
        false => [b"/?", query].concat(),
    };
    let mut request = Request::new(Empty::new().boxed_unsync());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() =
        http::Uri::from_maybe_shared(target).or_err(ErrorType::InternalError, "target")?;
    let mut headers = head.headers.clone();
    remove_hop_by_hop(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_TYPE);
    *request.headers_mut() = headers;
    Ok(request)
}

/// Tells a default backend what happened, and where.
pub fn explain(
    head: &mut RequestHeader,
    route: &Route,
    status: u16,
    values: &Values<'_>,
) -> Result<()> {
    let accept = values.request.headers.get(header::ACCEPT).cloned();
    head.insert_header("X-Code", HeaderValue::from(status))?;
    match accept {
        Some(accept) => head.insert_header("X-Format", accept)?,
        None => drop(head.remove_header("x-format")),
    }
    let service = &route.backend.key;
    head.insert_header("X-Namespace", &*route.ingress.namespace)?;
    head.insert_header("X-Ingress-Name", &*route.ingress.name)?;
    head.insert_header("X-Service-Name", &*service.service.name)?;
    head.insert_header("X-Service-Port", &*service.port)
}

/// Sends the default backend's answer to the client.
pub async fn forward(
    session: &mut Session,
    page: Response<Incoming>,
    route: &Route,
    answer: Answer,
    state: &RequestState,
) -> Result<()> {
    let (parts, mut body) = page.into_parts();
    let mut head = ResponseHeader::build(parts.status, Some(parts.headers.len() + 8))?;
    let mut headers = parts.headers;
    remove_hop_by_hop(&mut headers);
    for (name, value) in &headers {
        head.append_header(name, value.clone())?;
    }
    for (name, value) in answer.headers {
        head.append_header(name, value)?;
    }
    response::from_endpoint(&mut head, &route.options.headers)?;
    response::to_client(&mut head, &route.options, session.req_header(), state)?;
    let request = session.req_header();
    let empty = request.method == Method::HEAD
        || matches!(parts.status.as_u16(), 204 | 304)
        || hyper::body::Body::is_end_stream(&body);
    if !headers.contains_key(header::CONTENT_LENGTH) && !empty {
        match request.version {
            Version::HTTP_11 => {
                head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
            }
            Version::HTTP_2 => {}
            _ => session.set_keepalive(None),
        }
    }
    session.write_response_header(Box::new(head), empty).await?;
    if empty {
        return Ok(());
    }
    while let Some(bytes) = next(&mut body, route.settings.upstream.read_timeout).await? {
        session.write_response_body(Some(bytes), false).await?;
    }
    session.write_response_body(None, true).await
}

async fn next(body: &mut Incoming, timeout: Duration) -> Result<Option<Bytes>> {
    loop {
        let frame = tokio::time::timeout(timeout, body.frame()).await;
        let broken = || Error::explain(ErrorType::ReadError, "the default backend broke off");
        match frame.map_err(|_| broken())? {
            None => return Ok(None),
            Some(Err(_)) => return Err(broken()),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}
