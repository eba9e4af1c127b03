//! Which endpoints a request chooses among, and by what: the main backend or its canary, in turn, by
//! latency, by hash or by cookie. As ingress-nginx's balancer decides it.

use super::sticky::{self, Session};
use crate::annotations::upstream::Upstream;
use crate::annotations::upstream::affinity::Affinity;
use crate::balance::{Ask, Backend, Endpoint, Moment, Policy, hash};
use crate::snapshot::{CanaryRoute, Route};
use crate::variables::Values;
use pingora::http::RequestHeader;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a choice reads of a request.
pub struct Client<'a> {
    /// The request as the client sent it.
    pub request: &'a RequestHeader,
    /// The client's connection is TLS.
    pub tls: bool,
    /// What variables stand for; `None` where only cookies matter.
    pub values: Option<Values<'a>>,
}

/// Decided once for all attempts.
#[derive(Default)]
pub struct Choice {
    /// The canary, if it takes the request.
    pub canary: Option<Arc<CanaryRoute>>,
    /// The default backend of the location takes it.
    pub stands_in: bool,
    /// How to choose, unless a session says where.
    policy: Option<Policy>,
    session: Session,
    /// The key of a session that begins with the endpoint chosen last.
    new_key: Option<String>,
}

impl Choice {
    /// Decides. `None` if there are no endpoints.
    pub fn new(route: &Route, client: &Client<'_>) -> Option<Choice> {
        if route.backend.endpoints().is_empty() {
            let default = route.default_backend.as_ref()?;
            let (stands_in, policy) = (true, Some(Policy::InTurn));
            let any = !default.endpoints().is_empty();
            return any.then(|| Choice { stands_in, policy, ..Choice::default() });
        }
        let canary = route.canary.as_ref().filter(|canary| takes(route, canary, client)).cloned();
        let mut choice = Choice { canary, ..Choice::default() };
        if let Some(affinity) = choice.affinity(route) {
            choice.session = Session::read(affinity, client.request);
            return Some(choice);
        }
        let upstream = choice.upstream(route);
        choice.policy = Some(match (&upstream.hash_by, &client.values) {
            (Some(template), Some(values)) => {
                let hash = hash(&template.expand(values));
                if upstream.hash_subset {
                    Policy::Subset(hash, upstream.hash_subset_size)
                } else {
                    Policy::Hash(hash)
                }
            }
            _ if upstream.least_latency => Policy::LeastLatency,
            _ => Policy::InTurn,
        });
        Some(choice)
    }

    fn backend<'a>(&'a self, route: &'a Route) -> &'a Backend {
        if let Some(default) = route.default_backend.as_ref().filter(|_| self.stands_in) {
            return default;
        }
        self.canary.as_ref().map_or(&*route.backend, |canary| &canary.backend)
    }

    fn upstream<'a>(&'a self, route: &'a Route) -> &'a Upstream {
        self.canary.as_ref().map_or(&route.settings.upstream, |canary| &canary.settings.upstream)
    }

    fn affinity<'a>(&'a self, route: &'a Route) -> Option<&'a Affinity> {
        let affinity = match &self.canary {
            Some(canary) => canary_affinity(route, canary),
            None => &route.settings.upstream.affinity,
        };
        affinity.cookie.then_some(affinity)
    }

    /// The endpoint for an attempt. `tried` are those that failed before.
    pub fn endpoint(
        &mut self,
        route: &Route,
        tried: &[SocketAddr],
        now: Moment,
    ) -> Option<Arc<Endpoint>> {
        let ask = Ask { tried, now, random: rand::random::<u64> };
        let set = self.backend(route).endpoints();
        if let Some(policy) = self.policy {
            return set.pick(policy, ask);
        }
        let name = &self.backend(route).upstream_name;
        let (persistent, change_on_failure) =
            self.affinity(route).map_or((false, false), |a| (a.persistent, a.change_on_failure));
        let known = self
            .session
            .key()
            .and_then(|key| if persistent { set.of_token(name, key) } else { set.of_key(key) });
        if let Some(known) = known.filter(|_| tried.is_empty() || !change_on_failure) {
            return Some(known);
        }
        let (endpoint, key) =
            if persistent { set.new_token(name, ask)? } else { set.new_key(ask)? };
        self.new_key = Some(key);
        Some(endpoint)
    }

    /// The cookie of a session that begins.
    pub fn set_cookie(&self, route: &Route, client: &Client<'_>) -> Option<String> {
        let key = self.new_key.as_ref()?;
        let affinity = self.affinity(route)?;
        Some(sticky::set_cookie(affinity, route, client, key, self.backend(route).affinity_key()))
    }

    /// Whether how long endpoints take is of use.
    pub fn measures_latency(&self, route: &Route) -> bool {
        self.upstream(route).least_latency
    }
}

/// A canary follows the affinity of the main backend, unless it is told not to.
fn canary_affinity<'a>(route: &'a Route, canary: &'a CanaryRoute) -> &'a Affinity {
    let own = &canary.settings.upstream.affinity;
    if own.canary_legacy { own } else { &route.settings.upstream.affinity }
}

/// Whether the canary takes a request: sessions stay where they are, the rest is the canary's to say.
fn takes(route: &Route, canary: &CanaryRoute, client: &Client<'_>) -> bool {
    let belongs = |affinity: &Affinity, backend: &Backend| {
        let belongs = || Session::read(affinity, client.request).is_of(backend);
        affinity.cookie && belongs()
    };
    if belongs(&route.settings.upstream.affinity, &route.backend) {
        return false;
    }
    if canary.backend.endpoints().is_empty() {
        return false;
    }
    belongs(canary_affinity(route, canary), &canary.backend)
        || canary
            .settings
            .canary
            .takes(&client.request.headers, |below| rand::random::<u64>() % below)
}
