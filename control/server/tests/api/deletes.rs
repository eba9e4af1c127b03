//! Deletes: finalizers, grace, propagation, preconditions, collections, evictions, namespaces.

use http::StatusCode;
use serde_json::{Value, json};

use crate::cluster::{CONFIGMAPS, Cluster, MERGE, PODS, configmap, pod};

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let cluster = Cluster::start().await;
    let mut held = configmap("x");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let (code, status) = cluster.send("POST", CONFIGMAPS, held).await;
    assert_eq!(code, StatusCode::CREATED, "{status}");
    let path = format!("{CONFIGMAPS}/x");
    let (_, marked) = cluster.send("DELETE", &path, Value::Null).await;
    assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
    let more = json!({ "metadata": { "finalizers": ["example.com/hold", "example.com/more"] } });
    let (code, _) = cluster.send_as("PATCH", &path, MERGE, more).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let none = json!({ "metadata": { "finalizers": null } });
    assert_eq!(cluster.send_as("PATCH", &path, MERGE, none).await.0, StatusCode::OK);
    assert_eq!(cluster.get(&path).await["code"], 404);
}

#[tokio::test]
async fn a_pod_on_a_node_gets_its_grace_period() {
    let cluster = Cluster::start().await;
    let mut running = pod("p");
    running["spec"]["nodeName"] = json!("n");
    cluster.send("POST", PODS, running).await;
    let path = format!("{PODS}/p");
    let options = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 7 });
    let (code, marked) = cluster.send("DELETE", &path, options).await;
    assert_eq!(code, StatusCode::OK, "{marked}");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 7);
    let forced = format!("{path}?gracePeriodSeconds=0");
    assert_eq!(cluster.send("DELETE", &forced, Value::Null).await.0, StatusCode::OK);
    assert_eq!(cluster.get(&path).await["code"], 404);
}

#[tokio::test]
async fn a_delete_names_what_it_means() {
    let cluster = Cluster::start().await;
    cluster.send("POST", CONFIGMAPS, configmap("x")).await;
    let path = format!("{CONFIGMAPS}/x");
    for precondition in [json!({ "uid": "other" }), json!({ "resourceVersion": "1" })] {
        let options = json!({ "preconditions": precondition });
        let (code, status) = cluster.send("DELETE", &path, options).await;
        assert_eq!(code, StatusCode::CONFLICT, "{status}");
    }
    let unknown = json!({ "propagationPolicy": "Sideways" });
    let (code, _) = cluster.send("DELETE", &path, unknown).await;
    assert!(code.is_client_error());
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        let options = json!({ "propagationPolicy": policy });
        let (_, marked) = cluster.send("DELETE", &path, options).await;
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]), "{marked}");
    }
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        cluster.send("POST", CONFIGMAPS, configmap(name)).await;
    }
    let path = format!("{CONFIGMAPS}?labelSelector=a%20in%20(a,b)");
    let (code, list) = cluster.send("DELETE", &path, Value::Null).await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (StatusCode::OK, 2));
    let left = cluster.get(&format!("{CONFIGMAPS}?labelSelector=a")).await;
    assert_eq!(left["items"][0]["metadata"]["name"], "c");
}

#[tokio::test]
async fn an_evicted_pod_goes() {
    let cluster = Cluster::start().await;
    cluster.send("POST", PODS, pod("p")).await;
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "p" },
    });
    let path = format!("{PODS}/p/eviction");
    let (code, status) = cluster.send("POST", &path, eviction.clone()).await;
    assert_eq!(code, StatusCode::CREATED, "{status}");
    assert_eq!(cluster.get(&format!("{PODS}/p")).await["code"], 404);
    assert_eq!(cluster.send("POST", &path, eviction).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let cluster = Cluster::start().await;
    let namespaces = "/api/v1/namespaces";
    cluster.send("POST", namespaces, json!({ "metadata": { "name": "n" } })).await;
    let path = format!("{namespaces}/n");
    let (_, marked) = cluster.send("DELETE", &path, Value::Null).await;
    assert_eq!(marked["status"]["phase"], "Terminating");
    let (code, status) =
        cluster.send("POST", &format!("{path}/configmaps"), configmap("late")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(status["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut finalized = marked;
    finalized["spec"]["finalizers"] = json!([]);
    let (code, _) = cluster.send("PUT", &format!("{path}/finalize"), finalized).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(cluster.get(&path).await["code"], 404);
}
