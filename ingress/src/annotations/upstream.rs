//! How endpoints are chosen and spoken to.

pub mod affinity;
pub mod health;
pub mod retry;
pub mod tls;

use super::values::{Refusal, boolean, number, seconds};
use super::{Group, Row, harmless, honoured};
use crate::objects::{Kind, ObjectKey};
use crate::variables::Template;
use affinity::Affinity;
use health::Health;
use retry::{Conditions, Retry};
use std::sync::Arc;
use std::time::Duration;
use tls::UpstreamTls;

const ROWS: &[Row] = &[
    honoured("backend-protocol"),
    honoured("service-upstream"),
    honoured("proxy-connect-timeout"),
    honoured("proxy-read-timeout"),
    honoured("proxy-send-timeout"),
    honoured("proxy-next-upstream"),
    honoured("proxy-next-upstream-timeout"),
    honoured("proxy-next-upstream-tries"),
    honoured("proxy-http-version"),
    honoured("load-balance"),
    honoured("upstream-hash-by"),
    honoured("upstream-hash-by-subset"),
    honoured("upstream-hash-by-subset-size"),
    honoured("affinity"),
    honoured("affinity-mode"),
    honoured("affinity-canary-behavior"),
    honoured("session-cookie-name"),
    honoured("session-cookie-path"),
    honoured("session-cookie-domain"),
    honoured("session-cookie-secure"),
    honoured("session-cookie-samesite"),
    honoured("session-cookie-conditional-samesite-none"),
    honoured("session-cookie-expires"),
    honoured("session-cookie-max-age"),
    honoured("session-cookie-change-on-failure"),
    honoured("proxy-ssl-secret"),
    honoured("proxy-ssl-verify"),
    harmless(
        "proxy-ssl-verify-depth",
        "a chain may be as long as the path lengths in its own certificates allow",
    ),
    honoured("proxy-ssl-name"),
    honoured("proxy-ssl-server-name"),
    honoured("proxy-ssl-ciphers"),
    honoured("proxy-ssl-protocols"),
    honoured("podium.dev/health-check-path"),
    honoured("podium.dev/health-check-interval"),
    honoured("podium.dev/health-check-timeout"),
    honoured("podium.dev/health-check-healthy-threshold"),
    honoured("podium.dev/health-check-unhealthy-threshold"),
    honoured("podium.dev/max-fails"),
    honoured("podium.dev/fail-timeout"),
    honoured("podium.dev/slow-start"),
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
    /// `proxy-next-upstream*`.
    pub retry: Retry,
    /// `backend-protocol`.
    pub protocol: BackendProtocol,
    /// `proxy-http-version: "1.0"`.
    pub http_1_0: bool,
    /// `service-upstream`: use the cluster IP instead of endpoints.
    pub by_cluster_ip: bool,
    /// `load-balance`, unless `hash_by` says otherwise.
    pub least_latency: bool,
    /// `upstream-hash-by`.
    pub hash_by: Option<Arc<Template>>,
    /// `upstream-hash-by-subset`.
    pub hash_subset: bool,
    /// `upstream-hash-by-subset-size`.
    pub hash_subset_size: usize,
    /// `affinity` and all about its cookie.
    pub affinity: Affinity,
    /// TLS with endpoints.
    pub tls: UpstreamTls,
    /// Which endpoints are left alone for a while.
    pub health: Health,
}

impl Default for Upstream {
    fn default() -> Upstream {
        Upstream {
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            retry: Retry::default(),
            protocol: BackendProtocol::Http,
            http_1_0: false,
            by_cluster_ip: false,
            least_latency: false,
            hash_by: None,
            hash_subset: false,
            hash_subset_size: 3,
            affinity: Affinity::default(),
            tls: UpstreamTls::default(),
            health: Health::default(),
        }
    }
}

impl Group for Upstream {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, ingress: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "proxy-connect-timeout" => self.connect_timeout = seconds(value)?,
            "proxy-read-timeout" => self.read_timeout = seconds(value)?,
            "proxy-send-timeout" => self.send_timeout = seconds(value)?,
            "proxy-next-upstream" => self.retry.on = Conditions::parse(value)?,
            "proxy-next-upstream-tries" => self.retry.tries_max = number(value)?,
            "proxy-next-upstream-timeout" => self.retry.timeout = retry::timeout(value)?,
            "proxy-http-version" => self.http_1_0 = http_version(value)?,
            "backend-protocol" => self.protocol = backend_protocol(value)?,
            "service-upstream" => self.by_cluster_ip = boolean(value)?,
            "load-balance" => self.least_latency = load_balance(value)?,
            "upstream-hash-by" => self.hash_by = hash_by(value)?,
            "upstream-hash-by-subset" => self.hash_subset = boolean(value)?,
            "upstream-hash-by-subset-size" => self.hash_subset_size = subset_size(value)?,
            _ => {
                return match name.strip_prefix(health::PREFIX) {
                    Some(name) => self.health.apply(name, value),
                    None if name.starts_with("proxy-ssl-") => self.tls.apply(name, value, ingress),
                    None => self.affinity.apply(name, value),
                };
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Vec<(&'static str, Refusal)> {
        let mut refused = self.tls.finish();
        refused.extend(self.health.finish(self.protocol, &self.tls));
        if self.by_cluster_ip && self.affinity.cookie {
            self.affinity.cookie = false;
            refused.push((
                "affinity",
                Refusal::Refused(
                    "has no effect with service-upstream, which hides the endpoints; use \
                     sessionAffinity of the Service"
                        .into(),
                ),
            ));
        }
        refused
    }

    fn named_objects(&self) -> Vec<(Kind, ObjectKey)> {
        self.tls.secret.iter().map(|secret| (Kind::Secret, secret.clone())).collect()
    }
}

/// How the proxy speaks to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendProtocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/1.1 in TLS.
    Https,
    /// HTTP/1.1, in TLS where the client used TLS.
    SameAsClient,
    /// HTTP/2 without TLS.
    Grpc,
    /// HTTP/2 in TLS.
    Grpcs,
}

