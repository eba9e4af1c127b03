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
    source::{Event, api},
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
            let body = Body::from(answer(request, lists).await.into_bytes());
            Ok::<_, Infallible>(Response::new(body))
        }
    });
    let mut source = api::watch(kube::Client::new(server, "default"), None);
    let (mut seen, mut synced) = (Vec::new(), 0);
    let all = async {
        while seen.last().map(String::as_str) != Some("-b") || synced < source.streams {
            match source.events.recv().await.expect("the source goes on") {
                Event::Changes(changes) => seen.extend(changes.into_iter().map(|change| {
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
