//! What is changed in requests to endpoints and in their answers, and what stands in for errors.

pub mod cors;
pub mod mirror;
pub mod replacement;

use super::values::{Refusal, boolean, header_value, list, object_key};
use super::{Group, Row, harmless, honoured, refused};
use crate::objects::{Kind, ObjectKey};
use crate::variables::Template;
use cors::Cors;
use http::HeaderValue;
use mirror::Mirror;
use replacement::Replacement;

const ROWS: &[Row] = &[
    honoured("upstream-vhost"),
    honoured("enable-cors"),
    honoured("cors-allow-origin"),
    honoured("cors-allow-methods"),
    honoured("cors-allow-headers"),
    honoured("cors-expose-headers"),
    honoured("cors-allow-credentials"),
    honoured("cors-max-age"),
    honoured("custom-headers"),
    honoured("custom-http-errors"),
    honoured("default-backend"),
    honoured("disable-proxy-intercept-errors"),
    honoured("proxy-cookie-domain"),
    honoured("proxy-cookie-path"),
    honoured("proxy-redirect-from"),
    honoured("proxy-redirect-to"),
    honoured("mirror-target"),
    honoured("mirror-host"),
    honoured("mirror-request-body"),
    honoured("connection-proxy-header"),
    harmless(
        "http2-push-preload",
        "no browser takes HTTP/2 pushes any more; Link headers pass as they are",
    ),
    harmless("proxy-buffering", STREAMED),
    harmless("proxy-buffer-size", STREAMED),
    harmless("proxy-buffers-number", STREAMED),
    harmless("proxy-busy-buffers-size", STREAMED),
    harmless("proxy-max-temp-file-size", STREAMED),
    harmless("client-body-buffer-size", STREAMED),
    harmless("proxy-request-buffering", STREAMED),
    refused("configuration-snippet", LOCATION_SNIPPET),
    refused("server-snippet", SERVER_SNIPPET),
    refused("stream-snippet", STREAM_SNIPPET),
    refused("enable-modsecurity", MODSECURITY),
    refused("enable-owasp-core-rules", MODSECURITY),
    refused("modsecurity-transaction-id", MODSECURITY),
    refused("modsecurity-snippet", MODSECURITY),
];

const STREAMED: &str = "bodies are streamed: there is no such buffer";
const LOCATION_SNIPPET: &str = "snippets are refused: there is no nginx to run them. Use custom-headers for add_header and \
     more_set_headers, permanent-redirect, temporal-redirect or rewrite-target for return and rewrite, \
     whitelist-source-range and denylist-source-range for allow and deny, limit-rps and limit-connections for \
     limit_req and limit_conn, proxy-cookie-path, proxy-redirect-from, upstream-vhost, enable-cors and auth-url for \
     what their names say, and the ConfigMap option proxy-set-headers for proxy_set_header";
const SERVER_SNIPPET: &str = "snippets are refused: there is no nginx to run them. Use server-alias for server_name, app-root, \
     permanent-redirect or from-to-www-redirect for return, a path of an Ingress for location, custom-headers \
     for add_header, auth-tls-secret for ssl_verify_client, and the ConfigMap options block-user-agents, \
     block-referers and block-cidrs for if with return 403";
const STREAM_SNIPPET: &str = "snippets are refused: there is no nginx to run them, and this controller serves HTTP only. Use a \
     Service of type LoadBalancer or NodePort for TCP and UDP, and ssl-passthrough for TLS by name";
const MODSECURITY: &str = "there is no ModSecurity here. Put a web application firewall in front of this controller or before \
     the Service, or ask one by auth-url; whitelist-source-range, limit-rps and proxy-body-size cover the \
     simplest of its rules";

