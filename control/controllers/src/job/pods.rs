//! What a Job asks about a pod.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::template::TRACKING;
use crate::pod;

/// Not counted yet: it still has the tracking finalizer.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|finalizer| finalizer == TRACKING)
}

/// Succeeded.
pub(super) fn is_succeeded(pod: &Pod) -> bool {
    pod::phase(pod) == "Succeeded"
}

/// Failed, or being deleted before it could succeed.
pub(super) fn is_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match pod::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        // A pod without a node has no agent that would bring it to an end.
        _ if only_failed_replaced(spec) => {
            pod::is_terminating(pod) && pod::node_name(pod).is_none()
        }
        _ => pod::is_terminating(pod),
    }
}

/// Whether a pod that is being deleted keeps its place until it has failed
/// (`spec.podReplacementPolicy`, KEP-3939).
pub(super) fn only_failed_replaced(spec: &JobSpec) -> bool {
    match spec.pod_replacement_policy.as_deref() {
        Some(policy) => policy == "Failed",
        None => spec.pod_failure_policy.is_some(),
    }
}

/// With `restartPolicy: OnFailure` pods do not fail; the restarts of their containers count instead.
pub(super) fn restarted_too_often(spec: &JobSpec, pods: &[Arc<Pod>], limit: i32) -> bool {
    let template = spec.template.spec.as_ref();
    if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
        return false;
    }
    let alive = pods.iter().filter(|pod| matches!(pod::phase(pod), "Pending" | "Running"));
    let restarts = alive.filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        init.chain(status.container_statuses.iter().flatten())
    });
    let restarts = restarts.map(|container| container.restart_count).fold(0, i32::saturating_add);
    restarts > 0 && restarts >= limit
}
