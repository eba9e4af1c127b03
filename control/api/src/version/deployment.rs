//! `apps/v1beta1` Deployment: another set of defaults, and `rollbackTo`.

use serde_json::{Value, json};

use super::Direction;
use crate::object;

/// Where upstream keeps `rollbackTo` in the versions that do not have it.
const ROLLBACK_ANNOTATION: &str = "deprecated.deployment.rollback.to";

/// `v1beta1` kept two old ReplicaSets where v1 keeps ten.
const REVISION_HISTORY_LIMIT: u32 = 2;

pub(super) fn v1beta1(deployment: &mut Value, direction: Direction) {
    match direction {
        Direction::ToStorage => to_v1(deployment),
        Direction::FromStorage => from_v1(deployment),
    }
}

fn to_v1(deployment: &mut Value) {
    let labels = deployment.pointer("/spec/template/metadata/labels").cloned();
    let spec = object::child_mut(deployment, "spec");
    let rollback = spec.remove("rollbackTo");
    spec.entry("revisionHistoryLimit").or_insert_with(|| json!(REVISION_HISTORY_LIMIT));
    // v1beta1 took the labels of the template where the selector or the labels were left out.
    if let Some(labels) = labels.filter(|labels| labels.is_object()) {
        if spec.get("selector").is_none_or(Value::is_null) {
            spec.insert("selector".to_owned(), json!({"matchLabels": labels.clone()}));
        }
        let metadata = object::metadata_mut(deployment);
        let own = metadata.entry("labels").or_insert_with(|| json!({}));
        if own.as_object().is_none_or(serde_json::Map::is_empty) {
            *own = labels;
        }
    }
    if let Some(rollback) = rollback.filter(Value::is_object) {
        let revision = rollback.get("revision").and_then(Value::as_i64).unwrap_or_default();
        let metadata = object::metadata_mut(deployment);
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(ROLLBACK_ANNOTATION.to_owned(), json!(revision.to_string()));
        }
    }
}

fn from_v1(deployment: &mut Value) {
    let annotations = object::metadata_mut(deployment).get_mut("annotations");
    let Some(annotations) = annotations.and_then(Value::as_object_mut) else { return };
    let Some(rollback) = annotations.remove(ROLLBACK_ANNOTATION) else { return };
    if annotations.is_empty() {
        object::unset(deployment, "annotations");
    }
    let revision: i64 = rollback.as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
    object::child_mut(deployment, "spec")
        .insert("rollbackTo".to_owned(), json!({"revision": revision}));
}
