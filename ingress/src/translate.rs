//! Objects in, a snapshot and a list of problems out: pure, and the only place that decides routing.
//!
//! What everything came to is kept in an [`Index`]; a change costs about as much as it concerns. Nothing
//! wrong in one object affects another: a bad rule, backend or Secret yields a problem and is left out.
//! Ties go to the older object.

mod backends;
mod compile;
mod expressions;
mod hosts;
mod problems;
mod tls;

use crate::annotations::{PREFIX, Settings};
use crate::balance::Backend;
use crate::certificates::{Certificate, HostTls};
use crate::class::ClassSelection;
use crate::objects::ingress::Ingress;
use crate::objects::{self, Kind, ObjectKey, Touched, World, names};
use crate::options::Options;
use crate::problem::Problem;
use crate::rates::Zones;
use crate::snapshot::{HostRoutes, Route, Snapshot};
use crate::source::Change;
use backends::Backends;
pub use backends::EndpointChange;
use compile::{Compiled, Compiler, Order, Parsed, Share, Shared, check_host};
use expressions::Expressions;
use hosts::{Aliases, Host, host_name, www_partner};
use jiff::Timestamp;
pub use problems::ProblemChanges;
use problems::{Problems, Source};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tls::{Certificates, HostDemands, Policies, TlsShare};

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
    /// Services of type ExternalName have no endpoints.
    pub no_external_names: bool,
    /// Serves what no rule matches; its first port is used.
    pub default_backend: Option<ObjectKey>,
    /// Served for hosts without a certificate.
    pub default_certificate: Option<ObjectKey>,
    /// Served when that one is not there.
    pub fake_certificate: Arc<Certificate>,
    /// Clients that are limited; they outlive translations.
    pub zones: Arc<Zones>,
    /// `ssl-passthrough` is honoured (`--enable-ssl-passthrough`).
    pub ssl_passthrough: bool,
}

impl Policy {
    /// ingress-nginx's defaults.
    pub fn new(fake_certificate: Arc<Certificate>) -> Policy {
        Policy {
            classes: ClassSelection::default(),
            defaults: Settings::default(),
            options: Arc::default(),
            named_config_maps: BTreeSet::new(),
            option_problems: Vec::new(),
            no_external_names: false,
            default_backend: None,
            default_certificate: None,
            fake_certificate,
            ssl_passthrough: true,
            zones: Arc::default(),
        }
    }
}

/// What comes of changes.
#[derive(Debug, Default)]
pub struct Update {
    /// What to serve.
    pub snapshot: Snapshot,
    /// Backends of the previous snapshot that go on with other endpoints.
    pub endpoint_changes: Vec<EndpointChange>,
    /// What is wrong now and was not before, and the other way round.
    pub problems: ProblemChanges,
    /// Secrets with another certificate, or with none any more.
    pub certificates: Vec<(ObjectKey, Option<Arc<Certificate>>)>,
    /// Ingresses of ours that are new, different or gone.
    pub ingresses: BTreeSet<ObjectKey>,
}

/// An Ingress of ours.
#[derive(Debug)]
struct Entry {
    key: Arc<ObjectKey>,
    ingress: Arc<Ingress>,
    parsed: Parsed,
    /// What of it is in the tables.
    compiled: Option<Compiled>,
    tls: TlsShare,
}

/// What is to be looked at with the next snapshot.
#[derive(Debug, Default)]
struct Pending {
    /// Ingresses to compile, and whether what they name in Secrets and ConfigMaps is different.
    ingresses: BTreeMap<ObjectKey, bool>,
    services: BTreeSet<ObjectKey>,
    secrets: BTreeSet<ObjectKey>,
    hosts: BTreeSet<Arc<str>>,
    /// Names with perhaps other routes or certificates.
    names: BTreeSet<Arc<str>>,
    reported: BTreeSet<ObjectKey>,
    policy: bool,
}

