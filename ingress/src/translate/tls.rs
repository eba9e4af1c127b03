//! Certificates of a snapshot: which Secret serves which host, and what happens to broken ones.

use super::Policy;
use super::hosts::Hosts;
use crate::certificates::{Certificate, CertificateTable, secret_digest};
use crate::objects::{Kind, ObjectKey, World};
use crate::problem::Problem;
use crate::snapshot::Snapshot;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::Ingress;
use std::collections::HashMap;
use std::sync::Arc;

/// Certificates by host and by Secret.
pub struct Certificates {
    pub table: CertificateTable,
    pub by_secret: HashMap<ObjectKey, Arc<Certificate>>,
}

/// Gathers the certificates that selected Ingresses name and marks their hosts as TLS hosts.
pub fn certificates(
    world: &World,
    policy: &Policy,
    selected: &[(ObjectKey, Arc<Ingress>)],
    hosts: &mut Hosts<'_>,
    previous: &Snapshot,
    now: Timestamp,
    problems: &mut Vec<Problem>,
) -> Certificates {
    let mut run = Run { world, previous, now, problems, by_secret: HashMap::new() };
    let mut table = CertificateTable::default();
    for (key, ingress) in selected {
        let Some(spec) = &ingress.spec else { continue };
        if spec.tls.as_ref().is_some_and(|tls| !tls.is_empty()) {
            // As ingress-nginx: "if TLS is enabled for that Ingress", all its hosts are redirected.
            for rule in spec.rules.iter().flatten() {
                hosts.mark_tls(&rule.host.as_deref().unwrap_or_default().to_ascii_lowercase());
            }
        }
        for (at, tls) in spec.tls.iter().flatten().enumerate() {
            let name = tls.secret_name.as_deref().filter(|name| !name.is_empty());
            let certificate = name.and_then(|name| {
                let secret = ObjectKey::new(&key.namespace, name);
                run.load(&secret, key, &format!("spec.tls[{at}].secretName"))
            });
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
            for host in names {
                // The host is meant for TLS even while its certificate is missing.
                hosts.mark_tls(&host);
                if let Some(certificate) = &certificate {
                    table.offer(&host, certificate);
                }
            }
        }
    }
    let default = policy.default_certificate.as_ref();
    let default = default.and_then(|secret| run.load(secret, secret, ""));
    table.fallback = Some(default.unwrap_or_else(|| policy.fake_certificate.clone()));
    Certificates { table, by_secret: run.by_secret }
}

struct Run<'a> {
    world: &'a World,
    previous: &'a Snapshot,
    now: Timestamp,
    problems: &'a mut Vec<Problem>,
    by_secret: HashMap<ObjectKey, Arc<Certificate>>,
}

impl Run<'_> {
    /// The certificate of a Secret; of a broken one the last that worked.
    fn load(
        &mut self,
        secret: &ObjectKey,
        namer: &ObjectKey,
        field: &str,
    ) -> Option<Arc<Certificate>> {
        let kind = if field.is_empty() { Kind::Secret } else { Kind::Ingress };
        let Some(found) = self.world.secrets.get(secret) else {
            let why = format!("Secret {secret} does not exist; the default certificate is served");
            self.problems.push(Problem::error(kind, namer, field, why));
            return None;
        };
        if let Some(known) = self.by_secret.get(secret) {
            return Some(known.clone());
        }
        let old = self.previous.certificates_by_secret.get(secret);
        let unchanged = old.filter(|old| secret_digest(found) == Some(old.digest));
        let read = unchanged
            .map_or_else(|| Certificate::from_secret(found).map(Arc::new), |old| Ok(old.clone()));
        let certificate = match read {
            Ok(certificate) => self.prefer_valid(certificate, old, secret, namer, kind, field),
            Err(error) => {
                let kept = if old.is_some() {
                    "the last good certificate"
                } else {
                    "the default certificate"
                };
                let why = format!("Secret {secret}: {error}; {kept} is served");
                self.problems.push(Problem::error(kind, namer, field, why));
                old?.clone()
            }
        };
        self.by_secret.insert(secret.clone(), certificate.clone());
        Some(certificate)
    }

    /// Reports an expired certificate and keeps an older one that is still valid.
    fn prefer_valid(
        &mut self,
        certificate: Arc<Certificate>,
        old: Option<&Arc<Certificate>>,
        secret: &ObjectKey,
        namer: &ObjectKey,
        kind: Kind,
        field: &str,
    ) -> Arc<Certificate> {
        if certificate.not_after > self.now {
            return certificate;
        }
        let why = format!("Secret {secret}: the certificate expired at {}", certificate.not_after);
        self.problems.push(Problem::warning(kind, namer, field, why));
        old.filter(|old| old.not_after > self.now).cloned().unwrap_or(certificate)
    }
}
