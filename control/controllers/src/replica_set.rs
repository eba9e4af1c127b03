//! ReplicaSet controller: keeps as many pods as asked for, adopts and releases by labels, and writes
//! the status.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt as _};

use crate::informer::{Change, Key, controller_of};
use crate::queue::Controller;
use crate::write::Context;
use crate::{Error, pod, selector};

const COMPONENT: &str = "replicaset-controller";
const BURST_MAX: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

pub(crate) struct ReplicaSets(pub(crate) Context);

impl Controller for ReplicaSets {
    const NAME: &'static str = "replicaset";

    fn keys(&self, change: &Change) -> Vec<Key> {
        match change.kind {
            "ReplicaSet" => vec![change.key.clone()],
            "Pod" => {
                let owners = change.owners("ReplicaSet");
                let orphan = change.new.as_ref().is_some_and(|new| controller_of(new).is_none());
                if !orphan {
                    return owners;
                }
                let sets = self.0.cache.replica_sets.list_in(&change.key.namespace);
                let labels = change.new.as_ref().and_then(|new| new.labels.as_ref());
                let adopters = sets.iter().filter(|set| selects(set, labels));
                owners.into_iter().chain(adopters.map(|set| Key::of(&set.metadata))).collect()
            }
            _ => Vec::new(),
        }
    }

    fn all(&self) -> Vec<Key> {
        self.0.cache.replica_sets.keys()
    }

    async fn sync(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let cache = &self.0.cache;
        let Some(set) = cache.replica_sets.get(key) else { return Ok(None) };
        let pods = self.claim(&set).await?;
        let plan = plan(&set, &pods);
        if set.metadata.deletion_timestamp.is_none() {
            self.create(&set, plan.create).await?;
            for victim in &plan.delete {
                self.0.delete(&cache.pods, &**victim).await?;
                let message = format!("Deleted pod: {}", victim.name_any());
                self.0.events.normal(COMPONENT, &*set, "SuccessfulDelete", message);
            }
        }
        let uid = set.metadata.uid.clone();
        let owned = cache.pods.list_in(&key.namespace);
        let owned: Vec<_> = owned
            .into_iter()
            .filter(|pod| controller_of(&pod.metadata).map(|owner| &owner.uid) == uid.as_ref())
            .collect();
        let mut new = (*set).clone();
        new.status = Some(status(&set, &owned, Timestamp::now()));
        self.0.update_status(&cache.replica_sets, &set, &new).await?;
        let min_ready_s = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        let waiting = owned.iter().any(|pod| pod::is_ready(pod)) && min_ready_s > 0;
        let unavailable = new.status.is_some_and(|s| s.available_replicas != s.ready_replicas);
        Ok((waiting && unavailable).then_some(Duration::from_secs(1)))
    }
}

impl ReplicaSets {
    /// Adopts orphans the selector takes, releases pods it takes no longer.
    async fn claim(&self, set: &ReplicaSet) -> Result<Vec<Arc<Pod>>, Error> {
        let store = &self.0.cache.pods;
        let mut claimed = Vec::new();
        let deleting = set.metadata.deletion_timestamp.is_some();
        for pod in store.list_in(set.metadata.namespace.as_deref().unwrap_or_default()) {
            let selected = selects(set, pod.metadata.labels.as_ref());
            match controller_of(&pod.metadata) {
                Some(owner) if Some(&owner.uid) == set.metadata.uid.as_ref() && selected => {
                    claimed.push(pod);
                }
                Some(owner) if Some(&owner.uid) == set.metadata.uid.as_ref() && !deleting => {
                    let mut released = (*pod).clone();
                    let owners = released.owner_references_mut();
                    owners.retain(|owner| Some(&owner.uid) != set.metadata.uid.as_ref());
                    self.0.update(store, &*pod, &released).await?;
                }
                None if selected && !deleting && pod::is_active(&pod) => {
                    let mut adopted = (*pod).clone();
                    adopted.owner_references_mut().extend(owner(set));
                    self.0.update(store, &*pod, &adopted).await?;
                    claimed.push(Arc::new(adopted));
                }
                _ => {}
            }
        }
        Ok(claimed)
    }

    /// Creates pods in batches of 1, 2, 4, …: a template that is refused is refused few times.
    async fn create(&self, set: &ReplicaSet, count: usize) -> Result<(), Error> {
        let Some(template) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else {
            return Ok(());
        };
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let now = batch.min(left);
            let one = new_pod(template, &set.name_any(), set.namespace(), owner(set));
            let made = join_all((0..now).map(|_| self.0.create(&self.0.cache.pods, &one))).await;
            for made in made {
                match made {
                    Ok(pod) => {
                        let message = format!("Created pod: {}", pod.name_any());
                        self.0.events.normal(COMPONENT, set, "SuccessfulCreate", message);
                    }
                    Err(error) => {
                        let message = format!("Error creating: {error}");
                        self.0.events.warning(COMPONENT, set, "FailedCreate", message);
                        return Err(error);
                    }
                }
            }
            (left, batch) = (left - now, batch * 2);
        }
        Ok(())
    }
}

