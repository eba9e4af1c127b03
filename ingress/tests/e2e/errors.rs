//! Default backends in place of errors.

use crate::backend::Backend;
use crate::harness::{Ingress, annotated, annotated_ingresses, ingress, service, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;

struct World {
    web: Backend,
    pages: Backend,
    podium: Ingress,
}

fn start(annotations: &[&str], flags: &[&str]) -> World {
    let (web, pages) = (Backend::start("web"), Backend::start("pages"));
    let manifests = format!(
        "{}---\n{}{}",
        service("web", &[&web]),
        service("pages", &[&pages]),
        annotated_ingresses(annotations)
    );
    let podium = Ingress::start(&[("a.yaml", &manifests)], flags);
    World { web, pages, podium }
}

#[test]
fn custom_http_errors_of_endpoints_are_answered_by_the_default_backend() {
    let World { web, pages, podium } =
        start(&["custom-http-errors: 404,503\ndefault-backend: pages"], &[]);
    let headers = "Accept: application/json\r\nX-Request-ID: abc\r\nX-Answer-Status: 503\r\nX-Page-Status: 418\r\n\
                   X-Namespace: evil\r\n";
    // The default backend's own status, though it is another.
    let answer = podium.ask("GET", "a.example", "/app/x?y=1", headers);
    assert_eq!((answer.status, answer.seen("backend").as_str()), (418, "pages"));
    for (name, value) in [
        ("x-code", "503"),
        ("x-format", "application/json"),
        ("x-original-uri", "/app/x?y=1"),
        ("x-namespace", "default"),
        ("x-ingress-name", "a"),
        ("x-service-name", "web"),
        ("x-service-port", "80"),
        ("x-request-id", "abc"),
        ("x-real-ip", "127.0.0.1"),
        ("host", "a.example"),
    ] {
        assert_eq!(answer.seen(name), value, "{name} in\n{}", answer.body);
    }
    assert_eq!(answer.seen_target(), "/?y=1");
    assert_eq!((web.requests(), pages.requests()), (1, 1));
    assert_eq!(answer.header("server"), "");
    // Others pass.
    let answer = podium.ask("GET", "a.example", "/app", "X-Answer-Status: 500\r\n");
    assert_eq!((answer.status, answer.seen("backend").as_str()), (500, "web"));
    // The method stays, the body does not.
    let answer = podium.send(
        "POST /app HTTP/1.1\r\nHost: a.example\r\nX-Answer-Status: 404\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    );
    assert_eq!((answer.status, answer.seen("body-bytes").as_str()), (200, "0"));
    assert!(answer.body.contains("\nPOST / HTTP/1.1\n"), "{}", answer.body);
    let head = podium.ask("HEAD", "a.example", "/app", "X-Answer-Status: 404\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn custom_http_errors_of_our_own_are_answered_by_the_default_backend() {
    let World { web, podium, .. } = start(
        &[
            "custom-http-errors: 403,413,502\ndefault-backend: pages\nwhitelist-source-range: 10.0.0.0/8",
            "custom-http-errors: 403,413,502\ndefault-backend: pages\nproxy-body-size: 3",
            "custom-http-errors: 503\nwhitelist-source-range: nonsense",
        ],
        &[],
    );
    let answer = podium.get("a.example", "/app");
    assert_eq!((answer.status, answer.seen("x-code").as_str()), (200, "403"));
    let answer = podium.send(
        "POST /app HTTP/1.1\r\nHost: b.example\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    );
    assert_eq!((answer.status, answer.seen("x-code").as_str()), (200, "413"));
    let closed = podium.get("c.example", "/app");
    assert_eq!((closed.status, closed.seen("backend").as_str()), (503, ""), "it is not served");
    web.kill();
    let answer = podium.get("b.example", "/app");
    assert_eq!((answer.status, answer.seen("x-code").as_str()), (200, "502"));
}

#[test]
fn custom_http_errors_without_a_default_backend_of_the_location() {
    let controller = ["--default-backend-service", "default/pages"];
    let annotations =
        ["custom-http-errors: 404", "custom-http-errors: 200", "custom-http-errors: 4xx"];
    let World { pages, podium, .. } = start(&annotations, &controller);
    let missing = "X-Answer-Status: 404\r\n";
    let answer = podium.ask("GET", "a.example", "/app", missing);
    assert_eq!((answer.status, answer.seen("backend").as_str()), (200, "pages"));
    for host in ["b.example", "c.example"] {
        let answer = podium.ask("GET", host, "/app", missing);
        assert_eq!((answer.status, answer.seen("backend").as_str()), (404, "web"), "no statuses");
    }
    assert!(podium.metrics().contains("{kind=\"Ingress\",severity=\"error\"} 2"));
    // A default backend that does not answer is an error of its own.
    pages.kill();
    let answer = podium.ask("GET", "a.example", "/app", missing);
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("<h1>502 Bad Gateway</h1>"), "{}", answer.body);

    // Without any, there is the answer of ingress-nginx's own.
    let World { podium, .. } = start(&["custom-http-errors: 500"], &[]);
    let answer = podium.ask("GET", "a.example", "/app", "X-Answer-Status: 500\r\n");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("<h1>404 Not Found</h1>"), "{}", answer.body);
}

#[test]
fn custom_http_errors_keep_the_headers_of_the_location() {
    let World { podium, .. } =
        start(&["custom-http-errors: 404\ndefault-backend: pages\nenable-cors: true"], &[]);
    let answer = podium.ask("GET", "a.example", "/app", "X-Answer-Status: 404\r\n");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.seen("backend"), "pages");
}

#[test]
fn default_backend_that_is_not_there() {
    let World { podium, .. } = start(
        &[
            "custom-http-errors: 404\ndefault-backend: nowhere",
            "custom-http-errors: 404\ndefault-backend: other/pages",
        ],
        &["--default-backend-service", "default/pages"],
    );
    for host in ["a.example", "b.example"] {
        let answer = podium.ask("GET", host, "/app", "X-Answer-Status: 404\r\n");
        assert_eq!(answer.seen("backend"), "pages", "the controller's: {}", answer.head);
    }
}

#[test]
fn disable_proxy_intercept_errors_leaves_endpoints_alone() {
    let settings =
        "custom-http-errors: 404,403\ndefault-backend: pages\ndisable-proxy-intercept-errors";
    let own = format!("{settings}: true");
    let refused = format!("{own}\nwhitelist-source-range: 10.0.0.0/8");
    let World { podium, .. } = start(&[&own, &refused, &format!("{settings}: si")], &[]);
    let missing = "X-Answer-Status: 404\r\n";
    let answer = podium.ask("GET", "a.example", "/app", missing);
    assert_eq!((answer.status, answer.seen("backend").as_str()), (404, "web"));
    let answer = podium.get("b.example", "/app");
    assert_eq!((answer.status, answer.seen("backend").as_str()), (200, "pages"), "our own 403");
    assert_eq!(podium.ask("GET", "c.example", "/app", missing).seen("backend"), "pages");
}

#[test]
fn own_answers_keep_or_end_connections_as_nginx_does() {
    let World { podium, .. } = start(&["whitelist-source-range: 10.0.0.0/8"], &[]);
    let mut stream = TcpStream::connect(podium.http).unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /app HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
        let mut text = Vec::new();
        let mut buffer = [0; 1024];
        while !text.ends_with(b"</html>\r\n") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&buffer[..count]);
        }
        assert!(text.starts_with(b"HTTP/1.1 403 Forbidden\r\n"));
    }
    let bad = podium.send(
        "GET /%zz HTTP/1.1\r\nHost: a.example\r\n\r\nGET /app HTTP/1.1\r\nHost: a.example\r\n\r\n",
    );
    assert_eq!((bad.status, bad.body.matches("HTTP/1.1").count()), (400, 0));
    assert_eq!(bad.header("connection"), "close");
}

