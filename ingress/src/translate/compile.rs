//! One Ingress by itself: what it says about each host, with its settings and backends. Who else says
//! something about a host is none of its business.

use super::Policy;
use super::backends::Backends;
use super::expressions::Expressions;
use crate::annotations::redirects::Redirects;
use crate::annotations::tls::Tls;
use crate::annotations::values::Refusal;
use crate::annotations::{self, Annotated, Settings};
use crate::balance::Backend;
use crate::matcher::{PathType, prefix_key};
use crate::objects::ingress::{Annotations, Ingress, IngressBackend, Path};
use crate::objects::{Kind, ObjectKey, World, names};
use crate::problem::Problem;
use crate::resources::Resources;
use crate::rewrite::Rewrite;
use crate::snapshot::{CanaryRoute, Route};
use jiff::Timestamp;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock, Weak};

/// Where an Ingress stands among others: the older one has precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    created: Option<Timestamp>,
    ingress: Arc<ObjectKey>,
}

impl Order {
    pub fn of(key: &Arc<ObjectKey>, ingress: &Ingress) -> Order {
        Order { created: ingress.created, ingress: key.clone() }
    }

    pub fn ingress(&self) -> &Arc<ObjectKey> {
        &self.ingress
    }
}

impl Ord for Order {
    /// Those that never were in a cluster come last. Of Ingresses of the same second the last by name goes
    /// first, as in ingress-nginx; of those without a time, which only files have, the first.
    fn cmp(&self, other: &Order) -> Ordering {
        match (self.created, other.created) {
            (Some(own), Some(others)) => {
                own.cmp(&others).then_with(|| other.ingress.cmp(&self.ingress))
            }
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.ingress.cmp(&other.ingress),
        }
    }
}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Order) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A path of a rule, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    rule: u32,
    path: u32,
}

impl Place {
    fn new(rule: usize, path: usize) -> Place {
        let short = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Place { rule: short(rule), path: short(path) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spec.rules[{}].http.paths[{}]", self.rule, self.path)
    }
}

/// What makes two paths of a host the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathKey {
    pub path_type: PathType,
    pub text: Arc<str>,
}

impl PathKey {
    pub fn new(path_type: PathType, path: &Arc<str>) -> PathKey {
        let text = match path_type {
            PathType::Exact => path.clone(),
            PathType::Prefix if prefix_key(path) == &**path => path.clone(),
            PathType::Prefix => names::shared(prefix_key(path)),
        };
        PathKey { path_type, text }
    }

    /// That of `/`.
    pub fn root() -> PathKey {
        PathKey { path_type: PathType::Prefix, text: names::shared("/") }
    }
}

/// A path an Ingress wants for a host.
#[derive(Clone, Debug)]
pub struct Claim {
    pub key: PathKey,
    /// The Ingress wants it to be an expression.
    pub regex: bool,
    pub route: Arc<Route>,
    pub place: Place,
}

/// A path of which a canary Ingress wants some requests.
#[derive(Clone, Debug)]
pub struct CanaryClaim {
    pub key: PathKey,
    pub route: Arc<CanaryRoute>,
    pub place: Place,
}

/// What an Ingress says about a host.
#[derive(Debug)]
pub struct Share {
    pub settings: Arc<Settings>,
    pub resources: Arc<Resources>,
    pub claims: Vec<Claim>,
    pub canaries: Vec<CanaryClaim>,
    /// Serves what no rule of the host matches, if this is the first Ingress to name the host. `None`
    /// for canaries, which name no hosts.
    pub root: Option<Arc<Route>>,
    /// The Ingress has a TLS section: its hosts are to be reached by https.
    pub tls: bool,
}

impl Share {
    /// It says something that concerns all paths of the host, whoever has them.
    pub fn speaks_for_host(&self) -> bool {
        let settings = &self.settings;
        self.root.is_some()
            && (self.tls
                || settings.redirects.from_to_www
                || settings.redirects.app_root.is_some()
                || settings.tls != Tls::default()
                || self.resources.client_auth.is_some()
                || !settings.rewriting.server_aliases.is_empty())
    }
}

