//! Which backend a request reaches, as what, and what is answered when none does.

use crate::backend::Backend;
use crate::harness::{Ingress, exchange, ingress, service};
use std::io::{Read, Write};
use std::net::TcpStream;

#[test]
fn hosts_and_paths_by_precedence() {
    let names = ["exact", "prefix", "deep", "wild", "any"];
    let backends: Vec<Backend> = names.iter().map(|name| Backend::start(name)).collect();
    let services: Vec<String> =
        backends.iter().map(|backend| service(&backend.name, &[backend])).collect();
    let rules = ingress(
        "rules",
        "",
        &[
            ("shop.example", "/foo", "Exact", "exact"),
            ("shop.example", "/foo", "Prefix", "prefix"),
            ("shop.example", "/foo/bar", "Prefix", "deep"),
            ("*.example", "/", "Prefix", "wild"),
            ("", "/", "Prefix", "any"),
        ],
    );
    let podium =
        Ingress::start(&[("all.yaml", &format!("{}{rules}", services.join("---\n")))], &[]);
    for (host, path, backend) in [
        ("shop.example", "/foo", "exact"),
        ("SHOP.example:8080", "/foo/", "prefix"),
        ("shop.example", "/foo/x", "prefix"),
        ("shop.example", "/foo/bar/x", "deep"),
        ("shop.example", "/foo//bar", "deep"),
        ("shop.example", "/x/../foo/%62ar", "deep"),
        ("other.example", "/foo", "wild"),
        ("a.b.example", "/foo", "any"),
        ("127.0.0.1", "/", "any"),
    ] {
        let answer = podium.get(host, path);
        assert_eq!(
            (answer.status, answer.seen("backend").as_str()),
            (200, backend),
            "{host}{path}"
        );
        assert_eq!(answer.seen_target(), path, "the path goes on as it was sent");
    }
    for path in ["/foobar", "/", "/FOO"] {
        assert_eq!(podium.get("shop.example", path).status, 404, "{path}");
    }
}

/// The Ingress of the users' own picture, as it stands there.
#[test]
fn the_old_form_with_rewrite_sends_everything_to_the_root() {
    let ui = Backend::start("ui");
    let seed = "---\napiVersion: networking.k8s.io/v1beta1\nkind: Ingress\nmetadata:\n name: ml-product-ingress\n annotations:\n   \
                kubernetes.io/ingress.class: \"nginx\"\n   nginx.ingress.kubernetes.io/rewrite-target: /\nspec:\n  rules:\n  - http:\n      \
                paths:\n      - path: /app\n        backend:\n          serviceName: user-interface-svc\n          servicePort: 80\n";
    let manifests = format!("{}{seed}", service("user-interface-svc", &[&ui]));
    let podium = Ingress::start(&[("ui.yaml", &manifests)], &[]);
    for (sent, seen) in
        [("/app", "/"), ("/app/x/y?q=1", "/?q=1"), ("/application", "/"), ("/APP", "/")]
    {
        let answer = podium.get("anything", sent);
        assert_eq!((answer.status, answer.seen_target().as_str()), (200, seen), "{sent}");
    }
    assert_eq!(podium.get("anything", "/").status, 404);
}

#[test]
fn rewrites_with_groups() {
    let web = Backend::start("web");
    let rule = ingress(
        "rewrite",
        r#""nginx.ingress.kubernetes.io/rewrite-target": "/$2", "nginx.ingress.kubernetes.io/x-forwarded-prefix": "/api""#,
        &[("a.example", "/api(/|$)(.*)", "ImplementationSpecific", "web")],
    );
    let podium = Ingress::start(&[("a.yaml", &format!("{}{rule}", service("web", &[&web])))], &[]);
    for (sent, seen) in [("/api", "/"), ("/api/v1/x?y=z", "/v1/x?y=z"), ("/api/a%20b", "/a%20b")] {
        let answer = podium.get("a.example", sent);
        assert_eq!(answer.seen_target(), seen, "{sent}");
        assert_eq!(answer.seen("x-forwarded-prefix"), "/api");
    }
    assert_eq!(podium.get("a.example", "/apix").status, 404);
}

#[test]
fn answers_of_its_own_look_like_nginx() {
    let web = Backend::start("web");
    let rules = ingress(
        "a",
        "",
        &[
            ("a.example", "/ok", "Exact", "web"),
            ("a.example", "/gone", "Exact", "missing"),
            ("a.example", "/empty", "Exact", "empty"),
        ],
    );
    let manifests = format!("{}---\n{}{rules}", service("web", &[&web]), service("empty", &[]));
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    let not_found = podium.get("a.example", "/nothing");
    assert_eq!(not_found.status, 404);
    assert_eq!(not_found.body.len(), 146);
    assert_eq!(not_found.header("content-type"), "text/html");
    assert_eq!(not_found.header("server"), "");
    for path in ["/gone", "/empty"] {
        let answer = podium.get("a.example", path);
        assert!(
            answer.head.starts_with("HTTP/1.1 503 Service Temporarily Unavailable\r\n"),
            "{}",
            answer.head
        );
        assert!(
            answer.body.contains("<center><h1>503 Service Temporarily Unavailable</h1></center>")
        );
    }
    let head =
        podium.send("HEAD /nothing HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    assert_eq!(
        (head.status, head.body.as_str(), head.header("content-length").as_str()),
        (404, "", "146")
    );
    assert_eq!(podium.get("a.example", "/ok").status, 200);

    // A dead endpoint that is still listed.
    web.kill();
    assert_eq!(podium.get("a.example", "/ok").status, 502);
}

