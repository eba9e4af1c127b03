//! Golden texts of defaulted objects.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::apply;
use crate::resource::find_kind;

fn check(group: &str, kind: &str, mut object: Value, expected: &Expect) {
    apply(find_kind(group, kind).expect("a served kind"), &mut object);
    expected.assert_eq(&serde_json::to_string_pretty(&object).expect("JSON"));
}

#[test]
fn deployment() {
    let containers = json!([{"name": "a", "image": "nginx", "ports": [{"containerPort": 80}],
        "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "readinessProbe": {"httpGet": {"port": 80}}}]);
    check("apps", "Deployment", json!({"spec": {"template": {"spec": {"containers": containers}}}}), &expect![]);
}

#[test]
fn pod() {
    let spec = json!({"hostNetwork": true, "serviceAccountName": "s",
        "containers": [{"name": "a", "image": "a:1", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            "ports": [{"containerPort": 80}], "lifecycle": {"preStop": {"httpGet": {"port": 1}}}}],
        "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "s"}}, {"name": "h", "hostPath": {"path": "/a"}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]});
    check("", "Pod", json!({"spec": spec}), &expect![]);
}

#[test]
fn services() {
    check("", "Service", json!({"spec": {"ports": [{"port": 80}]}}), &expect![]);
    let balancer = json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "ports": [{"port": 80, "targetPort": "http"}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}});
    check("", "Service", balancer, &expect![]);
    check("", "Service", json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}), &expect![]);
}

#[test]
fn jobs() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [], "restartPolicy": "Never"}});
    check("batch", "Job", json!({"metadata": {}, "spec": {"template": template}}), &expect![]);
    check("batch", "Job", json!({"metadata": {}, "spec": {"completions": 3, "backoffLimitPerIndex": 1, "podFailurePolicy": {"rules": []}}}), &expect![]);
}

#[test]
fn the_smaller_kinds() {
    check("", "Namespace", json!({"metadata": {"name": "a"}}), &expect![]);
    check("", "Secret", json!({"metadata": {"name": "a"}}), &expect![]);
    check("discovery.k8s.io", "EndpointSlice", json!({"ports": [{"port": 80}]}), &expect![]);
    check("", "Endpoints", json!({"subsets": [{"ports": [{"port": 80}]}]}), &expect![]);
    check("networking.k8s.io", "IngressClass", json!({"spec": {"parameters": {"kind": "A", "name": "b"}}}), &expect![]);
    check("", "Node", json!({"status": {"capacity": {"cpu": "1"}}}), &expect![]);
}
