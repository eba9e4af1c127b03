//! Certificates: which Secret serves which host, and what happens to broken ones.

use super::compile::Order;
use crate::certificates::{Certificate, secret_digest};
use crate::objects::{Kind, ObjectKey, World};
use crate::problem::{Problem, Severity};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::Ingress;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The certificates in use.
#[derive(Debug, Default)]
pub struct Certificates {
    secrets: HashMap<ObjectKey, State>,
    /// Who names a host under `spec.tls`, oldest first, with which Secret.
    hosts: HashMap<Arc<str>, BTreeMap<(Order, usize), Option<ObjectKey>>>,
    /// What is different since this was last asked.
    changes: BTreeMap<ObjectKey, Option<Arc<Certificate>>>,
    /// When the next certificate expires.
    next_expiry: Option<Timestamp>,
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
        let Some(spec) = &ingress.spec else {
            return share;
        };
        for (at, tls) in spec.tls.iter().flatten().enumerate() {
            let name = tls.secret_name.as_deref().filter(|name| !name.is_empty());
            let secret = name.map(|name| ObjectKey::new(&key.namespace, name));
            let certificate =
                secret.as_ref().and_then(|secret| self.certificate(world, secret, now));
            let mut names: Vec<String> =
                tls.hosts.iter().flatten().map(|h| h.to_ascii_lowercase()).collect();
            if names.is_empty() {
                // Without hosts the certificate says itself which rules of the Ingress it serves.
                let rules = spec.rules.iter().flatten().filter_map(|rule| rule.host.as_ref());
                names = rules
                    .map(|host| host.to_ascii_lowercase())
                    .filter(|host| certificate.as_ref().is_some_and(|c| c.covers(host)))
                    .collect();
            }
            for name in names {
                share.hosts.insert((name.into(), at), secret.clone());
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
        if let Some(certificate) = certificate.as_ref().filter(|c| c.not_after > now) {
            let next = self.next_expiry.unwrap_or(Timestamp::MAX).min(certificate.not_after);
            self.next_expiry = Some(next);
        }
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

    /// The certificate of a host, and whether it is named at all.
    pub fn of_host(&self, host: &str) -> (Option<Arc<Certificate>>, bool) {
        let Some(named) = self.hosts.get(host) else {
            return (None, false);
        };
        let secrets = named.values().flatten().filter_map(|secret| self.secrets.get(secret));
        (secrets.filter_map(|state| state.certificate.clone()).next(), true)
    }

    /// The hosts whose certificate may come from a Secret that an Ingress names.
    pub fn hosts_of(share: &TlsShare) -> impl Iterator<Item = &Arc<str>> {
        share.hosts.keys().map(|(host, _)| host)
    }

    /// What is wrong with the Secrets that an Ingress names under `spec.tls`.
    pub fn problems(&self, key: &ObjectKey, ingress: &Ingress) -> Vec<Problem> {
        let tls = ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten()).enumerate();
        let named = tls.filter_map(|(at, tls)| Some((at, tls.secret_name.as_ref()?)));
        let problems = named.filter_map(|(at, name)| {
            let secret = ObjectKey::new(&key.namespace, name);
            self.problem(&secret, Kind::Ingress, key, &format!("spec.tls[{at}].secretName"))
        });
        problems.collect()
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
        Ok(new) if new.not_after > now => (Some(new), None),
        // An older one that is still valid is kept.
        Ok(new) => {
            let why = format!(": the certificate expired at {}", new.not_after);
            let kept = old.filter(|old| old.not_after > now).cloned();
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