#[test]
fn a_default_backend_gets_what_no_rule_matches() {
    let (web, fallback) = (Backend::start("web"), Backend::start("fallback"));
    let rules = ingress("a", "", &[("a.example", "/ok", "Exact", "web")]);
    let manifests =
        format!("{}---\n{}{rules}", service("web", &[&web]), service("fallback", &[&fallback]));
    let podium = Ingress::start(
        &[("a.yaml", &manifests)],
        &["--default-backend-service", "default/fallback"],
    );
    for (host, path, backend) in [
        ("a.example", "/ok", "web"),
        ("a.example", "/no", "fallback"),
        ("b.example", "/", "fallback"),
    ] {
        assert_eq!(podium.get(host, path).seen("backend"), backend, "{host}{path}");
    }
}

#[test]
fn endpoints_see_who_asked_and_cannot_be_lied_to() {
    let web = Backend::start("web");
    let manifests = format!(
        "{}{}",
        service("web", &[&web]),
        ingress("a", "", &[("a.example", "/", "Prefix", "web")])
    );
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    let request = "GET /x HTTP/1.1\r\nHost: a.example:8080\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
                   X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nProxy: evil\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\n\
                   Keep-Alive: 5\r\n\r\n";
    let answer = podium.send(request);
    for (header, value) in [
        ("host", "a.example:8080"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-original-forwarded-for", "6.6.6.6"),
        ("x-forwarded-host", "a.example:8080"),
        ("x-forwarded-port", &podium.http.port().to_string()),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-scheme", "http"),
        ("x-scheme", "http"),
        ("proxy", ""),
        ("x-secret", ""),
        ("keep-alive", ""),
    ] {
        assert_eq!(answer.seen(header), value, "{header} in\n{}", answer.body);
    }
    assert_eq!(answer.seen("x-request-id").len(), 32);
    assert_eq!(answer.header("server"), "", "the endpoint's Server is not shown");

    let trusting = Ingress::start(
        &[("a.yaml", &manifests)],
        &["--use-forwarded-headers", "--proxy-real-ip-cidr", "127.0.0.0/8"],
    );
    let answer = trusting.send(request);
    assert_eq!(
        (answer.seen("x-real-ip").as_str(), answer.seen("x-forwarded-proto").as_str()),
        ("6.6.6.6", "https")
    );
    assert_eq!(answer.seen("x-forwarded-host"), "evil");
}

#[test]
fn round_robin_over_reused_connections() {
    let backends: Vec<Backend> =
        ["one", "two", "three"].iter().map(|name| Backend::start(name)).collect();
    let all: Vec<&Backend> = backends.iter().collect();
    let manifests = format!(
        "{}{}",
        service("web", &all),
        ingress("a", "", &[("a.example", "/", "Prefix", "web")])
    );
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    for _ in 0..30 {
        assert_eq!(podium.get("a.example", "/").status, 200);
    }
    for backend in &backends {
        assert_eq!(backend.requests(), 10, "{}", backend.name);
        assert!(
            backend.connections() <= 2,
            "{} took {} connections",
            backend.name,
            backend.connections()
        );
    }
}

#[test]
fn websockets_and_bodies_pass() {
    let web = Backend::start("web");
    let rules = ingress("a", "", &[("a.example", "/", "Prefix", "web")]);
    let limits = ingress(
        "b",
        r#""nginx.ingress.kubernetes.io/proxy-body-size": "8m""#,
        &[("b.example", "/", "Prefix", "web")],
    );
    let podium =
        Ingress::start(&[("a.yaml", &format!("{}{rules}{limits}", service("web", &[&web])))], &[]);

    let mut socket = TcpStream::connect(podium.http).unwrap();
    socket
        .write_all(b"GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        .unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    socket.write_all(b"hello").unwrap();
    let mut echo = [0; 5];
    socket.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"HELLO");

    let (body, ok) = crate::harness::curl(&[
        "-H",
        "Expect: 100-continue",
        "--expect100-timeout",
        "10",
        "-m",
        "5",
        "-d",
        "hello",
        "--resolve",
        &format!("a.example:{}:{}", podium.http.port(), podium.http.ip()),
        &format!("http://a.example:{}/", podium.http.port()),
    ]);
    assert!(ok && body.contains("body-bytes: 5"), "the proxy itself answers 100: {body}");
    assert!(!body.to_lowercase().contains("expect:"), "{body}");

    let post = |host: &str, bytes: usize| {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {bytes}\r\n\r\n"
        );
        exchange(podium.http, &[head.as_bytes(), &vec![b'x'; bytes]].concat()).unwrap()
    };
    assert_eq!(post("a.example", 1 << 20).seen("body-bytes"), (1 << 20).to_string());
    assert_eq!(post("b.example", 3 << 20).seen("body-bytes"), (3 << 20).to_string());
}

#[test]
fn the_access_log_names_upstream_and_endpoint() {
    let web = Backend::start("web");
    let manifests = format!(
        "{}{}",
        service("web", &[&web]),
        ingress("a", "", &[("a.example", "/app", "Prefix", "web")])
    );
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    assert_eq!(podium.get("a.example", "/app/x?y=1").status, 200);
    let expected = format!("[default-web-80] [] {} ", web.address);
    crate::harness::wait_until("the access log has the request", || {
        let log = podium.access_log.lock().unwrap();
        log.contains("\"GET /app/x?y=1 HTTP/1.1\" 200 ") && log.contains(&expected)
    });
}
