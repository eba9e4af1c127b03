//! PROXY headers of a load balancer in front, on HTTP and HTTPS.

use crate::backend::Backend;
use crate::harness::{Answer, Ingress, exchange, ingress, parse, service};
use crate::tls::{Pair, certificate, secret};
use crate::tls_client;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn start(flags: &[&str]) -> (Backend, Ingress) {
    let (web, podium, _) = start_with_certificate(flags);
    (web, podium)
}

fn start_with_certificate(flags: &[&str]) -> (Backend, Ingress, Pair) {
    let web = Backend::start("web");
    let rules = ingress("a", "", &[("a.example", "/", "Prefix", "web")]);
    let secured = ingress("b", "", &[("b.example", "/", "Prefix", "web")])
        .replace("spec:\n", "spec:\n  tls: [{secretName: one}]\n");
    let pair = certificate(&["b.example"]);
    let manifests =
        format!("{}{rules}{secured}---\n{}", service("web", &[&web]), secret("one", &pair));
    let flags = [&["--use-proxy-protocol"], flags].concat();
    (web, Ingress::start(&[("a.yaml", &manifests)], &flags), pair)
}

fn ask(podium: &Ingress, header: &[u8], host: &str) -> Option<Answer> {
    let request = format!("GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    exchange(podium.http, &[header, request.as_bytes()].concat())
}

fn v2(command: u8, body: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, 0x11]);
    header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    header.extend(body);
    header
}

#[test]
fn use_proxy_protocol_takes_the_clients_address_from_the_header() {
    let (_web, podium) = start(&[]);
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 8088\r\n".to_vec();
    let mut binary = vec![192, 0, 2, 7, 198, 51, 100, 1, 0x13, 0x88, 0x1f, 0x98];
    binary.extend([3, 0, 4, 1, 2, 3, 4]);
    for header in [line, v2(0x21, &binary)] {
        let answer = ask(&podium, &header, "a.example").unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.seen("x-real-ip"), "192.0.2.7");
        assert_eq!(answer.seen("x-forwarded-port"), "8088");
    }
    let own = podium.http.ip().to_string();
    for header in [&b"PROXY UNKNOWN\r\n"[..], &v2(0x20, &[])] {
        let answer = ask(&podium, header, "a.example").unwrap();
        // The load balancer speaks for itself, from its own address.
        assert!(answer.seen("x-real-ip").starts_with("127."), "{} {own}", answer.body);
    }
}

#[test]
fn use_proxy_protocol_knows_tls_in_front_by_the_port() {
    let (_web, podium) = start(&[]);
    let to = |port: u16| format!("PROXY TCP4 192.0.2.7 198.51.100.1 5000 {port}\r\n");
    let plain = ask(&podium, to(80).as_bytes(), "b.example").unwrap();
    assert_eq!(plain.status, 308);
    let secure = ask(&podium, to(443).as_bytes(), "b.example").unwrap();
    assert_eq!((secure.status, secure.seen("x-forwarded-proto").as_str()), (200, "https"));
}

#[test]
fn use_proxy_protocol_on_https() {
    let (_web, podium, pair) = start_with_certificate(&[]);
    let mut stream = TcpStream::connect(podium.https).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"PROXY TCP4 192.0.2.9 198.51.100.1 5000 443\r\n").unwrap();
    let mut stream = tls_client::over(stream, "b.example", &pair.chain, "http/1.1");
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    let answer = parse(&text).unwrap();
    assert_eq!((answer.status, answer.seen("x-real-ip").as_str()), (200, "192.0.2.9"), "{text}");
}

#[test]
fn use_proxy_protocol_believes_only_the_networks_of_proxy_real_ip_cidr() {
    let (_web, podium) = start(&["--proxy-real-ip-cidr", "10.0.0.0/8"]);
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n";
    let answer = ask(&podium, header, "a.example").unwrap();
    assert!(answer.seen("x-real-ip").starts_with("127."), "{}", answer.body);
    assert_eq!(answer.seen("x-forwarded-proto"), "http");
}

#[test]
fn use_proxy_protocol_closes_what_does_not_begin_with_a_header() {
    let (web, podium) = start(&[]);
    for header in
        [&b""[..], b"PROXY nonsense\r\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", &v2(0x31, &[])]
    {
        assert!(ask(&podium, header, "a.example").is_none());
    }
    // Nothing at all is not waited for much longer than a load balancer takes.
    let mut silent = TcpStream::connect(podium.http).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    silent.write_all(b"PROXY TCP4 192.0.2.7").unwrap();
    assert!(matches!(silent.read(&mut [0; 16]), Ok(0)));
    assert_eq!(web.requests(), 0);
}
