//! How endpoints are chosen and spoken to.

use super::values::{Refusal, boolean, number, seconds};
use super::{Group, Row, honoured, refused};
use crate::objects::ObjectKey;
use std::time::Duration;

const NOT_YET: &str = "not honoured yet";

const ROWS: &[Row] = &[
    honoured("backend-protocol"),
    honoured("service-upstream"),
    honoured("proxy-connect-timeout"),
    honoured("proxy-read-timeout"),
    honoured("proxy-send-timeout"),
    honoured("proxy-next-upstream-tries"),
    refused("proxy-next-upstream", NOT_YET),
    refused("proxy-next-upstream-timeout", NOT_YET),
    refused("proxy-http-version", NOT_YET),
    refused("load-balance", NOT_YET),
    refused("upstream-hash-by", NOT_YET),
    refused("upstream-hash-by-subset", NOT_YET),
    refused("upstream-hash-by-subset-size", NOT_YET),
    refused("affinity", NOT_YET),
    refused("affinity-mode", NOT_YET),
    refused("affinity-canary-behavior", NOT_YET),
    refused("session-cookie-name", NOT_YET),
    refused("session-cookie-path", NOT_YET),
    refused("session-cookie-domain", NOT_YET),
    refused("session-cookie-secure", NOT_YET),
    refused("session-cookie-samesite", NOT_YET),
    refused("session-cookie-conditional-samesite-none", NOT_YET),
    refused("session-cookie-expires", NOT_YET),
    refused("session-cookie-max-age", NOT_YET),
    refused("session-cookie-change-on-failure", NOT_YET),
    refused("proxy-ssl-secret", NOT_YET),
    refused("proxy-ssl-verify", NOT_YET),
    refused("proxy-ssl-verify-depth", NOT_YET),
    refused("proxy-ssl-name", NOT_YET),
    refused("proxy-ssl-server-name", NOT_YET),
    refused("proxy-ssl-ciphers", NOT_YET),
    refused("proxy-ssl-protocols", NOT_YET),
];

/// Endpoints of a location.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// `proxy-connect-timeout`.
    pub connect_timeout: Duration,
    /// `proxy-read-timeout`.
    pub read_timeout: Duration,
    /// `proxy-send-timeout`.
    pub send_timeout: Duration,
    /// `proxy-next-upstream-tries`; 0 is unlimited.
    pub tries_max: usize,
    /// `backend-protocol`.
    pub protocol: BackendProtocol,
    /// `service-upstream`: use the cluster IP instead of endpoints.
    pub by_cluster_ip: bool,
}

impl Default for Upstream {
    fn default() -> Upstream {
        Upstream {
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            tries_max: 3,
            protocol: BackendProtocol::Http,
            by_cluster_ip: false,
        }
    }
}

impl Group for Upstream {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, _: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "proxy-connect-timeout" => self.connect_timeout = seconds(value)?,
            "proxy-read-timeout" => self.read_timeout = seconds(value)?,
            "proxy-send-timeout" => self.send_timeout = seconds(value)?,
            "proxy-next-upstream-tries" => self.tries_max = number(value)?,
            "backend-protocol" => self.protocol = backend_protocol(value)?,
            "service-upstream" => self.by_cluster_ip = boolean(value)?,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }
}

/// How the proxy speaks to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendProtocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/1.1 in TLS, certificates not verified.
    Https,
    /// HTTP/2 without TLS.
    Grpc,
    /// HTTP/2 in TLS.
    Grpcs,
}

fn backend_protocol(value: &str) -> Result<BackendProtocol, Refusal> {
    match value.to_ascii_uppercase().as_str() {
        "HTTP" | "AUTO_HTTP" => Ok(BackendProtocol::Http),
        "HTTPS" => Ok(BackendProtocol::Https),
        "GRPC" => Ok(BackendProtocol::Grpc),
        "GRPCS" => Ok(BackendProtocol::Grpcs),
        "FCGI" => Err(Refusal::Refused("FCGI is not spoken here; HTTP is used".into())),
        _ => Err(Refusal::invalid("want HTTP, HTTPS, GRPC, GRPCS or AUTO_HTTP")),
    }
}
