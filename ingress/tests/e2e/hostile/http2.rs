//! HTTP/2 that would be two requests, or another one, once written as HTTP/1: refused or normalised.
//!
//! Frames are written by hand, since no client library sends what is sent here.

use super::http1::{shown, start};
use crate::harness::Ingress;
use crate::recorder::Recorder;
use crate::tls::{Pair, certificate, secret, secured};
use crate::tls_client;
use std::fmt::Write as _;
use std::io::{Read, Write};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

type Header<'a> = (&'a str, &'a str);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// Every header as a literal without indexing, names spelled out (RFC 7541 section 6.2.2).
fn block(headers: &[Header<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in headers {
        out.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            out.push(u8::try_from(text.len()).unwrap());
            out.extend(text.bytes());
        }
    }
    out
}

/// The status of a response's header block: an entry of the static table, or a literal of digits.
fn status(block: &[u8]) -> String {
    match block {
        [indexed @ 0x88..=0x8e, ..] => {
            let known = ["200", "204", "206", "304", "400", "404", "500"];
            known[usize::from(indexed - 0x88)].into()
        }
        [_, 3, digits @ ..] => String::from_utf8_lossy(&digits[..3]).into(),
        // Two bytes of Huffman code hold three digits; which does not matter here.
        _ => "some status".into(),
    }
}

/// Sends one request; gives its status, or how it was refused.
fn ask(podium: &Ingress, pair: &Pair, headers: &[Header<'_>], body: Option<&str>) -> String {
    let mut stream = tls_client::connect(podium.https, "a.example", &pair.chain, "h2");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, b""));
    let end = if body.is_none() { END_STREAM } else { 0 };
    bytes.extend(frame(HEADERS, END_HEADERS | end, 1, &block(headers)));
    if let Some(body) = body {
        bytes.extend(frame(DATA, END_STREAM, 1, body.as_bytes()));
    }
    stream.write_all(&bytes).unwrap();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return "closed".into();
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).unwrap();
        match head[3] {
            HEADERS => return status(&payload),
            RST_STREAM => return "reset".into(),
            GOAWAY => return "goaway".into(),
            _ => {}
        }
    }
}

