//! TLS of hosts: which Secret serves which host, what happens to broken ones, what is demanded of clients.

use super::compile::Order;
use crate::annotations::tls::Tls;
use crate::certificates::{Certificate, secret_digest};
use crate::objects::ingress::{Ingress, TlsSection};
use crate::objects::{Kind, ObjectKey, World};
use crate::options::TlsOptions;
use crate::problem::{Problem, Severity};
use crate::resources::Resources;
use crate::tls::ciphers;
use crate::tls::client_auth::ClientAuth;
use crate::tls::policy::{Demands, TlsPolicy};
use jiff::{SignedDuration, Timestamp};
use rustls::CipherSuite;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

/// ingress-nginx warns this long before a certificate expires.
const EXPIRES_SOON: SignedDuration = SignedDuration::from_hours(240);

/// Secrets by the place that names them: an Ingress, and which of its sections.
type Named = BTreeMap<(Order, usize), Option<ObjectKey>>;

/// The certificates in use.
#[derive(Debug, Default)]
pub struct Certificates {
    secrets: HashMap<ObjectKey, State>,
    /// Who names a host under `spec.tls`, oldest first, with which Secret.
    hosts: HashMap<Arc<str>, Named>,
    /// What is different since this was last asked.
    changes: BTreeMap<ObjectKey, Option<Arc<Certificate>>>,
    /// When the next certificate begins or ceases to be valid, or is about to.
    next_expiry: Option<Timestamp>,
    now: Timestamp,
}

/// A Secret in use.
#[derive(Debug, Default)]
struct State {
    certificate: Option<Arc<Certificate>>,
    fault: Option<Fault>,
    users: BTreeSet<Arc<ObjectKey>>,
}

/// What is wrong with a Secret; the message continues its name.
type Fault = (Severity, String);

/// The `spec.tls` of an Ingress, as it is in effect.
#[derive(Debug, Default)]
pub struct TlsShare {
    /// Hosts and the place in the list that names them.
    hosts: BTreeMap<(Arc<str>, usize), Option<ObjectKey>>,
    secrets: BTreeSet<ObjectKey>,
}

impl Certificates {
    /// What an Ingress says by its `spec.tls`.
    pub fn share(
        &mut self,
        key: &Arc<ObjectKey>,
        ingress: &Ingress,
        world: &World,
        now: Timestamp,
    ) -> TlsShare {
        let mut share = TlsShare::default();
        for (at, tls) in ingress.tls.iter().enumerate() {
            let secret = tls.secret.as_ref().map(|name| ObjectKey::new(&key.namespace, name));
            let certificate =
                secret.as_ref().and_then(|secret| self.certificate(world, secret, now));
            for name in rule_hosts(ingress) {
                // As in ingress-nginx: where no section names a host, certificates do.
                let taken = match names_host(tls, name) {
                    true => true,
                    false => {
                        certificate.as_ref().is_some_and(|c| c.covers(name))
                            && !ingress.tls.iter().any(|tls| names_host(tls, name))
                    }
                };
                if taken {
                    share.hosts.insert((name.clone(), at), secret.clone());
                }
            }
            share.secrets.extend(secret);
        }
        share
    }

    /// Replaces what an Ingress says. Returns the hosts that may have another certificate now.
    pub fn replace(
        &mut self,
        old: Option<(&Order, &TlsShare)>,
        new: Option<(&Order, &TlsShare)>,
    ) -> BTreeSet<Arc<str>> {
        let mut touched = BTreeSet::new();
        let same_order = old.map(|(order, _)| order) == new.map(|(order, _)| order);
        let (was, is) = (old.map(|(_, share)| share), new.map(|(_, share)| share));
        if same_order && was.map(|share| &share.hosts) == is.map(|share| &share.hosts) {
            self.own(was, is, new.map(|(order, _)| order));
            return touched;
        }
        if let Some((order, share)) = old {
            for (host, at) in share.hosts.keys() {
                if let Some(named) = self.hosts.get_mut(host) {
                    named.remove(&(order.clone(), *at));
                    if named.is_empty() {
                        self.hosts.remove(host);
                    }
                }
                touched.insert(host.clone());
            }
        }
        if let Some((order, share)) = new {
            for ((host, at), secret) in &share.hosts {
                let named = self.hosts.entry(host.clone()).or_default();
                named.insert((order.clone(), *at), secret.clone());
                touched.insert(host.clone());
            }
        }
        self.own(was, is, new.or(old).map(|(order, _)| order));
        touched
    }

