//! Clients that take their time, and how long they may.

use crate::backend::Backend;
use crate::harness::{Ingress, curl, ingress, parse, service, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// An ingress with these options in its ConfigMap.
fn start(web: &Backend, options: &str) -> Ingress {
    let rules = ingress("a", "", &[("a.example", "/", "Prefix", "web")]);
    let map = format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: options}}\ndata: {{{options}}}\n"
    );
    let manifests = format!("{}{rules}{map}", service("web", &[web]));
    Ingress::start(&[("a.yaml", &manifests)], &["--configmap", "default/options"])
}

fn connect(podium: &Ingress) -> TcpStream {
    let stream = TcpStream::connect(podium.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn keep_alive_ends_idle_connections() {
    let web = Backend::start("web");
    let podium = start(&web, "keep-alive: \"1\"");
    let mut kept = connect(&podium);
    kept.write_all(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
    // The end comes without another request.
    assert!(rest(kept).starts_with("HTTP/1.1 200"));
    let podium = start(&web, "keep-alive: \"0\"");
    let mut once = connect(&podium);
    once.write_all(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
    assert_eq!(parse(&rest(once)).unwrap().header("connection"), "close");
}

#[test]
fn keep_alive_requests_limits_a_connection() {
    let web = Backend::start("web");
    let podium = start(&web, "keep-alive-requests: \"3\"");
    let mut stream = connect(&podium);
    for _ in 0..3 {
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    let text = rest(stream);
    assert_eq!(text.matches("HTTP/1.1 200").count(), 3, "{text}");
    assert_eq!(text.matches("Connection: close").count(), 1, "{text}");
    // On HTTP/2 the client is told to open another, and curl does.
    let url = format!("https://a.example:{}/x?[1-7]", podium.https.port());
    let resolve = format!("a.example:{}:{}", podium.https.port(), podium.https.ip());
    let show = "connects: %{num_connects}\n";
    let flags = ["-k", "--http2", "-w", show, "--resolve", &resolve, &url];
    let (text, ok) = curl(&flags);
    assert!(ok && text.matches("backend: web").count() == 7, "{text}");
    assert!(text.matches("connects: 1").count() >= 2, "{text}");
}

#[test]
fn client_header_timeout_counts_the_whole_header() {
    let web = Backend::start("web");
    let podium = start(&web, "client-header-timeout: \"1\"");
    let mut slow = connect(&podium);
    wait_until("the connection ends", || {
        std::thread::sleep(Duration::from_millis(50));
        slow.write_all(b"G").is_err()
    });
    assert_eq!(web.requests(), 0);
}

#[test]
fn client_body_timeout_counts_between_pieces() {
    let web = Backend::start("web");
    let podium = start(&web, "client-body-timeout: \"1\"");
    let mut stuck = connect(&podium);
    stuck
        .write_all(b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\nhalf")
        .unwrap();
    let text = rest(stuck);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{text}");
    let mut slow = connect(&podium);
    slow.write_all(
        b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nConnection: close\r\n\r\n",
    )
    .unwrap();
    for byte in [b"a", b"b", b"c", b"d"] {
        std::thread::sleep(Duration::from_millis(500));
        slow.write_all(byte).unwrap();
    }
    assert!(rest(slow).contains("body-bytes: 4"));
}

#[test]
fn a_client_that_says_nothing_on_http_2_is_not_waited_for() {
    let web = Backend::start("web");
    let podium = start(&web, "client-header-timeout: \"1\", keep-alive: \"1\"");
    let mut silent = connect(&podium);
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    // It ends, however often the client says that it is there.
    let ping = b"\0\0\x08\x06\0\0\0\0\0abcdefgh";
    wait_until("the connection ends", || {
        std::thread::sleep(Duration::from_millis(50));
        silent.write_all(ping).is_err()
    });
}

#[test]
fn http_2_without_tls_by_prior_knowledge() {
    let web = Backend::start("web");
    let podium = start(&web, "");
    let url = format!("http://a.example:{}/x", podium.http.port());
    let resolve = format!("a.example:{}:{}", podium.http.port(), podium.http.ip());
    let show = "%{http_version}";
    // An offer to change to HTTP/2 is left unanswered; who begins with it is served by it.
    for (flag, version) in
        [("--http2-prior-knowledge", "2"), ("--http2", "1.1"), ("--http1.1", "1.1")]
    {
        let (text, ok) = curl(&[flag, "-w", show, "--resolve", &resolve, &url]);
        assert!(ok && text.contains("backend: web") && text.ends_with(version), "{flag}: {text}");
    }
    let mut short = connect(&podium);
    short.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(rest(short).starts_with("HTTP/1.1 404"));
}
