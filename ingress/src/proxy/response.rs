//! What is changed in answers on their way to the client.

use super::target::RequestTarget;
use super::{RequestState, access, cors, values};
use crate::options::{HeaderOptions, Options};
use crate::variables::Template;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

const NGINX: HeaderValue = HeaderValue::from_static("nginx");
/// How headers begin that endpoints say to nginx and nobody else.
const FOR_NGINX: &str = "x-accel-";

/// Changes an endpoint's answer.
pub fn from_endpoint(answer: &mut ResponseHeader, options: &HeaderOptions) -> Result<()> {
    if !options.endpoint_server || !options.server_tokens {
        answer.remove_header(&header::SERVER);
    }
    let for_nginx = |name: &&HeaderName| name.as_str().starts_with(FOR_NGINX);
    while let Some(name) = answer.headers.keys().find(for_nginx).cloned() {
        answer.remove_header(&name);
    }
    for name in &options.hidden {
        answer.remove_header(name);
    }
    Ok(())
}

/// Changes any answer, an endpoint's as well as our own.
pub fn to_client(
    answer: &mut ResponseHeader,
    options: &Options,
    request: &RequestHeader,
    state: &RequestState,
) -> Result<()> {
    for (name, value) in &options.headers.for_clients {
        let value = match value.constant() {
            Some(value) => HeaderValue::from_str(value).ok(),
            None => filled_in(value, request, state),
        };
        if let Some(value) = value {
            answer.insert_header(name, value)?;
        }
    }
    if options.headers.server_tokens && !answer.headers.contains_key(header::SERVER) {
        answer.insert_header(header::SERVER, NGINX)?;
    }
    if state.connection.tls
        && answer.status != StatusCode::BAD_REQUEST
        && let Some(value) = &options.hsts.value
    {
        answer.insert_header(header::STRICT_TRANSPORT_SECURITY, value.clone())?;
    }
    let Some(route) = &state.route else {
        return Ok(());
    };
    if let Some(said) = &state.said {
        access::to_client(answer, route, said)?;
    }
    for (name, value) in &route.resources.custom_headers {
        answer.insert_header(name, value.clone())?;
    }
    if let Some(origin) = &state.cors_origin {
        cors::mark(answer, &route.settings.response.cors, origin)?;
    }
    Ok(())
}

fn filled_in(
    value: &Template,
    request: &RequestHeader,
    state: &RequestState,
) -> Option<HeaderValue> {
    let target = RequestTarget::read(request)?;
    let text = value.expand(&values(request, &target, state, state.route.as_deref()));
    HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
}
