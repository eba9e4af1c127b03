//! What a write may say and what comes of it: forms of bodies, dry runs, field validation,
//! preconditions, subresources.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::cluster::{CONFIGMAPS, Cluster, MERGE, PODS, configmap, pod};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
            },
        },
    })
}

#[tokio::test]
async fn a_dry_run_leaves_nothing() {
    let cluster = Cluster::start().await;
    let (code, seen) =
        cluster.send("POST", &format!("{CONFIGMAPS}?dryRun=All"), configmap("x")).await;
    assert_eq!((code, &seen["metadata"]["name"]), (StatusCode::CREATED, &json!("x")));
    assert_eq!(cluster.get(&format!("{CONFIGMAPS}/x")).await["code"], 404);
    cluster.send("POST", CONFIGMAPS, configmap("x")).await;
    let patch = json!({ "data": { "k": "other" } });
    let path = format!("{CONFIGMAPS}/x?dryRun=All");
    let (_, seen) = cluster.send_as("PATCH", &path, MERGE, patch).await;
    assert_eq!(seen["data"]["k"], "other");
    let (code, _) = cluster.send("DELETE", &path, Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(cluster.get(&format!("{CONFIGMAPS}/x")).await["data"]["k"], "v");
    let (code, status) =
        cluster.send("POST", &format!("{CONFIGMAPS}?dryRun=Some"), configmap("y")).await;
    assert_eq!(code, StatusCode::BAD_REQUEST, "{status}");
}

#[tokio::test]
async fn bodies_may_be_yaml() {
    let cluster = Cluster::start().await;
    let text = "metadata:\n  name: in-yaml\ndata:\n  answer: \"42\"\n";
    let (parts, body) = cluster.raw("POST", CONFIGMAPS, "application/yaml", text).await;
    assert_eq!(parts.status, StatusCode::CREATED, "{body:?}");
    assert_eq!(cluster.get(&format!("{CONFIGMAPS}/in-yaml")).await["data"]["answer"], "42");
    let (parts, _) = cluster.raw("POST", CONFIGMAPS, "application/yaml", "a: [b").await;
    assert_eq!(parts.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn field_validation_refuses_warns_or_is_silent() {
    let cluster = Cluster::start().await;
    let body = r#"{"metadata":{"name":"NAME"},"data":{"a":"1","a":"2"},"extra":1}"#;
    let complaints = [r#"unknown field \"extra\""#, r#"duplicate field \"data.a\""#];
    for (mode, code, warned) in [
        ("Strict", StatusCode::BAD_REQUEST, false),
        ("Warn", StatusCode::CREATED, true),
        ("Ignore", StatusCode::CREATED, false),
        ("Sometimes", StatusCode::BAD_REQUEST, false),
    ] {
        let path = format!("{CONFIGMAPS}?fieldValidation={mode}");
        let text = body.replace("NAME", &mode.to_lowercase());
        let (parts, body) = cluster.raw("POST", &path, "application/json", text).await;
        assert_eq!(parts.status, code, "{mode}: {body:?}");
        let warnings: Vec<&str> =
            parts.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect();
        for complaint in complaints {
            let found = warnings.iter().any(|warning| warning.contains(complaint));
            assert_eq!(found, warned, "{mode}: {warnings:?}");
        }
    }
}

#[tokio::test]
async fn some_kinds_are_created_by_put() {
    let cluster = Cluster::start().await;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let body = json!({ "metadata": { "name": "l" }, "spec": { "holderIdentity": "me" } });
    assert_eq!(cluster.send("PUT", lease, body.clone()).await.0, StatusCode::CREATED);
    assert_eq!(cluster.send("PUT", lease, body.clone()).await.0, StatusCode::OK);
    let endpoints = "/api/v1/namespaces/default/endpoints/e";
    let other = json!({ "metadata": { "name": "other" } });
    assert_eq!(cluster.send("PUT", endpoints, other).await.0, StatusCode::BAD_REQUEST);
    let stale = json!({ "metadata": { "name": "e", "uid": "gone" } });
    assert_eq!(cluster.send("PUT", endpoints, stale).await.0, StatusCode::CONFLICT);
    let missing = format!("{CONFIGMAPS}/nope");
    assert_eq!(cluster.send("PUT", &missing, configmap("nope")).await.0, StatusCode::NOT_FOUND);
    let path = format!("{lease}2");
    let (code, _) = cluster.send_as("PATCH", &path, MERGE, json!({ "spec": {} })).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_write_of_the_same_makes_no_revision() {
    let cluster = Cluster::start().await;
    let (_, created) = cluster.send("POST", DEPLOYMENTS, deployment("d")).await;
    let path = format!("{DEPLOYMENTS}/d");
    let (_, put) = cluster.send("PUT", &path, created.clone()).await;
    assert_eq!(put, created);
    let (_, patched) = cluster.send_as("PATCH", &path, MERGE, json!({})).await;
    assert_eq!(patched, created);
}

#[tokio::test]
async fn generated_names_are_prefix_and_five_characters() {
    let cluster = Cluster::start().await;
    let body = json!({ "metadata": { "generateName": "g-" } });
    let (code, created) = cluster.send("POST", CONFIGMAPS, body).await;
    assert_eq!(code, StatusCode::CREATED);
    let name = created["metadata"]["name"].as_str().unwrap();
    assert_eq!((&name[..2], name.len()), ("g-", 7));
}

#[tokio::test]
async fn scale_and_status_have_their_own_scope() {
    let cluster = Cluster::start().await;
    cluster.send("POST", DEPLOYMENTS, deployment("d")).await;
    let path = format!("{DEPLOYMENTS}/d");
    let scale = format!("{path}/scale");
    let before = cluster.get(&scale).await;
    assert_eq!((&before["kind"], &before["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    let mut wanted = before.clone();
    wanted["spec"]["replicas"] = json!(3);
    let (code, _) = cluster.send("PUT", &scale, wanted.clone()).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(cluster.send("PUT", &scale, wanted).await.0, StatusCode::CONFLICT);
    let negative = json!({ "spec": { "replicas": -1 } });
    let (code, _) = cluster.send_as("PATCH", &scale, MERGE, negative).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let both = json!({ "spec": { "replicas": 9 }, "status": { "observedGeneration": 2 } });
    let status = format!("{path}/status");
    let (_, seen) = cluster.send_as("PATCH", &status, MERGE, both.clone()).await;
    assert_eq!(
        (&seen["spec"]["replicas"], &seen["metadata"]["generation"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(seen["status"]["observedGeneration"], 2);
    let other = json!({ "status": { "observedGeneration": 7 } });
    let (_, seen) = cluster.send_as("PATCH", &path, MERGE, other).await;
    assert_eq!(seen["status"]["observedGeneration"], 2);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let cluster = Cluster::start().await;
    cluster.send("POST", PODS, pod("p")).await;
    let binding = json!({ "metadata": { "name": "p" }, "target": { "kind": "Node", "name": "n" } });
    let path = format!("{PODS}/p/binding");
    let (code, status) = cluster.send("POST", &path, binding.clone()).await;
    assert_eq!((code, &status["status"]), (StatusCode::CREATED, &json!("Success")));
    assert_eq!(cluster.get(&format!("{PODS}/p")).await["spec"]["nodeName"], "n");
    let (code, status) = cluster.send("POST", &path, binding).await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert!(status["message"].as_str().unwrap().contains("already assigned to node \"n\""));
    let empty = json!({ "metadata": { "name": "p" }, "target": { "name": "" } });
    let (code, _) = cluster.send("POST", &path, empty).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn patches_that_do_not_fit_say_why() {
    let cluster = Cluster::start().await;
    cluster.send("POST", CONFIGMAPS, configmap("x")).await;
    let path = format!("{CONFIGMAPS}/x");
    let json_patch = "application/json-patch+json";
    let patch = json!([{ "op": "replace", "path": "/no/such", "value": 1 }]);
    let (code, status) = cluster.send_as("PATCH", &path, json_patch, patch).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(status["details"].get("kind").is_none(), "kubectl shows the message only then");
    let long = Value::Array(vec![json!({ "op": "test", "path": "/data/k", "value": "v" }); 10_001]);
    let (code, _) = cluster.send_as("PATCH", &path, json_patch, long).await;
    assert_eq!(code, StatusCode::PAYLOAD_TOO_LARGE);
    let (parts, _) = cluster.raw("PATCH", &path, "application/apply-patch+yaml", "{}").await;
    assert_eq!(parts.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let stale = json!({ "metadata": { "resourceVersion": "1" } });
    assert_eq!(cluster.send_as("PATCH", &path, MERGE, stale).await.0, StatusCode::CONFLICT);
    let (parts, _) = cluster.raw("PATCH", &path, MERGE, Bytes::from_static(b"{")).await;
    assert_eq!(parts.status, StatusCode::BAD_REQUEST);
}
