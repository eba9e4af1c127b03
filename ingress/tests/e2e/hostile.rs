//! Requests that want to confuse or exhaust: refused or normalised, and others are served on.

mod http1;
mod http2;

use crate::backend::Backend;
use crate::harness::{Ingress, exchange, ingress, service};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn start(web: &Backend) -> Ingress {
    let manifests = format!(
        "{}{}",
        service("web", &[web]),
        ingress("a", "", &[("a.example", "/", "Prefix", "web")])
    );
    Ingress::start(&[("a.yaml", &manifests)], &["--header-timeout", "2"])
}

#[test]
fn ambiguous_and_malformed_requests_are_refused() {
    let web = Backend::start("web");
    let podium = start(&web);
    let long = "x".repeat(1_100_000);
    let many: String = (0..400).map(|n| format!("X-{n}: 1\r\n")).collect();
    for (what, request) in [
        ("no Host", "GET / HTTP/1.1\r\n\r\n".to_string()),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n".into()),
        ("empty Host", "GET / HTTP/1.1\r\nHost: \r\n\r\n".into()),
        ("Host with a path", "GET / HTTP/1.1\r\nHost: a.example/x\r\n\r\n".into()),
        ("authority against Host", "GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n".into()),
        ("two lengths", "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello".into()),
        ("signed length", "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: +5\r\n\r\nhello".into()),
        ("unknown encoding", "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".into()),
        ("folded header", "GET / HTTP/1.1\r\nHost: a.example\r\nX: a\r\n b\r\n\r\n".into()),
        ("space before colon", "GET / HTTP/1.1\r\nHost : a.example\r\n\r\n".into()),
        ("escape above the root", "GET /../x HTTP/1.1\r\nHost: a.example\r\n\r\n".into()),
        ("encoded NUL", "GET /%00 HTTP/1.1\r\nHost: a.example\r\n\r\n".into()),
        ("broken escape", "GET /%zz HTTP/1.1\r\nHost: a.example\r\n\r\n".into()),
        ("huge header", format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {long}\r\n\r\n")),
        ("too many headers", format!("GET / HTTP/1.1\r\nHost: a.example\r\n{many}\r\n")),
    ] {
        let answer = exchange(podium.http, request.as_bytes());
        let status = answer.as_ref().map(|answer| answer.status);
        assert!(status.is_none_or(|status| status == 400), "{what}: {answer:?}");
        assert_eq!(web.requests(), 0, "{what} reached the endpoint");
    }
    assert_eq!(
        exchange(podium.http, b"CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n")
            .unwrap()
            .status,
        405
    );
    assert_eq!(podium.get("a.example", "/").status, 200);
}

#[test]
fn bodies_over_the_limit_are_refused() {
    let web = Backend::start("web");
    let podium = start(&web);
    let declared = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1048577\r\n\r\n";
    let answer = exchange(podium.http, declared.as_bytes()).unwrap();
    assert!(answer.head.starts_with("HTTP/1.1 413 Request Entity Too Large"), "{}", answer.head);
    assert_eq!(web.requests(), 0);
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        chunk.repeat(17)
    );
    assert_eq!(exchange(podium.http, chunked.as_bytes()).map(|answer| answer.status), Some(413));
    assert_eq!(podium.get("a.example", "/").status, 200);
}

/// A byte now and then keeps every single read short of its timeout, but not the whole header.
#[test]
fn slow_headers_are_cut_and_slow_answers_are_not() {
    let web = Backend::start("web");
    let podium = start(&web);
    let mut slow = TcpStream::connect(podium.http).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\nX: ").unwrap();
    // A hundred bytes last five times as long as the whole header may take; each read of one is far
    // from its timeout.
    let mut accepted = 0;
    while slow.write_all(b"x").is_ok() {
        accepted += 1;
        assert!(accepted < 100, "still open");
        std::thread::sleep(Duration::from_millis(100));
    }
    // One byte can be written to a connection that the peer closed already; the next one fails.
    assert!(accepted > 2, "cut after {accepted} bytes, before its time");
    assert!(!matches!(slow.read(&mut [0; 16]), Ok(1..)));
    assert_eq!(web.requests(), 0);
    assert_eq!(podium.get("a.example", "/?sleep=3000").status, 200);
}