/// What the annotations of an Ingress say by themselves.
#[derive(Debug)]
pub struct Parsed {
    pub settings: Arc<Settings>,
    pub closed: bool,
    pub problems: Vec<Problem>,
    pub named: BTreeSet<(Kind, ObjectKey)>,
}

impl Parsed {
    /// Reads them.
    pub fn of(key: &ObjectKey, ingress: &Ingress, policy: &Policy, shared: &mut Shared) -> Parsed {
        let written = &ingress.annotations;
        let mut read = annotations::parse(key, written, &policy.defaults);
        for (name, refusal) in annotations::forbidden::check(written, &policy.options.ingresses) {
            read.refuse(key, name, None, refusal);
        }
        let Annotated { settings, closed, problems } = read;
        let mut named = settings.named_objects();
        let secrets = ingress.tls.iter().filter_map(|tls| tls.secret.as_ref());
        named.extend(secrets.map(|name| (Kind::Secret, ObjectKey::new(&key.namespace, name))));
        let settings = shared.settings(written, settings);
        Parsed { settings, closed, problems, named }
    }
}

/// Settings in use, each once: many Ingresses have the same annotations.
#[derive(Debug, Default)]
pub struct Shared {
    /// By the hash of the annotations they come from.
    known: HashMap<u64, Weak<Settings>>,
    /// How many there may be before the unused ones are dropped.
    limit: usize,
}

impl Shared {
    fn settings(&mut self, written: &Annotations, settings: Settings) -> Arc<Settings> {
        let mut hasher = DefaultHasher::new();
        let ours = written.iter().filter(|(name, _)| name.starts_with(annotations::PREFIX));
        ours.for_each(|annotation| annotation.hash(&mut hasher));
        let hash = hasher.finish();
        let known = self.known.get(&hash).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| **known == settings) {
            return known;
        }
        if self.known.len() >= self.limit {
            self.known.retain(|_, settings| settings.strong_count() > 0);
            self.limit = self.known.len() * 2 + 64;
        }
        let settings = Arc::new(settings);
        self.known.insert(hash, Arc::downgrade(&settings));
        settings
    }
}

