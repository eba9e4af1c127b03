//! What requests are served from: routes, endpoints and certificates of one moment, swapped as a whole.
//!
//! Built by `translate`; read-only afterwards, except for the round-robin counters.

use crate::annotations::Settings;
use crate::certificates::{Certificate, CertificateTable};
use crate::matcher::Matcher;
use crate::objects::ObjectKey;
use crate::rewrite::Rewrite;
use regex::bytes::Regex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A Service and the port an Ingress names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey {
    /// The Service.
    pub service: ObjectKey,
    /// Port number or name, as the Ingress writes it.
    pub port: String,
    /// Through the cluster IP instead of endpoints.
    pub by_cluster_ip: bool,
}

/// The endpoints of a Service port.
#[derive(Debug)]
pub struct Backend {
    /// What it is.
    pub key: BackendKey,
    /// `namespace-service-port`, the name ingress-nginx logs.
    pub upstream_name: String,
    /// Where to connect; empty answers 503.
    pub endpoints: Box<[SocketAddr]>,
    next: AtomicUsize,
}

impl Backend {
    /// A backend that takes up the rotation where `previous` left it.
    pub fn new(
        key: BackendKey,
        endpoints: Box<[SocketAddr]>,
        previous: Option<&Backend>,
    ) -> Backend {
        let upstream_name = format!("{}-{}-{}", key.service.namespace, key.service.name, key.port);
        let next = previous.map_or(0, |previous| previous.next.load(Ordering::Relaxed));
        Backend { key, upstream_name, endpoints, next: AtomicUsize::new(next) }
    }

    /// The next endpoint in turn, one not in `tried` if there is any.
    pub fn pick(&self, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let count = self.endpoints.len();
        if count == 0 {
            return None;
        }
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = |step: usize| self.endpoints[start.wrapping_add(step) % count];
        (0..count).map(turn).find(|endpoint| !tried.contains(endpoint)).or_else(|| Some(turn(0)))
    }
}

/// One path of one rule, or a default backend.
#[derive(Debug)]
pub struct Route {
    /// The Ingress it comes from.
    pub ingress: ObjectKey,
    /// The rule's host for logs and metrics; `_` for none.
    pub host: String,
    /// The rule's path for metrics.
    pub path: String,
    /// Where requests go.
    pub backend: Arc<Backend>,
    /// Settings from annotations.
    pub settings: Arc<Settings>,
    /// A rewrite bound to the path.
    pub rewrite: Option<Rewrite>,
    /// Answers 503: its configuration is wrong in a way that must not be served.
    pub closed: bool,
}

/// The rules of one host.
#[derive(Debug)]
pub struct HostRoutes {
    /// Rules by path.
    pub matcher: Matcher<Arc<Route>>,
    /// `spec.defaultBackend` of the Ingress that first named the host.
    pub fallback: Option<Arc<Route>>,
    /// The host is named under `spec.tls`.
    pub tls: bool,
}

/// Everything a request needs.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Rules by host.
    pub hosts: HashMap<String, Arc<HostRoutes>>,
    /// Rules by what follows `*.`.
    pub wildcards: HashMap<String, Arc<HostRoutes>>,
    /// Rules without a host.
    pub any_host: Option<Arc<HostRoutes>>,
    /// The default backend of the whole controller.
    pub fallback: Option<Arc<Route>>,
    /// Backends by key, for retries after endpoints changed.
    pub backends: HashMap<BackendKey, Arc<Backend>>,
    /// Certificates by host.
    pub certificates: CertificateTable,
    /// Certificates by Secret, kept to notice changes and to outlive broken ones.
    pub certificates_by_secret: HashMap<ObjectKey, Arc<Certificate>>,
    /// Compiled expressions, carried from snapshot to snapshot.
    pub expressions: HashMap<String, Arc<Regex>>,
}

impl Snapshot {
    /// The rules for a host: its own, its wildcard's, else those without a host. `host` is lower-case
    /// and without a port.
    pub fn host(&self, host: &str) -> Option<&Arc<HostRoutes>> {
        self.hosts
            .get(host)
            .or_else(|| {
                let (label, parent) = host.split_once('.')?;
                self.wildcards.get(parent).filter(|_| !label.is_empty())
            })
            .or(self.any_host.as_ref())
    }

    /// The route for a host and a normalised path, and whether the host has TLS.
    pub fn route(&self, host: &str, path: &[u8]) -> (Option<&Arc<Route>>, bool) {
        let rules = self.host(host);
        let route = rules.and_then(|rules| rules.matcher.find(path).or(rules.fallback.as_ref()));
        (route.or(self.fallback.as_ref()), rules.is_some_and(|rules| rules.tls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(endpoints: &[&str]) -> Backend {
        let key = BackendKey {
            service: ObjectKey::new("shop", "web"),
            port: "80".into(),
            by_cluster_ip: false,
        };
        Backend::new(key, endpoints.iter().map(|e| e.parse().unwrap()).collect(), None)
    }

    #[test]
    fn endpoints_take_turns() {
        let web = backend(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        let picks: Vec<String> = (0..6).map(|_| web.pick(&[]).unwrap().ip().to_string()).collect();
        assert_eq!(picks, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let again = Backend::new(web.key.clone(), web.endpoints.clone(), Some(&web));
        again.pick(&[]);
        assert_eq!(again.pick(&[]).unwrap().ip().to_string(), "10.0.0.2");
    }

    #[test]
    fn a_retry_avoids_what_was_tried() {
        let web = backend(&["10.0.0.1:80", "10.0.0.2:80"]);
        let first = web.pick(&[]).unwrap();
        for _ in 0..4 {
            assert_ne!(web.pick(&[first]).unwrap(), first);
        }
        let single = backend(&["10.0.0.1:80"]);
        assert_eq!(single.pick(&[first]), Some(first));
        assert_eq!(backend(&[]).pick(&[]), None);
    }
}
