//! Asking an authority about a request: nginx's `auth_request` as ingress-nginx sets it up.
//!
//! A request without a body carries the client's headers and says what it is about; 2xx opens, 401 and 403
//! shut, anything else is an error of our own: 500.

use super::answers_cache::{Found, Key};
use super::{Answer, IngressProxy, RequestState, RequestTarget, Step};
use crate::http_client::{Body, Destination, HttpClientError, discard};
use crate::metrics::traffic::TRAFFIC;
use crate::proxy::{client_certificate, values};
use crate::resources::authority::{Authority, destination};
use crate::snapshot::Route;
use crate::variables::Values;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Empty};
use pingora::http::RequestHeader;
use std::fmt::Write as _;
use std::sync::Arc;
use thiserror::Error;

/// Endpoints of an authority that are tried while they refuse connections.
const TRIES_MAX: usize = 3;

/// What an authority said of a request.
#[derive(Debug)]
pub struct Said {
    /// Its status.
    pub status: u16,
    /// `Set-Cookie`, for the client.
    pub cookies: Vec<HeaderValue>,
    /// `auth-response-headers`, for the endpoint.
    pub for_endpoint: Vec<(HeaderName, HeaderValue)>,
    /// `WWW-Authenticate`, for a client without a session.
    challenges: Vec<HeaderValue>,
}

impl Said {
    pub fn read(status: u16, headers: &HeaderMap, wanted: &[HeaderName]) -> Said {
        let all = |name| headers.get_all(name).iter().cloned().collect();
        let for_endpoint =
            wanted.iter().filter_map(|name| Some((name.clone(), joined(headers, name)?)));
        Said {
            status,
            cookies: all(header::SET_COOKIE),
            for_endpoint: for_endpoint.collect(),
            challenges: all(header::WWW_AUTHENTICATE),
        }
    }

    /// What it takes to remember it, roughly.
    pub fn bytes(&self) -> usize {
        let values = self.cookies.iter().chain(&self.challenges);
        let values = values.chain(self.for_endpoint.iter().map(|(_, value)| value));
        values.map(|value| value.len() + size_of::<HeaderValue>()).sum()
    }

    fn step(&self) -> Step {
        match self.status {
            200..=299 => Step::Open,
            401 => {
                let mut answer = Answer::status(401);
                let challenge = |value: &HeaderValue| (header::WWW_AUTHENTICATE, value.clone());
                answer.headers.extend(self.challenges.iter().map(challenge));
                Step::Shut(answer)
            }
            403 => Step::Shut(Answer::status(403)),
            _ => Step::Shut(Answer::status(500)),
        }
    }
}

/// The values of a header as one, as nginx's `$upstream_http_…`; `None` where it is missing or empty.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let joined = match values.next() {
        None => first.clone(),
        Some(_) => {
            let all: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            HeaderValue::from_bytes(&all.join(&b", "[..])).ok()?
        }
    };
    (!joined.is_empty()).then_some(joined)
}