/// What an Ingress comes to.
#[derive(Debug)]
pub struct Compiled {
    pub order: Order,
    /// By host, sorted.
    pub shares: Box<[(Arc<str>, Arc<Share>)]>,
    /// Serves all hosts nobody names: the Ingress has a default backend and no rules.
    pub catch_all: Option<Arc<Route>>,
    /// Every backend in use, once.
    pub backends: Box<[Arc<Backend>]>,
    resolved: Arc<Resolved>,
    closed: bool,
    /// The default backend of the Ingress and that of its annotation, where they differ from a path, and
    /// the authority.
    fallbacks: Box<[(&'static str, Arc<Backend>)]>,
    pub problems: Vec<Problem>,
}

/// What the settings of an Ingress name in other objects.
#[derive(Debug)]
struct Resolved {
    resources: Arc<Resources>,
    closed: bool,
    problems: Vec<Problem>,
}

impl Resolved {
    fn of(key: &ObjectKey, settings: &Settings, world: &World, policy: &Policy) -> Arc<Resolved> {
        /// What most Ingresses name.
        static NOTHING: LazyLock<Arc<Resolved>> = LazyLock::new(|| {
            let (resources, problems) = (Arc::default(), Vec::new());
            Arc::new(Resolved { resources, closed: false, problems })
        });
        let (resources, refused) = Resources::resolve(key, settings, world, policy);
        if resources.is_empty() && refused.is_empty() {
            return NOTHING.clone();
        }
        let closed = refused.iter().any(|(_, refusal)| matches!(refusal, Refusal::Closes(_)));
        let refused = refused.into_iter();
        let problems = refused.map(|(name, refusal)| refusal.problem(key, name, None)).collect();
        Arc::new(Resolved { resources: Arc::new(resources), closed, problems })
    }
}

/// What compiling an Ingress takes.
pub struct Compiler<'a> {
    pub world: &'a World,
    pub policy: &'a Policy,
    pub backends: &'a mut Backends,
    pub expressions: &'a mut Expressions,
    /// Secrets or ConfigMaps that the settings name are different.
    pub renew_resources: bool,
}

impl Compiler<'_> {
    /// Compiles an Ingress. What is as it was in `old` is taken from there.
    pub fn compile(
        &mut self,
        key: &Arc<ObjectKey>,
        ingress: &Ingress,
        parsed: &Parsed,
        old: Option<&Compiled>,
    ) -> Compiled {
        let kept = old.filter(|old| !self.renew_resources && old.uses(&parsed.settings));
        let resolved = match kept {
            Some(old) => old.resolved.clone(),
            None => Resolved::of(key, &parsed.settings, self.world, self.policy),
        };
        let closed = parsed.closed || resolved.closed || self.policy.options.closed;
        let mut scope = Scope {
            compiler: self,
            key,
            settings: &parsed.settings,
            resources: &resolved.resources,
            closed,
            default_backend: None,
            authority: None,
            fallbacks: Vec::new(),
            problems: [&*parsed.problems, &*resolved.problems].concat(),
            old: old.filter(|old| old.closed == closed),
            shares: BTreeMap::new(),
        };
        let catch_all = scope.rules(ingress);
        let (shares, problems, fallbacks) = (scope.shares, scope.problems, scope.fallbacks);
        let shares = shares.into_iter().map(|(host, mut share)| {
            share.claims.shrink_to_fit();
            share.canaries.shrink_to_fit();
            (host, Arc::new(share))
        });
        let shares = shares.collect();
        let order = Order::of(key, ingress);
        let mut compiled = Compiled {
            order,
            shares,
            catch_all,
            backends: Box::default(),
            resolved,
            closed,
            fallbacks: fallbacks.into(),
            problems,
        };
        compiled.backends = compiled.distinct_backends();
        compiled
    }
}

impl Compiled {
    fn uses(&self, settings: &Arc<Settings>) -> bool {
        let first = self.shares.first();
        first.is_some_and(|(_, share)| Arc::ptr_eq(&share.settings, settings))
    }

    /// What it says about a host.
    pub fn share(&self, host: &str) -> Option<&Arc<Share>> {
        let at = self.shares.binary_search_by(|(other, _)| (**other).cmp(host)).ok()?;
        self.shares.get(at).map(|(_, share)| share)
    }

    /// Every use of a backend, with the field that names it.
    fn uses_of_backends(&self) -> impl Iterator<Item = (Field, &Arc<Backend>)> {
        let shares = self.shares.iter().map(|(_, share)| share);
        let paths = shares.flat_map(|share| {
            let mains =
                share.claims.iter().map(|claim| (Field::Path(claim.place), &claim.route.backend));
            let canaries = share.canaries.iter();
            mains.chain(canaries.map(|claim| (Field::Path(claim.place), &claim.route.backend)))
        });
        paths.chain(self.fallbacks.iter().map(|(name, backend)| (Field::Named(name), backend)))
    }

    fn distinct_backends(&self) -> Box<[Arc<Backend>]> {
        let mut seen = BTreeSet::new();
        let uses = self.uses_of_backends().map(|(_, backend)| backend);
        uses.filter(|backend| seen.insert(Arc::as_ptr(backend))).cloned().collect()
    }

    /// What is wrong with the Services the Ingress names.
    pub fn service_problems(&self, backends: &Backends) -> Vec<Problem> {
        if !self.backends.iter().any(|backend| backends.fault(backend).is_some()) {
            return Vec::new();
        }
        let uses = self.uses_of_backends();
        let faults = uses.filter_map(|(field, backend)| Some((field, backends.fault(backend)?)));
        let ingress = self.order.ingress();
        faults
            .map(|(field, fault)| {
                let field = match field {
                    Field::Path(place) => format!("{place}.backend.service.{}", fault.field()),
                    Field::Named(name) if name.ends_with(']') => name.to_string(),
                    Field::Named(name) => format!("{name}.service.{}", fault.field()),
                };
                Problem::error(Kind::Ingress, ingress, field, fault.to_string())
            })
            .collect()
    }
}

