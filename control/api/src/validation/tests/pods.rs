//! Pods.

use serde_json::json;

use super::{check, set, valid, wrong, wrong_update, wrong_update_of};

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

#[test]
fn containers() {
    check(
        "",
        "Pod",
        vec![
            ("/spec/containers", json!([]), &["spec.containers: Required value"]),
            ("/spec/containers/0/name", json!(null), &["spec.containers[0].name: Required value"]),
            (
                "/spec/containers/0/name",
                json!("My_App"),
                &[&format!("spec.containers[0].name: Invalid value: \"My_App\": {LABEL}")],
            ),
            (
                "/spec/containers/0/name",
                json!("a.b"),
                &["spec.containers[0].name: Invalid value: \"a.b\": must not contain dots"],
            ),
            ("/spec/containers/0/image", json!(""), &["spec.containers[0].image: Required value"]),
            (
                "/spec/containers/0/image",
                json!(" nginx"),
                &[
                    "spec.containers[0].image: Invalid value: \" nginx\": must not have leading or trailing whitespace",
                ],
            ),
            (
                "/spec/containers/0/imagePullPolicy",
                json!("Sometimes"),
                &[
                    "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
                ],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"protocol": "TCP"}]),
                &["spec.containers[0].ports[0].containerPort: Required value"],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 70000, "protocol": "TCP"}]),
                &[
                    "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 80, "protocol": "HTTP"}]),
                &[
                    "spec.containers[0].ports[0].protocol: Unsupported value: \"HTTP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 80, "protocol": "TCP", "name": "x"}, {"containerPort": 81, "protocol": "TCP", "name": "x"}]),
                &["spec.containers[0].ports[1].name: Duplicate value: \"x\""],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 80, "protocol": "TCP", "name": "far-too-long-a-name"}]),
                &[
                    "spec.containers[0].ports[0].name: Invalid value: \"far-too-long-a-name\": must be no more than 15 characters",
                ],
            ),
            (
                "/spec/containers/0/ports",
                json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}, {"containerPort": 81, "hostPort": 80, "protocol": "TCP"}]),
                &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\""],
            ),
            ("/spec/containers/0/restartPolicy", json!("Always"), &[]),
            (
                "/spec/containers/0/restartPolicyRules",
                json!([{"action": "Restart", "exitCodes": {"operator": "Equals", "values": [3]}}]),
                &[
                    "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
                    "spec.containers[0].restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Equals\": supported values: \"In\", \"NotIn\"",
                ],
            ),
            (
                "/spec/containers/0/restartPolicy",
                json!("Perhaps"),
                &[
                    "spec.containers[0].restartPolicy: Unsupported value: \"Perhaps\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                ],
            ),
        ],
    );
    let twice = json!([
        valid("", "Pod")["spec"]["containers"][0],
        valid("", "Pod")["spec"]["containers"][0]
    ]);
    assert_eq!(
        wrong("", "Pod", "/spec/containers", twice.clone()),
        ["spec.containers[1].name: Duplicate value: \"a\""]
    );
    assert_eq!(
        wrong("", "Pod", "/spec/initContainers", json!([twice[0]])),
        ["spec.initContainers[0].name: Duplicate value: \"a\""]
    );
}

#[test]
fn environment_and_mounts() {
    check(
        "",
        "Pod",
        vec![
            (
                "/spec/containers/0/env",
                json!([{"value": "1"}]),
                &["spec.containers[0].env[0].name: Required value"],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A=B"}]),
                &[
                    "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
                &[
                    "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.nope"}}}]),
                &[
                    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.nope\": error converting fieldPath: field label not supported: metadata.nope",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "s"}}}]),
                &["spec.containers[0].env[0].valueFrom.configMapKeyRef.key: Required value"],
            ),
            (
                "/spec/containers/0/envFrom",
                json!([{}]),
                &[
                    "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
                ],
            ),
            (
                "/spec/containers/0/volumeMounts",
                json!([{"name": "data", "mountPath": "/data"}]),
                &["spec.containers[0].volumeMounts[0].name: Not found: \"data\""],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]),
                &["spec.volumes[1].name: Duplicate value: \"a\""],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "emptyDir": {}, "hostPath": {"path": "/x", "type": ""}}]),
                &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "hostPath": {"path": "", "type": "Dir"}}]),
                &[
                    "spec.volumes[0].hostPath.path: Required value",
                    "spec.volumes[0].hostPath.type: Unsupported value: \"Dir\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
                ],
            ),
            (
                "/spec/volumes",
                json!([{"name": "a", "secret": {"secretName": "s", "defaultMode": 1000}}]),
                &[
                    "spec.volumes[0].secret.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive",
                ],
            ),
        ],
    );
    let mut pod = valid("", "Pod");
    set(&mut pod, "/spec/volumes", json!([{"name": "v", "emptyDir": {}}]));
    set(
        &mut pod,
        "/spec/containers/0/volumeMounts",
        json!([{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}]),
    );
    let errors: Vec<String> =
        super::create(super::resource("", "Pod"), &pod).iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        ["spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique"]
    );
}

