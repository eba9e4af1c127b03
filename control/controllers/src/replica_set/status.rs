//! The status of a ReplicaSet. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use crate::{Error, pod};

const FAILURE: &str = "ReplicaFailure";

/// Why pods could not be made or deleted.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: &'static str,
    pub(super) error: Error,
}

/// `pods` are all the set controls; also says when a ready pod becomes available by time alone.
pub(super) fn status(
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.clone().unwrap_or_default();
    let labels = spec.template.and_then(|template| template.metadata).and_then(|meta| meta.labels);
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| pod::is_active(pod)).collect();
    let count = |test: &dyn Fn(&Pod) -> bool| {
        i32::try_from(active.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
    };
    let some = |count: i32| (count != 0).then_some(count);
    let min_ready_s = spec.min_ready_seconds.unwrap_or(0);
    let labelled = |pod: &Pod| {
        labels.iter().flatten().all(|(key, value)| pod.labels().get(key) == Some(value))
    };
    let ending =
        pods.iter().filter(|pod| pod::is_terminating(pod) && !pod::is_finished(pod)).count();
    let status = ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: some(count(&labelled)),
        ready_replicas: some(count(&pod::is_ready)),
        available_replicas: some(count(&|pod| pod::is_available(pod, min_ready_s, now))),
        terminating_replicas: i32::try_from(ending).ok(),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failure, now),
    };
    let soon = active.iter().filter(|pod| !pod::is_available(pod, min_ready_s, now));
    let soon = soon.filter_map(|pod| {
        let at = pod::ready_since(pod)? + SignedDuration::from_secs(min_ready_s.into());
        Duration::try_from(at.duration_since(now)).ok()
    });
    (status, soon.min().map(|left| left + Duration::from_millis(10)))
}

/// The first failure stays until all goes well again, as upstream.
fn conditions(
    set: &ReplicaSet,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let before = set.status.as_ref().and_then(|status| status.conditions.clone());
    let mut all = before.unwrap_or_default();
    match failure {
        None => all.retain(|condition| condition.type_ != FAILURE),
        Some(_) if all.iter().any(|condition| condition.type_ == FAILURE) => {}
        Some(failure) => all.push(ReplicaSetCondition {
            type_: FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.error.to_string()),
            last_transition_time: Some(Time(now)),
        }),
    }
    Some(all).filter(|all| !all.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts() {
        let pod = |labels: &str, since: &str, more: serde_json::Value| {
            let mut pod = json!({"metadata": {"labels": {"app": labels}}, "spec": {"containers": []},
                "status": {"phase": "Running", "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": since}]}});
            for (key, value) in more.as_object().into_iter().flatten() {
                pod["metadata"][key] = value.clone();
            }
            Arc::new(serde_json::from_value::<Pod>(pod).unwrap())
        };
        let pods = [
            pod("web", "2026-01-01T00:00:00Z", json!({})),
            pod("web", "2026-01-01T00:00:55Z", json!({})),
            pod(
                "web",
                "2026-01-01T00:00:58Z",
                json!({"deletionTimestamp": "2026-01-01T00:00:59Z"}),
            ),
            pod("db", "2026-01-01T00:00:00Z", json!({})),
        ];
        let set = json!({"metadata": {"generation": 7}, "spec": {"minReadySeconds": 10,
            "selector": {}, "template": {"metadata": {"labels": {"app": "web"}}}}});
        let set = serde_json::from_value(set).unwrap();
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let (status, again) = status(&set, &pods, None, now);
        let expected = json!({"replicas": 3, "fullyLabeledReplicas": 2, "readyReplicas": 3,
            "availableReplicas": 2, "terminatingReplicas": 1, "observedGeneration": 7});
        assert_eq!(serde_json::to_value(&status).unwrap(), expected);
        assert_eq!(again, Some(Duration::from_millis(5010)));
    }
}