enum Field {
    Path(Place),
    Named(&'static str),
}

const DEFAULT_BACKEND_FIELD: &str = "spec.defaultBackend";
const DEFAULT_BACKEND_ANNOTATION: &str =
    "metadata.annotations[nginx.ingress.kubernetes.io/default-backend]";
const AUTH_URL_ANNOTATION: &str = "metadata.annotations[nginx.ingress.kubernetes.io/auth-url]";
const REWRITE_TARGET_ANNOTATION: &str =
    "metadata.annotations[nginx.ingress.kubernetes.io/rewrite-target]";

/// The compilation of one Ingress.
struct Scope<'a, 'c> {
    compiler: &'a mut Compiler<'c>,
    key: &'a Arc<ObjectKey>,
    settings: &'a Arc<Settings>,
    resources: &'a Arc<Resources>,
    closed: bool,
    /// By annotation.
    default_backend: Option<Arc<Backend>>,
    authority: Option<Arc<Backend>>,
    fallbacks: Vec<(&'static str, Arc<Backend>)>,
    problems: Vec<Problem>,
    old: Option<&'a Compiled>,
    shares: BTreeMap<Arc<str>, Share>,
}

impl Scope<'_, '_> {
    /// Fills in the shares; returns the route for hosts nobody names.
    fn rules(&mut self, ingress: &Ingress) -> Option<Arc<Route>> {
        let canary = self.settings.canary.enabled;
        if let Some(service) = &self.settings.response.default_backend {
            let backend = self.compiler.backends.first_port(self.compiler.world, service);
            self.fallbacks.push((DEFAULT_BACKEND_ANNOTATION, backend.clone()));
            self.default_backend = Some(backend);
        }
        let authority = self.resources.authority.as_ref();
        if let Some((service, port)) = authority.and_then(|authority| authority.service.as_ref()) {
            let backend = self.compiler.backends.numbered(self.compiler.world, service, *port);
            self.fallbacks.push((AUTH_URL_ANNOTATION, backend.clone()));
            self.authority = Some(backend);
        }
        let default = ingress.default_backend.as_ref();
        let default = default.and_then(|backend| self.backend(backend, DEFAULT_BACKEND_FIELD));
        if let Some(backend) = &default {
            self.fallbacks.push((DEFAULT_BACKEND_FIELD, backend.clone()));
        }
        for (at, rule) in ingress.rules.iter().enumerate() {
            let host = &rule.host;
            if let Err(why) = check_host(host) {
                self.problem(format!("spec.rules[{at}].host"), why);
                continue;
            }
            self.open(host, ingress, default.as_ref());
            let mut old = OldClaims::new(self.old.and_then(|old| old.share(host)));
            for (path_at, path) in rule.paths.iter().enumerate() {
                self.path(host, path, Place::new(at, path_at), &mut old);
            }
        }
        let backend = default.filter(|_| ingress.rules.is_empty() && !canary)?;
        // As in ingress-nginx, its redirects do not count for hosts it does not name.
        let redirects = Redirects { to_https: false, ..Redirects::default() };
        let settings = Arc::new(Settings { redirects, ..Settings::clone(self.settings) });
        let route = self.route(&names::shared(""), &names::shared("/"), backend, None);
        Some(Arc::new(Route { settings, ..route }))
    }

