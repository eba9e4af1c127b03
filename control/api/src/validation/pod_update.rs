//! What may change about a pod once it exists: images, a shorter deadline, more tolerations, fewer
//! scheduling gates. Everything else in its spec stays.

use serde_json::Value;

use crate::field::{Cursor, Error};

use super::{format, same, scheduling};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A pod that takes the place of an old one.
pub fn update(at: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    let (spec, old) = (at.child("spec"), old.child("spec"));
    for list in ["containers", "initContainers"] {
        let (new, old) = (spec.child(list), old.child(list));
        if new.len() != old.len() {
            // Upstream stops here: comparing further would only repeat this.
            errors
                .push(Error::forbidden(&new.path, "pod updates may not add or remove containers"));
            return;
        }
    }
    deadline(&spec.child("activeDeadlineSeconds"), &old.child("activeDeadlineSeconds"), errors);
    scheduling::only_added_tolerations(
        &spec.child("tolerations"),
        &old.child("tolerations"),
        errors,
    );
    only_deleted_gates(&spec.child("schedulingGates"), &old.child("schedulingGates"), errors);
    let munged = with_updatable_fields_of(spec.value, old.value);
    if !same(&munged, old.value) {
        let changed = changed_fields(&munged, old.value).join(", ");
        errors.push(spec.forbidden(format!(
            "pod updates may not change fields other than {UPDATABLE}\n changed: {changed}\n"
        )));
    }
}

fn deadline(new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    match (new.int(), old.int()) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            errors.push(new.invalid(format::between(0, i32::MAX.into())));
        }
        (Some(seconds), Some(old)) if old < seconds => {
            errors.push(new.invalid("must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            errors.push(new.invalid("must not update from a positive integer to nil value"))
        }
        _ => {}
    }
}

fn only_deleted_gates(new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    let known = |gate: &Cursor<'_>| old.items().any(|old| old.value == gate.value);
    if new.items().any(|gate| !known(&gate)) {
        errors.push(new.forbidden("only deletion is allowed, but found new scheduling gates"));
    }
}

/// The new spec with the fields that may change as they were.
fn with_updatable_fields_of(new: &Value, old: &Value) -> Value {
    let mut munged = new.clone();
    for list in ["containers", "initContainers"] {
        let (Some(new), Some(old)) = (munged[list].as_array_mut(), old[list].as_array()) else {
            continue;
        };
        for (new, old) in new.iter_mut().zip(old) {
            new["image"] = old["image"].clone();
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        munged[field] = old[field].clone();
    }
    let was_negative =
        old["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0);
    if was_negative && munged["terminationGracePeriodSeconds"].as_i64() == Some(1) {
        munged["terminationGracePeriodSeconds"] = old["terminationGracePeriodSeconds"].clone();
    }
    if old["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        // A pod that is not scheduled yet may be narrowed to fewer nodes.
        for field in ["nodeSelector", "affinity"] {
            munged[field] = old[field].clone();
        }
    }
    munged
}

fn changed_fields(new: &Value, old: &Value) -> Vec<String> {
    let names = |value: &Value| {
        value
            .as_object()
            .map(|fields| fields.keys().cloned().collect::<Vec<_>>())
            .unwrap_or_default()
    };
    let mut all = names(new);
    all.extend(names(old));
    all.sort();
    all.dedup();
    all.retain(|name| !same(&new[name.as_str()], &old[name.as_str()]));
    all
}
