//! The rows of configuration, identities, and kinds with no columns of their own.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, Cells, Column, NAME, age, column, list, name, text};

pub(super) const CONFIG_MAP: &[Column] = &[NAME, column("Data", "The number of entries."), AGE];

pub(super) fn config_map(map: &Value, now: Timestamp) -> Cells {
    let entries = entries(map, "data") + entries(map, "binaryData");
    vec![name(map), json!(entries), age(map, now)]
}

pub(super) const SECRET: &[Column] = &[
    NAME,
    column("Type", "What programs may expect in it."),
    column("Data", "The number of entries."),
    AGE,
];

pub(super) fn secret(secret: &Value, now: Timestamp) -> Cells {
    vec![
        name(secret),
        json!(text(secret, "/type")),
        json!(entries(secret, "data")),
        age(secret, now),
    ]
}

pub(super) const SERVICE_ACCOUNT: &[Column] =
    &[NAME, column("Secrets", "The number of Secrets its pods may use."), AGE];

pub(super) fn service_account(account: &Value, now: Timestamp) -> Cells {
    vec![name(account), json!(list(account, "/secrets").len()), age(account, now)]
}

/// What upstream shows of kinds it knows nothing about.
pub(super) const ANY: &[Column] = &[
    NAME,
    Column { format: "date", kind: "date", ..column("Created At", "When the object was created.") },
];

pub(super) fn any(object: &Value, _now: Timestamp) -> Cells {
    vec![name(object), json!(text(object, "/metadata/creationTimestamp"))]
}

fn entries(object: &Value, field: &str) -> usize {
    object.get(field).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}