    /// Notes who uses which Secret.
    fn own(&mut self, old: Option<&TlsShare>, new: Option<&TlsShare>, order: Option<&Order>) {
        let Some(user) = order.map(Order::ingress) else {
            return;
        };
        let none = BTreeSet::new();
        let old = old.map_or(&none, |share| &share.secrets);
        let new = new.map_or(&none, |share| &share.secrets);
        for secret in new {
            if let Some(state) = self.secrets.get_mut(secret) {
                state.users.insert(user.clone());
            }
        }
        for secret in old.difference(new) {
            self.release(secret, user);
        }
    }

    /// The certificate of a Secret, which from now on is in use.
    pub fn certificate(
        &mut self,
        world: &World,
        secret: &ObjectKey,
        now: Timestamp,
    ) -> Option<Arc<Certificate>> {
        if let Some(state) = self.secrets.get(secret) {
            return state.certificate.clone();
        }
        self.load(world, secret, now);
        self.secrets.get(secret).and_then(|state| state.certificate.clone())
    }

    /// Makes somebody a user of a Secret that is in use.
    pub fn acquire(&mut self, secret: &ObjectKey, user: &Arc<ObjectKey>) {
        if let Some(state) = self.secrets.get_mut(secret) {
            state.users.insert(user.clone());
        }
    }

    /// Ends a use of a Secret.
    pub fn release(&mut self, secret: &ObjectKey, user: &Arc<ObjectKey>) {
        if let Some(state) = self.secrets.get_mut(secret) {
            state.users.remove(user);
            if state.users.is_empty() {
                self.secrets.remove(secret);
                self.changes.insert(secret.clone(), None);
            }
        }
    }

    /// Looks at a Secret again. Returns its users if it makes a difference to them.
    pub fn refresh(
        &mut self,
        world: &World,
        secret: &ObjectKey,
        now: Timestamp,
    ) -> BTreeSet<Arc<ObjectKey>> {
        let different = self.secrets.contains_key(secret) && self.load(world, secret, now);
        let state = self.secrets.get(secret).filter(|_| different);
        state.map(|state| state.users.clone()).unwrap_or_default()
    }

    /// Secrets to look at again because time has passed.
    pub fn expired(&self, now: Timestamp) -> Vec<ObjectKey> {
        if self.next_expiry.is_none_or(|next| now < next) {
            return Vec::new();
        }
        self.secrets.keys().cloned().collect()
    }

    /// Reads a Secret; whether anything is different.
    fn load(&mut self, world: &World, secret: &ObjectKey, now: Timestamp) -> bool {
        let state = self.secrets.entry(secret.clone()).or_default();
        let (certificate, fault) = read(world, secret, state.certificate.as_ref(), now);
        let times = certificate.iter().flat_map(|c| [c.not_before, expires_soon(c), c.not_after]);
        let times = times.filter(|time| *time > now);
        self.next_expiry = self.next_expiry.into_iter().chain(times).min();
        let same = match (&certificate, &state.certificate) {
            (None, None) => true,
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            _ => false,
        };
        let different = !same || fault != state.fault;
        if !same {
            self.changes.insert(secret.clone(), certificate.clone());
        }
        (state.certificate, state.fault) = (certificate, fault);
        different
    }

    /// The certificates of a host, those of older Ingresses first but none that is out of date before one
    /// that is not.
    pub fn of_host(&self, host: &str) -> Vec<Arc<Certificate>> {
        let named = self.hosts.get(host).into_iter().flat_map(BTreeMap::values).flatten();
        let states = named.filter_map(|secret| self.secrets.get(secret));
        let mut found: Vec<Arc<Certificate>> = Vec::new();
        for certificate in states.filter_map(|state| state.certificate.as_ref()) {
            let known = found.iter().any(|known| Arc::ptr_eq(known, certificate));
            if !known && certificate.covers(host) {
                found.push(certificate.clone());
            }
        }
        found.sort_by_key(|certificate| !certificate.is_valid(self.now));
        found
    }

