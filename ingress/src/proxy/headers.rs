//! Headers of requests to endpoints: who the client was and how it came, as ingress-nginx sets them, and
//! what the location adds. On every request: nothing here may cost more than the headers themselves.

use super::forwarded::{Forwarded, X_FORWARDED_FOR, X_FORWARDED_HOST};
use crate::options::{ForwardedOptions, HeaderOptions, Options};
use crate::snapshot::Route;
use crate::variables::Values;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{self, HOST, HeaderMap, HeaderName};
use pingora::Result;
use pingora::http::RequestHeader;
use std::io::Write;
use std::net::IpAddr;

/// The host of a request that names none.
const NO_HOST: HeaderValue = HeaderValue::from_static("_");
const PROXY: HeaderName = HeaderName::from_static("proxy");
const X_ORIGINAL_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-original-forwarded-for");
const X_ORIGINAL_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-original-forwarded-host");

/// Says who the client is. What it sent under these names is gone.
pub fn identify(
    upstream: &mut RequestHeader,
    forwarded: &Forwarded,
    options: &Options,
) -> Result<()> {
    let chain = chain(&upstream.headers, forwarded, &options.forwarded);
    drop_odd_names(upstream, &options.headers);
    let for_header = &options.forwarded.for_header;
    keep_original(upstream, for_header, &X_ORIGINAL_FORWARDED_FOR, "X-Original-Forwarded-For")?;
    let host = X_FORWARDED_HOST;
    keep_original(upstream, &host, &X_ORIGINAL_FORWARDED_HOST, "X-Original-Forwarded-Host")?;
    let host = host_value(upstream, forwarded)?;
    match forwarded.request_id_value() {
        Some(id) => upstream.insert_header("X-Request-ID", id)?,
        None => drop(upstream.remove_header("x-request-id")),
    }
    let client = ip_value(forwarded.client);
    upstream.insert_header("X-Real-IP", client.clone())?;
    upstream.insert_header("X-Forwarded-For", chain.unwrap_or(client))?;
    upstream.insert_header("X-Forwarded-Host", host)?;
    upstream.insert_header("X-Forwarded-Port", port_value(forwarded, options))?;
    let scheme = forwarded.scheme_value();
    upstream.insert_header("X-Forwarded-Proto", scheme.clone())?;
    upstream.insert_header("X-Forwarded-Scheme", scheme.clone())?;
    upstream.insert_header("X-Scheme", scheme)?;
    // A CGI endpoint would take it for its own proxy setting (HTTPoxy).
    upstream.remove_header(&PROXY);
    Ok(())
}

/// Whether a location or an option sets further headers.
pub fn adds_more(route: &Route) -> bool {
    let (response, headers) = (&route.settings.response, &route.options.headers);
    route.rewrite.is_some() && route.settings.rewriting.forwarded_prefix.is_some()
        || response.upstream_host.is_some()
        || response.connection.is_some()
        || headers.original_uri
        || !headers.for_endpoints.is_empty()
}

/// Sets the headers a location or an option asks for.
pub fn add_more(upstream: &mut RequestHeader, route: &Route, values: &Values<'_>) -> Result<()> {
    let prefix = route.settings.rewriting.forwarded_prefix.as_ref();
    if let (Some(prefix), Some(rewrite)) = (prefix, &route.rewrite) {
        let groups = rewrite.groups(values.path);
        let prefix = prefix.expand_captured(values, |group| groups.as_ref()?.get(group));
        upstream.insert_header("X-Forwarded-Prefix", prefix)?;
    }
    if let Some(vhost) = &route.settings.response.upstream_host {
        upstream.insert_header(HOST, vhost.expand(values))?;
    }
    if let Some(connection) = &route.settings.response.connection {
        upstream.insert_header(header::CONNECTION, connection.clone())?;
    }
    if route.options.headers.original_uri {
        upstream.insert_header("X-Original-URI", values.request_uri)?;
    }
    for (name, value) in &route.options.headers.for_endpoints {
        let value = match value.constant() {
            Some(value) => HeaderValue::from_str(value),
            None => HeaderValue::from_maybe_shared(Bytes::from(value.expand(values))),
        };
        // As nginx: a header whose value is empty is not sent.
        match value.ok().filter(|value| !value.is_empty()) {
            Some(value) => upstream.insert_header(name, value)?,
            None => drop(upstream.remove_header(name)),
        }
    }
    Ok(())
}

