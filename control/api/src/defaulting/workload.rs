//! Defaults of Deployments, ReplicaSets and Jobs.

use serde_json::{Value, json};

use super::{ensure, items_mut, pod, set, set_if_absent, set_if_empty};

/// A Deployment: one replica, rolling by a quarter, ten old ReplicaSets, ten minutes for progress.
pub fn deployment(object: &mut Value) {
    let spec = ensure(object, "spec");
    set_if_absent(spec, "replicas", 1);
    set_if_absent(spec, "revisionHistoryLimit", 10);
    set_if_absent(spec, "progressDeadlineSeconds", 600);
    let strategy = ensure(spec, "strategy");
    set_if_empty(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling_update = ensure(strategy, "rollingUpdate");
        set_if_absent(rolling_update, "maxUnavailable", "25%");
        set_if_absent(rolling_update, "maxSurge", "25%");
    }
    template(spec);
}

/// A ReplicaSet: one replica.
pub fn replica_set(object: &mut Value) {
    let spec = ensure(object, "spec");
    set_if_absent(spec, "replicas", 1);
    template(spec);
}

/// A Job: run once, six retries. Its selector and labels come from [`crate::strategy`].
pub fn job(object: &mut Value) {
    let spec = ensure(object, "spec");
    let absent = |name: &str| spec.get(name).is_none_or(Value::is_null);
    let (any_parallelism, any_completions) = (absent("parallelism"), absent("completions"));
    if any_parallelism && any_completions {
        set(spec, "completions", 1);
    }
    set_if_absent(spec, "parallelism", 1);
    let per_index = spec.get("backoffLimitPerIndex").is_some_and(Value::is_number);
    set_if_absent(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    set_if_absent(spec, "completionMode", "NonIndexed");
    set_if_absent(spec, "suspend", false);
    set_if_absent(spec, "manualSelector", false);
    let has_failure_policy = spec.get("podFailurePolicy").is_some_and(Value::is_object);
    set_if_absent(
        spec,
        "podReplacementPolicy",
        if has_failure_policy { "Failed" } else { "TerminatingOrFailed" },
    );
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        for rule in items_mut(policy, "rules") {
            items_mut(rule, "onPodConditions")
                .for_each(|condition| set_if_empty(condition, "status", "True"));
        }
    }
    template(spec);
    labels_from_template(object);
}

fn template(spec: &mut Value) {
    let template = ensure(spec, "template");
    pod::pod_spec(ensure(template, "spec"));
}

fn labels_from_template(object: &mut Value) {
    let is_empty = |labels: Option<&Value>| {
        labels.and_then(Value::as_object).is_none_or(serde_json::Map::is_empty)
    };
    let labels =
        object.pointer("/spec/template/metadata/labels").cloned().unwrap_or_else(|| json!({}));
    if is_empty(object.pointer("/metadata/labels")) && !is_empty(Some(&labels)) {
        set(ensure(object, "metadata"), "labels", labels);
    }
}