/// All objects, and what they come to.
#[derive(Debug)]
pub struct Index {
    policy: Policy,
    world: World,
    entries: BTreeMap<ObjectKey, Box<Entry>>,
    /// Secrets and ConfigMaps in use, and the Ingresses that name them.
    named: BTreeMap<(Kind, ObjectKey), BTreeSet<ObjectKey>>,
    named_changed: bool,
    backends: Backends,
    certificates: Certificates,
    tls_policies: Policies,
    expressions: Expressions,
    shared: Shared,
    hosts: HashMap<Arc<str>, Box<Host>>,
    aliases: Aliases,
    catch_alls: BTreeMap<Order, Arc<Route>>,
    problems: Problems,
    snapshot: Snapshot,
    pending: Pending,
    /// Names the controller itself where Ingresses are listed as users.
    own_key: Arc<ObjectKey>,
    /// What the controller itself names.
    own_named: BTreeSet<(Kind, ObjectKey)>,
    own_backend: Option<Arc<Backend>>,
}

impl Index {
    /// What flags and options say now.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// An index of nothing.
    pub fn new(policy: Policy) -> Index {
        let no_external_names = policy.no_external_names;
        let mut index = Index {
            policy,
            world: World::default(),
            entries: BTreeMap::new(),
            named: BTreeMap::new(),
            named_changed: true,
            backends: Backends::default(),
            certificates: Certificates::default(),
            tls_policies: Policies::default(),
            expressions: Expressions::default(),
            shared: Shared::default(),
            hosts: HashMap::new(),
            aliases: Aliases::default(),
            catch_alls: BTreeMap::new(),
            problems: Problems::default(),
            snapshot: Snapshot::default(),
            pending: Pending { policy: true, ..Pending::default() },
            own_key: Arc::new(ObjectKey::new("", "")),
            own_named: BTreeSet::new(),
            own_backend: None,
        };
        index.backends.no_external_names = no_external_names;
        index.name_own();
        index
    }

    /// Names what flags and options name.
    fn name_own(&mut self) {
        let secret = self.policy.default_certificate.iter().cloned();
        let maps = self.policy.named_config_maps.iter().cloned();
        let new: BTreeSet<_> = secret
            .map(|key| (Kind::Secret, key))
            .chain(maps.map(|key| (Kind::ConfigMap, key)))
            .collect();
        let old = std::mem::replace(&mut self.own_named, new.clone());
        let own = self.own_key.clone();
        self.name(new.difference(&old).cloned(), &own);
        self.unname(old.difference(&new), &own);
    }

    /// Lets options be read again, which says whether they changed. If so, everything is.
    pub fn refresh_policy(&mut self, read: impl FnOnce(&World, &mut Policy) -> bool) {
        if !read(&self.world, &mut self.policy) {
            return;
        }
        self.pending.policy = true;
        self.name_own();
        let ours: Vec<_> =
            self.entries.iter().map(|(key, entry)| (key.clone(), entry.ingress.clone())).collect();
        for (key, ingress) in ours {
            self.pending.ingresses.insert(key.clone(), true);
            self.parse(&key, ingress);
        }
    }

