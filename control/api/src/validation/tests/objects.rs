//! Metadata, and the kinds that are mostly metadata or data.

use serde_json::json;

use super::{check, set, valid, wrong_update, wrong_update_of};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

#[test]
fn metadata() {
    check(
        "",
        "ConfigMap",
        vec![
            (
                "/metadata/name",
                json!(null),
                &["metadata.name: Required value: name or generateName is required"],
            ),
            (
                "/metadata/name",
                json!("Upper"),
                &[&format!("metadata.name: Invalid value: \"Upper\": {SUBDOMAIN}")],
            ),
            (
                "/metadata/name",
                json!("x".repeat(254)),
                &[&format!(
                    "metadata.name: Invalid value: \"{}\": must be no more than 253 characters",
                    "x".repeat(254)
                )],
            ),
            ("/metadata/generateName", json!("fine-"), &[]),
            ("/metadata/namespace", json!(null), &["metadata.namespace: Required value"]),
            (
                "/metadata/labels",
                json!({"a/b/c": "x"}),
                &[
                    "metadata.labels: Invalid value: \"a/b/c\": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                ],
            ),
            (
                "/metadata/annotations",
                json!({"a": "x".repeat(262_144)}),
                &["metadata.annotations: Too long: may not be more than 262144 bytes"],
            ),
            (
                "/metadata/ownerReferences",
                json!([{"apiVersion": "v1", "kind": "Pod", "name": "a"}]),
                &["metadata.ownerReferences[0].uid: Required value: must not be empty"],
            ),
            (
                "/metadata/ownerReferences",
                json!([
            {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "1", "controller": true},
            {"apiVersion": "v1", "kind": "Pod", "name": "b", "uid": "2", "controller": true}]),
                &[
                    "metadata.ownerReferences: Invalid value: [{\"apiVersion\":\"v1\",\"controller\":true,\"kind\":\"Pod\",\"name\":\"a\",\"uid\":\"1\"},{\"apiVersion\":\"v1\",\"controller\":true,\"kind\":\"Pod\",\"name\":\"b\",\"uid\":\"2\"}]: Only one reference can have Controller set to true. Found \"true\" in references for Pod/a and Pod/b",
                ],
            ),
        ],
    );
    check(
        "",
        "Namespace",
        vec![
            (
                "/metadata/name",
                json!("a.b"),
                &["metadata.name: Invalid value: \"a.b\": must not contain dots"],
            ),
            (
                "/metadata/namespace",
                json!("x"),
                &["metadata.namespace: Forbidden: not allowed on this type"],
            ),
        ],
    );
}

#[test]
fn metadata_updates() {
    assert_eq!(
        wrong_update("", "ConfigMap", "/metadata/resourceVersion", json!("")),
        ["metadata.resourceVersion: Invalid value: \"\": must be specified for an update"]
    );
    assert_eq!(
        wrong_update("", "ConfigMap", "/metadata/uid", json!("v")),
        ["metadata.uid: Invalid value: \"v\": field is immutable"]
    );
    let mut old = valid("", "ConfigMap");
    set(&mut old, "/metadata/resourceVersion", json!("1"));
    set(&mut old, "/metadata/deletionTimestamp", json!("2024-01-01T00:00:00Z"));
    assert_eq!(
        wrong_update_of("", "ConfigMap", &old, "/metadata/finalizers", json!(["a.b/c"])),
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"a.b/c\"}"
        ]
    );
}

#[test]
fn config_maps_and_secrets() {
    check(
        "",
        "ConfigMap",
        vec![
            (
                "/data",
                json!({"a b": "x"}),
                &[
                    "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                ],
            ),
            (
                "/data",
                json!({"a": "x".repeat(1_048_577)}),
                &["<nil>: Too long: may not be more than 1048576 bytes"],
            ),
        ],
    );
    check(
        "",
        "Secret",
        vec![
            (
                "/type",
                json!("kubernetes.io/tls"),
                &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
            ),
            (
                "/type",
                json!("kubernetes.io/basic-auth"),
                &["data[username]: Required value", "data[password]: Required value"],
            ),
            (
                "/type",
                json!("kubernetes.io/dockerconfigjson"),
                &["data[.dockerconfigjson]: Required value"],
            ),
        ],
    );
    assert_eq!(
        wrong_update("", "Secret", "/type", json!("x")),
        ["type: Invalid value: \"x\": field is immutable"]
    );
    let mut old = valid("", "ConfigMap");
    set(&mut old, "/metadata/resourceVersion", json!("1"));
    set(&mut old, "/immutable", json!(true));
    assert_eq!(
        wrong_update_of("", "ConfigMap", &old, "/data", json!({"a": "b"})),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
}

#[test]
fn nodes_events_and_leases() {
    check(
        "",
        "Node",
        vec![
            (
                "/spec/taints",
                json!([{"key": "a", "effect": "Never"}]),
                &[
                    "metadata.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ],
            ),
            (
                "/spec/taints",
                json!([{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]),
                &[
                    "metadata.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints must be unique by key and effect pair",
                ],
            ),
            (
                "/spec/podCIDRs",
                json!(["10.0.0.0/24", "10.0.1.0/24"]),
                &[
                    "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each IP family",
                ],
            ),
        ],
    );
    check(
        "",
        "Event",
        vec![(
            "/involvedObject/namespace",
            json!("other"),
            &["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"],
        )],
    );
    check(
        "coordination.k8s.io",
        "Lease",
        vec![(
            "/spec/leaseDurationSeconds",
            json!(0),
            &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
        )],
    );
}
