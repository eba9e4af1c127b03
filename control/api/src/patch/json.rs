//! JSON patch, RFC 6902.

use serde_json::Value;

use super::does_not_apply;
use crate::resource::Resource;
use crate::status::Status;

/// More operations than this are refused, as upstream refuses them.
const OPERATIONS_MAX: usize = 10_000;

/// Applies `patch` to `current`.
///
/// # Errors
/// 400 when the patch is malformed, 413 when it is too long, 422 when it does not fit the object.
pub fn apply(resource: &Resource, current: &Value, patch: &Value) -> Result<Value, Status> {
    let operations = patch
        .as_array()
        .ok_or_else(|| Status::bad_request("a JSON patch must be a list of operations"))?;
    if operations.len() > OPERATIONS_MAX {
        let mut status = Status::request_entity_too_large(OPERATIONS_MAX);
        status.message = format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        );
        return Err(status);
    }
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    let mut patched = current.clone();
    json_patch::patch(&mut patched, &patch).map_err(|error| {
        let why =
            format!("the server rejected our request due to an error in our request: {error}");
        does_not_apply(resource, current, why)
    })?;
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::find_kind;

    #[test]
    fn operations_apply_in_order_or_not_at_all() {
        let pod = find_kind("", "Pod").unwrap();
        let current = json!({"metadata": {"name": "p"}, "l": [1]});
        let patch = json!([
            {"op": "test", "path": "/metadata/name", "value": "p"},
            {"op": "add", "path": "/l/-", "value": 2},
            {"op": "remove", "path": "/l/0"},
        ]);
        assert_eq!(apply(pod, &current, &patch).unwrap()["l"], json!([2]));
        let missing = json!([{"op": "remove", "path": "/spec"}]);
        assert_eq!(apply(pod, &current, &missing).unwrap_err().code, 422);
        assert_eq!(apply(pod, &current, &json!({})).unwrap_err().code, 400);
        assert_eq!(apply(pod, &current, &json!([{"op": "explode"}])).unwrap_err().code, 400);
        let long = Value::Array(vec![json!({"op": "remove", "path": "/l/0"}); 10_001]);
        assert_eq!(apply(pod, &current, &long).unwrap_err().code, 413);
    }
}
