//! The API source against a server that answers from a script: what a watch that breaks misses is
//! made up for by the next list.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use kube::client::Body;
use podium_proxy::{
    index::Change,
    model::Problem,
    source::{Event, api, events},
};
use serde_json::{Value, json};

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "resourceVersion": "5"},
    })
}

fn list(kind: &str, version: &str, items: &[Value]) -> String {
    json!({
        "apiVersion": version,
        "kind": format!("{kind}List"),
        "metadata": {"resourceVersion": "5"},
        "items": items,
    })
    .to_string()
}

fn expired() -> Value {
    json!({
        "type": "ERROR",
        "object": {
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired",
            "message": "too old resource version", "code": 410,
        },
    })
}

fn not_found() -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
        "message": "the server could not find the requested resource", "code": 404,
    })
}

/// Lists a and b; a watch that adds c and then is too old; from then on a list of a and c.
async fn answer(request: Request<Body>, lists: Arc<AtomicUsize>) -> String {
    let query = request.uri().query().unwrap_or("").to_owned();
    assert!(query.contains("service-proxy-name"), "selector: {query}");
    let watch = query.contains("watch=true");
    if request.uri().path().ends_with("/endpointslices") {
        if watch {
            return std::future::pending().await;
        }
        return list("EndpointSlice", "discovery.k8s.io/v1", &[]);
    }
    assert_eq!(request.uri().path(), "/api/v1/services");
    if !watch {
        let first = lists.fetch_add(1, Ordering::SeqCst) == 0;
        let names = if first { ["a", "b"] } else { ["a", "c"] };
        return list("Service", "v1", &names.map(service));
    }
    if lists.load(Ordering::SeqCst) > 1 {
        return std::future::pending().await;
    }
    format!("{}\n{}\n", json!({"type": "ADDED", "object": service("c")}), expired())
}

#[tokio::test]
async fn what_a_broken_watch_missed_is_made_up_for() {
    let lists = Arc::new(AtomicUsize::new(0));
    let server = tower::service_fn(move |request: Request<Body>| {
        let lists = Arc::clone(&lists);
        async move {
            // A server before ServiceCIDRs: nothing is missed, nothing waits for them.
            if request.uri().path().ends_with("/servicecidrs") {
                let body = Body::from(not_found().to_string().into_bytes());
                let answer = Response::builder().status(404).body(body);
                return Ok(answer.expect("a plain answer"));
            }
            let body = Body::from(answer(request, lists).await.into_bytes());
            Ok::<_, Infallible>(Response::new(body))
        }
    });
    let mut source = api::watch(kube::Client::new(server, "default"), None);
    let (mut seen, mut synced) = (Vec::new(), 0);
    let all = async {
        while seen.last().map(String::as_str) != Some("-b") || synced < source.streams {
            match source.events.recv().await.expect("the source goes on") {
                Event::Changes { changes, .. } => seen.extend(changes.into_iter().map(|change| {
                    let Change::Service(name, object) = change else { panic!("{change:?}") };
                    format!("{}{}", if object.is_some() { '+' } else { '-' }, name.name)
                })),
                Event::Synced => synced += 1,
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("all changes in time");
    assert_eq!(seen, ["+a", "+b", "+c", "+a", "+c", "-b"]);
}

/// One Node and two ServiceCIDRs; what is asked for beyond the lists never comes.
async fn answer_of_node(request: Request<Body>) -> String {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or(""));
    if query.contains("watch=true") {
        return std::future::pending().await;
    }
    let cidr = |name: &str, cidr: &str| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": name, "resourceVersion": "5"}, "spec": {"cidrs": [cidr]},
        })
    };
    match path {
        "/api/v1/nodes" => {
            assert!(query.contains("metadata.name%3Dnode-a"), "{query}");
            let node = json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {
                    "name": "node-a", "resourceVersion": "5",
                    "labels": {"topology.kubernetes.io/zone": "zone-a"},
                },
                "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]},
            });
            list("Node", "v1", &[node])
        }
        "/apis/networking.k8s.io/v1/servicecidrs" => {
            let cidrs = [cidr("kubernetes", "10.96.0.0/16"), cidr("more", "10.97.0.0/16")];
            list("ServiceCIDR", "networking.k8s.io/v1", &cidrs)
        }
        "/api/v1/services" => list("Service", "v1", &[]),
        _ => list("EndpointSlice", "discovery.k8s.io/v1", &[]),
    }
}

