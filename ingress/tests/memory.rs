//! How much memory objects take once they are routes, counted byte by byte.
//!
//! Also what a change costs, printed with `--nocapture`; how long anything takes is asserted by nobody here.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use podium_ingress::footprint::Footprint;
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The system's allocator, which counts what it has given.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// What the allocator of glibc uses for an allocation.
fn chunk(layout: Layout) -> usize {
    (layout.size() + 8).max(32).next_multiple_of(16)
}

// SAFETY: everything is left to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(chunk(layout), Ordering::Relaxed);
        // SAFETY: as the caller promises for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(chunk(layout), Ordering::Relaxed);
        // SAFETY: as the caller promises for this function.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const APPS: usize = 5_000;
/// An Ingress of one host and path, its Service, and its slice of two or three endpoints, in everything
/// that is made of them.
const BYTES_PER_APP_MAX: usize = 4_400;

fn meta(name: &str, at: usize) -> Value {
    json!({"name": name, "namespace": format!("team-{}", at % 50), "resourceVersion": at.to_string(),
        "uid": format!("0f0f0f0f-0f0f-4f0f-8f0f-{at:012}"), "creationTimestamp": "2025-01-01T00:00:00Z",
        "labels": {"kubernetes.io/service-name": format!("app-{at:05}"), "app.kubernetes.io/managed-by": "Helm"},
        "managedFields": [{"manager": "helm", "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {}}, "f:spec": {}}}]})
}

fn path(text: &str, at: usize) -> Value {
    json!({"path": text, "pathType": "Prefix",
        "backend": {"service": {"name": format!("app-{at:05}"), "port": {"number": 80}}}})
}

fn ingress(at: usize, paths: Value) -> Value {
    let mut metadata = meta(&format!("app-{at:05}"), at);
    metadata["annotations"] = json!({"nginx.ingress.kubernetes.io/proxy-body-size": "8m"});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata,
        "spec": {"rules": [{"host": format!("app-{at:05}.example.com"), "http": {"paths": paths}}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}})
}

fn service(at: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(&format!("app-{at:05}"), at),
        "spec": {"type": "ClusterIP", "clusterIP": format!("10.96.{}.{}", at / 250, at % 250 + 1),
            "selector": {"app": "a"}, "sessionAffinity": "None", "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]},
        "status": {"loadBalancer": {}}})
}

fn slice(at: usize, endpoints: usize) -> Value {
    let endpoints: Vec<_> = (0..endpoints)
        .map(|number| {
            json!({"addresses": [format!("10.{number}.{}.{}", at / 250, at % 250)],
                "conditions": {"ready": true, "serving": true, "terminating": false}, "nodeName": "node-1",
                "targetRef": {"kind": "Pod", "name": format!("app-{at:05}-{number}")}})
        })
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": meta(&format!("app-{at:05}-x7k2p"), at), "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]})
}

fn cluster(apps: usize) -> Footprint {
    let mut held = Footprint::new().unwrap();
    held.list("Service", (0..apps).map(service));
    held.list("EndpointSlice", (0..apps).map(|at| slice(at, 2 + at % 2)));
    held.list("Ingress", (0..apps).map(|at| ingress(at, json!([path("/api", at)]))));
    held.update();
    held
}

/// Prints how long something takes, the best of five.
fn time(what: &str, mut change: impl FnMut(usize)) {
    let took = (0..5).map(|round| {
        let started = Instant::now();
        change(round);
        started.elapsed()
    });
    println!("{what}: {} us", took.min().unwrap().as_micros());
}

// One test: another one beside it would be counted too.
#[test]
fn routes_take_little_memory() {
    // Whatever is made once and for all is there already.
    drop(cluster(10));
    let before = LIVE.load(Ordering::Relaxed);
    let mut held = cluster(APPS);
    let bytes = (LIVE.load(Ordering::Relaxed) - before) / APPS;
    println!("{bytes} bytes an Ingress with its Service and slice");
    let (service, endpoints) = held.route("app-04999.example.com", "/api/x").unwrap();
    assert_eq!((&*service.name, endpoints), ("app-04999", 3));
    assert!(bytes <= BYTES_PER_APP_MAX, "{bytes} bytes");

    time("an endpoint", |round| {
        assert_eq!(held.apply("EndpointSlice", slice(7, round + 4)), 1);
    });
    time("a route", |round| {
        let paths = json!([path("/api", 7), path(&format!("/{round}"), 7)]);
        held.apply("Ingress", ingress(7, paths));
    });
    let many = |round: usize| {
        let paths = (0..10_000).map(|at| path(&format!("/{at}"), at % 100 * 50 + 8));
        ingress(8, paths.chain([path(&format!("/new-{round}"), 8)]).collect())
    };
    held.apply("Ingress", many(9));
    let mut next: Vec<Value> = (0..5).map(many).collect();
    time("a path among 10,000 of an Ingress", |_| {
        held.apply("Ingress", next.pop().unwrap());
    });
    let mut same: Vec<Value> = (0..5).map(|_| many(0)).collect();
    time("reading it again, of that", |_| {
        held.apply("Ingress", same.pop().unwrap());
    });

    // Little is left of what is taken out: names and series are forgotten once as many others came.
    for kind in ["Ingress", "Service", "EndpointSlice"] {
        held.list(kind, std::iter::empty());
    }
    held.update();
    drop(held);
    let left = LIVE.load(Ordering::Relaxed).saturating_sub(before) / APPS;
    assert!(left <= BYTES_PER_APP_MAX / 4, "{left} bytes an Ingress are left");
}
