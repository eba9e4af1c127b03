//! Revisions of a Deployment: the annotations that count them, the hash that names them, and the
//! ReplicaSet made for a new one.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest as _, Sha256};

use super::limits::Limits;
use crate::replica_set::owner;

/// Number of the revision, on Deployment and ReplicaSet.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const ROLLBACK: &str = "deprecated.deployment.rollback.to";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const NOT_COPIED: [&str; 6] = [REVISION, HISTORY, DESIRED, MAX, ROLLBACK, LAST_APPLIED];
const HISTORY_LENGTH_MAX: usize = 2000;
/// Label that tells the pods of one revision from those of another.
pub(super) const HASH: &str = "pod-template-hash";

fn number<T: std::str::FromStr>(metadata: &ObjectMeta, annotation: &str) -> Option<T> {
    metadata.annotations.as_ref()?.get(annotation)?.parse().ok()
}

/// The revision of a Deployment or ReplicaSet, 0 if it has none yet.
pub(super) fn of(metadata: &ObjectMeta) -> i64 {
    number(metadata, REVISION).unwrap_or(0)
}

/// The Deployment's replicas when the set was sized last.
pub(super) fn desired(set: &ReplicaSet) -> Option<i32> {
    number(&set.metadata, DESIRED)
}

/// The most replicas the Deployment might have had when the set was sized last.
pub(super) fn max(set: &ReplicaSet) -> Option<i32> {
    number(&set.metadata, MAX)
}

/// Notes what the Deployment asks for, on a set that is being sized.
pub(super) fn note_size(set: &mut ReplicaSet, limits: &Limits) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED.to_owned(), limits.desired.to_string());
    annotations.insert(MAX.to_owned(), (limits.desired + limits.surge).to_string());
}

/// Copies the Deployment's annotations to its new set and raises the set's revision.
pub(super) fn annotate(set: &mut ReplicaSet, deployment: &Deployment, next: i64) {
    let known = of(&set.metadata);
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in copied(deployment) {
        annotations.insert(key, value);
    }
    if known >= next {
        return;
    }
    annotations.insert(REVISION.to_owned(), next.to_string());
    if known > 0 {
        // A set that comes back remembers the numbers it had.
        let mut history = annotations.get(HISTORY).cloned().unwrap_or_default();
        while history.len() >= HISTORY_LENGTH_MAX {
            history = history.split_once(',').map_or(String::new(), |(_, rest)| rest.to_owned());
        }
        if !history.is_empty() {
            history.push(',');
        }
        history.push_str(&known.to_string());
        annotations.insert(HISTORY.to_owned(), history);
    }
}

fn copied(deployment: &Deployment) -> BTreeMap<String, String> {
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    annotations
}

/// A template as text, without the label that depends on it.
pub(super) fn template_text(template: &PodTemplateSpec) -> String {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH);
    }
    serde_json::to_string(&template).unwrap_or_default()
}

/// Hash of a template; counted collisions lead to another one.
pub(super) fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let digest = Sha256::digest(format!("{collisions} {}", template_text(template)));
    digest.iter().take(10).map(|byte| char::from(ALPHABET[usize::from(*byte) % 27])).collect()
}

/// The set of a new revision.
pub(super) fn new_set(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    replicas: i32,
    revision: i64,
) -> ReplicaSet {
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = hash(&spec.template, collisions.unwrap_or(0));
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH.to_owned(), hash.clone());
    let mut annotations = copied(deployment);
    annotations.insert(REVISION.to_owned(), revision.to_string());
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: owner(deployment).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
