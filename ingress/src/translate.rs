//! Objects in, a snapshot and a list of problems out: pure, and the only place that decides routing.
//!
//! Nothing wrong in one object affects another: a bad rule, backend or Secret yields a problem and is
//! left out. Ties go to the older object.

mod backends;
mod hosts;
mod tls;

use crate::annotations::{self, Annotated, Settings};
use crate::balance::Backend;
use crate::certificates::Certificate;
use crate::class::ClassSelection;
use crate::matcher::PathType;
use crate::objects::{Kind, ObjectKey, World};
use crate::options::Options;
use crate::problem::Problem;
use crate::resources::Resources;
use crate::snapshot::{Route, Snapshot};
use backends::Backends;
pub use backends::EndpointChange;
use hosts::{Claim, Hosts};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What flags and the ConfigMap of options say about translation.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Which Ingresses are ours.
    pub classes: ClassSelection,
    /// Settings where no annotation says otherwise.
    pub defaults: Settings,
    /// Options of the whole controller.
    pub options: Arc<Options>,
    /// The ConfigMap of options and those it names.
    pub named_config_maps: BTreeSet<ObjectKey>,
    /// What is wrong with them.
    pub option_problems: Vec<Problem>,
    /// Serves what no rule matches; its first port is used.
    pub default_backend: Option<ObjectKey>,
    /// Served for hosts without a certificate.
    pub default_certificate: Option<ObjectKey>,
    /// Served when that one is not there.
    pub fake_certificate: Arc<Certificate>,
}

/// The result of a translation.
#[derive(Debug)]
pub struct Translation {
    /// What to serve.
    pub snapshot: Snapshot,
    /// Backends of the previous snapshot that go on with other endpoints.
    pub endpoint_changes: Vec<EndpointChange>,
    /// What is wrong, sorted.
    pub problems: Vec<Problem>,
    /// Ingresses that are ours, for their status.
    pub selected: BTreeSet<ObjectKey>,
}

/// Secrets and ConfigMaps that flags and Ingresses of ours name: the only ones to be read.
pub fn named_objects(world: &World, policy: &Policy) -> BTreeSet<(Kind, ObjectKey)> {
    let default = policy.default_certificate.iter().cloned();
    let mut names: BTreeSet<_> = default.map(|key| (Kind::Secret, key)).collect();
    names.extend(policy.named_config_maps.iter().map(|key| (Kind::ConfigMap, key.clone())));
    for (key, ingress) in selected(world, policy) {
        let tls = ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
        let secrets =
            tls.filter_map(|tls| tls.secret_name.as_ref()).filter(|name| !name.is_empty());
        names.extend(secrets.map(|name| (Kind::Secret, ObjectKey::new(&key.namespace, name))));
        if let Some(annotations) = &ingress.metadata.annotations {
            let read = annotations::parse(&key, annotations, &policy.defaults);
            names.extend(read.settings.named_objects());
        }
    }
    names
}

/// Translates all objects. `previous` lends certificates, expressions and round-robin positions.
pub fn translate(
    world: &World,
    policy: &Policy,
    previous: &Snapshot,
    now: Timestamp,
) -> Translation {
    let mut run = Run {
        world,
        policy,
        backends: Backends::new(world, previous),
        hosts: Hosts::new(previous),
        problems: world.unreadable.values().chain(&policy.option_problems).cloned().collect(),
    };
    let selected = selected(world, policy);
    for (key, ingress) in &selected {
        run.ingress(key, ingress);
    }
    let certificates = tls::certificates(
        world,
        policy,
        &selected,
        &mut run.hosts,
        previous,
        now,
        &mut run.problems,
    );
    let fallback = policy.default_backend.as_ref().and_then(|service| run.default_route(service));
    let (built, expressions) = run.hosts.build();
    let mut problems = run.problems;
    problems.sort();
    problems.dedup();
    let (backends, endpoint_changes) = run.backends.into_parts();
    let snapshot = Snapshot {
        options: policy.options.clone(),
        hosts: built.exact,
        wildcards: built.wildcard,
        any_host: built.any,
        fallback,
        backends,
        certificates: certificates.table,
        certificates_by_secret: certificates.by_secret,
        expressions,
    };
    let selected = selected.into_iter().map(|(key, _)| key).collect();
    Translation { snapshot, endpoint_changes, problems, selected }
}

/// Ingresses of ours, oldest first; those without a creation time come last, by name.
fn selected(world: &World, policy: &Policy) -> Vec<(ObjectKey, Arc<Ingress>)> {
    let ours = world.ingresses.iter().filter(|(_, ingress)| policy.classes.selects(ingress, world));
    let mut ours: Vec<_> = ours.map(|(key, ingress)| (key.clone(), ingress.clone())).collect();
    ours.sort_by_key(|(key, ingress)| {
        let created = ingress.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created.is_none(), created, key.clone())
    });
    ours
}

struct Run<'a> {
    world: &'a World,
    policy: &'a Policy,
    backends: Backends<'a>,
    hosts: Hosts<'a>,
    problems: Vec<Problem>,
}

