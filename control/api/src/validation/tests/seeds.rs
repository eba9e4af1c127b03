//! The manifests the product was asked for with, all the way from what is sent to what is told.

use serde_json::{Value, json};

use crate::decode;
use crate::defaulting;
use crate::strategy;
use crate::validation;
use crate::version;

use super::resource;

/// What the server does with a manifest before it stores it: the object, or what the user is told.
fn admitted(group: &str, version: &str, manifest: &Value) -> Result<Value, Vec<String>> {
    let kind = resource(group, manifest["kind"].as_str().expect("a kind"));
    let checked = decode::check(kind, version, manifest).map_err(|status| vec![status.message])?;
    if !checked.unknown.is_empty() {
        return Err(checked.unknown);
    }
    let mut object =
        version::to_storage(kind, version, checked.value).map_err(|status| vec![status.message])?;
    object["metadata"]["namespace"] = json!("default");
    object["metadata"]["uid"] = json!("u");
    defaulting::apply(kind, &mut object);
    strategy::prepare_create(kind, &mut object);
    let errors = validation::create(kind, &object);
    match errors.is_empty() {
        true => Ok(object),
        false => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn the_deployment_of_apps_v1beta1_selects_by_its_template() {
    let manifest = json!({"apiVersion": "apps/v1beta1", "kind": "Deployment", "metadata": {"name": "nginx-deployment"},
        "spec": {"replicas": 3, "template": {"metadata": {"labels": {"app": "nginx"}},
            "spec": {"containers": [{"name": "hello-world", "image": "hello-world:latest", "ports": [{"containerPort": 80}]}]}}}});
    let stored = admitted("apps", "v1beta1", &manifest).expect("a valid manifest");
    assert_eq!(stored["spec"]["selector"], json!({"matchLabels": {"app": "nginx"}}));
    assert_eq!(stored["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"], "Always");
}

#[test]
fn the_ingress_of_networking_v1beta1_becomes_one_of_v1() {
    let manifest = json!({"apiVersion": "networking.k8s.io/v1beta1", "kind": "Ingress",
        "metadata": {"name": "ml-product-ingress", "annotations": {"kubernetes.io/ingress.class": "nginx",
            "nginx.ingress.kubernetes.io/rewrite-target": "/"}},
        "spec": {"rules": [{"http": {"paths": [{"path": "/app",
            "backend": {"serviceName": "user-interface-svc", "servicePort": 80}}]}}]}});
    let stored = admitted("networking.k8s.io", "v1beta1", &manifest).expect("a valid manifest");
    assert_eq!(
        stored["spec"]["rules"][0]["http"]["paths"][0],
        json!({"path": "/app", "pathType": "ImplementationSpecific",
            "backend": {"service": {"name": "user-interface-svc", "port": {"number": 80}}}})
    );
}

#[test]
fn the_service_and_the_deployment_of_v1_are_valid() {
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "ml-model-svc", "labels": {"app": "ml-model"}},
        "spec": {"type": "ClusterIP", "selector": {"app": "ml-model"}, "ports": [{"protocol": "TCP", "port": 80}]}});
    assert_eq!(
        admitted("", "v1", &service).expect("a valid manifest")["spec"]["ports"][0]["targetPort"],
        80
    );
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "ml-model-serving", "labels": {"app": "ml-model"}},
        "spec": {"replicas": 10, "selector": {"matchLabels": {"app": "ml-model"}},
            "template": {"metadata": {"labels": {"app": "ml-model"}},
                "spec": {"containers": [{"name": "ml-rest-server", "image": "ml-serving:1.0",
                    "ports": [{"containerPort": 80}], "restartPolicy": "Always"}]}}}});
    assert!(admitted("apps", "v1", &deployment).is_ok());
}

/// A container's own restartPolicy is a field of its own since Kubernetes 1.35: the pod still has
/// none, defaults to Always, and a Job does not take that.
#[test]
fn the_job_needs_its_restart_policy_one_level_up() {
    let job = |container: Value, pod: Value| {
        let mut spec = pod;
        spec["containers"] = json!([container]);
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "model-train-job"},
            "spec": {"backoffLimit": 5, "template": {"spec": spec}}})
    };
    let container = json!({"name": "ml-model-train", "image": "ml-development:1.2.1", "command": ["python", "train.py"]});
    let mut as_written = container.clone();
    as_written["restartPolicy"] = json!("Never");
    assert_eq!(
        admitted("batch", "v1", &job(as_written, json!({}))),
        Err(vec!["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"".to_owned()])
    );
    assert!(admitted("batch", "v1", &job(container, json!({"restartPolicy": "Never"}))).is_ok());
}
