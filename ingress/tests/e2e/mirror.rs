//! Copies of requests for another server.

use crate::backend::Backend;
use crate::harness::{Ingress, annotated_ingresses, exchange, service, wait_until};
use crate::recorder::{Recorder, Seen};
use std::net::TcpListener;

struct World {
    _web: Backend,
    mirror: Recorder,
    podium: Ingress,
}

/// `MIRROR` in annotations is the address of the mirror.
fn start(annotations: &[&str]) -> World {
    let (web, mirror) = (Backend::start("web"), Recorder::start(&["mirror"]));
    let address = mirror.addresses["mirror"].to_string();
    let annotations: Vec<String> =
        annotations.iter().map(|lines| lines.replace("MIRROR", &address)).collect();
    let annotations: Vec<&str> = annotations.iter().map(String::as_str).collect();
    let manifests = format!("{}{}", service("web", &[&web]), annotated_ingresses(&annotations));
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    World { _web: web, mirror, podium }
}

impl World {
    fn copies(&self, count: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        wait_until("the mirror has its copies", || {
            seen.extend(self.mirror.take());
            seen.len() >= count
        });
        seen
    }

    fn post(&self, host: &str, body: &str) -> u16 {
        let length = body.len();
        let request = format!(
            "POST /app/x?y=1 HTTP/1.1\r\nHost: {host}\r\nX-Own: 1\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        exchange(self.podium.http, request.as_bytes()).unwrap().status
    }
}

#[test]
fn mirror_target_gets_a_copy_of_each_request() {
    let world = start(&["mirror-target: http://MIRROR$request_uri"]);
    assert_eq!(world.post("a.example", "hello"), 200);
    let copy = &world.copies(1)[0];
    assert_eq!((copy.method.as_str(), copy.target.as_str()), ("POST", "/app/x?y=1"));
    assert_eq!(copy.body, b"hello");
    assert_eq!(copy.header("host"), Some("127.0.0.1"));
    assert_eq!((copy.header("x-own"), copy.header("x-secret")), (Some("1"), None));
    assert_eq!(copy.header("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(copy.header("transfer-encoding"), None);
    for _ in 0..3 {
        assert_eq!(world.podium.get("a.example", "/app").status, 200);
    }
    assert_eq!(world.copies(3).len(), 3);
}

#[test]
fn mirror_target_paths() {
    let world = start(&[
        "mirror-target: http://MIRROR",
        "mirror-target: http://MIRROR/fixed",
        "mirror-target: http://MIRROR/$host$uri",
    ]);
    for (host, target) in [("a.example", "/app/%20?y=1"), ("b.example", "/fixed?y=1")] {
        assert_eq!(world.podium.get(host, "/app/%20?y=1").status, 200);
        assert_eq!(world.copies(1)[0].target, target, "{host}");
    }
    assert_eq!(world.podium.get("c.example", "/app/x?y=1").status, 200);
    assert_eq!(world.copies(1)[0].target, "/c.example/app/x");
}

#[test]
fn mirror_host_and_mirror_request_body() {
    let world = start(&[
        "mirror-target: http://MIRROR$request_uri\nmirror-host: copy.example",
        "mirror-target: http://MIRROR$request_uri\nmirror-request-body: off\nmirror-host: $host.copy",
        "mirror-target: http://MIRROR$request_uri\nmirror-request-body: no",
    ]);
    assert_eq!(world.post("a.example", "hello"), 200);
    let copy = &world.copies(1)[0];
    assert_eq!((copy.header("host"), copy.body.as_slice()), (Some("copy.example"), &b"hello"[..]));
    assert_eq!(world.post("b.example", "hello"), 200);
    let copy = &world.copies(1)[0];
    assert_eq!((copy.header("host"), copy.body.len()), (Some("b.example.copy"), 0));
    assert_eq!(world.post("c.example", "hello"), 200);
    assert_eq!(world.copies(1)[0].body, b"hello", "a wrong value is the default");
    assert!(world.podium.metrics().contains("{kind=\"Ingress\",severity=\"error\"} 1"));
}

#[test]
fn mirror_target_is_never_waited_for() {
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("mirror-target: http://{}", silent.local_addr().unwrap());
    let world = start(&[
        &silent,
        "mirror-target: http://127.0.0.1:1",
        "mirror-target: http://nowhere.invalid/",
        "mirror-target: ftp://127.0.0.1",
        "mirror-target: http://$host/",
        "mirror-target: http://MIRROR$request_uri\nwhitelist-source-range: 10.0.0.0/8",
    ]);
    for host in ["a.example", "b.example", "c.example", "d.example", "e.example"] {
        assert_eq!(world.post(host, "hello"), 200, "{host}");
    }
    assert!(world.podium.metrics().contains("{kind=\"Ingress\",severity=\"error\"} 2"));
    assert_eq!(world.post("f.example", "hello"), 403);
    assert!(world.mirror.take().is_empty(), "what is refused is not mirrored");
}

#[test]
fn mirror_request_body_is_bounded() {
    let world = start(&["mirror-target: http://MIRROR$request_uri\nproxy-body-size: 8m"]);
    assert_eq!(world.post("a.example", &"x".repeat(3 << 20)), 200);
    assert_eq!(world.post("a.example", &"y".repeat(900 << 10)), 200);
    let copies = world.copies(1);
    assert_eq!((copies.len(), copies[0].body.len()), (1, 900 << 10), "the small one only");
}