/// What the rules of one Ingress share.
struct Scope<'a> {
    key: &'a ObjectKey,
    settings: Arc<Settings>,
    resources: Arc<Resources>,
    options: Arc<Options>,
    closed: bool,
}

impl Run<'_> {
    fn ingress(&mut self, key: &ObjectKey, ingress: &Ingress) {
        let none = BTreeMap::new();
        let annotations = ingress.metadata.annotations.as_ref().unwrap_or(&none);
        let mut read = annotations::parse(key, annotations, &self.policy.defaults);
        let (resources, refused) =
            Resources::resolve(key, &read.settings, self.world, &self.policy.options);
        for (name, refusal) in refused {
            read.refuse(key, name, None, refusal);
        }
        let Annotated { settings, closed, problems } = read;
        let closed = closed || self.policy.options.closed;
        self.problems.extend(problems);
        let Some(spec) = ingress.spec.as_ref().filter(|_| !settings.canary.enabled) else {
            return;
        };
        let scope = Scope {
            key,
            settings: Arc::new(settings),
            resources: Arc::new(resources),
            options: self.policy.options.clone(),
            closed,
        };
        let default = spec.default_backend.as_ref();
        let rules = spec.rules.as_deref().unwrap_or_default();
        if let Some(backend) = default.filter(|_| rules.is_empty()) {
            let backend = self.backend(&scope, backend, "spec.defaultBackend");
            self.hosts.catch_all(route(&scope, "", "/", backend));
        }
        let default = default.filter(|_| !rules.is_empty());
        let default = default.map(|backend| self.backend(&scope, backend, "spec.defaultBackend"));
        for (at, rule) in rules.iter().enumerate() {
            let host = rule.host.as_deref().unwrap_or_default().to_ascii_lowercase();
            if let Err(why) = hosts::check_host(&host) {
                let field = format!("spec.rules[{at}].host");
                self.problems.push(Problem::error(Kind::Ingress, key, field, why));
                continue;
            }
            let fallback = default.clone().map(|backend| route(&scope, &host, "/", backend));
            self.hosts.open(&host, fallback);
            if let Some(path) = &scope.settings.redirects.app_root {
                self.hosts.send_root_to(&host, path);
            }
            for (path_at, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
                let field = format!("spec.rules[{at}].http.paths[{path_at}]");
                self.path(
                    &scope,
                    &host,
                    path.path.as_deref().unwrap_or_default(),
                    &path.path_type,
                    &path.backend,
                    &field,
                );
            }
        }
    }

    fn path(
        &mut self,
        scope: &Scope<'_>,
        host: &str,
        path: &str,
        path_type: &str,
        backend: &IngressBackend,
        field: &str,
    ) {
        let mut refuse = |part: &str, why: String| {
            self.problems.push(Problem::error(
                Kind::Ingress,
                scope.key,
                format!("{field}.{part}"),
                why,
            ));
        };
        let path_type = match path_type {
            "Exact" => PathType::Exact,
            "Prefix" => PathType::Prefix,
            "ImplementationSpecific" => PathType::ImplementationSpecific,
            other => return refuse("pathType", format!("{other:?} is not a path type")),
        };
        let path = if path.is_empty() { "/" } else { path };
        if !path.starts_with('/') {
            return refuse("path", format!("{path:?} does not start with a slash"));
        }
        let backend = self.backend(scope, backend, &format!("{field}.backend"));
        let claim = Claim {
            path_type,
            path: path.into(),
            field: field.into(),
            route: route(scope, host, path, backend),
        };
        if let Err(problem) = self.hosts.claim(host, claim) {
            self.problems.push(problem);
        }
    }

    fn backend(
        &mut self,
        scope: &Scope<'_>,
        backend: &IngressBackend,
        field: &str,
    ) -> Arc<Backend> {
        let by_cluster_ip = scope.settings.upstream.by_cluster_ip;
        self.backends.resolve(scope.key, backend, by_cluster_ip, field, &mut self.problems)
    }

    fn default_route(&mut self, service: &ObjectKey) -> Option<Arc<Route>> {
        let backend = self.backends.first_port(service, &mut self.problems)?;
        let ingress = ObjectKey::new("", "");
        let series = Route::series(&ingress, "_", "/", &backend);
        Some(Arc::new(Route {
            ingress,
            series,
            host: "_".into(),
            path: "/".into(),
            backend,
            settings: Arc::new(self.policy.defaults.clone()),
            resources: Arc::default(),
            options: self.policy.options.clone(),
            rewrite: None,
            canary: None,
            default_backend: None,
            closed: self.policy.options.closed,
        }))
    }
}

fn route(scope: &Scope<'_>, host: &str, path: &str, backend: Arc<Backend>) -> Route {
    let host = if host.is_empty() { "_" } else { host };
    Route {
        ingress: scope.key.clone(),
        series: Route::series(scope.key, host, path, &backend),
        host: host.into(),
        path: path.into(),
        backend,
        settings: scope.settings.clone(),
        resources: scope.resources.clone(),
        options: scope.options.clone(),
        rewrite: None,
        canary: None,
        default_backend: None,
        closed: scope.closed,
    }
}

#[cfg(test)]
mod tests;
