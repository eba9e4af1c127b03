//! The way of objects from their creation to their end.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::cluster::{CONFIGMAPS, Cluster, configmap};

#[tokio::test]
async fn objects_are_created_changed_and_deleted() {
    let cluster = Cluster::start().await;
    let (code, created) = cluster.send("POST", CONFIGMAPS, configmap("x")).await;
    assert_eq!(code, StatusCode::CREATED, "{created}");
    assert_eq!(created["kind"], "ConfigMap");
    assert!(created["metadata"]["uid"].as_str().is_some_and(|uid| uid.len() == 36));

    let (code, status) = cluster.send("POST", CONFIGMAPS, configmap("x")).await;
    assert_eq!((code, &status["reason"]), (StatusCode::CONFLICT, &json!("AlreadyExists")));

    let path = format!("{CONFIGMAPS}/x");
    let mut stale = created.clone();
    stale["data"]["k"] = json!("new");
    let (code, updated) = cluster.send("PUT", &path, stale.clone()).await;
    assert_eq!(code, StatusCode::OK, "{updated}");
    let (code, status) = cluster.send("PUT", &path, stale).await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert!(status["message"].as_str().unwrap().contains("the object has been modified"));

    let patch = json!({ "data": { "k": null, "l": "w" } });
    let (_, patched) = cluster.send_as("PATCH", &path, "application/merge-patch+json", patch).await;
    assert_eq!(patched["data"], json!({ "l": "w" }));

    let (code, _) = cluster.send("DELETE", &path, Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(cluster.get(&path).await["message"], "configmaps \"x\" not found");
}

#[tokio::test]
async fn lists_are_paged_and_selected() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        cluster.send("POST", CONFIGMAPS, configmap(name)).await;
    }
    let first = cluster.get(&format!("{CONFIGMAPS}?limit=2")).await;
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    let token = first["metadata"]["continue"].as_str().unwrap();
    cluster.send("POST", CONFIGMAPS, configmap("d")).await;
    let rest = cluster.get(&format!("{CONFIGMAPS}?limit=2&continue={token}")).await;
    let names: Vec<&Value> =
        rest["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["c"], "a later object is not in the list as of the first page");
    let selected = cluster.get(&format!("{CONFIGMAPS}?labelSelector=a%20in%20(b,c)")).await;
    assert_eq!(selected["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_streaming_list_ends_with_its_bookmark() {
    let cluster = Cluster::start().await;
    cluster.send("POST", CONFIGMAPS, configmap("a")).await;
    let path = format!(
        "{CONFIGMAPS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true\
         &resourceVersionMatch=NotOlderThan&timeoutSeconds=1"
    );
    let request = Request::get(path).body(Full::<Bytes>::default()).unwrap();
    let response = cluster.client().oneshot(request).await.unwrap();
    let (patch, path) = (json!({ "data": { "k": "2" } }), format!("{CONFIGMAPS}/a"));
    cluster.send_as("PATCH", &path, "application/merge-patch+json", patch).await;
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let frames: Vec<Value> = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let kinds: Vec<&Value> = frames.iter().map(|frame| &frame["type"]).collect();
    assert_eq!(kinds, ["ADDED", "BOOKMARK", "MODIFIED", "BOOKMARK"]);
    let annotations = &frames[1]["object"]["metadata"]["annotations"];
    assert_eq!(annotations["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn services_get_addresses_that_survive_a_restart() {
    let cluster = Cluster::start().await;
    let kubernetes = cluster.get("/api/v1/namespaces/default/services/kubernetes").await;
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    let services = "/api/v1/namespaces/default/services";
    let service = json!({
        "metadata": { "name": "s" },
        "spec": { "type": "NodePort", "ports": [{ "port": 80 }] },
    });
    let (code, created) = cluster.send("POST", services, service).await;
    assert_eq!(code, StatusCode::CREATED, "{created}");
    let address = created["spec"]["clusterIP"].clone();
    assert!(created["spec"]["ports"][0]["nodePort"].as_u64().is_some_and(|port| port >= 30_000));

    let cluster = cluster.restarted().await;
    let twin = json!({
        "metadata": { "name": "t" },
        "spec": { "clusterIP": address, "ports": [{ "port": 80 }] },
    });
    let (code, status) = cluster.send("POST", services, twin.clone()).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(status["message"].as_str().unwrap().contains("provided IP is already allocated"));
    cluster.send("DELETE", &format!("{services}/s"), Value::Null).await;
    let (code, _) = cluster.send("POST", services, twin).await;
    assert_eq!(code, StatusCode::CREATED);
}

#[tokio::test]
async fn hostile_requests_are_told_what_is_wrong() {
    let cluster = Cluster::start().await;
    let missing = "/api/v1/namespaces/nowhere/configmaps";
    let (code, status) = cluster.send("POST", missing, configmap("x")).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert_eq!(status["message"], "namespaces \"nowhere\" not found");
    let huge = json!({ "metadata": { "name": "x" }, "data": { "k": "v".repeat(4 << 20) } });
    assert_eq!(cluster.send("POST", CONFIGMAPS, huge).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let mut unknown = configmap("x");
    unknown["nonsense"] = json!(1);
    let strict = format!("{CONFIGMAPS}?fieldValidation=Strict");
    let (code, status) = cluster.send("POST", &strict, unknown).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert_eq!(status["message"], "strict decoding error: unknown field \"nonsense\"");
    let (code, _) = cluster.send_as("POST", CONFIGMAPS, "text/html", configmap("x")).await;
    assert_eq!(code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let (code, _) = cluster.send("DELETE", "/api/v1/namespaces/default", Value::Null).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(cluster.get("/apis/apps/v1/widgets").await["code"], 404);
}
