//! New Jobs: the selector and the labels that tie their pods to them.

use serde_json::{Value, json};

use crate::object;

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// Prepares a new Job; it must have its name and uid.
pub fn prepare_create(job: &mut Value) {
    job["status"] = json!({});
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let (name, uid) = (object::name(job).to_owned(), object::uid(job).to_owned());
    let spec = &mut job["spec"];
    if spec["template"]["metadata"]["labels"].is_null() {
        spec["template"]["metadata"]["labels"] = json!({});
    }
    let labels = &mut spec["template"]["metadata"]["labels"];
    // The keys without a prefix are what releases before 1.27 used.
    for (key, value) in
        [(CONTROLLER_UID, &uid), ("controller-uid", &uid), (JOB_NAME, &name), ("job-name", &name)]
    {
        labels[key] = Value::from(value.as_str());
    }
    if spec["selector"].is_null() {
        spec["selector"] = json!({"matchLabels": {}});
    }
    spec["selector"]["matchLabels"][CONTROLLER_UID] = Value::from(uid);
}
