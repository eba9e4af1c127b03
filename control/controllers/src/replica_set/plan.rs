//! How many pods a ReplicaSet makes, and which it gives up. Pure.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::pod;

const BURST_MAX: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

pub(super) struct Plan {
    pub(super) create: usize,
    pub(super) delete: Vec<Arc<Pod>>,
}

/// `pods` are the set's own, `siblings` the active ones of all sets of the same owner.
pub(super) fn plan(
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    siblings: &[Arc<Pod>],
    now: Timestamp,
) -> Plan {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let wanted = usize::try_from(wanted).unwrap_or(0);
    let mut active: Vec<_> = pods.iter().filter(|pod| pod::is_active(pod)).cloned().collect();
    let create = wanted.saturating_sub(active.len()).min(BURST_MAX);
    let excess = active.len().saturating_sub(wanted).min(BURST_MAX);
    if excess > 0 && excess < active.len() {
        let mut crowd: HashMap<Option<&str>, usize> = HashMap::new();
        for pod in siblings {
            *crowd.entry(pod::node_name(pod)).or_default() += 1;
        }
        active.sort_by_cached_key(|pod| {
            rank(pod, crowd.get(&pod::node_name(pod)).copied().unwrap_or(0), now)
        });
    }
    active.truncate(excess);
    Plan { create, delete: active }
}

/// Sizes of the batches pods are made in: 1, 2, 4, …
pub(super) fn batches(count: usize) -> impl Iterator<Item = usize> {
    let (mut left, mut size) = (count, 1);
    std::iter::from_fn(move || {
        let batch = size.min(left);
        left -= batch;
        size *= 2;
        (batch > 0).then_some(batch)
    })
}

type Rank =
    (bool, u8, bool, i32, Reverse<usize>, Option<u32>, Reverse<i32>, Option<u32>, Option<String>);

/// Upstream's order of victims: unbound, pending, not ready, cheap, crowded node, ready for a short
/// time, restarted often, young, and then by UID. Times are compared by their order of magnitude,
/// so that it is not always the youngest that goes.
fn rank(pod: &Pod, neighbours: usize, now: Timestamp) -> Rank {
    let phase = match pod::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let cost = pod.annotations().get(DELETION_COST).and_then(|text| text.parse().ok());
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let restarts = statuses.into_iter().flatten().map(|status| status.restart_count).max();
    let magnitude = |since: Timestamp| {
        let age_ns = now.duration_since(since).as_nanos();
        u128::try_from(age_ns).ok().and_then(u128::checked_ilog2)
    };
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (
        pod::node_name(pod).is_some(),
        phase,
        pod::is_ready(pod),
        cost.unwrap_or(0),
        Reverse(neighbours),
        pod::ready_since(pod).and_then(magnitude),
        Reverse(restarts.unwrap_or(0)),
        created.and_then(magnitude),
        pod.uid(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-02T00:00:00Z";

    fn one(name: &str, node: Option<&str>, status: &Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {DELETION_COST: status["cost"].as_str().unwrap_or("0")}},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": status["phase"].as_str().unwrap_or("Running"), "conditions": [
                {"type": "Ready", "status": status["ready"].as_str().unwrap_or("True"),
                    "lastTransitionTime": status["since"].as_str().unwrap_or("2026-01-01T01:00:00Z")}]},
        });
        if let Some(created) = status["created"].as_str() {
            pod["metadata"]["creationTimestamp"] = json!(created);
        }
        if let Some(restarts) = status["restarts"].as_i64() {
            pod["status"]["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "",
                "ready": true, "restartCount": restarts}]);
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn check(wanted: usize, pods: &[Arc<Pod>], create: usize, victims: &[&str]) {
        let set = json!({"metadata": {}, "spec": {"replicas": wanted, "selector": {}}});
        let set = serde_json::from_value(set).unwrap();
        let plan = plan(&set, pods, pods, NOW.parse().unwrap());
        let names: Vec<_> = plan.delete.iter().map(|pod| pod.name_any()).collect();
        assert_eq!(
            (plan.create, names),
            (create, victims.iter().map(ToString::to_string).collect())
        );
    }

    #[test]
    fn each_rule_outranks_the_ones_after_it() {
        let pods = [
            one("old", Some("a"), &json!({})),
            one("young", Some("b"), &json!({"created": "2026-01-01T23:59:00Z"})),
            one("restarted", Some("c"), &json!({"restarts": 3})),
            one("fresh", Some("d"), &json!({"since": "2026-01-01T23:59:59Z"})),
            one("crowded", Some("e"), &json!({})),
            one("crowded-cheap", Some("e"), &json!({"cost": "-5"})),
            one("unready", Some("f"), &json!({"ready": "False", "cost": "9"})),
            one("pending", Some("g"), &json!({"phase": "Pending", "ready": "False", "cost": "99"})),
            one("unbound", None, &json!({"phase": "Pending", "ready": "False", "cost": "99"})),
            one("done", Some("g"), &json!({"phase": "Succeeded", "ready": "False"})),
        ];
        let order = [
            "unbound",
            "pending",
            "unready",
            "crowded-cheap",
            "crowded",
            "fresh",
            "restarted",
            "young",
        ];
        check(11, &pods, 2, &[]);
        check(9, &pods, 0, &[]);
        for count in 1..=order.len() {
            check(9 - count, &pods, 0, &order[..count]);
        }
    }

    #[test]
    fn bursts_and_batches() {
        check(2000, &[], BURST_MAX, &[]);
        for (count, sizes) in [(0, vec![]), (1, vec![1]), (10, vec![1, 2, 4, 3])] {
            assert_eq!(batches(count).collect::<Vec<_>>(), sizes);
        }
    }
}