#[tokio::test]
async fn the_own_node_and_service_cidrs_are_told() {
    let server = tower::service_fn(|request: Request<Body>| async move {
        let body = Body::from(answer_of_node(request).await.into_bytes());
        Ok::<_, Infallible>(Response::new(body))
    });
    let mut source = api::watch(kube::Client::new(server, "default"), Some("node-a"));
    let (mut node, mut cidrs, mut synced) = (None, Vec::new(), 0);
    let all = async {
        while node.is_none() || cidrs.is_empty() || synced < source.streams {
            match source.events.recv().await.expect("the source goes on") {
                Event::Node(known) => node = known,
                Event::ServiceCidrs(known) => cidrs = known,
                Event::Synced => synced += 1,
                Event::Changes { changes, .. } => assert!(changes.is_empty(), "{changes:?}"),
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("all of it in time");
    let node = node.expect("a Node was told");
    assert_eq!(node.zone.as_deref(), Some("zone-a"));
    assert_eq!(node.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.168.0.1"]);
    let cidrs: Vec<_> = cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(cidrs, ["10.96.0.0/16", "10.97.0.0/16"]);
}

/// Who may not read Nodes still balances: the stream counts as complete.
#[tokio::test]
async fn a_node_that_may_not_be_read_holds_nothing_up() {
    let server = tower::service_fn(|request: Request<Body>| async move {
        let path = request.uri().path();
        let answer = if path == "/api/v1/nodes" || path.ends_with("/servicecidrs") {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden",
                "message": "nodes is forbidden", "code": 403,
            });
            Response::builder().status(403).body(Body::from(status.to_string().into_bytes()))
        } else {
            Response::builder().body(Body::from(answer_of_node(request).await.into_bytes()))
        };
        Ok::<_, Infallible>(answer.expect("a plain answer"))
    });
    let mut source = api::watch(kube::Client::new(server, "default"), Some("node-a"));
    let all = async {
        let mut synced = 0;
        while synced < source.streams {
            if let Event::Synced = source.events.recv().await.expect("the source goes on") {
                synced += 1;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("complete in time");
}

/// An Event says it on the object, by its uid.
#[tokio::test]
async fn problems_become_events_on_their_object() {
    let (seen, mut posted) = tokio::sync::mpsc::unbounded_channel();
    let server = tower::service_fn(move |request: Request<Body>| {
        let seen = seen.clone();
        async move {
            let path = request.uri().path().to_owned();
            let answer = if request.method() == http::Method::POST {
                let body = request.into_body().collect_bytes().await.expect("a body");
                let event: Value = serde_json::from_slice(&body).expect("an Event");
                seen.send((path, event.clone())).expect("the test waits");
                // Another node told of it before; that keeps nothing from being told next.
                json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "reason": "AlreadyExists", "message": "exists", "code": 409,
                })
            } else if path == "/api/v1/namespaces/default/services/a" {
                let mut service = service("a");
                service["metadata"]["uid"] = "1-2-3".into();
                service
            } else {
                not_found()
            };
            let code = answer["code"].as_u64().and_then(|code| u16::try_from(code).ok());
            let code = code.unwrap_or(200);
            let body = Body::from(answer.to_string().into_bytes());
            let answer = Response::builder().status(code).body(body);
            Ok::<_, Infallible>(answer.expect("a plain answer"))
        }
    });
    let client = kube::Client::new(server, "default");
    let teller = events::start(client, Some("node-a"));
    for object in ["Service default/gone", "a.yaml", "Service default/a", "Service default/a"] {
        let message = "\"x\" is no address; not served at it".to_owned();
        let (object, field) = (object.to_owned(), "spec.externalIPs".to_owned());
        teller.send(Problem { object, field, message }).await.expect("a task that tells");
    }
    let wait = tokio::time::timeout(Duration::from_secs(20), posted.recv());
    let (path, event) = wait.await.expect("an Event in time").expect("an Event");
    assert_eq!(path, "/apis/events.k8s.io/v1/namespaces/default/events");
    assert_eq!(event["regarding"]["uid"], "1-2-3");
    assert_eq!(event["reportingInstance"], "node-a");
    assert_eq!(event["metadata"]["name"], "a.77036585d89814ef");
    assert_eq!(event["note"], "spec.externalIPs: \"x\" is no address; not served at it");
    let wait = tokio::time::timeout(Duration::from_secs(20), posted.recv());
    let (_, again) = wait.await.expect("an Event in time").expect("an Event");
    assert_eq!(again["metadata"]["name"], event["metadata"]["name"]);
}
