//! The metadata that is the server's to write, whatever a client sends.

use jiff::Timestamp;
use podium_api::object;
use serde_json::Value;

/// Fields a new object gets from the server alone.
const OF_SERVER: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Fields an update cannot change.
const KEPT: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generateName",
    "generation",
    "name",
    "namespace",
    "uid",
];

/// Gives a new object its identity.
pub(super) fn create(new: &mut Value, namespaced: bool, namespace: &str, now: Timestamp) {
    for field in OF_SERVER {
        object::unset(new, field);
    }
    object::unset(new, "managedFields");
    object::set(new, "uid", object::new_uid(&mut rand::rng()));
    object::set(new, "creationTimestamp", object::time(now));
    if namespaced {
        object::set(new, "namespace", namespace);
    } else {
        object::unset(new, "namespace");
    }
}

/// Gives a changed object what it had.
pub(super) fn keep(new: &mut Value, old: &Value) {
    for field in KEPT {
        match old["metadata"].get(field) {
            Some(value) => object::set(new, field, value.clone()),
            None => object::unset(new, field),
        }
    }
    object::unset(new, "selfLink");
    object::unset(new, "managedFields");
}

/// Whether nothing but the deletion itself is left to do: no finalizers, no grace, and for a
/// Namespace nothing in its spec either.
pub(super) fn may_go(object: &Value) -> bool {
    object::is_terminating(object)
        && object::finalizers(object).next().is_none()
        && object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && (object::kind(object) != "Namespace" || !has_spec_finalizers(object))
}

/// Whether a Namespace waits for its content to go.
pub(super) fn has_spec_finalizers(namespace: &Value) -> bool {
    namespace["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}