    fn open(&mut self, host: &Arc<str>, ingress: &Ingress, default: Option<&Arc<Backend>>) {
        if self.shares.contains_key(host) {
            return;
        }
        let root = (!self.settings.canary.enabled).then(|| {
            let unclaimed = self.compiler.backends.unclaimed();
            let backend = default.unwrap_or(&unclaimed).clone();
            let target = self.settings.rewriting.target.as_deref().filter(|target| *target != "/");
            let rewrite = target.and_then(|target| self.rewrite("/", target).ok());
            let mut route = self.route(host, &names::shared("/"), backend, rewrite);
            if default.is_none() {
                route.unclaimed = true;
                route.default_backend = None;
            }
            Arc::new(route)
        });
        let share = Share {
            settings: self.settings.clone(),
            resources: self.resources.clone(),
            claims: Vec::new(),
            canaries: Vec::new(),
            root,
            tls: !ingress.tls.is_empty(),
        };
        self.shares.insert(host.clone(), share);
    }

    fn path(&mut self, host: &Arc<str>, path: &Path, place: Place, old: &mut OldClaims<'_>) {
        let path_type = match &*path.path_type {
            "Exact" => PathType::Exact,
            // As in ingress-nginx.
            "Prefix" | "ImplementationSpecific" => PathType::Prefix,
            other => {
                let why = format!("{other:?} is not a path type");
                return self.problem(format!("{place}.pathType"), why);
            }
        };
        let root;
        let text = if path.text.is_empty() {
            root = names::shared("/");
            &root
        } else {
            &path.text
        };
        if !text.starts_with('/') {
            let why = format!("{text:?} does not start with a slash");
            return self.problem(format!("{place}.path"), why);
        }
        if *path.path_type != *"ImplementationSpecific" && !is_plain(text) {
            let why = format!(
                "{text:?} holds characters that ingress-nginx refuses in paths of type {} \
                 (strict-validate-path-type); it is served, but ImplementationSpecific is the type for it",
                path.path_type
            );
            let problem = Problem::warning(Kind::Ingress, self.key, format!("{place}.path"), why);
            self.problems.push(problem);
        }
        let Some(backend) = self.path_backend(&path.backend, place, old, text, path_type) else {
            return;
        };
        if self.settings.canary.enabled {
            self.canary(host, path_type, text, place, backend);
        } else {
            self.claim(host, path_type, text, place, backend, old);
        }
    }

    fn path_backend(
        &mut self,
        backend: &IngressBackend,
        place: Place,
        old: &mut OldClaims<'_>,
        text: &str,
        path_type: PathType,
    ) -> Option<Arc<Backend>> {
        if let Some(claim) = old.find(text, path_type)
            && super::backends::is_named_by(
                &claim.route.backend.key,
                backend,
                &self.settings.upstream,
            )
        {
            return Some(claim.route.backend.clone());
        }
        self.backend(backend, &format!("{place}.backend"))
    }

    fn claim(
        &mut self,
        host: &Arc<str>,
        path_type: PathType,
        text: &Arc<str>,
        place: Place,
        backend: Arc<Backend>,
        old: &OldClaims<'_>,
    ) {
        let same = old.current.filter(|old| {
            Arc::ptr_eq(&old.route.backend, &backend)
                && Arc::ptr_eq(&old.route.settings, self.settings)
                && Arc::ptr_eq(&old.route.resources, self.resources)
                && Arc::ptr_eq(&old.route.options, &self.compiler.policy.options)
        });
        let claim = match same {
            Some(old) => Claim { place, ..old.clone() },
            None => {
                // As in ingress-nginx, a target equal to the path is no rewrite, except of what is below
                // a Prefix path: it is another location there.
                let target = self.settings.rewriting.target.as_deref();
                let use_regex = self.settings.rewriting.use_regex;
                let same = target == Some(&**text);
                let regex = use_regex || target.is_some_and(|_| !same);
                let below = same && !use_regex && path_type == PathType::Prefix && **text != *"/";
                let target = target.filter(|_| !same || below);
                let slashed = format!("{}/", text.trim_end_matches('/'));
                let pattern = if below { slashed.as_str() } else { &**text };
                if regex && let Err(why) = self.compiler.expressions.get(text) {
                    let why = format!("{text:?} cannot be used as an expression: {why}");
                    return self.problem(format!("{place}.path"), why);
                }
                let rewrite = match target.map(|target| self.rewrite(pattern, target)).transpose() {
                    Ok(rewrite) => rewrite,
                    Err(why) => return self.problem(REWRITE_TARGET_ANNOTATION.into(), why),
                };
                let route = Arc::new(self.route(host, text, backend, rewrite));
                Claim { key: PathKey::new(path_type, &route.path), regex, route, place }
            }
        };
        if let Some(share) = self.shares.get_mut(host) {
            share.claims.push(claim);
        }
    }

