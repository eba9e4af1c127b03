//! `proxy-next-upstream*`, time limits, and kept connections that endpoints close.

use crate::backend::Backend;
use crate::harness::{Ingress, exchange, ingress, service, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

fn note(name: &str, value: &str) -> String {
    format!("\"nginx.ingress.kubernetes.io/{name}\": \"{value}\"")
}

struct Two {
    one: Backend,
    two: Backend,
    podium: Ingress,
}

fn two(annotations: &[(&str, &str)]) -> Two {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let annotations: Vec<String> = annotations.iter().map(|(n, v)| note(n, v)).collect();
    let rules = ingress("a", &annotations.join(", "), &[("a.example", "/", "Prefix", "web")]);
    let manifests = format!("{}{rules}", service("web", &[&one, &two]));
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    Two { one, two, podium }
}

impl Two {
    fn request(&self, method: &str, target: &str) -> u16 {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
        );
        self.podium.send(&request).status
    }

    /// Statuses of some requests, as many as both endpoints take turns in.
    fn statuses(&self, method: &str, target: &str) -> Vec<u16> {
        let mut statuses: Vec<u16> = (0..4).map(|_| self.request(method, target)).collect();
        statuses.sort_unstable();
        statuses
    }
}

#[test]
fn proxy_next_upstream_tries_another_endpoint_after_errors_and_timeouts() {
    let web = two(&[("proxy-read-timeout", "1")]);
    assert_eq!(web.statuses("GET", "/?hangup-one=1"), [200; 4]);
    assert_eq!(web.request("PUT", "/?sleep-one=3000"), 200);
    assert_eq!(web.request("PUT", "/?sleep-one=3000"), 200);
    // Not by default: what the endpoint said is the answer, and no answer at all is a 502.
    assert_eq!(web.statuses("GET", "/?answer-one=503"), [200, 200, 503, 503]);
    assert_eq!(web.statuses("GET", "/?garbage-one=1"), [200, 200, 502, 502]);
    assert_eq!(web.statuses("POST", "/?hangup-one=1"), [200, 200, 502, 502]);
    assert_eq!(web.statuses("PATCH", "/?hangup-one=1"), [200, 200, 502, 502]);
    assert_eq!(web.request("GET", "/?hangup-one=1&hangup-two=1"), 502);
    assert_eq!(web.request("GET", "/?sleep=3000"), 504);
}

#[test]
fn proxy_next_upstream_conditions() {
    let web = two(&[("proxy-next-upstream", "http_503 http_404 invalid_header non_idempotent")]);
    assert_eq!(web.statuses("GET", "/?answer-one=503"), [200; 4]);
    assert_eq!(web.statuses("GET", "/?answer-one=404"), [200; 4]);
    assert_eq!(web.statuses("GET", "/?garbage-one=1"), [200; 4]);
    assert_eq!(web.statuses("POST", "/?answer-one=503"), [200; 4]);
    assert_eq!(web.statuses("GET", "/?answer-one=500"), [200, 200, 500, 500]);
    assert_eq!(web.statuses("GET", "/?hangup-one=1"), [200, 200, 502, 502]);
    // When all answers are of that kind the last one goes through, with its body.
    let answer = web.podium.get("a.example", "/?answer-one=503&answer-two=503");
    assert_eq!(answer.status, 503);
    assert!(!answer.seen("backend").is_empty(), "{answer:?}");
}

#[test]
fn proxy_next_upstream_off_and_wrong() {
    let web = two(&[("proxy-next-upstream", "off")]);
    assert_eq!(web.statuses("GET", "/?hangup-one=1"), [200, 200, 502, 502]);
    let web = two(&[("proxy-next-upstream", "sometimes")]);
    assert_eq!(web.statuses("GET", "/?hangup-one=1"), [200; 4]);
    let counted = || web.podium.metrics().contains("kind=\"Ingress\",severity=\"error\"} 1");
    wait_until("the problem is counted", counted);
}

#[test]
fn proxy_next_upstream_tries_counts_all_attempts() {
    for (value, attempts) in [("1", 1), ("2", 2), ("3", 3), ("5", 5)] {
        let web = two(&[("proxy-next-upstream", "http_500"), ("proxy-next-upstream-tries", value)]);
        assert_eq!(web.request("GET", "/?answer-one=500&answer-two=500"), 500);
        assert_eq!(web.one.requests() + web.two.requests(), attempts, "{value}");
        wait_until("the line is logged", || {
            let log = web.podium.access_log.lock().unwrap();
            log.matches(", ").count() >= 4 * (attempts - 1)
        });
    }
}

