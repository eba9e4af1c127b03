//! Clients, authorities and networks that mean no good: nothing of it opens a location.

use super::{asking, get_with, start};
use crate::authority::{Authority, header, plain};
use crate::backend::Backend;
use crate::harness::exchange;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// What only we may say is said by us alone, once.
#[test]
fn auth_url_never_hears_a_client_in_our_name() {
    let web = Backend::start("web");
    let authority = Authority::saying("200 OK", "");
    let podium = start(&web, &[&asking(&authority, "")], "", &[]);
    let forged = "X-Original-URL: http://a.example/public\r\nX-Original-Method: HEAD\r\nX-Original-URI: /public\r\n\
                  X-Auth-Request-Redirect: /evil\r\nX-Sent-From: me\r\nX-Real-IP: 10.0.0.1\r\nX-Scheme: https\r\n\
                  X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n\
                  X-Forwarded-Uri: /public\r\nX-Forwarded-Method: GET\r\nX_Original_URL: /public\r\n\
                  Forwarded: for=10.0.0.1\r\nProxy: http://evil\r\nTransfer-Encoding: chunked\r\n";
    let answer = podium.send(&format!(
        "POST /private HTTP/1.1\r\nHost: a.example\r\n{forged}Connection: close\r\n\r\n0\r\n\r\n"
    ));
    assert_eq!(answer.status, 200);
    let head = authority.last().to_lowercase();
    for word in ["public", "evil", "10.0.0.1", "https", "chunked", "x_original"] {
        assert!(!head.contains(word), "{word} in {head}");
    }
    for name in ["x-original-url", "x-original-method", "x-sent-from", "x-real-ip", "host"] {
        assert_eq!(head.matches(&format!("\r\n{name}:")).count(), 1, "{name} in {head}");
    }
    assert_eq!(header(&head, "x-original-url").as_deref(), Some("http://a.example/private"));
}

#[test]
fn auth_url_hears_the_path_as_the_client_wrote_it() {
    let web = Backend::start("web");
    let authority = Authority::saying("200 OK", "");
    let podium = start(&web, &[&asking(&authority, "")], "", &[]);
    for path in ["/public/../private", "/public/%2e%2e/private", "//private", "/a?b=/../c"] {
        podium.get("a.example", path);
        let told = authority.last_header("x-original-url");
        assert_eq!(told, Some(format!("http://a.example{path}")));
    }
    // Of a target with a host of its own the path is told.
    let absolute =
        "GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    exchange(podium.http, absolute.as_bytes()).unwrap();
    assert_eq!(authority.last_header("x-auth-request-redirect").as_deref(), Some("/x"));
}

#[test]
fn auth_url_without_an_answer_opens_nothing() {
    let web = Backend::start("web");
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = Authority::start(|_| String::new());
    let garbage = Authority::start(|_| "200 OK come in\r\n\r\n".into());
    let cut = Authority::start(|_| "HTTP/1.1 200 OK\r\nX-Half".into());
    let early = Authority::start(|_| {
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".into()
    });
    let quick = "proxy-connect-timeout: 1\nproxy-read-timeout: 1";
    let podium = start(
        &web,
        &[
            &format!("auth-url: http://{gone}/"),
            &asking(&silent, quick),
            &asking(&garbage, ""),
            &asking(&cut, quick),
            &asking(&early, ""),
            "auth-url: http://no-such-host.invalid/",
        ],
        "",
        &[],
    );
    for (host, status) in [
        ("a.example", 500),
        ("b.example", 500),
        ("c.example", 500),
        ("d.example", 500),
        ("e.example", 403),
        ("f.example", 500),
    ] {
        assert_eq!(podium.get(host, "/").status, status, "{host}");
    }
    assert_eq!(web.requests(), 0);
}

#[test]
fn auth_url_may_answer_at_great_length() {
    let web = Backend::start("web");
    // Never ends; nobody wants it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                drop(stream.read(&mut [0; 4096]));
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
                let chunk = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
                while stream.write_all(&chunk).is_ok() {}
            });
        }
    });
    let huge =
        Authority::start(|_| plain("200 OK", &format!("X-Long: {}\r\n", "x".repeat(1 << 20))));
    let podium =
        start(&web, &[&format!("auth-url: http://{address}/"), &asking(&huge, "")], "", &[]);
    for _ in 0..5 {
        assert_eq!(podium.get("a.example", "/").status, 200);
        assert_eq!(podium.get("b.example", "/").status, 500, "no header is that long");
    }
}

#[test]
fn auth_response_headers_cannot_take_over_the_connection() {
    let web = Backend::start("web");
    let authority = Authority::saying(
        "200 OK",
        "X-User: anna\r\nTransfer-Encoding: identity\r\nConnection: X-User\r\nHost: evil\r\nX-Real-IP: 10.0.0.1\r\n",
    );
    let podium = start(
        &web,
        &[
            &asking(&authority, "auth-response-headers: X-User, X-Real-IP"),
            &asking(&authority, "auth-response-headers: X-User, Transfer-Encoding"),
            &asking(&authority, "auth-response-headers: Host"),
        ],
        "",
        &[],
    );
    let answer = podium.get("a.example", "/");
    assert_eq!((answer.status, answer.seen("x-user").as_str()), (200, "anna"));
    assert_eq!(answer.seen("x-real-ip"), "127.0.0.1");
    for host in ["b.example", "c.example"] {
        assert_eq!(podium.get(host, "/").status, 503, "these are not for an authority to set");
    }
}

/// The answer to one request is never the answer to another.
#[test]
fn auth_url_is_asked_about_each_request_of_a_connection() {
    let web = Backend::start("web");
    let authority = Authority::start(|head| {
        let asked = header(head, "x-original-url").unwrap();
        plain(if asked.ends_with("/open") { "200 OK" } else { "403 No" }, "")
    });
    let podium = start(&web, &[&asking(&authority, "")], "", &[]);
    let mut stream = TcpStream::connect(podium.http).unwrap();
    let requests: String = ["/open", "/shut", "/open", "/shut"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"))
        .concat();
    let last = "GET /open HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    stream.write_all((requests + last).as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let statuses: Vec<&str> = text
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &text[at + 9..at + 12])
        .filter(|s| s.parse::<u16>().is_ok())
        .collect();
    assert!(["200", "403", "200", "403", "200"].starts_with(&statuses[..]), "{text}");
    assert_eq!(get_with(&podium, "a.example", "/shut", "").status, 403);
}