    /// Sets the time by which certificates are valid or not.
    pub fn set_clock(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// The hosts whose certificate may come from a Secret that an Ingress names.
    pub fn hosts_of(share: &TlsShare) -> impl Iterator<Item = &Arc<str>> {
        share.hosts.keys().map(|(host, _)| host)
    }

    /// What is wrong with the Secrets that an Ingress names under `spec.tls`.
    pub fn problems(&self, key: &ObjectKey, ingress: &Ingress) -> Vec<Problem> {
        let tls = ingress.tls.iter().enumerate();
        let named = tls.filter_map(|(at, tls)| Some((at, tls.secret.as_ref()?)));
        let problems = named.filter_map(|(at, name)| {
            let secret = ObjectKey::new(&key.namespace, name);
            self.problem(&secret, Kind::Ingress, key, &format!("spec.tls[{at}].secretName"))
        });
        problems.chain(self.uncovered(key, ingress)).collect()
    }

    /// Hosts a section names and its certificate does not cover.
    fn uncovered(&self, key: &ObjectKey, ingress: &Ingress) -> Vec<Problem> {
        let mut found = Vec::new();
        for (at, tls) in ingress.tls.iter().enumerate() {
            let secret = tls.secret.as_ref().map(|name| ObjectKey::new(&key.namespace, name));
            let state = secret.and_then(|secret| self.secrets.get(&secret));
            let Some(certificate) = state.and_then(|state| state.certificate.as_ref()) else {
                continue;
            };
            for host in rule_hosts(ingress) {
                if names_host(tls, host) && !certificate.covers(host) {
                    let names = certificate.names.join(", ");
                    let why = format!("the certificate is for {names} and does not serve {host}");
                    let field = format!("spec.tls[{at}].secretName");
                    found.push(Problem::warning(Kind::Ingress, key, field, why));
                }
            }
        }
        found
    }

    /// What is wrong with a Secret that something names.
    pub fn problem(
        &self,
        secret: &ObjectKey,
        kind: Kind,
        namer: &ObjectKey,
        field: &str,
    ) -> Option<Problem> {
        let (severity, why) = self.secrets.get(secret)?.fault.as_ref()?;
        let problem = Problem::error(kind, namer, field, format!("Secret {secret}{why}"));
        Some(Problem { severity: *severity, ..problem })
    }

    /// Secrets with another certificate, or none any more, since this was last asked.
    pub fn take_changes(&mut self) -> Vec<(ObjectKey, Option<Arc<Certificate>>)> {
        std::mem::take(&mut self.changes).into_iter().collect()
    }

    /// Forgets when the next certificate expires: all are looked at now.
    pub fn restart_clock(&mut self) {
        self.next_expiry = None;
    }
}

/// The certificate of a Secret; of a broken one the last that worked.
fn read(
    world: &World,
    secret: &ObjectKey,
    old: Option<&Arc<Certificate>>,
    now: Timestamp,
) -> (Option<Arc<Certificate>>, Option<Fault>) {
    let Some(found) = world.secrets.get(secret) else {
        let why = " does not exist; the default certificate is served".to_string();
        return (None, Some((Severity::Error, why)));
    };
    let unchanged = old.filter(|old| secret_digest(found) == Some(old.digest));
    let read = unchanged
        .map_or_else(|| Certificate::from_secret(found).map(Arc::new), |old| Ok(old.clone()));
    match read {
        Ok(new) => {
            let Some(why) = validity(&new, now) else {
                return (Some(new), None);
            };
            // An older one that is still valid is kept.
            let kept = old.filter(|old| !new.is_valid(now) && old.is_valid(now)).cloned();
            (Some(kept.unwrap_or(new)), Some((Severity::Warning, why)))
        }
        Err(error) => {
            let kept = match old {
                Some(_) => "the last good certificate",
                None => "the default certificate",
            };
            (old.cloned(), Some((Severity::Error, format!(": {error}; {kept} is served"))))
        }
    }
}

/// The hosts of the rules of an Ingress, in lower case.
fn rule_hosts(ingress: &Ingress) -> impl Iterator<Item = &Arc<str>> {
    ingress.rules.iter().map(|rule| &rule.host).filter(|host| !host.is_empty())
}

fn names_host(tls: &TlsSection, name: &str) -> bool {
    tls.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
}

/// From when on an end is worth a warning.
fn expires_soon(certificate: &Certificate) -> Timestamp {
    certificate.not_after.saturating_sub(EXPIRES_SOON).unwrap_or(certificate.not_after)
}

/// What there is to say about the validity of a certificate; continues the name of its Secret.
fn validity(certificate: &Certificate, now: Timestamp) -> Option<String> {
    let (from, until) = (certificate.not_before, certificate.not_after);
    if until <= now {
        return Some(format!(": the certificate expired at {until}"));
    }
    if from > now {
        return Some(format!(": the certificate is not valid before {from}"));
    }
    (expires_soon(certificate) <= now).then(|| format!(": the certificate expires at {until}"))
}

/// What the Ingresses of a host say of TLS beside certificates. The oldest that says something decides.
#[derive(Debug, Default)]
pub struct HostDemands {
    pub client_auth: Option<Arc<ClientAuth>>,
    ciphers: Option<Vec<CipherSuite>>,
    server_order: Option<bool>,
    pub passthrough: bool,
}

impl HostDemands {
    /// Of Ingresses, oldest first.
    pub fn of<'a>(members: impl Iterator<Item = (&'a Tls, &'a Resources)>) -> HostDemands {
        let mut demands = HostDemands::default();
        for (at, (settings, resources)) in members.enumerate() {
            // ingress-nginx takes it from the Ingress that makes the host.
            demands.passthrough |= at == 0 && settings.passthrough;
            if let Some(auth) = &resources.client_auth {
                let broken = matches!(**auth, ClientAuth::Broken);
                if broken || demands.client_auth.is_none() {
                    demands.client_auth = Some(auth.clone());
                }
            }
            let ciphers = settings.ciphers.as_ref().map(|selection| selection.suites.clone());
            demands.ciphers = demands.ciphers.or(ciphers);
            demands.server_order = demands.server_order.or(settings.prefer_server_ciphers);
        }
        demands
    }

