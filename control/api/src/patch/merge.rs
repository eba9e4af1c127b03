//! JSON merge patch, RFC 7386.

use serde_json::Value;

use crate::resource::Resource;
use crate::status::Status;

/// Applies `patch` to `current`.
///
/// # Errors
/// 400 BadRequest when the patch is no JSON object: it would replace the whole object.
pub fn apply(_: &Resource, current: &Value, patch: &Value) -> Result<Value, Status> {
    if !patch.is_object() {
        return Err(Status::bad_request("a merge patch must be a JSON object"));
    }
    let mut patched = current.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::find_kind;

    #[test]
    fn null_removes_and_lists_are_replaced() {
        let pod = find_kind("", "Pod").unwrap();
        let current = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        let patched = apply(pod, &current, &json!({"a": {"b": null}, "l": [3]})).unwrap();
        assert_eq!(patched, json!({"a": {"c": 2}, "l": [3]}));
        assert_eq!(apply(pod, &current, &json!([])).unwrap_err().code, 400);
    }
}
