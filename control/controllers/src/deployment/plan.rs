//! What to do for a Deployment: which ReplicaSet to make, how far to scale each, which to remove,
//! and the status. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource as _;
use sha2::{Digest as _, Sha256};

const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const HASH: &str = "pod-template-hash";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub(crate) enum Op {
    Create(Box<ReplicaSet>),
    Update(Box<ReplicaSet>, Box<ReplicaSet>),
    Delete(Box<ReplicaSet>),
    Annotate(Box<Deployment>),
    Event(String),
}

pub(crate) struct Plan {
    pub(crate) ops: Vec<Op>,
    pub(crate) status: DeploymentStatus,
    pub(crate) again: Option<Duration>,
}

/// `sets` are the ReplicaSets the Deployment controls.
pub(crate) fn plan(deployment: &Deployment, sets: &[ReplicaSet], now: Timestamp) -> Plan {
    let spec = deployment.spec.clone().unwrap_or_default();
    let limits = Limits::of(&spec);
    let mut sets: Vec<&ReplicaSet> = sets.iter().collect();
    sets.sort_by_key(|set| {
        let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, set.metadata.name.clone())
    });
    let wanted = template_text(&spec.template);
    let is_new = |set: &&ReplicaSet| {
        set.spec.as_ref().and_then(|spec| spec.template.as_ref()).map(template_text)
            == Some(wanted.clone())
    };
    let current = sets.iter().copied().find(is_new);
    let old: Vec<&ReplicaSet> = sets
        .iter()
        .copied()
        .filter(|set| current.is_none_or(|new| new.metadata.name != set.metadata.name))
        .collect();
    let paused = spec.paused == Some(true);
    let mut ops = Vec::new();
    let revision = revision(current, &old);
    let targets = targets(&spec, &limits, current, &old, paused);
    if current.is_none() && !paused {
        let replicas = targets.new;
        let set = new_set(deployment, &spec, &limits, replicas, revision);
        let name = set.metadata.name.clone().unwrap_or_default();
        ops.push(Op::Create(Box::new(set)));
        if replicas > 0 {
            ops.push(Op::Event(format!("Scaled up replica set {name} from 0 to {replicas}")));
        }
    }
    if let Some(set) = current {
        scale(&mut ops, deployment, set, targets.new, Some(revision), &limits);
    }
    for (set, replicas) in old.iter().zip(&targets.old) {
        scale(&mut ops, deployment, set, *replicas, None, &limits);
    }
    if !paused {
        remove_history(&mut ops, &spec, &old);
        annotate(&mut ops, deployment, revision);
    }
    let (status, again) = status(deployment, &spec, &limits, current, &sets, now);
    Plan { ops, status, again }
}

struct Limits {
    desired: i32,
    surge: i32,
    unavailable: i32,
    recreate: bool,
}

impl Limits {
    fn of(spec: &DeploymentSpec) -> Self {
        let desired = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.clone().unwrap_or_default();
        if strategy.type_.as_deref() == Some("Recreate") {
            return Self { desired, surge: 0, unavailable: desired, recreate: true };
        }
        let rolling = strategy.rolling_update.unwrap_or_default();
        let surge = resolve(rolling.max_surge.as_ref(), desired, true);
        let mut unavailable =
            resolve(rolling.max_unavailable.as_ref(), desired, false).min(desired);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Self { desired, surge, unavailable, recreate: false }
    }
}

fn resolve(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(count)) => return *count,
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse().unwrap_or(0),
        None => 25,
    };
    let product = total.saturating_mul(percent);
    if up { (product + 99) / 100 } else { product / 100 }
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn running(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .map_or(0, |status| status.replicas + status.terminating_replicas.unwrap_or(0))
}

struct Targets {
    new: i32,
    old: Vec<i32>,
}

fn targets(
    spec: &DeploymentSpec,
    limits: &Limits,
    current: Option<&ReplicaSet>,
    old: &[&ReplicaSet],
    paused: bool,
) -> Targets {
    let new_now = current.map_or(0, replicas);
    let old_now: Vec<i32> = old.iter().map(|set| replicas(set)).collect();
    let old_total: i32 = old_now.iter().sum();
    if paused {
        // Only plain scaling: of the one set that runs.
        let scaled = if old_total == 0 && current.is_some() { limits.desired } else { new_now };
        return Targets { new: scaled, old: old_now };
    }
    if limits.recreate {
        let gone = old_total == 0 && old.iter().all(|set| running(set) == 0);
        let new = if gone { limits.desired } else { new_now.min(limits.desired) };
        return Targets { new, old: vec![0; old.len()] };
    }
    let room = (limits.desired + limits.surge - new_now - old_total).max(0);
    let new = if new_now >= limits.desired {
        limits.desired
    } else {
        new_now + room.min(limits.desired - new_now)
    };
    let old = scale_down(limits, current, old, old_now, new_now);
    debug_assert_eq!(spec.replicas.unwrap_or(1), limits.desired);
    Targets { new, old }
}