/// Why an authority could not be asked.
#[derive(Debug, Error)]
enum AskError {
    /// The URL makes no sense for this request.
    #[error("{0:?} is no URL for this request")]
    Url(String),
    /// A header of `auth-proxy-set-headers` makes no sense for this request.
    #[error("the value of {0} cannot be sent")]
    Header(HeaderName),
    /// There was no answer.
    #[error(transparent)]
    Client(#[from] HttpClientError),
}

/// Asks about a request.
pub async fn ask(
    proxy: &IngressProxy,
    route: &Route,
    authority: &Authority,
    target: &RequestTarget<'_>,
    request: &RequestHeader,
    state: &mut RequestState,
) -> Step {
    let said = remembered(proxy, route, authority, target, request, state).await;
    match said {
        Ok(said) => {
            let step = said.step();
            if said.status >= 300 && !matches!(said.status, 401 | 403) {
                let url = &authority.settings.url.text;
                tracing::warn!(ingress = %route.ingress, url, status = said.status, "unexpected answer of an authority");
            }
            state.said = Some(said);
            step
        }
        Err(error) => {
            let url = &authority.settings.url.text;
            tracing::warn!(ingress = %route.ingress, url, "asking an authority: {error}");
            Step::Shut(Answer::status(500))
        }
    }
}

/// The answer, from memory where it may come from there.
async fn remembered(
    proxy: &IngressProxy,
    route: &Route,
    authority: &Authority,
    target: &RequestTarget<'_>,
    request: &RequestHeader,
    state: &RequestState,
) -> Result<Arc<Said>, AskError> {
    let values = values(request, target, state, Some(route));
    let Some(template) = &authority.settings.cache_key else {
        let said = send(proxy, route, authority, &values, state).await?.0;
        return Ok(Arc::new(said));
    };
    let key = Key::new(route, &authority.settings.url.text, &template.expand(&values));
    let found = proxy.authority_answers.find(key, &request.headers).await;
    if let Found::Answer(said) = found {
        TRAFFIC.auth_cache_hits.add(1);
        return Ok(said);
    }
    let (said, headers) = send(proxy, route, authority, &values, state).await?;
    let said = Arc::new(said);
    let durations = &authority.settings.cache_durations;
    proxy.authority_answers.remember(key, &said, &headers, &request.headers, durations);
    // Only now may those who wait go on.
    drop(found);
    Ok(said)
}

async fn send(
    proxy: &IngressProxy,
    route: &Route,
    authority: &Authority,
    values: &Values<'_>,
    state: &RequestState,
) -> Result<(Said, HeaderMap), AskError> {
    let settings = &authority.settings;
    let mut destination = match &authority.fixed {
        Some(fixed) => fixed.clone(),
        None => destination_for(authority, values)?,
    };
    let path = settings.url.target.expand(values);
    let uri: Uri = request_target(&path)
        .parse()
        .map_err(|_| AskError::Url(String::from_utf8_lossy(&path).into_owned()))?;
    let headers = headers(authority, values, state)?;
    let upstream = &route.settings.upstream;
    let timeout = upstream.connect_timeout + upstream.read_timeout;
    TRAFFIC.auth_requests.add(1);
    let mut tried = Vec::new();
    let answer = loop {
        if let Some(backend) = &route.authority {
            destination.address = backend.endpoints().any(&tried).map(|next| next.address);
        }
        let mut request = Request::new(Empty::<Bytes>::new().boxed_unsync() as Body);
        *request.method_mut() = settings.method.clone().unwrap_or(Method::GET);
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        match (proxy.http_client.send(&destination, request, timeout).await, destination.address) {
            // As with several addresses of a name in nginx: the next one may be better.
            (Err(error), Some(address)) if error.is_connect() && tried.len() + 1 < TRIES_MAX => {
                tried.push(address);
            }
            (answer, _) => break answer?,
        }
    };
    let (head, body) = answer.into_parts();
    discard(body);
    let said = Said::read(head.status.as_u16(), &head.headers, &settings.response_headers);
    Ok((said, head.headers))
}

fn destination_for(authority: &Authority, values: &Values<'_>) -> Result<Destination, AskError> {
    let url = &authority.settings.url;
    let text = String::from_utf8_lossy(&url.authority.expand(values)).into_owned();
    destination(url.https, &text).ok_or(AskError::Url(text))
}

/// A request target from an expanded template: what may not stand in one is escaped, the rest is as it is.
fn request_target(path: &[u8]) -> String {
    let mut target = String::with_capacity(path.len());
    for byte in path {
        match byte {
            b'!'..=b'~'
                if !matches!(
                    byte,
                    b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
                ) =>
            {
                target.push(char::from(*byte));
            }
            _ => drop(write!(target, "%{byte:02X}")),
        }
    }
    target
}

/// Headers of a client that are not for the authority: those of its connection, of its body, of conditions,
/// and those only we may set.
fn is_for_authority(name: &HeaderName, caching: bool) -> bool {
    let own_or_hop = matches!(
        name.as_str(),
        "host"
            | "connection"
            | "proxy-connection"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "expect"
            | "http2-settings"
            | "content-length"
            | "x-forwarded-proto"
            | "x-forwarded-for"
            | "x-forwarded-uri"
            | "x-forwarded-method"
            | "x-original-url"
            | "x-original-uri"
            | "x-original-method"
            | "x-sent-from"
            | "x-auth-request-redirect"
            | "x-real-ip"
            | "x-request-id"
            | "x-scheme"
            | "proxy"
            | "ssl-client-verify"
            | "ssl-client-subject-dn"
            | "ssl-client-issuer-dn"
            | "ssl-client-cert"
    );
    let conditional = matches!(
        name.as_str(),
        "if-modified-since"
            | "if-none-match"
            | "if-match"
            | "if-unmodified-since"
            | "if-range"
            | "range"
    );
    // nginx ignores other names.
    let usual = name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    usual && !own_or_hop && !(caching && conditional)
}

/// A trusted proxy may say these; a client may not.
fn is_forwarded(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-scheme"
            | "x-forwarded-prefix"
            | "x-forwarded-server"
            | "forwarded"
    )
}