    /// All objects.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Everything that is wrong, sorted.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.all()
    }

    /// The Ingresses that are ours.
    pub fn selected(&self) -> impl Iterator<Item = &Arc<Ingress>> {
        self.entries.values().map(|entry| &entry.ingress)
    }

    /// An Ingress, if it is ours.
    pub fn ingress(&self, key: &ObjectKey) -> Option<&Arc<Ingress>> {
        self.entries.get(key).map(|entry| &entry.ingress)
    }

    /// Takes in changes. They have their effect with the next `update`.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            change.apply_to(&mut self.world);
        }
        let touched = self.world.take_touched();
        self.note(touched);
    }

    /// Secrets and ConfigMaps that flags and Ingresses of ours name: the only ones to be read. `None`
    /// if they are the same as when this was last asked.
    pub fn take_named(&mut self) -> Option<BTreeSet<(Kind, ObjectKey)>> {
        std::mem::take(&mut self.named_changed).then(|| self.named.keys().cloned().collect())
    }

    /// Forgets Secrets and ConfigMaps that nobody names.
    pub fn forget_unnamed(&mut self) {
        let named = |kind: Kind, key: &ObjectKey| self.named.contains_key(&(kind, key.clone()));
        self.world.secrets.retain(|key, _| named(Kind::Secret, key));
        self.world.config_maps.retain(|key, _| named(Kind::ConfigMap, key));
    }

    fn note(&mut self, touched: Touched) {
        let ingresses = match touched.classes {
            true => self.world.ingresses.keys().cloned().collect::<BTreeSet<_>>(),
            false => BTreeSet::new(),
        };
        for key in touched.ingresses.union(&ingresses) {
            self.note_ingress(key);
        }
        let secrets = touched.secrets.iter().map(|key| (Kind::Secret, key.clone()));
        let maps = touched.config_maps.iter().map(|key| (Kind::ConfigMap, key.clone()));
        for object in secrets.chain(maps) {
            for user in self.named.get(&object).into_iter().flatten() {
                self.pending.ingresses.insert(user.clone(), true);
            }
        }
        self.pending.services.extend(touched.services);
        self.pending.secrets.extend(touched.secrets);
        if touched.unreadable {
            let found = self.world.unreadable.values().cloned().collect();
            self.problems.set(Source::Unreadable, found);
        }
    }

    /// Reads the annotations of an Ingress that may be new, different or gone.
    fn note_ingress(&mut self, key: &ObjectKey) {
        let found = self.world.ingresses.get(key);
        let found = found.filter(|found| self.policy.classes.selects(found, &self.world)).cloned();
        let old = self.entries.get(key);
        let Some(ingress) = found else {
            if old.is_some() {
                self.remove(key);
            }
            return;
        };
        if old.is_some_and(|old| Arc::ptr_eq(&old.ingress, &ingress)) {
            return;
        }
        self.parse(key, ingress);
    }

    fn parse(&mut self, key: &ObjectKey, ingress: Arc<Ingress>) {
        let old = self.entries.remove(key);
        let parsed = Parsed::of(key, &ingress, &self.policy, &mut self.shared);
        let was = old.as_ref().map(|old| old.parsed.named.clone()).unwrap_or_default();
        self.name(parsed.named.difference(&was).cloned(), key);
        self.unname(was.difference(&parsed.named), key);
        let renew = self.pending.ingresses.get(key) == Some(&true);
        self.pending.ingresses.insert(key.clone(), renew);
        self.pending.reported.insert(key.clone());
        let entry = match old {
            Some(old) => Box::new(Entry { ingress, parsed, ..*old }),
            None => Box::new(Entry {
                key: Arc::new(key.clone()),
                ingress,
                parsed,
                compiled: None,
                tls: TlsShare::default(),
            }),
        };
        self.entries.insert(key.clone(), entry);
    }

    fn name(&mut self, objects: impl IntoIterator<Item = (Kind, ObjectKey)>, user: &ObjectKey) {
        for object in objects {
            let users = self.named.entry(object).or_default();
            self.named_changed |= users.is_empty();
            users.insert(user.clone());
        }
    }

    fn unname<'a>(
        &mut self,
        objects: impl IntoIterator<Item = &'a (Kind, ObjectKey)>,
        user: &ObjectKey,
    ) {
        for object in objects {
            if let Some(users) = self.named.get_mut(object) {
                users.remove(user);
                if users.is_empty() {
                    self.named.remove(object);
                    self.named_changed = true;
                }
            }
        }
    }

    /// Takes an Ingress out of everything.
    fn remove(&mut self, key: &ObjectKey) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        self.unname(&entry.parsed.named, key);
        self.pending.ingresses.remove(key);
        self.pending.reported.insert(key.clone());
        if let Some(old) = &entry.compiled {
            self.replace_shares(Some(old), None);
            self.backends.release(&old.backends, &entry.key);
            let touched = self.certificates.replace(Some((&old.order, &entry.tls)), None);
            self.pending.names.extend(touched);
        }
        for source in [Source::Ingress, Source::Services, Source::Certificates] {
            self.problems.set(source(entry.key.clone()), Vec::new());
        }
    }

    /// Replaces what an Ingress says about hosts.
    fn replace_shares(&mut self, old: Option<&Compiled>, new: Option<&Compiled>) {
        type Of<'a> = Option<(&'a Order, &'a Arc<Share>)>;
        let both = old.into_iter().chain(new);
        let shares = both.flat_map(|one| &one.shares);
        let names: BTreeSet<_> = shares.map(|(host, _)| host.clone()).collect();
        for host in names {
            let was: Of<'_> = old.and_then(|c| Some((&c.order, c.share(&host)?)));
            let is: Of<'_> = new.and_then(|c| Some((&c.order, c.share(&host)?)));
            self.hosts.entry(host.clone()).or_default().replace(was, is);
            self.pending.hosts.insert(host);
        }
        let was = old.and_then(|old| Some((&old.order, old.catch_all.as_ref()?)));
        let is = new.and_then(|new| Some((&new.order, new.catch_all.as_ref()?)));
        if was.is_none() && is.is_none() {
            return;
        }
        was.map(|(order, _)| self.catch_alls.remove(order));
        is.map(|(order, route)| self.catch_alls.insert(order.clone(), route.clone()));
        let any = names::shared("");
        let first = self.catch_alls.values().next().cloned();
        self.hosts.entry(any.clone()).or_default().set_catch_all(first);
        self.pending.hosts.insert(any);
    }

    /// Makes the changes that were taken in effective.
    pub fn update(&mut self, now: Timestamp) -> Update {
        self.certificates.set_clock(now);
        if std::mem::take(&mut self.pending.policy) {
            self.update_policy(now);
        }
        let services = std::mem::take(&mut self.pending.services);
        let mut concerned = BTreeSet::new();
        for service in &services {
            concerned.extend(self.backends.refresh(&self.world, service));
        }
        self.update_certificates(now);
        let ingresses = std::mem::take(&mut self.pending.ingresses);
        let most = ingresses.len() > self.entries.len() / 2;
        for (key, renew) in ingresses {
            self.compile(&key, renew, now);
            concerned.extend(self.entries.get(&key).map(|entry| entry.key.clone()));
        }
        if most {
            objects::pack(&mut self.entries);
        }
        for key in concerned {
            self.report_services(&key);
        }
        self.update_hosts();
        let endpoint_changes = self.backends.take_changes();
        self.snapshot.backends = self.backends.table.clone();
        Update {
            snapshot: self.snapshot.clone(),
            endpoint_changes,
            problems: self.problems.take_changes(),
            certificates: self.certificates.take_changes(),
            ingresses: std::mem::take(&mut self.pending.reported),
        }
    }

    fn update_policy(&mut self, now: Timestamp) {
        let own = self.own_key.clone();
        if let Some(secret) = self.policy.default_certificate.clone() {
            self.certificates.certificate(&self.world, &secret, now);
            self.certificates.acquire(&secret, &own);
            self.update_default_certificate(now);
        } else {
            self.set_fallback(self.policy.fake_certificate.clone());
        }
        self.snapshot.options = self.policy.options.clone();
        self.problems.set(Source::Policy, self.policy.option_problems.clone());
        let Some(service) = self.policy.default_backend.clone() else {
            return;
        };
        let backend = self.backends.first_port(&self.world, &service);
        self.backends.acquire(std::slice::from_ref(&backend), &own);
        if let Some(old) = self.own_backend.replace(backend.clone()) {
            self.backends.release(&[old], &own);
        }
        self.backends.set_unclaimed(Some(backend.clone()));
        self.snapshot.fallback = Some(Arc::new(Route {
            ingress: own.clone(),
            series: Route::series(&own, &names::shared("_"), &names::shared("/"), &backend),
            host: names::shared("_"),
            path: names::shared("/"),
            backend,
            settings: Arc::new(self.policy.defaults.clone()),
            resources: Arc::default(),
            options: self.policy.options.clone(),
            rewrite: None,
            canary: None,
            default_backend: None,
            authority: None,
            closed: self.policy.options.closed,
            unclaimed: true,
        }));
        self.report_services(&own);
    }

    fn update_default_certificate(&mut self, now: Timestamp) {
        let Some(secret) = &self.policy.default_certificate else {
            return;
        };
        let certificate = self.certificates.certificate(&self.world, secret, now);
        let certificate = certificate.unwrap_or_else(|| self.policy.fake_certificate.clone());
        let found = self.certificates.problem(secret, Kind::Secret, secret, "");
        self.problems.set(Source::DefaultCertificate, found.into_iter().collect());
        self.set_fallback(certificate);
    }

    /// Sets what serves names of no host.
    fn set_fallback(&mut self, certificate: Arc<Certificate>) {
        let nothing = HostDemands::default();
        self.snapshot.certificates.fallback = Some(Arc::new(HostTls {
            certificates: vec![certificate],
            policy: self.tls_policies.of(&self.policy.options.tls, &nothing),
            client_auth: None,
            passthrough: None,
        }));
    }

    /// Looks at Secrets again that changed or expired.
    fn update_certificates(&mut self, now: Timestamp) {
        let mut secrets = std::mem::take(&mut self.pending.secrets);
        let expired = self.certificates.expired(now);
        if !expired.is_empty() {
            self.certificates.restart_clock();
            secrets.extend(expired);
        }
        for secret in secrets {
            for user in self.certificates.refresh(&self.world, &secret, now) {
                if user == self.own_key {
                    self.update_default_certificate(now);
                } else {
                    self.update_tls(&user, now);
                }
            }
        }
    }

    /// Looks at the `spec.tls` of an Ingress again.
    fn update_tls(&mut self, key: &ObjectKey, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let Some(compiled) = &entry.compiled else {
            return;
        };
        let (order, main) = (&compiled.order, !entry.parsed.settings.canary.enabled);
        let share = match main {
            true => self.certificates.share(&entry.key, &entry.ingress, &self.world, now),
            false => TlsShare::default(),
        };
        let touched = self.certificates.replace(Some((order, &entry.tls)), Some((order, &share)));
        self.pending.names.extend(touched);
        self.pending.names.extend(Certificates::hosts_of(&share).cloned());
        let mut found = match main {
            true => self.certificates.problems(&entry.key, &entry.ingress),
            false => Vec::new(),
        };
        if entry.parsed.settings.tls.passthrough && !self.policy.ssl_passthrough {
            let field = format!("metadata.annotations[{PREFIX}ssl-passthrough]");
            let why = "has no effect: the controller runs without --enable-ssl-passthrough";
            found.push(Problem::error(Kind::Ingress, &entry.key, field, why));
        }
        self.problems.set(Source::Certificates(entry.key.clone()), found);
        entry.tls = share;
    }

    fn compile(&mut self, key: &ObjectKey, renew_resources: bool, now: Timestamp) {
        let Some(mut entry) = self.entries.remove(key) else {
            return;
        };
        let old = entry.compiled.take();
        let mut compiler = Compiler {
            world: &self.world,
            policy: &self.policy,
            backends: &mut self.backends,
            expressions: &mut self.expressions,
            renew_resources,
        };
        let mut new = compiler.compile(&entry.key, &entry.ingress, &entry.parsed, old.as_ref());
        let found = std::mem::take(&mut new.problems);
        self.problems.set(Source::Ingress(entry.key.clone()), found);
        self.backends.acquire(&new.backends, &entry.key);
        self.replace_shares(old.as_ref(), Some(&new));
        if let Some(old) = &old {
            self.backends.release(&old.backends, &entry.key);
            if old.order != new.order {
                let touched = self.certificates.replace(Some((&old.order, &entry.tls)), None);
                self.pending.names.extend(touched);
                entry.tls = TlsShare::default();
            }
        }
        entry.compiled = Some(new);
        self.entries.insert(key.clone(), entry);
        self.update_tls(key, now);
    }

    /// Says what is wrong with the Services an Ingress or a flag names.
    fn report_services(&mut self, key: &Arc<ObjectKey>) {
        let found = match self.entries.get(&**key).and_then(|entry| entry.compiled.as_ref()) {
            Some(compiled) => compiled.service_problems(&self.backends),
            None => {
                let backend = self.backends.unclaimed();
                let fault = self.backends.fault(&backend).filter(|_| *key == self.own_key);
                let problem = fault.map(|fault| {
                    let why = format!("is the default backend: {fault}");
                    Problem::error(Kind::Service, &backend.key.service, "", why)
                });
                problem.into_iter().collect()
            }
        };
        self.problems.set(Source::Services(key.clone()), found);
    }

    /// Builds touched hosts, then everything that goes by their names.
    fn update_hosts(&mut self) {
        let names = std::mem::take(&mut self.pending.names);
        let mut touched = std::mem::take(&mut self.pending.hosts);
        touched.extend(names.iter().filter(|name| self.hosts.contains_key(*name)).cloned());
        let mut names = names;
        for name in touched {
            let Some(host) = self.hosts.get_mut(&name) else {
                continue;
            };
            host.build(&name, &mut self.expressions, &mut self.problems);
            names.extend(self.aliases.replace(&name, host.aliases()));
            names.extend(www_partner(&name));
            if host.is_empty() {
                self.hosts.remove(&name);
            }
            names.insert(name);
        }
        // A certificate of a host may serve its other names too.
        let mut more = BTreeSet::new();
        for name in &names {
            let host = self.hosts.get(name);
            more.extend(
                host.and_then(|host| host.aliases())
                    .into_iter()
                    .flat_map(|(_, names)| names.iter().map(|name| names::shared(name))),
            );
            more.extend(www_partner(name));
        }
        names.extend(more);
        for name in names {
            self.update_name(&name);
        }
    }

    /// Decides what a name leads to: a host of its own, else a redirect to or from `www.`, else the host
    /// it is another name of.
    fn update_name(&mut self, name: &Arc<str>) {
        let mut found = Vec::new();
        let own = self.hosts.get(name).and_then(|host| host.routes());
        let mut certificates = self.certificates.of_host(name);
        let mut demands = self.hosts.get(name).map(|host| host.tls_demands()).unwrap_or_default();
        let mut routes = own.cloned();
        let partner = www_partner(name);
        let partner = partner.and_then(|partner| self.hosts.get_key_value(&partner));
        if let Some((partner, by)) =
            partner.and_then(|(name, host)| Some((name, host.wants_www()?)))
        {
            if routes.is_some() {
                let field =
                    "metadata.annotations[nginx.ingress.kubernetes.io/from-to-www-redirect]";
                let why = format!("{name} is a host of its own and is not redirected to {partner}");
                found.push(Problem::warning(Kind::Ingress, by, field, why));
            } else {
                let www_redirect = Some(partner.clone());
                let redirected = HostRoutes { www_redirect, ..HostRoutes::default() };
                routes = Some(Arc::new(redirected));
                certificates = self.certificates.of_host(partner);
                certificates.retain(|shared| shared.covers(name));
            }
        }
        for (order, host) in self.aliases.of(name).filter(|(_, host)| host != name) {
            let why = match (check_host(name), &routes) {
                (Err(why), _) => why,
                (Ok(()), Some(_)) => {
                    format!("{name} is not made another name of {}: it is taken", host_name(host))
                }
                (Ok(()), None) => {
                    routes = self.hosts.get(host).and_then(|host| host.routes()).cloned();
                    certificates = self.certificates.of_host(host);
                    demands =
                        self.hosts.get(host).map(|host| host.tls_demands()).unwrap_or_default();
                    continue;
                }
            };
            let field = "metadata.annotations[nginx.ingress.kubernetes.io/server-alias]";
            found.push(Problem::error(Kind::Ingress, order.ingress(), field, why));
        }
        self.problems.set(Source::Name(name.clone()), found);
        demands.passthrough &= self.policy.ssl_passthrough;
        let root = routes.as_ref().filter(|_| demands.passthrough);
        let root = root.and_then(|routes| routes.matcher.find(b"/").or(routes.fallback.as_ref()));
        let passthrough = root.map(|route| route.backend.clone());
        let nothing = certificates.is_empty() && demands.is_empty();
        let tls = (!nothing).then(|| HostTls {
            certificates,
            policy: self.tls_policies.of(&self.policy.options.tls, &demands),
            client_auth: demands.client_auth,
            passthrough,
        });
        self.snapshot.certificates.set(name, tls.map(Arc::new));
        self.snapshot.set_host(name, routes);
    }
}

#[cfg(test)]
mod backend_tests;
#[cfg(test)]
mod comparison;
#[cfg(test)]
mod tests;