/// Old sets shrink by as many as the availability allows: first pods that do not serve anyway.
fn scale_down(
    limits: &Limits,
    current: Option<&ReplicaSet>,
    old: &[&ReplicaSet],
    mut target: Vec<i32>,
    new_now: i32,
) -> Vec<i32> {
    let total = new_now + target.iter().sum::<i32>();
    let min_available = limits.desired - limits.unavailable;
    let new_unavailable = new_now - current.map_or(0, available);
    let mut may_go = (total - min_available - new_unavailable).max(0);
    for (set, replicas) in old.iter().zip(&mut target) {
        let unhealthy = (*replicas - available(set)).max(0).min(may_go);
        *replicas -= unhealthy;
        may_go -= unhealthy;
    }
    let serving = current.map_or(0, available) + old.iter().map(|set| available(set)).sum::<i32>();
    let mut may_go = (serving - min_available).max(0).min(may_go);
    for replicas in &mut target {
        let going = may_go.min(*replicas);
        *replicas -= going;
        may_go -= going;
    }
    target
}

fn scale(
    ops: &mut Vec<Op>,
    deployment: &Deployment,
    set: &ReplicaSet,
    to: i32,
    revision: Option<i64>,
    limits: &Limits,
) {
    let mut new = set.clone();
    let from = replicas(set);
    let annotations = new.metadata.annotations.get_or_insert_default();
    if from != to || revision.is_some() {
        annotations.insert(DESIRED.to_owned(), limits.desired.to_string());
        annotations.insert(MAX.to_owned(), (limits.desired + limits.surge).to_string());
    }
    if let Some(revision) = revision {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(spec) = &mut new.spec {
            spec.min_ready_seconds = deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
        }
    }
    if let Some(spec) = &mut new.spec {
        spec.replicas = Some(to);
    }
    if new == *set {
        return;
    }
    ops.push(Op::Update(Box::new(set.clone()), Box::new(new)));
    if from != to {
        let direction = if to > from { "up" } else { "down" };
        let name = set.metadata.name.as_deref().unwrap_or_default();
        ops.push(Op::Event(format!("Scaled {direction} replica set {name} from {from} to {to}")));
    }
}

fn revision_of(annotations: Option<&BTreeMap<String, String>>) -> i64 {
    annotations.and_then(|all| all.get(REVISION)).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn revision(current: Option<&ReplicaSet>, old: &[&ReplicaSet]) -> i64 {
    let newest_old =
        old.iter().map(|set| revision_of(set.metadata.annotations.as_ref())).max().unwrap_or(0);
    let own = current.map_or(0, |set| revision_of(set.metadata.annotations.as_ref()));
    own.max(newest_old + 1)
}

fn annotate(ops: &mut Vec<Op>, deployment: &Deployment, revision: i64) {
    if revision_of(deployment.metadata.annotations.as_ref()) == revision {
        return;
    }
    let mut new = deployment.clone();
    let annotations = new.metadata.annotations.get_or_insert_default();
    annotations.insert(REVISION.to_owned(), revision.to_string());
    ops.push(Op::Annotate(Box::new(new)));
}

fn remove_history(ops: &mut Vec<Op>, spec: &DeploymentSpec, old: &[&ReplicaSet]) {
    let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(usize::MAX);
    let mut idle: Vec<&&ReplicaSet> =
        old.iter().filter(|set| replicas(set) == 0 && running(set) == 0).collect();
    idle.sort_by_key(|set| revision_of(set.metadata.annotations.as_ref()));
    let excess = old.len().saturating_sub(limit);
    ops.extend(idle.into_iter().take(excess).map(|set| Op::Delete(Box::new((*set).clone()))));
}

fn template_text(template: &PodTemplateSpec) -> String {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH);
    }
    serde_json::to_string(&template).unwrap_or_default()
}

fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let digest = Sha256::digest(format!("{collisions} {}", template_text(template)));
    digest.iter().take(10).map(|byte| char::from(ALPHABET[usize::from(*byte) % 27])).collect()
}

