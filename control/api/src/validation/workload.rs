//! Deployments and ReplicaSets.

use serde_json::Value;

use crate::field::{Cursor, Error};

use super::{format, immutable, metadata, non_negative, pod};

/// A Deployment.
pub fn deployment(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let spec = at.child("spec");
    non_negative(&spec.child("replicas"), errors);
    selector(&spec.child("selector"), "empty selector is invalid for deployment", errors);
    replica_template(&spec, errors);
    strategy(&spec.child("strategy"), errors);
    non_negative(&spec.child("minReadySeconds"), errors);
    non_negative(&spec.child("revisionHistoryLimit"), errors);
    let deadline = spec.child("progressDeadlineSeconds");
    if let Some(seconds) = deadline.int() {
        non_negative(&deadline, errors);
        if seconds <= spec.child("minReadySeconds").int_or_zero() {
            errors.push(deadline.invalid("must be greater than minReadySeconds"));
        }
    }
    let status = at.child("status");
    counts(
        &status,
        &[
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
        ],
        errors,
    );
}

/// A ReplicaSet.
pub fn replica_set(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let spec = at.child("spec");
    non_negative(&spec.child("replicas"), errors);
    non_negative(&spec.child("minReadySeconds"), errors);
    selector(&spec.child("selector"), "empty selector is invalid for deployment", errors);
    replica_template(&spec, errors);
    counts(
        &at.child("status"),
        &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        errors,
    );
}

/// The selector of a Deployment or ReplicaSet stays.
pub fn update(at: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    immutable(&at.descend(&["spec", "selector"]), &old.descend(&["spec", "selector"]), errors);
}

fn counts(status: &Cursor<'_>, names: &[&str], errors: &mut Vec<Error>) {
    names.iter().for_each(|name| non_negative(&status.child(name), errors));
    let count = |name: &str| status.child(name).int_or_zero();
    let too_many = |name: &str| {
        Error::invalid(
            &status.path.child(name),
            count(name),
            "cannot be greater than status.replicas",
        )
    };
    let parts = names.iter().filter(|name| !matches!(**name, "replicas" | "unavailableReplicas"));
    errors.extend(parts.filter(|name| count(name) > count("replicas")).map(|name| too_many(name)));
    if count("availableReplicas") > count("readyReplicas") {
        let available = status.child("availableReplicas");
        errors.push(available.invalid("cannot be greater than readyReplicas"));
    }
}

fn selector(at: &Cursor<'_>, empty: &str, errors: &mut Vec<Error>) {
    if !at.is_set() {
        errors.push(at.required(""));
        return;
    }
    metadata::label_selector(at, errors);
    if at.child("matchLabels").is_empty() && at.child("matchExpressions").is_empty() {
        errors.push(at.invalid(empty));
    }
}

fn replica_template(spec: &Cursor<'_>, errors: &mut Vec<Error>) {
    let (selector, template) = (spec.child("selector"), spec.child("template"));
    let labels = template.descend(&["metadata", "labels"]);
    let is_empty =
        selector.child("matchLabels").is_empty() && selector.child("matchExpressions").is_empty();
    match metadata::selector_matches(&selector, &labels) {
        None => errors.push(selector.invalid("invalid label selector")),
        Some(false) if !is_empty => {
            errors.push(labels.invalid("`selector` does not match template `labels`"))
        }
        Some(_) => {}
    }
    pod::template(&template, errors);
    let policy = template.descend(&["spec", "restartPolicy"]);
    if policy.text() != "Always" {
        errors.push(policy.not_supported(&["Always"]));
    }
    let deadline = template.descend(&["spec", "activeDeadlineSeconds"]);
    if deadline.is_set() {
        errors.push(deadline.forbidden("activeDeadlineSeconds in ReplicaSet is not Supported"));
    }
}

fn strategy(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let rolling = at.child("rollingUpdate");
    match at.child("type").text() {
        "Recreate" if rolling.is_set() => {
            errors
                .push(rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"));
        }
        "Recreate" => {}
        "RollingUpdate" if !rolling.is_set() => {
            errors.push(rolling.required("this should be defaulted and never be nil"));
        }
        "RollingUpdate" => rolling_update(&rolling, errors),
        _ => errors.push(at.not_supported(&["Recreate", "RollingUpdate"])),
    }
}

fn rolling_update(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let (unavailable, surge) = (at.child("maxUnavailable"), at.child("maxSurge"));
    int_or_percent(&unavailable, errors);
    int_or_percent(&surge, errors);
    let is_zero = |at: &Cursor<'_>| {
        at.int() == Some(0) || at.text().strip_suffix('%').is_some_and(|n| n.parse() == Ok(0))
    };
    if is_zero(&unavailable) && is_zero(&surge) {
        errors.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
    }
    let percent =
        unavailable.text().strip_suffix('%').and_then(|percent| percent.parse::<i64>().ok());
    if percent.is_some_and(|percent| percent > 100) {
        errors.push(unavailable.invalid("must not be greater than 100%"));
    }
}

/// A count, or a share of the replicas.
fn int_or_percent(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    match at.value {
        Value::String(text) => super::complain(at, format::percent(text), errors),
        _ => non_negative(at, errors),
    }
}