fn selects(set: &ReplicaSet, labels: Option<&selector::Labels>) -> bool {
    set.spec.as_ref().is_some_and(|spec| selector::matches(&spec.selector, labels))
}

/// The reference of a controlling owner that foreground deletion waits behind.
pub(crate) fn owner<K: Resource<DynamicType = ()>>(object: &K) -> Option<OwnerReference> {
    let mut owner = object.controller_owner_ref(&())?;
    owner.block_owner_deletion = Some(true);
    Some(owner)
}

/// A pod of a template, named after its owner.
pub(crate) fn new_pod(
    template: &PodTemplateSpec,
    owner_name: &str,
    namespace: Option<String>,
    owner: Option<OwnerReference>,
) -> Pod {
    let metadata = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{owner_name}-")),
            namespace,
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

struct Plan {
    create: usize,
    delete: Vec<Arc<Pod>>,
}

fn plan(set: &ReplicaSet, pods: &[Arc<Pod>]) -> Plan {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let wanted = usize::try_from(wanted).unwrap_or(0);
    let mut active: Vec<_> = pods.iter().filter(|pod| pod::is_active(pod)).cloned().collect();
    let create = wanted.saturating_sub(active.len()).min(BURST_MAX);
    let excess = active.len().saturating_sub(wanted).min(BURST_MAX);
    active.sort_by_cached_key(|pod| rank(pod, pods));
    active.truncate(excess);
    Plan { create, delete: active }
}

type Rank = (
    bool,
    u8,
    bool,
    i64,
    Reverse<usize>,
    Reverse<Option<Timestamp>>,
    i32,
    Reverse<Option<Timestamp>>,
);

/// Upstream's order of victims: unbound, pending, not ready, cheap, crowded node, ready for a short
/// time, restarted little last, young.
fn rank(pod: &Pod, pods: &[Arc<Pod>]) -> Rank {
    let phase = match pod::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let cost = pod.annotations().get(DELETION_COST).and_then(|text| text.parse().ok());
    let neighbours = pods
        .iter()
        .filter(|other| pod::is_active(other) && pod::node_name(other) == pod::node_name(pod))
        .count();
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let restarts = statuses.into_iter().flatten().map(|status| status.restart_count).max();
    (
        pod::node_name(pod).is_some(),
        phase,
        pod::is_ready(pod),
        cost.unwrap_or(0),
        Reverse(neighbours),
        Reverse(pod::ready_since(pod)),
        -restarts.unwrap_or(0),
        Reverse(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)),
    )
}

fn status(set: &ReplicaSet, pods: &[Arc<Pod>], now: Timestamp) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let labels = spec.template.and_then(|template| template.metadata).and_then(|meta| meta.labels);
    let count = |test: &dyn Fn(&Pod) -> bool| {
        i32::try_from(pods.iter().filter(|pod| pod::is_active(pod) && test(pod)).count())
            .unwrap_or(i32::MAX)
    };
    let some = |count: i32| (count != 0).then_some(count);
    let min_ready_s = spec.min_ready_seconds.unwrap_or(0);
    let labelled = |pod: &Pod| {
        labels.iter().flatten().all(|(key, value)| pod.labels().get(key) == Some(value))
    };
    let going =
        pods.iter().filter(|pod| pod::is_terminating(pod) && !pod::is_finished(pod)).count();
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: some(count(&labelled)),
        ready_replicas: some(count(&pod::is_ready)),
        available_replicas: some(count(&|pod| pod::is_available(pod, min_ready_s, now))),
        terminating_replicas: i32::try_from(going).ok().and_then(some),
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(name: &str, phase: &str, ready: &str, cost: &str) -> Arc<Pod> {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": {DELETION_COST: cost}},
            "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
        }));
        Arc::new(pod.unwrap())
    }

    #[test]
    fn victims() {
        let pods = [
            one("ready", "Running", "True", "0"),
            one("cheap", "Running", "True", "-5"),
            one("unready", "Running", "False", "0"),
            one("pending", "Pending", "False", "9"),
            one("done", "Succeeded", "False", "0"),
        ];
        for (wanted, create, victims) in [
            (6, 2, vec![]),
            (4, 0, vec![]),
            (2, 0, vec!["pending", "unready"]),
            (1, 0, vec!["pending", "unready", "cheap"]),
        ] {
            let set = json!({"metadata": {}, "spec": {"replicas": wanted, "selector": {}}});
            let plan = plan(&serde_json::from_value(set).unwrap(), &pods);
            let names: Vec<_> = plan.delete.iter().map(|pod| pod.name_any()).collect();
            assert_eq!(
                (plan.create, names),
                (create, victims.iter().map(ToString::to_string).collect())
            );
        }
    }
}