    fn canary(
        &mut self,
        host: &Arc<str>,
        path_type: PathType,
        text: &Arc<str>,
        place: Place,
        backend: Arc<Backend>,
    ) {
        let route = Arc::new(CanaryRoute { settings: self.settings.clone(), backend });
        let key = PathKey::new(path_type, text);
        if let Some(share) = self.shares.get_mut(host) {
            share.canaries.push(CanaryClaim { key, route, place });
        }
    }

    fn rewrite(&mut self, path: &str, target: &str) -> Result<Rewrite, String> {
        let expression = self.compiler.expressions.get(path)?;
        Rewrite::parse(target, expression).map_err(|error| format!("{target:?} {error}"))
    }

    fn backend(&mut self, backend: &IngressBackend, field: &str) -> Option<Arc<Backend>> {
        let upstream = &self.settings.upstream;
        let compiler = &mut *self.compiler;
        let found = compiler.backends.named(compiler.world, &self.key.namespace, backend, upstream);
        if found.is_none() {
            let why = "names no Service; other resources cannot be backends here";
            self.problem(field.into(), why.into());
        }
        found
    }

    fn route(
        &self,
        host: &Arc<str>,
        path: &Arc<str>,
        backend: Arc<Backend>,
        rewrite: Option<Rewrite>,
    ) -> Route {
        let host = if host.is_empty() { names::shared("_") } else { host.clone() };
        Route {
            ingress: self.key.clone(),
            series: Route::series(self.key, &host, path, &backend),
            host,
            path: path.clone(),
            backend,
            settings: self.settings.clone(),
            resources: self.resources.clone(),
            options: self.compiler.policy.options.clone(),
            rewrite: rewrite.map(Box::new),
            canary: None,
            default_backend: self.default_backend.clone(),
            authority: self.authority.clone(),
            closed: self.closed,
            unclaimed: false,
        }
    }

    fn problem(&mut self, field: String, why: String) {
        self.problems.push(Problem::error(Kind::Ingress, self.key, field, why));
    }
}

/// The paths an Ingress had for a host, to be gone through beside those it has now.
struct OldClaims<'a> {
    claims: &'a [Claim],
    next: usize,
    /// The one that is the same path as the one in question.
    current: Option<&'a Claim>,
}

impl<'a> OldClaims<'a> {
    fn new(share: Option<&'a Arc<Share>>) -> OldClaims<'a> {
        let claims = share.map(|share| share.claims.as_slice()).unwrap_or_default();
        OldClaims { claims, next: 0, current: None }
    }

    /// Looks at the next two: that finds everything that stayed where one path was added, taken out or
    /// changed.
    fn find(&mut self, text: &str, path_type: PathType) -> Option<&'a Claim> {
        let same = |claim: &&Claim| claim.key.path_type == path_type && *claim.route.path == *text;
        self.current = None;
        for at in [self.next, self.next + 1] {
            if let Some(claim) = self.claims.get(at).filter(same) {
                self.next = at + 1;
                self.current = Some(claim);
                break;
            }
        }
        self.current
    }
}

/// Whether a host of a rule can be served: empty, a DNS name, or one with `*` as its first label.
pub fn check_host(host: &str) -> Result<(), String> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.is_empty() || (host.len() <= 253 && name.split('.').all(label)) {
        return Ok(());
    }
    Err(format!("{host:?} is not a DNS name, nor one with * as its whole first label"))
}

/// What ingress-nginx takes in paths of type Exact and Prefix.
fn is_plain(path: &str) -> bool {
    path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b))
}
