//! Strategic merge by tables: what was, the patch, what becomes of it.

use serde_json::json;

use super::*;
use crate::resource::find_kind;

fn check(group: &str, kind: &str, current: Value, patch: Value, expected: Value) {
    let resource = find_kind(group, kind).unwrap();
    assert_eq!(apply(resource, &current, &patch).unwrap(), expected, "{patch}");
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

#[test]
fn lists_with_a_merge_key_are_merged_by_it() {
    check(
        "",
        "Pod",
        pod(
            json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}]}),
        ),
        json!({"spec": {"containers": [
            {"name": "a", "env": [{"name": "Y", "value": "2"}]},
            {"name": "b", "image": "2"},
        ]}}),
        pod(json!({"containers": [
            {
                "name": "a",
                "image": "1",
                "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
            },
            {"name": "b", "image": "2"},
        ]})),
    );
}

#[test]
fn items_are_deleted_and_lists_replaced_by_directive() {
    let current = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    check(
        "",
        "Pod",
        current.clone(),
        json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
        pod(json!({"containers": [{"name": "b"}]})),
    );
    check(
        "",
        "Pod",
        current.clone(),
        json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}}),
        pod(json!({"containers": [{"name": "c"}]})),
    );
    check(
        "",
        "Pod",
        current,
        json!({"spec": {"$patch": "replace", "nodeName": "n"}}),
        pod(json!({"nodeName": "n"})),
    );
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    check(
        "",
        "Pod",
        pod(json!({"tolerations": [{"key": "a"}]})),
        json!({"spec": {"tolerations": [{"key": "b"}]}}),
        pod(json!({"tolerations": [{"key": "b"}]})),
    );
}

#[test]
fn plain_lists_are_sets() {
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    check(
        "",
        "Pod",
        finalizers(json!(["a", "b"])),
        json!({"metadata": {"finalizers": ["b", "c"], "$deleteFromPrimitiveList/finalizers": ["a"]}}),
        finalizers(json!(["b", "c"])),
    );
}

#[test]
fn retain_keys_drops_what_the_patch_does_not_name() {
    check(
        "apps",
        "Deployment",
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
}

#[test]
fn the_order_asked_for_is_kept_around_what_others_added() {
    check(
        "",
        "Pod",
        pod(json!({"containers": [{"name": "a"}, {"name": "sidecar"}, {"name": "b"}]})),
        json!({"spec": {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "new"}, {"name": "a"}],
            "containers": [{"name": "new"}, {"name": "b", "image": "2"}],
        }}),
        pod(json!({"containers": [
            {"name": "sidecar"}, {"name": "b", "image": "2"}, {"name": "new"}, {"name": "a"},
        ]})),
    );
    check(
        "",
        "Pod",
        pod(json!({"containers": [{"name": "a"}, {"name": "b"}]})),
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
        pod(json!({"containers": [{"name": "b"}, {"name": "a"}]})),
    );
}

#[test]
fn null_removes_and_maps_of_strings_merge() {
    check(
        "",
        "Service",
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"ports": [{"port": 80}]}}),
        json!({"metadata": {"labels": {"a": null, "c": "3"}}, "spec": {"ports": [{"port": 80, "name": "x"}]}}),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}}, "spec": {"ports": [{"port": 80, "name": "x"}]}}),
    );
}

#[test]
fn strategies_are_found_through_inlined_structs() {
    let key = schema::key("", "v1", "EphemeralContainer");
    assert_eq!(strategy(&key, "env").unwrap().merge_key, Some("name"));
    // Every row of the table names a field that exists.
    for row in STRATEGIES.lines().filter(|line| !line.starts_with('#')) {
        let mut words = row.split(' ');
        let (key, field) = (words.next().unwrap(), words.next().unwrap());
        let message = schema::message_by_key(key).unwrap_or_else(|| panic!("{row}"));
        assert!(message.field(field).is_some(), "{row}");
    }
}

#[test]
fn patches_that_make_no_sense_are_refused() {
    let resource = find_kind("", "Pod").unwrap();
    let current = pod(json!({"containers": [{"name": "a"}]}));
    let cases = [
        (
            json!({"spec": {"containers": [{"image": "1"}]}}),
            422,
            "does not contain declared merge key: name",
        ),
        (json!({"spec": {"$patch": "explode"}}), 422, "Unknown patch type: explode"),
        (json!([]), 400, "must be a JSON object"),
    ];
    for (patch, code, why) in cases {
        let error = apply(resource, &current, &patch).unwrap_err();
        assert_eq!(error.code, code, "{patch}");
        assert!(error.message.contains(why), "{error}");
    }
}