fn new_set(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    limits: &Limits,
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
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    annotations.insert(REVISION.to_owned(), revision.to_string());
    annotations.insert(DESIRED.to_owned(), limits.desired.to_string());
    annotations.insert(MAX.to_owned(), (limits.desired + limits.surge).to_string());
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: deployment.controller_owner_ref(&()).map(|mut owner| {
                owner.block_owner_deletion = Some(true);
                vec![owner]
            }),
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

fn status(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    limits: &Limits,
    current: Option<&ReplicaSet>,
    sets: &[&ReplicaSet],
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let before = deployment.status.clone().unwrap_or_default();
    let sum = |field: fn(&ReplicaSet) -> i32| sets.iter().map(|set| field(set)).sum::<i32>();
    let total = sum(|set| set.status.as_ref().map_or(0, |status| status.replicas));
    let serving = sum(available);
    let updated = current.and_then(|set| set.status.as_ref()).map_or(0, |status| status.replicas);
    let some = |count: i32| (count != 0).then_some(count);
    let ready = sum(|set| set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0));
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(total),
        updated_replicas: some(updated),
        ready_replicas: some(ready),
        available_replicas: some(serving),
        unavailable_replicas: some((limits.desired.max(total) - serving).max(0)),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
        terminating_replicas: None,
    };
    let enough = serving >= limits.desired - limits.unavailable;
    let (value, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set_condition(&mut status, "Available", value, reason, message, false, now);
    let complete = updated == limits.desired && total == updated && serving == limits.desired;
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let set_name = current.and_then(|set| set.metadata.name.as_deref()).unwrap_or(name);
    let kind = if current.is_some() { "ReplicaSet" } else { "Deployment" };
    let mut again = None;
    if complete && current.is_some() {
        let message = format!("ReplicaSet \"{set_name}\" has successfully progressed.");
        set_condition(
            &mut status,
            "Progressing",
            "True",
            "NewReplicaSetAvailable",
            &message,
            false,
            now,
        );
    } else if spec.paused == Some(true) {
        let message = "Deployment is paused";
        set_condition(
            &mut status,
            "Progressing",
            "Unknown",
            "DeploymentPaused",
            message,
            false,
            now,
        );
    } else {
        let progressed = before.updated_replicas.unwrap_or(0) < updated
            || before.ready_replicas.unwrap_or(0) < ready
            || before.available_replicas.unwrap_or(0) < serving
            || before.replicas.unwrap_or(0) > total
            || before.observed_generation != deployment.metadata.generation;
        let deadline_s = spec.progress_deadline_seconds.unwrap_or(600);
        let last =
            before.conditions.iter().flatten().find(|condition| condition.type_ == "Progressing");
        let since =
            last.and_then(|condition| condition.last_update_time.as_ref()).map_or(now, |t| t.0);
        let waited_s = now.duration_since(since).as_secs();
        if !progressed && waited_s >= i64::from(deadline_s) {
            let message = format!("{kind} \"{set_name}\" has timed out progressing.");
            set_condition(
                &mut status,
                "Progressing",
                "False",
                "ProgressDeadlineExceeded",
                &message,
                false,
                now,
            );
        } else {
            let message = format!("{kind} \"{set_name}\" is progressing.");
            set_condition(
                &mut status,
                "Progressing",
                "True",
                "ReplicaSetUpdated",
                &message,
                progressed,
                now,
            );
            let left_s = i64::from(deadline_s) - if progressed { 0 } else { waited_s };
            again = u64::try_from(left_s).ok().map(|seconds| Duration::from_secs(seconds + 1));
        }
    }
    (status, again)
}

fn set_condition(
    status: &mut DeploymentStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: &str,
    touch: bool,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter().position(|condition| condition.type_ == kind);
    let mut new = DeploymentCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let Some(index) = old else { return conditions.push(new) };
    let old = &conditions[index];
    if old.status == new.status {
        new.last_transition_time.clone_from(&old.last_transition_time);
        if old.reason == new.reason && !touch {
            new.last_update_time.clone_from(&old.last_update_time);
        }
    }
    conditions[index] = new;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(replicas: i32) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v2"}]}}},
        }))
        .unwrap()
    }

    fn old_set(replicas: i32, available: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web-old", "annotations": {REVISION: "1"}},
            "spec": {"replicas": replicas, "selector": {}, "template": {"spec": {"containers": [{"name": "c", "image": "v1"}]}}},
            "status": {"replicas": replicas, "availableReplicas": available},
        }))
        .unwrap()
    }

    fn events(plan: &Plan) -> Vec<&str> {
        plan.ops
            .iter()
            .filter_map(|op| if let Op::Event(text) = op { Some(text.as_str()) } else { None })
            .collect()
    }

    #[test]
    fn first_set_has_all_replicas() {
        let plan = plan(&deployment(10), &[], Timestamp::UNIX_EPOCH);
        let name = format!("web-{}", hash(&deployment(10).spec.unwrap().template, 0));
        assert_eq!(events(&plan), [format!("Scaled up replica set {name} from 0 to 10")]);
    }

    #[test]
    fn rolling_update_keeps_within_surge_and_availability() {
        let old = old_set(10, 10);
        let first = plan(&deployment(10), std::slice::from_ref(&old), Timestamp::UNIX_EPOCH);
        let events = events(&first);
        assert!(events[0].ends_with("from 0 to 3"), "{events:?}");
        assert_eq!(events[1], "Scaled down replica set web-old from 10 to 8");
    }
}