    /// Nobody says anything.
    pub fn is_empty(&self) -> bool {
        self.client_auth.is_none()
            && self.ciphers.is_none()
            && self.server_order.is_none()
            && !self.passthrough
    }
}

/// Policies by what they are for. They last as long as a host has them, so that what is made for them
/// is made once.
#[derive(Debug, Default)]
pub struct Policies {
    known: HashMap<Demands, Weak<TlsPolicy>>,
}

impl Policies {
    /// The policy of a host.
    pub fn of(&mut self, options: &TlsOptions, host: &HostDemands) -> Arc<TlsPolicy> {
        let defaults = Demands::default();
        let suites = || {
            let listed = options.ciphers.as_deref().and_then(|list| ciphers::select(list).ok());
            listed.map_or(defaults.suites, |selection| selection.suites)
        };
        let checks = host.client_auth.as_ref().and_then(|auth| auth.checks());
        let demands = Demands {
            v1_2: options.v1_2,
            v1_3: options.v1_3,
            http2: options.http2,
            tickets: options.session_tickets,
            suites: host.ciphers.clone().unwrap_or_else(suites),
            server_order: host.server_order.unwrap_or(defaults.server_order),
            client_roots: checks.filter(|checks| checks.asks()).map(|checks| checks.roots.clone()),
        };
        if let Some(known) = self.known.get(&demands).and_then(Weak::upgrade) {
            return known;
        }
        self.known.retain(|_, policy| policy.strong_count() > 0);
        let policy = Arc::new(TlsPolicy::new(demands.clone()));
        self.known.insert(demands, Arc::downgrade(&policy));
        policy
    }
}