#[test]
fn proxy_next_upstream_timeout_ends_further_attempts() {
    let both = [("proxy-next-upstream", "http_500"), ("proxy-next-upstream-timeout", "1")];
    let web = two(&both);
    assert_eq!(web.request("GET", "/?answer-one=500&answer-two=500&sleep=1200"), 500);
    assert_eq!(web.one.requests() + web.two.requests(), 1);
}

#[test]
fn proxy_connect_timeout_proxy_send_timeout_and_wrong_ones() {
    // Nobody listens there.
    let slices = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n---\n\
                  apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-0, labels: \
                  {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: \
                  [{addresses: [127.255.255.254]}]\n";
    let annotations = [note("proxy-connect-timeout", "1"), note("proxy-send-timeout", "soon")];
    let rules = ingress("a", &annotations.join(", "), &[("a.example", "/", "Prefix", "web")]);
    let podium = Ingress::start(&[("a.yaml", &format!("{slices}{rules}"))], &[]);
    assert!(matches!(podium.get("a.example", "/").status, 502 | 504));
    let counted = || podium.metrics().contains("kind=\"Ingress\",severity=\"error\"} 1");
    wait_until("the problem is counted", counted);
}

#[test]
fn proxy_http_version_1_0() {
    let web = two(&[("proxy-http-version", "1.0")]);
    let answer = web.podium.get("a.example", "/x");
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("GET /x HTTP/1.0"), "{}", answer.body);
    assert_eq!(answer.seen("connection"), "close");
    let web = two(&[]);
    assert!(web.podium.get("a.example", "/x").body.contains("GET /x HTTP/1.1"));
}

#[test]
fn an_endpoint_that_cannot_be_reached_takes_any_method_elsewhere() {
    let web = two(&[]);
    web.one.kill();
    assert_eq!(web.statuses("POST", "/"), [200; 4]);
    assert_eq!(web.statuses("PATCH", "/"), [200; 4]);
}

/// Endpoints close what they kept at any moment, also the one in which it is used again. Nothing of it
/// reaches a client. (What must not be done twice is in the tests of `proxy::upstream::delivery`: here an
/// endpoint may have got it just before it hung up.)
#[test]
fn kept_connections_that_endpoints_close_fail_no_request() {
    let web = two(&[]);
    let address = web.podium.http;
    let clients: Vec<_> = (0..4)
        .map(|client| {
            thread::spawn(move || {
                let mut failures = Vec::new();
                let mut stream = TcpStream::connect(address).unwrap();
                for round in 0..500 {
                    let (method, forget) =
                        (if round % 2 == 0 { "GET" } else { "PUT" }, (round + client) % 3);
                    let request = format!(
                        "{method} /?forget={forget} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi"
                    );
                    stream.write_all(request.as_bytes()).unwrap();
                    let mut text = String::new();
                    let mut buffer = [0; 4096];
                    while !text.contains("x-scheme: http\n") && !text.ends_with("</html>\r\n") {
                        match stream.read(&mut buffer) {
                            Ok(count @ 1..) => {
                                text.push_str(&String::from_utf8_lossy(&buffer[..count]));
                            }
                            _ => break,
                        }
                        text = text.to_ascii_lowercase();
                    }
                    if !text.starts_with("http/1.1 200") {
                        failures.push(format!("{method}: {text}"));
                        stream = TcpStream::connect(address).unwrap();
                    }
                }
                failures
            })
        })
        .collect();
    let failures: Vec<String> =
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert!(failures.is_empty(), "{} failed, first: {}", failures.len(), failures[0]);
    assert!(web.one.connections() + web.two.connections() > 50, "hardly any were closed");
}

#[test]
fn a_request_goes_to_an_endpoint_only_once_if_it_must_not_be_repeated() {
    let web = two(&[]);
    let request = "POST /?hangup-one=1&hangup-two=1 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    // A kept connection, so that the endpoint hangs up on one that is used again.
    for _ in 0..4 {
        assert_eq!(web.podium.get("a.example", "/").status, 200);
    }
    let before = web.one.requests() + web.two.requests();
    assert_eq!(exchange(web.podium.http, request.as_bytes()).unwrap().status, 502);
    assert_eq!(web.one.requests() + web.two.requests(), before + 1);
}
