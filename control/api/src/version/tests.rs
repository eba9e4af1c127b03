//! Conversions, each way and around.

use serde_json::json;

use super::*;
use crate::resource::find_kind;

#[test]
fn the_users_ingress_becomes_v1_and_back() {
    let ingress = find_kind("networking.k8s.io", "Ingress").unwrap();
    let sent = json!({
        "apiVersion": "networking.k8s.io/v1beta1",
        "kind": "Ingress",
        "metadata": {"name": "ml-product-ingress"},
        "spec": {
            "backend": {"serviceName": "fallback", "servicePort": "http"},
            "rules": [{"http": {"paths": [
                {"path": "/app", "backend": {"serviceName": "user-interface-svc", "servicePort": 80}},
            ]}}],
        },
    });
    let stored = to_storage(ingress, "v1beta1", sent.clone()).unwrap();
    assert_eq!(
        stored,
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "ml-product-ingress"},
            "spec": {
                "defaultBackend": {"service": {"name": "fallback", "port": {"name": "http"}}},
                "rules": [{"http": {"paths": [{
                    "path": "/app",
                    "pathType": "ImplementationSpecific",
                    "backend": {"service": {"name": "user-interface-svc", "port": {"number": 80}}},
                }]}}],
            },
        })
    );

    assert_eq!(from_storage(ingress, "v1beta1", &stored), sent);
}

#[test]
fn a_v1beta1_deployment_gets_its_selector_and_its_own_defaults() {
    let deployment = find_kind("apps", "Deployment").unwrap();
    let sent = json!({
        "metadata": {"name": "nginx-deployment"},
        "spec": {
            "replicas": 3,
            "rollbackTo": {"revision": 7},
            "template": {"metadata": {"labels": {"app": "nginx"}}},
        },
    });
    let stored = to_storage(deployment, "v1beta1", sent).unwrap();
    assert_eq!(
        stored,
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "nginx-deployment",
                "labels": {"app": "nginx"},
                "annotations": {"deprecated.deployment.rollback.to": "7"},
            },
            "spec": {
                "replicas": 3,
                "revisionHistoryLimit": 2,
                "selector": {"matchLabels": {"app": "nginx"}},
                "template": {"metadata": {"labels": {"app": "nginx"}}},
            },
        })
    );
    let served = from_storage(deployment, "v1beta1", &stored);
    assert_eq!(served["spec"]["rollbackTo"], json!({"revision": 7}));
    assert_eq!(served["metadata"].get("annotations"), None);
    assert_eq!(to_storage(deployment, "v1beta1", served).unwrap(), stored);
}

#[test]
fn events_are_one_object_under_two_groups() {
    let event = find_kind("events.k8s.io", "Event").unwrap();
    let sent = json!({
        "metadata": {"name": "e"},
        "regarding": {"kind": "Pod"},
        "note": "pulled",
        "reportingController": "podium",
    });
    let stored = to_storage(event, "v1", sent.clone()).unwrap();
    assert_eq!(stored["apiVersion"], "v1");
    assert_eq!(stored["involvedObject"]["kind"], "Pod");
    assert_eq!(stored["message"], "pulled");
    let served = from_storage(event, "v1", &stored);
    assert_eq!(served["apiVersion"], "events.k8s.io/v1");
    assert_eq!(served["note"], sent["note"]);
    assert_eq!(served["regarding"], sent["regarding"]);
}

#[test]
fn bodies_that_contradict_their_path_are_refused() {
    let pod = find_kind("", "Pod").unwrap();
    let wrong_version = to_storage(pod, "v1", json!({"apiVersion": "v2"})).unwrap_err();
    assert_eq!(
        wrong_version.message,
        "the API version in the data (v2) does not match the expected API version (v1)"
    );
    assert_eq!(to_storage(pod, "v1", json!({"kind": "Node"})).unwrap_err().code, 400);
    assert_eq!(to_storage(pod, "v1", json!([])).unwrap_err().code, 400);
}

#[test]
fn old_versions_warn() {
    let ingress = find_kind("networking.k8s.io", "Ingress").unwrap();
    assert_eq!(
        deprecation_warning(ingress, "v1beta1").unwrap(),
        "networking.k8s.io/v1beta1 Ingress is deprecated in v1.19+, unavailable in v1.22+; use networking.k8s.io/v1 Ingress"
    );
    assert_eq!(deprecation_warning(ingress, "v1"), None);
}
