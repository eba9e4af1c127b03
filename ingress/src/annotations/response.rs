//! What is changed in answers, and what stands in for errors.

use super::values::{Refusal, header_value};
use super::{Group, Row, harmless, honoured, refused};
use crate::objects::ObjectKey;

const NOT_YET: &str = "not honoured yet";

const ROWS: &[Row] = &[
    honoured("upstream-vhost"),
    refused("enable-cors", NOT_YET),
    refused("cors-allow-origin", NOT_YET),
    refused("cors-allow-methods", NOT_YET),
    refused("cors-allow-headers", NOT_YET),
    refused("cors-expose-headers", NOT_YET),
    refused("cors-allow-credentials", NOT_YET),
    refused("cors-max-age", NOT_YET),
    refused("custom-headers", NOT_YET),
    refused("custom-http-errors", NOT_YET),
    honoured("default-backend"),
    refused("disable-proxy-intercept-errors", NOT_YET),
    refused("proxy-cookie-domain", NOT_YET),
    refused("proxy-cookie-path", NOT_YET),
    refused("proxy-redirect-from", NOT_YET),
    refused("proxy-redirect-to", NOT_YET),
    refused("mirror-target", NOT_YET),
    refused("mirror-host", NOT_YET),
    refused("mirror-request-body", NOT_YET),
    refused("connection-proxy-header", NOT_YET),
    refused("http2-push-preload", NOT_YET),
    harmless("proxy-buffering", "it tunes a buffer that does not exist here"),
    harmless("proxy-buffer-size", "it tunes a buffer that does not exist here"),
    harmless("proxy-buffers-number", "it tunes a buffer that does not exist here"),
    harmless("proxy-busy-buffers-size", "it tunes a buffer that does not exist here"),
    harmless("proxy-max-temp-file-size", "it tunes a buffer that does not exist here"),
    harmless("client-body-buffer-size", "it tunes a buffer that does not exist here"),
    harmless("proxy-request-buffering", "it tunes a buffer that does not exist here"),
    refused("configuration-snippet", SNIPPET),
    refused("server-snippet", SNIPPET),
    refused("stream-snippet", SNIPPET),
    refused("enable-modsecurity", MODSECURITY),
    refused("enable-owasp-core-rules", MODSECURITY),
    refused("modsecurity-transaction-id", MODSECURITY),
    refused("modsecurity-snippet", MODSECURITY),
];

/// Answers of a location.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// `upstream-vhost`: the Host header for endpoints.
    pub upstream_host: Option<String>,
    /// `default-backend`: a Service; `Route::default_backend` is what it leads to.
    pub default_backend: Option<ObjectKey>,
}

impl Group for Response {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, ingress: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "upstream-vhost" => self.upstream_host = Some(header_value(value)?),
            "default-backend" => self.default_backend = Some(service(value, ingress)?),
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
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

const SNIPPET: &str =
    "snippets are refused: there is no nginx to run them; use a typed annotation instead";
const MODSECURITY: &str = "there is no ModSecurity here; put a web application firewall in front";