fn headers(
    authority: &Authority,
    values: &Values<'_>,
    state: &RequestState,
) -> Result<HeaderMap, AskError> {
    let settings = &authority.settings;
    let sent = &values.request.headers;
    let mut headers = HeaderMap::with_capacity(sent.len() + 8);
    let caching = settings.cache_key.is_some();
    let trusted = state.forwarded.is_trusted();
    for (name, value) in sent {
        if is_for_authority(name, caching) && (trusted || !is_forwarded(name)) {
            headers.append(name.clone(), value.clone());
        }
    }
    join_cookies(&mut headers);
    let value = |bytes: Vec<u8>| {
        HeaderValue::from_maybe_shared(Bytes::from(bytes)).unwrap_or(HeaderValue::from_static(""))
    };
    let host = match &authority.fixed_host {
        Some(host) => host.clone(),
        None => value(settings.url.host.expand(values)),
    };
    headers.insert(header::HOST, host);
    let scheme = if values.tls { "https" } else { "http" };
    let mut url = format!("{scheme}://").into_bytes();
    url.extend_from_slice(values.http_host());
    url.extend_from_slice(values.request_uri);
    headers.insert("x-original-url", value(url));
    headers.insert("x-original-method", value(values.request.method.as_str().into()));
    headers.insert("x-sent-from", HeaderValue::from_static("nginx-ingress-controller"));
    headers.insert("x-request-id", value(values.request_id.into()));
    let client = value(values.client.to_string().into());
    headers.insert("x-real-ip", client.clone());
    headers.insert("x-forwarded-for", client);
    if settings.method.is_some() {
        headers.insert("x-original-uri", value(values.request_uri.into()));
        headers.insert("x-scheme", value(values.forwarded_scheme.into()));
    }
    let redirect = settings.request_redirect.clone();
    let redirect = redirect.unwrap_or_else(|| value(values.request_uri.into()));
    headers.insert("x-auth-request-redirect", redirect);
    for (name, value) in client_certificate::headers(state) {
        headers.insert(name, value.clone());
    }
    for (name, template) in &authority.headers {
        let text = template.expand(values);
        if text.is_empty() {
            headers.remove(name);
            continue;
        }
        let text = HeaderValue::from_bytes(&text).map_err(|_| AskError::Header(name.clone()))?;
        headers.insert(name.clone(), text);
    }
    Ok(headers)
}

/// HTTP/2 clients may send cookies in pieces; HTTP/1.1 has one header for all (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests;