/// Answers of a location, and what endpoints see beside the path.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// `upstream-vhost`: the Host header for endpoints.
    pub upstream_host: Option<Template>,
    /// `connection-proxy-header`: the Connection header for endpoints.
    pub connection: Option<HeaderValue>,
    /// `default-backend`: a Service; `Route::default_backend` is what it leads to.
    pub default_backend: Option<ObjectKey>,
    /// `custom-http-errors`: statuses in whose place the default backend answers, sorted.
    pub error_statuses: Vec<u16>,
    /// Not `disable-proxy-intercept-errors`: that goes for statuses of endpoints too.
    pub intercept: bool,
    /// Cross-origin requests.
    pub cors: Cors,
    /// `custom-headers`: a ConfigMap; `Resources::custom_headers` is what it holds.
    pub custom_headers: Option<ObjectKey>,
    /// `proxy-cookie-domain`.
    pub cookie_domain: Option<Replacement>,
    /// `proxy-cookie-path`.
    pub cookie_path: Option<Replacement>,
    /// `proxy-redirect-from` and `-to`, of Location and Refresh.
    pub redirect: Option<Replacement>,
    /// Copies of requests.
    pub mirror: Mirror,
    /// `proxy-redirect-from`.
    pub redirect_from: Option<String>,
    /// `proxy-redirect-to`.
    pub redirect_to: Option<String>,
}

impl Default for Response {
    fn default() -> Response {
        Response {
            upstream_host: None,
            connection: None,
            default_backend: None,
            error_statuses: Vec::new(),
            intercept: true,
            cors: Cors::default(),
            custom_headers: None,
            cookie_domain: None,
            cookie_path: None,
            redirect: None,
            mirror: Mirror::default(),
            redirect_from: None,
            redirect_to: None,
        }
    }
}

impl Response {
    /// Whether the default backend answers in place of this status.
    pub fn replaces(&self, status: u16) -> bool {
        !self.error_statuses.is_empty() && self.error_statuses.binary_search(&status).is_ok()
    }

    /// Whether headers of endpoints' answers are rewritten.
    pub fn rewrites_headers(&self) -> bool {
        self.redirect.is_some() || self.cookie_domain.is_some() || self.cookie_path.is_some()
    }
}

impl Group for Response {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, ingress: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "upstream-vhost" => self.upstream_host = Some(vhost(value)?),
            "connection-proxy-header" => self.connection = Some(connection(value)?),
            "default-backend" => self.default_backend = Some(service(value, ingress)?),
            "custom-http-errors" => self.error_statuses = error_statuses(value)?,
            "disable-proxy-intercept-errors" => self.intercept = !boolean(value)?,
            "custom-headers" => {
                let named = object_key(value, ingress);
                // They are often there to protect: no answer goes out without them.
                self.custom_headers = Some(named.map_err(|_| {
                    Refusal::closes("want the name of a ConfigMap, or namespace/name")
                })?);
            }
            "proxy-cookie-domain" => self.cookie_domain = Replacement::parse(value)?,
            "proxy-cookie-path" => self.cookie_path = Replacement::parse(value)?,
            "proxy-redirect-from" => self.redirect_from = Some(value.into()),
            "proxy-redirect-to" => self.redirect_to = Some(value.into()),
            _ if name.starts_with("mirror-") => return self.mirror.apply(name, value),
            _ => return self.cors.apply(name, value),
        }
        Ok(())
    }

    fn finish(&mut self) -> Vec<(&'static str, Refusal)> {
        // `default` stands for the address of endpoints, which no endpoint knows here.
        let text = |set: &Option<String>| {
            let text = set.clone().filter(|text| !text.is_empty());
            text.unwrap_or_else(|| "off".into())
        };
        let (from, to) = (text(&self.redirect_from), text(&self.redirect_to));
        self.redirect = None;
        match (from.as_str(), to.as_str()) {
            ("off" | "default", _) => Vec::new(),
            (_, "off") => {
                let why = "has no effect without proxy-redirect-to";
                vec![("proxy-redirect-from", Refusal::Refused(why.into()))]
            }
            _ => match Replacement::new(&from, &to) {
                Ok(replacement) => {
                    self.redirect = Some(replacement);
                    Vec::new()
                }
                Err(refusal) => vec![("proxy-redirect-from", refusal)],
            },
        }
    }

    fn named_objects(&self) -> Vec<(Kind, ObjectKey)> {
        self.custom_headers.iter().map(|key| (Kind::ConfigMap, key.clone())).collect()
    }
}