impl BackendProtocol {
    /// Whether it is HTTP/2.
    pub fn is_h2(self) -> bool {
        matches!(self, BackendProtocol::Grpc | BackendProtocol::Grpcs)
    }

    /// Whether it goes through TLS for a client that does or does not.
    pub fn is_tls(self, client_tls: bool) -> bool {
        match self {
            BackendProtocol::Https | BackendProtocol::Grpcs => true,
            BackendProtocol::SameAsClient => client_tls,
            BackendProtocol::Http | BackendProtocol::Grpc => false,
        }
    }
}

fn backend_protocol(value: &str) -> Result<BackendProtocol, Refusal> {
    match value.to_ascii_uppercase().as_str() {
        "HTTP" => Ok(BackendProtocol::Http),
        "AUTO_HTTP" => Ok(BackendProtocol::SameAsClient),
        "HTTPS" => Ok(BackendProtocol::Https),
        "GRPC" => Ok(BackendProtocol::Grpc),
        "GRPCS" => Ok(BackendProtocol::Grpcs),
        "FCGI" => Err(Refusal::closes("FCGI is not spoken here; put an HTTP server before it")),
        _ => Err(Refusal::invalid("want HTTP, HTTPS, GRPC, GRPCS or AUTO_HTTP")),
    }
}

fn http_version(value: &str) -> Result<bool, Refusal> {
    match value {
        "1.0" => Ok(true),
        "1.1" => Ok(false),
        _ => Err(Refusal::invalid("want 1.0 or 1.1")),
    }
}

fn load_balance(value: &str) -> Result<bool, Refusal> {
    match value {
        "round_robin" => Ok(false),
        "ewma" => Ok(true),
        _ => Err(Refusal::invalid("want round_robin or ewma")),
    }
}

fn hash_by(value: &str) -> Result<Option<Arc<Template>>, Refusal> {
    if value.is_empty() {
        return Ok(None);
    }
    let template = Template::parse(value).map_err(|error| Refusal::invalid(error.to_string()))?;
    Ok(Some(Arc::new(template)))
}

fn subset_size(value: &str) -> Result<usize, Refusal> {
    match value.parse() {
        Ok(size @ 1..) => Ok(size),
        _ => Err(Refusal::invalid("want a positive number of endpoints")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(pairs: &[(&str, &str)]) -> (Upstream, Vec<String>) {
        let ingress = ObjectKey::new("shop", "web");
        let mut upstream = Upstream::default();
        let mut refused = Vec::new();
        for (name, value) in pairs {
            if let Err(refusal) = upstream.apply(name, value, &ingress) {
                refused.push(refusal.problem(&ingress, name, Some(value)).to_string());
            }
        }
        for (name, refusal) in upstream.finish() {
            refused.push(refusal.problem(&ingress, name, None).to_string());
        }
        (upstream, refused)
    }

    #[test]
    fn every_row_is_applied() {
        for row in ROWS.iter().filter(|row| row.support == crate::annotations::Support::Honoured) {
            let mut upstream = Upstream::default();
            let refusal = upstream.apply(row.name, "\u{1}", &ObjectKey::new("shop", "web"));
            assert_ne!(refusal, Err(Refusal::Unknown), "{}", row.name);
        }
    }

    #[test]
    fn backend_protocol_values() {
        for (value, protocol, tls) in [
            ("http", BackendProtocol::Http, false),
            ("HTTPS", BackendProtocol::Https, true),
            ("AUTO_HTTP", BackendProtocol::SameAsClient, true),
            ("GRPC", BackendProtocol::Grpc, false),
            ("grpcs", BackendProtocol::Grpcs, true),
        ] {
            let (upstream, refused) = apply(&[("backend-protocol", value)]);
            assert!(refused.is_empty(), "{refused:?}");
            assert_eq!((upstream.protocol, upstream.protocol.is_tls(true)), (protocol, tls));
        }
        let (_, refused) = apply(&[("backend-protocol", "FCGI")]);
        assert!(refused[0].ends_with("its locations answer 503"), "{refused:?}");
    }

    #[test]
    fn wrong_values_keep_defaults() {
        for (name, value) in [
            ("load-balance", "ip_hash"),
            ("upstream-hash-by", "$nonsense"),
            ("upstream-hash-by-subset-size", "0"),
            ("proxy-http-version", "2"),
            ("proxy-next-upstream", "error sometimes"),
            ("proxy-next-upstream-tries", "-1"),
            ("proxy-next-upstream-timeout", "soon"),
            ("affinity", "ip"),
            ("affinity-mode", "loose"),
            ("session-cookie-name", "a b"),
            ("session-cookie-expires", "tomorrow"),
            ("session-cookie-samesite", "Sometimes"),
        ] {
            let (upstream, refused) = apply(&[(name, value)]);
            assert_eq!(upstream, Upstream::default(), "{name}");
            assert!(refused.len() == 1 && refused[0].contains(name), "{name}: {refused:?}");
        }
    }
}