#[test]
fn resources_and_probes() {
    check(
        "",
        "Pod",
        vec![
            (
                "/spec/containers/0/resources",
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
                &[
                    "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"limits": {"cpu": "-1"}}),
                &[
                    "spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"limits": {"gpus": "1"}}),
                &[
                    "spec.containers[0].resources.limits[gpus]: Invalid value: \"gpus\": must be a standard resource type or fully qualified",
                    "spec.containers[0].resources.limits[gpus]: Invalid value: \"gpus\": must be a standard resource for containers",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"requests": {"nvidia.com/gpu": "1"}}),
                &[
                    "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
                ],
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"successThreshold": 1}),
                &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"successThreshold": 2, "tcpSocket": {"port": 80}}),
                &["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
            ),
            (
                "/spec/containers/0/readinessProbe",
                json!({"tcpSocket": {"port": 0}, "httpGet": {"path": "/", "port": 80, "scheme": "FTP"}}),
                &[
                    "spec.containers[0].readinessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
                    "spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
                ],
            ),
            (
                "/spec/containers/0/readinessProbe",
                json!({"exec": {}, "periodSeconds": -1}),
                &[
                    "spec.containers[0].readinessProbe.exec.command: Required value",
                    "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
        ],
    );
}

#[test]
fn the_spec() {
    check(
        "",
        "Pod",
        vec![
            (
                "/spec/restartPolicy",
                json!("Sometimes"),
                &[
                    "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                ],
            ),
            (
                "/spec/dnsPolicy",
                json!("None"),
                &[
                    "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
                ],
            ),
            (
                "/spec/activeDeadlineSeconds",
                json!(0),
                &[
                    "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
                ],
            ),
            (
                "/spec/terminationGracePeriodSeconds",
                json!(-1),
                &[
                    "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                "/spec/tolerations",
                json!([{"operator": "Equal", "value": "x"}]),
                &[
                    "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                ],
            ),
            (
                "/spec/tolerations",
                json!([{"key": "a", "effect": "Never"}]),
                &[
                    "spec.tolerations[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ],
            ),
            (
                "/spec/topologySpreadConstraints",
                json!([{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
                &[
                    "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                ],
            ),
            (
                "/spec/affinity",
                json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}),
                &[
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
                ],
            ),
            (
                "/spec/hostname",
                json!("a.b"),
                &["spec.hostname: Invalid value: \"a.b\": must not contain dots"],
            ),
            (
                "/spec/securityContext",
                json!({"runAsUser": -1}),
                &[
                    "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                ],
            ),
        ],
    );
}

#[test]
fn updates() {
    assert_eq!(wrong_update("", "Pod", "/spec/containers/0/image", json!("nginx:2")), [""; 0]);
    let errors = wrong_update("", "Pod", "/spec/nodeName", json!("n"));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"), "{}", errors[0]);
    assert_eq!(
        wrong_update("", "Pod", "/spec/containers", json!([])),
        [
            "spec.containers: Forbidden: pod updates may not add or remove containers",
            "spec.containers: Required value"
        ]
    );
    let mut old = valid("", "Pod");
    set(&mut old, "/spec/tolerations", json!([{"key": "a", "operator": "Exists"}]));
    set(&mut old, "/metadata/resourceVersion", json!("1"));
    assert_eq!(
        wrong_update_of("", "Pod", &old, "/spec/tolerations", json!([])),
        [
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
        ]
    );
    let mut old = valid("", "Pod");
    set(&mut old, "/spec/activeDeadlineSeconds", json!(10));
    set(&mut old, "/metadata/resourceVersion", json!("1"));
    assert_eq!(
        wrong_update_of("", "Pod", &old, "/spec/activeDeadlineSeconds", json!(20)),
        [
            "spec.activeDeadlineSeconds: Invalid value: 20: must be less than or equal to previous value"
        ]
    );
}