/// A Service of the Ingress's own namespace.
fn service(value: &str, ingress: &ObjectKey) -> Result<ObjectKey, Refusal> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if value.is_empty() || !value.bytes().all(allowed) {
        return Err(Refusal::invalid("want the name of a Service in the namespace of the Ingress"));
    }
    Ok(ObjectKey::new(&ingress.namespace, value))
}

fn vhost(value: &str) -> Result<Template, Refusal> {
    let value = header_value(value)?;
    if value.contains([' ', '/']) {
        return Err(Refusal::invalid("want a host, with or without a port"));
    }
    Template::parse(&value).map_err(|error| Refusal::Refused(format!("{value:?} {error}")))
}

fn connection(value: &str) -> Result<HeaderValue, Refusal> {
    match value {
        "close" => Ok(HeaderValue::from_static("close")),
        "keep-alive" => Ok(HeaderValue::from_static("keep-alive")),
        _ => Err(Refusal::invalid("want close or keep-alive")),
    }
}

fn error_statuses(value: &str) -> Result<Vec<u16>, Refusal> {
    let statuses: Option<Vec<u16>> = list(value)
        .map(|entry| entry.parse().ok().filter(|status| (400..=599).contains(status)))
        .collect();
    let mut statuses = statuses
        .ok_or_else(|| Refusal::invalid("want statuses from 400 to 599, separated by commas"))?;
    statuses.sort_unstable();
    statuses.dedup();
    Ok(statuses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Response, Vec<String>) {
        let mut response = Response::default();
        let ingress = ObjectKey::new("shop", "web");
        let said = |refusal: Refusal| refusal.problem(&ingress, "x", None).message;
        let mut refused: Vec<String> = pairs
            .iter()
            .filter_map(|(name, value)| response.apply(name, value, &ingress).err())
            .map(said)
            .collect();
        refused.extend(response.finish().into_iter().map(|(_, refusal)| said(refusal)));
        (response, refused)
    }

    #[test]
    fn statuses_of_errors() {
        let (response, _) = read(&[("custom-http-errors", "503, 404,404,")]);
        assert_eq!(response.error_statuses, [404, 503]);
        assert!(response.replaces(404) && !response.replaces(500));
        for value in ["200", "600", "4xx", "404 503"] {
            let (response, refused) = read(&[("custom-http-errors", value)]);
            assert!(response.error_statuses.is_empty() && refused.len() == 1, "{value}");
        }
    }

    #[test]
    fn redirects_are_rewritten_by_a_pair() {
        let pair = [("proxy-redirect-from", "http://in/"), ("proxy-redirect-to", "/")];
        assert!(read(&pair).0.redirect.is_some());
        for one in [&pair[..1], &pair[1..]] {
            assert!(read(one).0.redirect.is_none());
        }
        let lonely = &read(&pair[..1]).1;
        assert_eq!(lonely, &["has no effect without proxy-redirect-to"]);
        for from in ["off", "default"] {
            let (response, refused) =
                read(&[("proxy-redirect-from", from), ("proxy-redirect-to", "/")]);
            assert!(response.redirect.is_none() && refused.is_empty(), "{from}");
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        for (name, value, why) in [
            ("connection-proxy-header", "upgrade", "want close or keep-alive"),
            ("upstream-vhost", "a b", "want a host"),
            ("upstream-vhost", "$unicorn", "the variable $unicorn"),
            ("default-backend", "other/svc", "want the name of a Service"),
            ("disable-proxy-intercept-errors", "si", "want true or false"),
            ("custom-headers", "a/b/c", "its locations answer 503"),
            ("proxy-cookie-path", "/one", "want off, or what to replace"),
            ("proxy-cookie-domain", "a $unicorn", "the variable $unicorn"),
            ("mirror-request-body", "true", "want on or off"),
            ("mirror-target", "test.example", "want http:// or https://"),
        ] {
            let (response, refused) = read(&[(name, value)]);
            assert!(refused.len() == 1 && refused[0].contains(why), "{name} {value}: {refused:?}");
            assert_eq!(response, Response::default(), "{name}");
        }
    }
}
