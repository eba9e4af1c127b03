//! Input nobody sends by accident: a clear refusal, and a server that goes on.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use crate::cluster::{CONFIGMAPS, Cluster, configmap};

#[tokio::test]
async fn bodies_that_are_no_objects_are_refused() {
    let cluster = Cluster::start().await;
    let deep = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    let deep_yaml = "[".repeat(50_000);
    let json = "application/json";
    let protobuf = "application/vnd.kubernetes.protobuf";
    let cases: Vec<(&str, &str, Bytes)> = vec![
        ("nothing", json, Bytes::new()),
        ("no object", json, Bytes::from_static(b"[1]")),
        ("cut off", json, Bytes::from_static(b"{\"metadata\":")),
        ("invalid UTF-8", json, Bytes::from_static(b"{\"metadata\":{\"name\":\"\xff\xfe\"}}")),
        ("deep", json, Bytes::from(deep)),
        ("huge number", json, Bytes::from_static(b"{\"metadata\":{\"name\":1e999}}")),
        ("name of a wrong type", json, Bytes::from_static(b"{\"metadata\":{\"name\":7}}")),
        ("metadata of a wrong type", json, Bytes::from_static(b"{\"metadata\":[]}")),
        ("another kind", json, Bytes::from_static(b"{\"kind\":\"Pod\",\"metadata\":{}}")),
        ("trailing", json, Bytes::from_static(b"{} {}")),
        ("deep YAML", "application/yaml", Bytes::from(deep_yaml)),
        ("invalid YAML", "application/yaml", Bytes::from_static(b"a: \xff")),
        ("protobuf without magic", protobuf, Bytes::from_static(b"{}")),
        ("protobuf cut off", protobuf, Bytes::from_static(b"k8s\0\x0a\xff\xff")),
    ];
    for (case, media_type, body) in cases {
        let (parts, answer) = cluster.raw("POST", CONFIGMAPS, media_type, body).await;
        assert_eq!(parts.status, StatusCode::BAD_REQUEST, "{case}: {answer:?}");
        let status: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(status["kind"], "Status", "{case}");
        assert!(status["message"].as_str().is_some_and(|text| text.len() < 1_000), "{case}");
    }
    let (code, _) = cluster.send("POST", CONFIGMAPS, configmap("fine")).await;
    assert_eq!(code, StatusCode::CREATED);
}

#[tokio::test]
async fn names_that_are_none_are_refused_by_validation() {
    let cluster = Cluster::start().await;
    for name in ["UPPER", "a/b", "..", "a b", "ünïcode", "-a", &"x".repeat(254)] {
        let (code, status) = cluster.send("POST", CONFIGMAPS, configmap(name)).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{name}: {status}");
    }
}

#[tokio::test]
async fn unusual_paths_lead_nowhere_or_where_they_say() {
    let cluster = Cluster::start().await;
    for (path, want) in [
        ("/", 404),
        ("//api/v1/namespaces/default", 200),
        ("/api/v1/namespaces/default/", 200),
        ("/api/v1/namespaces/%64efault", 200),
        ("/api/v1/namespaces/default/configmaps/%2e%2e", 404),
        ("/api/v1/namespaces/default/configmaps/a%2Fb", 404),
        ("/api/v1/namespaces/default/configmaps/%ff", 404),
        ("/api/v1/namespaces/default/configmaps/x/status", 404),
        ("/api/v1/namespaces/default/pods/x/nonsense", 404),
        ("/api/v2/pods", 404),
        ("/apis/apps", 200),
        ("/apis/no.such.group", 404),
        ("/apis/no.such.group/v1", 404),
        ("/api/v1/pods?limit=-1", 200),
        ("/api/v1/pods?limit=many", 400),
        ("/api/v1/pods?labelSelector=%3D%3D", 400),
        ("/api/v1/pods?fieldSelector=nope%3D1", 400),
        ("/api/v1/pods?watch=1&timeoutSeconds=x", 400),
    ] {
        let (code, body) = cluster.send("GET", path, Value::Null).await;
        assert_eq!(code, want, "{path}: {body}");
    }
    for (method, path) in [
        ("POST", "/api/v1/namespaces/default"),
        ("PUT", CONFIGMAPS),
        ("PATCH", CONFIGMAPS),
        ("OPTIONS", CONFIGMAPS),
        ("POST", "/api"),
        ("POST", "/api/v1/pods"),
    ] {
        let (code, body) = cluster.send(method, path, Value::Null).await;
        assert_eq!(code, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}: {body}");
    }
}

#[tokio::test]
async fn health_is_told_in_a_word_or_in_full() {
    let cluster = Cluster::start().await;
    for (path, want) in [
        ("/healthz", "ok"),
        ("/livez", "ok"),
        ("/readyz?verbose", "[+]ping ok\n[+]shutdown ok\nreadyz check passed\n"),
    ] {
        let (parts, body) = cluster.raw("GET", path, "", Bytes::new()).await;
        assert_eq!((parts.status, &body[..]), (StatusCode::OK, want.as_bytes()), "{path}");
    }
}

#[tokio::test]
async fn requests_beyond_the_limit_are_told_to_come_back() {
    let cluster = Cluster::configured(|config| {
        config.reads_in_flight_max = 0;
        config.writes_in_flight_max = 0;
    })
    .await;
    for method in ["GET", "DELETE"] {
        let (parts, body) = cluster.raw(method, CONFIGMAPS, "", Bytes::new()).await;
        assert_eq!(parts.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(parts.headers["retry-after"], "1");
        let status: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status["reason"], "TooManyRequests");
    }
}