#[test]
fn custom_http_errors_change_with_the_ingress() {
    let World { podium, web, pages } = start(&["custom-http-errors: 404"], &[]);
    let rule = ingress(
        "a",
        &annotated("custom-http-errors: 404\ndefault-backend: pages"),
        &[("a.example", "/app", "Prefix", "web")],
    );
    let services = format!("{}---\n{}", service("web", &[&web]), service("pages", &[&pages]));
    podium.write("a.yaml", &format!("{services}{rule}"));
    wait_until("the default backend answers", || {
        podium.ask("GET", "a.example", "/app", "X-Answer-Status: 404\r\n").seen("backend")
            == "pages"
    });
}

#[test]
fn default_backend_takes_over_while_there_are_no_endpoints() {
    let pages = Backend::start("pages");
    let rule = |name: &str, lines: &str| {
        let host = format!("{name}.example");
        ingress(name, &annotated(lines), &[(&host, "/app", "Prefix", "empty")])
    };
    let manifests = [
        service("empty", &[]),
        format!("---\n{}", service("pages", &[&pages])),
        rule("a", "default-backend: pages"),
        rule("b", "custom-http-errors: 404"),
    ];
    let podium = Ingress::start(&[("a.yaml", &manifests.concat())], &[]);
    // The request as it is, with what happened.
    let answer = podium.send(
        "POST /app/x?y=1 HTTP/1.1\r\nHost: a.example\r\nX-Page-Status: 404\r\nX-Code: 1\r\nContent-Length: 5\r\n\
         Connection: close\r\n\r\nhello",
    );
    assert_eq!((answer.status, answer.seen("backend").as_str()), (404, "pages"));
    assert_eq!(
        (answer.seen_target().as_str(), answer.seen("body-bytes").as_str()),
        ("/app/x?y=1", "5")
    );
    for (name, value) in [("x-code", "503"), ("x-service-name", "empty"), ("x-ingress-name", "a")] {
        assert_eq!(answer.seen(name), value, "{name} in\n{}", answer.body);
    }
    assert_eq!(podium.get("b.example", "/app").status, 503, "nobody to take over");
}
