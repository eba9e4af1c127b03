//! Answers that send the client elsewhere.
//!
//! In nginx's order: what the whole host does comes before the location is looked at, and a location that
//! sends everything away does so before it would send to https.

use super::IngressProxy;
use super::answers::Answer;
use super::forwarded::Forwarded;
use crate::snapshot::{HostRoutes, Route};
use crate::variables::Values;

/// What redirects need to know of the host.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// It can be reached by https with a certificate of its own.
    pub certified: bool,
}

/// Sends a client elsewhere where the whole host does: to or from `www.`, or from `/` to the application.
pub fn of_host(
    proxy: &IngressProxy,
    rules: &HostRoutes,
    code: u16,
    values: &Values<'_>,
    forwarded: &Forwarded,
) -> Result<(), Answer> {
    if let Some(to) = &rules.www_redirect {
        let own = if values.tls { proxy.https_redirect_port.unwrap_or(443) } else { values.port };
        let port = forwarded.port_text().map_or_else(|| own.to_string(), str::to_owned);
        let mut location = format!("{}://{to}:{port}", values.forwarded_scheme).into_bytes();
        location.extend_from_slice(without_last_slash(values.request_uri));
        return Err(Answer::redirect(code, location));
    }
    match &rules.app_root {
        Some(root) if values.path == b"/" => Err(Answer::redirect(302, to_root(root, values))),
        _ => Ok(()),
    }
}

/// Sends a client elsewhere where every request of the location goes there.
pub fn everything(route: &Route, values: &Values<'_>) -> Result<(), Answer> {
    match route.settings.redirects.everything() {
        Some((status, to)) => {
            let location = absolute(to.expand(values), route, values);
            Err(Answer::redirect(status, location))
        }
        None => Ok(()),
    }
}

/// Sends a client to https where the route says so.
pub fn to_https(
    proxy: &IngressProxy,
    route: &Route,
    host: Host,
    values: &Values<'_>,
    forwarded: &Forwarded,
) -> Result<(), Answer> {
    let redirects = &route.settings.redirects;
    let wanted = redirects.to_https_always || (redirects.to_https && host.certified);
    // By the rule as in ingress-nginx, and by the request, whoever serves it.
    let plain = |start: &String| {
        route.path.starts_with(start.as_str()) || values.path.starts_with(start.as_bytes())
    };
    if !wanted
        || values.forwarded_scheme != "http"
        || route.is_default()
        || route.options.redirects.plain_paths.iter().any(plain)
    {
        return Ok(());
    }
    let port = proxy.https_redirect_port.filter(|port| *port != 443);
    let port = port.or_else(|| proxy.https_port.filter(|_| redirects.name_port));
    let mut location = b"https://".to_vec();
    location.extend_from_slice(without_port(forwarded.best_host(values)));
    if let Some(port) = port {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    location.extend_from_slice(match redirects.keep_trailing_slash {
        true => values.request_uri,
        false => without_last_slash(values.request_uri),
    });
    Err(Answer::redirect(route.options.redirects.code, location))
}

/// nginx makes a redirect to a path one to our host, unless told otherwise.
pub fn absolute(location: Vec<u8>, route: &Route, values: &Values<'_>) -> Vec<u8> {
    let redirects = &route.settings.redirects;
    if location.first() != Some(&b'/') || redirects.relative || values.host.is_empty() {
        return location;
    }
    let (scheme, usual_port) = if values.tls { ("https", 443) } else { ("http", 80) };
    let mut out = format!("{scheme}://{}", values.host).into_bytes();
    if redirects.name_port && values.port != usual_port {
        out.extend_from_slice(format!(":{}", values.port).as_bytes());
    }
    out.extend_from_slice(&location);
    out
}

/// `$scheme://$http_host` and the root; the root alone for a client that named no host.
fn to_root(root: &str, values: &Values<'_>) -> Vec<u8> {
    let scheme = if values.tls { "https" } else { "http" };
    let host = values.http_host();
    match host.is_empty() {
        true => root.into(),
        false => [scheme.as_bytes(), b"://", host, root.as_bytes()].concat(),
    }
}

/// As ingress-nginx writes addresses: one trailing slash goes.
fn without_last_slash(uri: &[u8]) -> &[u8] {
    uri.strip_suffix(b"/").unwrap_or(uri)
}

fn without_port(host: &[u8]) -> &[u8] {
    // The colons of an IPv6 address stand in brackets.
    let address_end = host.iter().position(|byte| *byte == b']').unwrap_or(0);
    let colon = host[address_end..].iter().position(|byte| *byte == b':');
    colon.map_or(host, |colon| &host[..address_end + colon])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_cut_off_hosts() {
        for (host, bare) in [
            ("Shop.example:8080", "Shop.example"),
            ("shop.example", "shop.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(without_port(host.as_bytes()), bare.as_bytes(), "{host}");
        }
    }
}