/// Takes out what goes for one connection only (RFC 9110 section 7.6.1), where we send a request
/// ourselves.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::EXPECT,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("http2-settings"),
    ] {
        headers.remove(name);
    }
}

/// Whether endpoints are told of the proxies in front, too.
pub fn adds_chain(options: &ForwardedOptions) -> bool {
    options.full_chain && options.trusted
}

/// The chain with our peer at its end, where that is asked for.
fn chain(
    headers: &HeaderMap,
    forwarded: &Forwarded,
    options: &ForwardedOptions,
) -> Option<HeaderValue> {
    if !adds_chain(options) {
        return None;
    }
    let mut chain = Vec::new();
    for line in headers.get_all(X_FORWARDED_FOR) {
        chain.extend_from_slice(line.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(forwarded.peer.to_string().as_bytes());
    HeaderValue::from_maybe_shared(Bytes::from(chain)).ok()
}

/// The host as the client knows it; endpoints get it as Host, too.
fn host_value(upstream: &mut RequestHeader, forwarded: &Forwarded) -> Result<HeaderValue> {
    if let Some(host) = forwarded.host().and_then(|host| HeaderValue::from_bytes(host).ok()) {
        upstream.insert_header(HOST, host.clone())?;
        return Ok(host);
    }
    let authority = || HeaderValue::from_str(upstream.uri.authority()?.as_str()).ok();
    if let Some(host) = upstream.headers.get(HOST).cloned().or_else(authority) {
        return Ok(host);
    }
    // HTTP/1.0 needs none, HTTP/1.1 to the endpoint does: nginx names its default server.
    upstream.insert_header(HOST, NO_HOST)?;
    Ok(NO_HOST)
}

/// Clients reach https at its own port, whatever the listener binds, unless a proxy in front says which.
pub fn port_value(forwarded: &Forwarded, options: &Options) -> HeaderValue {
    match forwarded.port_value() {
        Some(port) => port.clone(),
        None if forwarded.tls && !options.connections.proxy_protocol => {
            HeaderValue::from_static("443")
        }
        None if forwarded.port == 80 => HeaderValue::from_static("80"),
        None => HeaderValue::from(forwarded.port),
    }
}

/// Removes headers nginx would ignore (`underscores_in_headers off`, `ignore_invalid_headers on`). A CGI
/// endpoint takes `X_Real_IP` for `X-Real-IP`.
fn drop_odd_names(upstream: &mut RequestHeader, options: &HeaderOptions) {
    if !options.drop_invalid {
        return;
    }
    let usual = |byte: u8| {
        byte.is_ascii_alphanumeric() || byte == b'-' || (byte == b'_' && options.underscores)
    };
    let odd = |name: &&HeaderName| !name.as_str().bytes().all(usual);
    while let Some(name) = upstream.headers.keys().find(odd).cloned() {
        upstream.remove_header(&name);
    }
}

/// Passes on what the client sent as `from` under the name `to`, and nothing else under that name.
fn keep_original(
    upstream: &mut RequestHeader,
    from: &HeaderName,
    to: &HeaderName,
    to_text: &'static str,
) -> Result<()> {
    let mut values = upstream.headers.get_all(from).iter();
    let joined = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(only), None) => Some(only.clone()),
        _ => {
            let all: Vec<&[u8]> =
                upstream.headers.get_all(from).iter().map(HeaderValue::as_bytes).collect();
            HeaderValue::from_bytes(&all.join(&b", "[..])).ok()
        }
    };
    match joined {
        Some(original) => upstream.insert_header(to_text, original)?,
        None => drop(upstream.remove_header(to)),
    }
    Ok(())
}

pub fn ip_value(ip: IpAddr) -> HeaderValue {
    // The longest IPv6 address has 39 characters.
    let mut text = [0_u8; 48];
    let capacity = text.len();
    let mut rest = &mut text[..];
    let written = write!(rest, "{ip}").map(|()| capacity - rest.len());
    written
        .ok()
        .and_then(|length| HeaderValue::from_bytes(&text[..length]).ok())
        .unwrap_or(HeaderValue::from_static(""))
}
