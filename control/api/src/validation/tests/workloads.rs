//! Deployments, ReplicaSets and Jobs.

use serde_json::json;

use super::{check, wrong_update};

#[test]
fn deployments() {
    check(
        "apps",
        "Deployment",
        vec![
            ("/spec/selector", json!(null), &["spec.selector: Required value"]),
            (
                "/spec/selector",
                json!({}),
                &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
            ),
            (
                "/spec/selector/matchLabels",
                json!({"app": "b"}),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                "/spec/replicas",
                json!(-1),
                &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                &[
                    "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                ],
            ),
            (
                "/spec/template/spec/activeDeadlineSeconds",
                json!(5),
                &[
                    "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
                ],
            ),
            (
                "/spec/template/metadata/labels",
                json!({"app": "a", "x": "-"}),
                &[
                    "spec.template.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
                ],
            ),
            (
                "/spec/strategy",
                json!({"type": "Recreate", "rollingUpdate": {}}),
                &[
                    "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                ],
            ),
            (
                "/spec/strategy/rollingUpdate",
                json!({"maxSurge": 0, "maxUnavailable": "0%"}),
                &[
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                "/spec/strategy/rollingUpdate",
                json!({"maxSurge": "many", "maxUnavailable": "101%"}),
                &[
                    "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"many\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                ],
            ),
            (
                "/spec/minReadySeconds",
                json!(600),
                &[
                    "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
                ],
            ),
        ],
    );
    assert_eq!(
        wrong_update("apps", "Deployment", "/spec/selector/matchLabels", json!({"app": "b"})),
        [
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable",
            "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`"
        ]
    );
    assert_eq!(
        wrong_update("apps", "Deployment", "/spec/template/spec/containers/0/image", json!("b")),
        [""; 0]
    );
}

#[test]
fn replica_sets() {
    check(
        "apps",
        "ReplicaSet",
        vec![
            ("/spec/selector", json!(null), &["spec.selector: Required value"]),
            (
                "/status",
                json!({"replicas": 1, "readyReplicas": 2}),
                &["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"],
            ),
        ],
    );
}

#[test]
fn jobs() {
    check(
        "batch",
        "Job",
        vec![
            (
                "/spec/template/spec/restartPolicy",
                json!("Always"),
                &[
                    "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                ],
            ),
            (
                "/spec/completions",
                json!(-1),
                &["spec.completions: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/backoffLimit",
                json!(-5),
                &["spec.backoffLimit: Invalid value: -5: must be greater than or equal to 0"],
            ),
            (
                "/spec/completionMode",
                json!("Random"),
                &[
                    "spec.completionMode: Unsupported value: \"Random\": supported values: \"Indexed\", \"NonIndexed\"",
                ],
            ),
            (
                "/spec/maxFailedIndexes",
                json!(1),
                &[
                    "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
                    "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                ],
            ),
        ],
    );
    let changed =
        wrong_update("batch", "Job", "/spec/template/spec/containers/0/image", json!("b"));
    assert_eq!(changed.len(), 1);
    assert!(
        changed[0].starts_with("spec.template: Invalid value: {")
            && changed[0].ends_with(": field is immutable"),
        "{}",
        changed[0]
    );
    assert_eq!(wrong_update("batch", "Job", "/spec/parallelism", json!(5)), [""; 0]);
    assert_eq!(
        wrong_update("batch", "Job", "/spec/completions", json!(5)),
        ["spec.completions: Invalid value: 5: field is immutable"]
    );
}