#[test]
fn nothing_becomes_another_request_on_the_way_to_http_1() {
    let pair = certificate(&["a.example"]);
    let recorder = Recorder::start(&["web"]);
    let podium =
        start(&recorder, &format!("---\n{}{}", secret("own", &pair), secured("a.example", "own")));
    let base: [Header<'_>; 4] = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "a.example"),
        (":path", "/first"),
    ];
    let with = |more: &[Header<'static>]| [&base[..], more].concat();
    let change = |name: &str, value: &'static str| {
        base.map(|(own, old)| if own == name { (own, value) } else { (own, old) }).to_vec()
    };
    let post = |more: &[Header<'static>]| [&change(":method", "POST")[..], more].concat();
    let without =
        |name: &str| base.iter().filter(|(own, _)| *own != name).copied().collect::<Vec<_>>();
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let vectors: &[(&str, Vec<Header<'_>>, Option<&str>, &str)] = &[
        ("plain", with(&[]), None, "200: GET /first"),
        (
            "a body",
            post(&[]),
            Some("hello"),
            "200: POST /first transfer-encoding=chunked body=hello",
        ),
        (
            "a body with its length",
            post(&[("content-length", "5")]),
            Some("hello"),
            "200: POST /first content-length=5 body=hello",
        ),
        (
            "a body longer than its length",
            post(&[("content-length", "3")]),
            Some(smuggled),
            "reset",
        ),
        (
            "a body shorter than its length",
            post(&[("content-length", "500")]),
            Some("hello"),
            "reset",
        ),
        (
            "two lengths",
            post(&[("content-length", "5"), ("content-length", "6")]),
            Some("hello"),
            "reset",
        ),
        (
            "the same length twice",
            post(&[("content-length", "5"), ("content-length", "5")]),
            Some("hello"),
            "400",
        ),
        ("a length with a plus", post(&[("content-length", "+5")]), Some("hello"), "reset"),
        ("chunks", post(&[("transfer-encoding", "chunked")]), Some(smuggled), "reset"),
        (
            "chunks and a length",
            post(&[("transfer-encoding", "chunked"), ("content-length", "5")]),
            Some(smuggled),
            "reset",
        ),
        ("Connection", with(&[("connection", "close")]), None, "reset"),
        ("Keep-Alive", with(&[("keep-alive", "timeout=5")]), None, "reset"),
        ("Proxy-Connection", with(&[("proxy-connection", "close")]), None, "reset"),
        ("Upgrade", with(&[("upgrade", "websocket")]), None, "reset"),
        ("TE of gzip", with(&[("te", "gzip")]), None, "reset"),
        ("TE of trailers", with(&[("te", "trailers")]), None, "200: GET /first"),
        ("a name in capitals", with(&[("X-Upper", "1")]), None, "goaway"),
        ("a name with a space", with(&[("x y", "1")]), None, "goaway"),
        ("a name with a colon", with(&[("x:y", "1")]), None, "goaway"),
        ("a name with CR LF", with(&[("x\r\ny", "1")]), None, "goaway"),
        ("an empty name", with(&[("", "1")]), None, "goaway"),
        ("CR LF in a value", with(&[("x", "1\r\ny: 2")]), None, "goaway"),
        ("LF in a value", with(&[("x", "1\ny: 2")]), None, "goaway"),
        ("CR in a value", with(&[("x", "1\ry: 2")]), None, "goaway"),
        ("NUL in a value", with(&[("x", "1\0y")]), None, "goaway"),
        ("CR LF in the path", change(":path", "/first\r\nX: y"), None, "reset"),
        ("a space in the path", change(":path", "/first HTTP/1.1 x"), None, "reset"),
        ("a path without a slash", change(":path", "first"), None, "reset"),
        ("an empty path", change(":path", ""), None, "reset"),
        ("a path of a star", change(":path", "*"), None, "400"),
        ("an absolute path", change(":path", "http://b.example/first"), None, "reset"),
        ("a fragment", change(":path", "/first#x"), None, "200: GET /first"),
        ("no path", without(":path"), None, "reset"),
        ("no method", without(":method"), None, "reset"),
        ("no scheme", without(":scheme"), None, "reset"),
        ("no authority", without(":authority"), None, "400"),
        (
            "Host instead",
            [&without(":authority")[..], &[("host", "a.example")]].concat(),
            None,
            "200: GET /first",
        ),
        ("the same Host", with(&[("host", "a.example")]), None, "200: GET /first"),
        ("another Host", with(&[("host", "b.example")]), None, "400"),
        ("two Hosts", with(&[("host", "a.example"), ("host", "b.example")]), None, "400"),
        ("two paths", with(&[(":path", "/smuggled")]), None, "reset"),
        ("two authorities", with(&[(":authority", "b.example")]), None, "reset"),
        ("an unknown pseudo-header", with(&[(":x", "1")]), None, "goaway"),
        ("a pseudo-header of answers", with(&[(":status", "200")]), None, "reset"),
        ("a pseudo-header after others", [&[("x", "1")], &base[..]].concat(), None, "reset"),
        ("userinfo", change(":authority", "u@a.example"), None, "400"),
        ("CR LF in the authority", change(":authority", "a.example\r\nX: y"), None, "reset"),
        ("a path in the authority", change(":authority", "a.example/x"), None, "reset"),
        ("a method with a space", change(":method", "GET /smuggled HTTP/1.1"), None, "goaway"),
        ("a method with CR LF", change(":method", "GET\r\n"), None, "goaway"),
        ("CONNECT", change(":method", "CONNECT"), None, "reset"),
        ("another scheme", change(":scheme", "ftp"), None, "200: GET /first"),
        (
            "an underscore",
            with(&[("x_real_ip", "1.2.3.4"), ("x-kept", "1")]),
            None,
            "200: GET /first x-kept=1",
        ),
    ];
    let mut wrong = String::new();
    for (name, headers, body, expected) in vectors {
        drop(recorder.take());
        let answer = ask(&podium, &pair, headers, *body);
        let seen: Vec<String> = recorder.take().iter().map(shown).collect();
        assert!(
            seen.iter().all(|line| line.split(' ').nth(1) != Some("/smuggled")),
            "{name}: {seen:?}"
        );
        let outcome = format!("{answer}: {}", seen.join(" | "));
        if outcome.trim_end_matches(": ") != *expected {
            writeln!(wrong, "{name}:\n  expected {expected}\n  found    {outcome}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
