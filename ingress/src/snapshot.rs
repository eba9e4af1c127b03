//! What requests are served from: routes, endpoints and certificates of one moment, swapped as a whole.
//!
//! Built by `translate`; read-only afterwards, except for the endpoints within a `Backend`.

use crate::annotations::Settings;
use crate::balance::{Backend, BackendKey};
use crate::certificates::CertificateTable;
use crate::matcher::Matcher;
use crate::metrics::series::{RouteSeries, SeriesKey};
use crate::objects::ObjectKey;
use crate::options::Options;
use crate::resources::Resources;
use crate::rewrite::Rewrite;
use crate::shards::Shards;
use std::sync::Arc;

/// One path of one rule, or a default backend.
#[derive(Clone, Debug)]
pub struct Route {
    /// The Ingress it comes from.
    pub ingress: Arc<ObjectKey>,
    /// The rule's host for logs and metrics; `_` for none.
    pub host: Arc<str>,
    /// The rule's path for metrics.
    pub path: Arc<str>,
    /// Where requests go.
    pub backend: Arc<Backend>,
    /// Settings from annotations.
    pub settings: Arc<Settings>,
    /// What the settings name in other objects.
    pub resources: Arc<Resources>,
    /// Options of the whole controller.
    pub options: Arc<Options>,
    /// A rewrite bound to the path.
    pub rewrite: Option<Box<Rewrite>>,
    /// Takes over some of the requests.
    pub canary: Option<Arc<CanaryRoute>>,
    /// The Service of the `default-backend` annotation, by its first port: for `custom-http-errors`, and
    /// in place of `backend` while that has no endpoints. It has none itself if the Service is not there.
    pub default_backend: Option<Arc<Backend>>,
    /// The Service that is asked about requests (`auth-url`), where the URL names one. Without endpoints
    /// the name is left to DNS.
    pub authority: Option<Arc<Backend>>,
    /// What is counted for it.
    pub series: Arc<RouteSeries>,
    /// Answers 503: its configuration is wrong in a way that must not be served.
    pub closed: bool,
    /// No rule asks for it: it goes to the default backend of the controller, and answers 404 while that
    /// has no endpoints. What the first Ingress of the host says about all of it holds here too.
    pub unclaimed: bool,
}

impl Route {
    /// What is counted for a route; `host` as in `Route`.
    pub fn series(
        ingress: &Arc<ObjectKey>,
        host: &Arc<str>,
        path: &Arc<str>,
        backend: &Backend,
    ) -> Arc<RouteSeries> {
        RouteSeries::of(SeriesKey {
            host: host.clone(),
            path: path.clone(),
            ingress: ingress.clone(),
            service: backend.key.service.name.clone(),
        })
    }

    /// It serves what no Ingress asked for.
    pub fn is_default(&self) -> bool {
        self.ingress.name.is_empty()
    }
}

/// The variant of a route: another Ingress with `canary` for the same host, path and path type. The
/// location stays the main one's in everything but the choice of endpoints.
#[derive(Debug)]
pub struct CanaryRoute {
    /// Its settings: `canary` says which requests it takes.
    pub settings: Arc<Settings>,
    /// Where they go.
    pub backend: Arc<Backend>,
}

/// The rules of one host.
#[derive(Clone, Debug, Default)]
pub struct HostRoutes {
    /// Rules by path.
    pub matcher: Matcher<Arc<Route>>,
    /// What no rule matches: `spec.defaultBackend` of the Ingress that first named the host, or the
    /// default backend of the controller under that Ingress's settings.
    pub fallback: Option<Arc<Route>>,
    /// The host is here only to send clients to this one (`from-to-www-redirect`): there are no rules.
    pub www_redirect: Option<Arc<str>>,
    /// `/` of the host is redirected to this path (`app-root`), whatever serves it otherwise.
    pub app_root: Option<Arc<str>>,
    /// The host is named under `spec.tls`.
    pub tls: bool,
}

impl HostRoutes {
    /// Some or all of its requests are redirected before a rule is looked for.
    pub fn sends_elsewhere(&self) -> bool {
        self.www_redirect.is_some() || self.app_root.is_some()
    }
}

/// Everything a request needs. A copy shares what is the same.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Options of the whole controller.
    pub options: Arc<Options>,
    /// Rules by host.
    pub hosts: Shards<Arc<str>, Arc<HostRoutes>>,
    /// Rules by what follows `*.`.
    pub wildcards: Shards<Arc<str>, Arc<HostRoutes>>,
    /// Rules without a host.
    pub any_host: Option<Arc<HostRoutes>>,
    /// The default backend of the whole controller.
    pub fallback: Option<Arc<Route>>,
    /// Backends in use.
    pub backends: Shards<Arc<BackendKey>, Arc<Backend>>,
    /// Certificates by host.
    pub certificates: CertificateTable,
}

impl Snapshot {
    /// Sets or removes the rules of a host as an Ingress writes it.
    pub fn set_host(&mut self, host: &str, routes: Option<Arc<HostRoutes>>) {
        let (table, name) = match host.strip_prefix("*.") {
            _ if host.is_empty() => {
                self.any_host = routes;
                return;
            }
            Some(suffix) => (&mut self.wildcards, suffix),
            None => (&mut self.hosts, host),
        };
        match routes {
            Some(routes) => table.insert(name.into(), routes),
            None => drop(table.remove(name)),
        }
    }

    /// The rules for a host: its own, its wildcard's, else those without a host. `host` is lower-case
    /// and without a port.
    pub fn host(&self, host: &str) -> Option<&Arc<HostRoutes>> {
        self.hosts.get(host).or_else(|| self.wildcard(host)).or(self.any_host.as_ref())
    }

    /// The rules of the wildcard a host falls under, whether or not it has its own.
    pub fn wildcard(&self, host: &str) -> Option<&Arc<HostRoutes>> {
        let (label, parent) = host.split_once('.')?;
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let is_label = !label.is_empty() && label.bytes().all(known);
        self.wildcards.get(parent).filter(|_| is_label)
    }

    /// The route by the rules of a host for a normalised path.
    pub fn route_by<'a>(
        &'a self,
        rules: Option<&'a Arc<HostRoutes>>,
        path: &[u8],
    ) -> Option<&'a Arc<Route>> {
        let route = rules.and_then(|rules| rules.matcher.find(path).or(rules.fallback.as_ref()));
        route.or(self.fallback.as_ref())
    }
}
