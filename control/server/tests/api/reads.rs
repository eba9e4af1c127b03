//! What a read demands of its age, and what happens when the past is gone.

use http::StatusCode;
use podium_store::Store as _;
use serde_json::Value;

use crate::cluster::{CONFIGMAPS, Cluster, MERGE, configmap};

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn revisions_mean_what_upstream_says() {
    let cluster = Cluster::start().await;
    let (_, first) = cluster.send("POST", CONFIGMAPS, configmap("a")).await;
    let (_, second) = cluster.send("POST", CONFIGMAPS, configmap("b")).await;
    let selector = "labelSelector=a";
    let at = format!(
        "{CONFIGMAPS}?{selector}&resourceVersion={}&resourceVersionMatch=Exact",
        version(&first)
    );
    assert_eq!(cluster.get(&at).await["items"].as_array().unwrap().len(), 1);
    let since = format!("{CONFIGMAPS}?{selector}&resourceVersion={}", version(&first));
    assert_eq!(cluster.get(&since).await["items"].as_array().unwrap().len(), 2);
    let future = format!("{CONFIGMAPS}?resourceVersion={}", version(&second) + 1_000);
    let (code, status) = cluster.send("GET", &future, Value::Null).await;
    assert_eq!(code, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    let (code, _) =
        cluster.send("GET", &format!("{CONFIGMAPS}?resourceVersion=soon"), Value::Null).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_token_that_is_too_old_comes_with_a_fresh_one() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        cluster.send("POST", CONFIGMAPS, configmap(name)).await;
    }
    let first = cluster.get(&format!("{CONFIGMAPS}?limit=1")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, newest) = cluster.send("POST", CONFIGMAPS, configmap("d")).await;
    cluster.store.compact(version(&newest)).await.unwrap();
    let (code, status) =
        cluster.send("GET", &format!("{CONFIGMAPS}?limit=9&continue={token}"), Value::Null).await;
    assert_eq!((code, &status["reason"]), (StatusCode::GONE, &"Expired".into()));
    let fresh = status["metadata"]["continue"].as_str().unwrap();
    let rest = cluster.get(&format!("{CONFIGMAPS}?limit=9&continue={fresh}")).await;
    let names: Vec<&Value> =
        rest["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert!(names.contains(&&"d".into()) && !names.contains(&&"a".into()), "{names:?}");
    let (code, _) = cluster.send("GET", &format!("{CONFIGMAPS}?continue=x!"), Value::Null).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_watch_starts_where_it_is_told_or_says_that_it_cannot() {
    let cluster = Cluster::start().await;
    let (_, first) = cluster.send("POST", CONFIGMAPS, configmap("a")).await;
    let path = format!("{CONFIGMAPS}/a");
    for value in ["1", "2"] {
        let patch = serde_json::json!({ "data": { "k": value } });
        cluster.send_as("PATCH", &path, MERGE, patch).await;
    }
    let since = format!(
        "{CONFIGMAPS}?watch=1&timeoutSeconds=1&labelSelector=a&resourceVersion={}",
        version(&first)
    );
    let kinds: Vec<Value> =
        cluster.watch(&since).await.into_iter().map(|frame| frame["type"].clone()).collect();
    assert_eq!(kinds, ["MODIFIED", "MODIFIED"]);
    let newest = version(&cluster.get(&path).await);
    cluster.store.compact(newest).await.unwrap();
    let frames = cluster.watch(&since).await;
    assert_eq!(frames[0]["type"], "ERROR");
    assert_eq!(
        (&frames[0]["object"]["code"], &frames[0]["object"]["reason"]),
        (&410.into(), &"Expired".into())
    );
    let quiet = format!(
        "{CONFIGMAPS}?watch=1&timeoutSeconds=1&sendInitialEvents=false\
         &resourceVersionMatch=NotOlderThan"
    );
    assert!(cluster.watch(&quiet).await.is_empty());
}

#[tokio::test]
async fn what_leaves_a_selection_is_deleted_for_its_watcher() {
    let cluster = Cluster::start().await;
    let (_, created) = cluster.send("POST", CONFIGMAPS, configmap("a")).await;
    let path = format!("{CONFIGMAPS}/a");
    for label in ["other", "a"] {
        let patch = serde_json::json!({ "metadata": { "labels": { "a": label } } });
        cluster.send_as("PATCH", &path, MERGE, patch).await;
    }
    let since = format!(
        "{CONFIGMAPS}?watch=1&timeoutSeconds=1&labelSelector=a%3Da&resourceVersion={}",
        version(&created)
    );
    let kinds: Vec<Value> =
        cluster.watch(&since).await.into_iter().map(|frame| frame["type"].clone()).collect();
    assert_eq!(kinds, ["DELETED", "ADDED"]);
}
