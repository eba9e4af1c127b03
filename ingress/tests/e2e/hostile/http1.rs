//! HTTP/1 that two parsers could read in two ways: refused, or passed on in one way only.
//!
//! Many vectors carry a request of their own inside, `/smuggled`; an honest one, `/after`, follows on the
//! connection if it is still open. What endpoints see, and what the client is told, is written out in full.

use crate::harness::{Ingress, ingress, parse};
use crate::recorder::{Recorder, Seen};
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";
const AFTER: &str = "GET /after HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

/// Sends bytes, and once they are answered an honest request; gives the statuses of all answers until the
/// peer ends the connection. Where it waits for more, it is told that there is none.
fn statuses(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    // It may refuse before it has read everything.
    drop(stream.write_all(bytes));
    let (mut answers, mut buffer) = (Vec::new(), [0; 16384]);
    let (mut waited, mut asked) = (false, false);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answers.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock && !waited => {
                waited = true;
                drop(stream.shutdown(Shutdown::Write));
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
        if !asked
            && parse(&String::from_utf8_lossy(&answers)).is_some_and(|answer| {
                answer.header("content-length") == answer.body.len().to_string()
            })
        {
            asked = true;
            drop(stream.write_all(AFTER.as_bytes()));
        }
    }
    let text = String::from_utf8_lossy(&answers);
    let starts =
        text.match_indices("HTTP/1.").filter(|(at, _)| *at == 0 || text[..*at].ends_with('\n'));
    let mut out: Vec<&str> = starts.filter_map(|(at, _)| text.get(at + 9..at + 12)).collect();
    if waited {
        out.push("waits");
    }
    if out.is_empty() { "closed".into() } else { out.join(" ") }
}

/// What matters of a request at an endpoint: its line, framing, and headers a client should not reach.
pub fn shown(seen: &Seen) -> String {
    let mut out = format!("{} {}", seen.method, seen.target);
    let ours = ["x-request-id", "x-real-ip", "x-forwarded-", "x-scheme", "host"];
    for (name, value) in &seen.headers {
        let lower = name.to_ascii_lowercase();
        if ours.iter().all(|prefix| !lower.starts_with(prefix)) {
            write!(out, " {lower}={}", value.escape_debug()).unwrap();
        }
    }
    if !seen.body.is_empty() {
        write!(out, " body={}", String::from_utf8_lossy(&seen.body).escape_debug()).unwrap();
    }
    out
}

pub fn start(recorder: &Recorder, more: &str) -> Ingress {
    let address = recorder.addresses["web"];
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-1, labels: \
         {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nports: [{{port: {}}}]\nendpoints: \
         [{{addresses: [{}]}}]\n",
        address.port(),
        address.ip()
    );
    let rules = ingress("a", "", &[("a.example", "/", "Prefix", "web")]);
    Ingress::start(&[("a.yaml", &format!("{service}{rules}{more}"))], &[])
}

/// A POST with these header lines, and a body that is a request to one who frames it differently.
fn post(framing: &str, body: &str) -> String {
    format!("POST /first HTTP/1.1\r\nHost: a.example\r\n{framing}\r\n{body}")
}

fn check(vectors: &[(&str, String, &str)]) {
    let recorder = Recorder::start(&["web"]);
    let podium = start(&recorder, "");
    let mut wrong = String::new();
    for (name, request, expected) in vectors {
        drop(recorder.take());
        let answers = statuses(podium.http, request.as_bytes());
        let seen = recorder.take();
        for request in &seen {
            for name in ["Host", "X-Real-IP", "X-Forwarded-For", "X-Request-ID", "X-Scheme"] {
                let own = |(own, _): &&(String, String)| own.eq_ignore_ascii_case(name);
                assert_eq!(request.headers.iter().filter(own).count(), 1, "{name} of {request:?}");
            }
        }
        let seen: Vec<String> = seen.iter().map(shown).collect();
        let outcome = format!("{answers}: {}", seen.join(" | "));
        if seen.iter().any(|line| line.split(' ').nth(1) == Some("/smuggled")) {
            writeln!(wrong, "SMUGGLED {name}: {outcome}").unwrap();
        } else if outcome.trim_end_matches(": ") != *expected {
            writeln!(wrong, "{name}:\n  expected {expected}\n  found    {outcome}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert_eq!(podium.get("a.example", "/").status, 200);
}

#[test]
fn a_body_has_one_length() {
    let smuggled = SMUGGLED;
    let chunked_end = format!("0\r\n\r\n{smuggled}");
    let length = |header: &str| post(&format!("{header}\r\n"), "hello");
    let coded = |header: &str| post(&format!("{header}\r\n"), &chunked_end);
    check(&[
        (
            "length",
            length("Content-Length: 5"),
            "200 200: POST /first content-length=5 body=hello | GET /after",
        ),
        ("length twice", length("Content-Length: 5\r\nContent-Length: 5"), "400"),
        ("two lengths", length("Content-Length: 5\r\nContent-Length: 6"), "400"),
        ("length list", length("Content-Length: 5, 5"), "400"),
        ("length list that differs", length("Content-Length: 5, 6"), "400"),
        ("length with a plus", length("Content-Length: +5"), "400"),
        ("negative length", length("Content-Length: -5"), "400"),
        ("hexadecimal length", length("Content-Length: 0x5"), "400"),
        ("length with a space inside", length("Content-Length: 5 5"), "400"),
        ("length with a fraction", length("Content-Length: 5.0"), "400"),
        ("empty length", length("Content-Length:"), "400"),
        ("length beyond 64 bits", length("Content-Length: 18446744073709551621"), "400"),
        (
            "length with zeros",
            length("Content-Length: 0005"),
            "200 200: POST /first content-length=0005 body=hello | GET /after",
        ),
        (
            "length with a tab",
            length("Content-Length:\t5\t"),
            "200 200: POST /first content-length=5 body=hello | GET /after",
        ),
        ("length with a vertical tab", length("Content-Length: \x0b5"), "400"),
        ("space before the colon", length("Content-Length : 5"), "400"),
        ("underscore", length("Content_Length: 5"), "200: POST /first"),
        (
            "length and chunks",
            coded(&format!("Content-Length: {}\r\nTransfer-Encoding: chunked", chunked_end.len())),
            "400",
        ),
        (
            "chunks and length",
            coded(&format!("Transfer-Encoding: chunked\r\nContent-Length: {}", chunked_end.len())),
            "400",
        ),
        ("chunks and no length", coded("Transfer-Encoding: chunked\r\nContent-Length: 0"), "400"),
        ("xchunked", coded("Transfer-Encoding: xchunked"), "400"),
        ("chunkedx", coded("Transfer-Encoding: chunkedx"), "400"),
        ("chunked twice", coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), "400"),
        ("chunked, chunked", coded("Transfer-Encoding: chunked, chunked"), "400"),
        ("chunked, identity", coded("Transfer-Encoding: chunked, identity"), "400"),
        ("identity", coded("Transfer-Encoding: identity"), "400"),
        ("identity, chunked", coded("Transfer-Encoding: identity, chunked"), "400"),
        ("gzip, chunked", coded("Transfer-Encoding: gzip, chunked"), "400"),
        ("empty coding", coded("Transfer-Encoding:"), "400"),
        ("coding with a comma", coded("Transfer-Encoding: ,chunked"), "400"),
        ("coding in quotes", coded("Transfer-Encoding: \"chunked\""), "400"),
        ("coding with a parameter", coded("Transfer-Encoding: chunked;q=1"), "400"),
        (
            "coding in capitals",
            coded("Transfer-Encoding: Chunked"),
            "200: POST /first transfer-encoding=chunked",
        ),
        (
            "coding with tabs",
            coded("Transfer-Encoding:\tchunked\t"),
            "200: POST /first transfer-encoding=chunked",
        ),
        ("coding with a vertical tab", coded("Transfer-Encoding: \x0bchunked"), "400"),
        ("space before the coding's colon", coded("Transfer-Encoding : chunked"), "400"),
        ("tab before the coding's colon", coded("Transfer-Encoding\t: chunked"), "400"),
        ("folded coding", coded("Transfer-Encoding:\r\n chunked"), "400"),
        ("coding folded into another", coded("X: y\r\n Transfer-Encoding: chunked"), "400"),
        ("space before the coding", coded(" Transfer-Encoding: chunked"), "400"),
        ("coding after a bare CR", coded("X: y\rTransfer-Encoding: chunked"), "400"),
        (
            "coding after a bare LF",
            coded("X: y\nTransfer-Encoding: chunked"),
            "200: POST /first x=y transfer-encoding=chunked",
        ),
        ("coding and NUL", coded("Transfer-Encoding: chunked\0"), "400"),
        (
            "coding in HTTP/1.0",
            coded("Transfer-Encoding: chunked")
                .replace("HTTP/1.1\r\nHost: a.example\r\nT", "HTTP/1.0\r\nHost: a.example\r\nT"),
            "400",
        ),
        (
            "two codings, one with an underscore",
            coded("Transfer_Encoding: chunked"),
            "200: POST /first",
        ),
        (
            "length in a GET",
            length("Content-Length: 5").replace("POST", "GET"),
            "200 200: GET /first content-length=5 body=hello | GET /after",
        ),
        (
            "chunks in a GET",
            coded("Transfer-Encoding: chunked").replace("POST", "GET"),
            "200: GET /first transfer-encoding=chunked",
        ),
    ]);
}

#[test]
fn chunks_are_read_strictly() {
    let chunks = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    check(&[
        (
            "chunks",
            chunks("5\r\nhello\r\n0\r\n\r\n"),
            "200 200: POST /first transfer-encoding=chunked body=hello | GET /after",
        ),
        (
            "an extension",
            chunks("5;a=b\r\nhello\r\n0;c\r\n\r\n"),
            "200 200: POST /first transfer-encoding=chunked body=hello | GET /after",
        ),
        ("a quoted extension", chunks("5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n"), "400"),
        (
            "an extension with a bare LF",
            chunks(&format!("5;a\nhello\r\n0\r\n\r\n{SMUGGLED}")),
            "400",
        ),
        ("a bare LF after a size", chunks("5\nhello\r\n0\r\n\r\n"), "400"),
        ("a bare LF after a chunk", chunks("5\r\nhello\n0\r\n\r\n"), "400"),
        ("a bare CR after a size", chunks("5\rhello\r\n0\r\n\r\n"), "400"),
        ("no CR LF after a chunk", chunks("5\r\nhello0\r\n\r\n"), "400"),
        ("a size too large for 64 bits", chunks("10000000000000005\r\nhello\r\n0\r\n\r\n"), "400"),
        ("the largest size", chunks("ffffffffffffffff\r\nhello\r\n0\r\n\r\n"), "400"),
        ("a negative size", chunks("-5\r\nhello\r\n0\r\n\r\n"), "400"),
        ("a size with a plus", chunks("+5\r\nhello\r\n0\r\n\r\n"), "400"),
        ("a size with 0x", chunks("0x5\r\nhello\r\n0\r\n\r\n"), "400"),
        ("a size with an underscore", chunks("5_\r\nhello\r\n0\r\n\r\n"), "400"),
        ("a size with a space before", chunks(" 5\r\nhello\r\n0\r\n\r\n"), "400"),
        (
            "a size with a space after",
            chunks("5 \r\nhello\r\n0\r\n\r\n"),
            "200 200: POST /first transfer-encoding=chunked body=hello | GET /after",
        ),
        (
            "no size",
            chunks("\r\nhello\r\n0\r\n\r\n"),
            "200 200: POST /first transfer-encoding=chunked | GET /after",
        ),
        (
            "a size with zeros",
            chunks("0000000005\r\nhello\r\n0\r\n\r\n"),
            "200 200: POST /first transfer-encoding=chunked body=hello | GET /after",
        ),
        (
            "many zeros",
            chunks("00000000000000000000000000000000000000005\r\nhello\r\n0\r\n\r\n"),
            "400",
        ),
        (
            "an end of zeros",
            chunks("5\r\nhello\r\n000\r\n\r\n"),
            "200 200: POST /first transfer-encoding=chunked body=hello | GET /after",
        ),
        (
            "a trailer",
            chunks("5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"),
            "200 200: POST /first transfer-encoding=chunked body=hello | GET /after",
        ),
        (
            "a trailer that is a length",
            chunks(&format!("5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n{SMUGGLED}")),
            "200: POST /first transfer-encoding=chunked body=hello",
        ),
        (
            "a trailer that is a host",
            chunks("5\r\nhello\r\n0\r\nHost: b.example\r\nX-Real-IP: 1\r\n\r\n"),
            "200 200: POST /first transfer-encoding=chunked body=hello | GET /after",
        ),
        ("a bare LF after the end", chunks(&format!("0\r\n\n{SMUGGLED}")), "400"),
        (
            "a broken trailer",
            chunks("0\r\nX T\r\n\r\n"),
            "200 200: POST /first transfer-encoding=chunked | GET /after",
        ),
    ]);
}

#[test]
fn lines_and_names_are_read_strictly() {
    let get = |header: &str| format!("GET /first HTTP/1.1\r\nHost: a.example\r\n{header}\r\n\r\n");
    let raw = |text: &str| text.to_string();
    check(&[
        ("plain", get("X: y"), "200 200: GET /first x=y | GET /after"),
        (
            "a bare LF between headers",
            get("X: y\nX-Other: z"),
            "200 200: GET /first x=y x-other=z | GET /after",
        ),
        (
            "only bare LF",
            raw("GET /first HTTP/1.1\nHost: a.example\n\n"),
            "200 200: GET /first | GET /after",
        ),
        ("a bare CR in a value", get("X: y\rZ: a"), "400"),
        (
            "a bare CR at the end",
            raw("GET /first HTTP/1.1\r\nHost: a.example\rX: y\r\n\r\n"),
            "400",
        ),
        ("NUL in a value", get("X: y\0z"), "400"),
        ("NUL in a name", get("X\0: y"), "400"),
        ("a control in a value", get("X: y\x01z"), "400"),
        ("DEL in a value", get("X: y\x7fz"), "400"),
        ("no colon", get("Xy"), "400"),
        ("an empty name", get(": y"), "400"),
        ("a space in a name", get("X Y: z"), "400"),
        ("a space before the colon", get("X : y"), "400"),
        ("a folded value", get("X: y\r\n z"), "400"),
        (
            "a space before the first header",
            raw("GET /first HTTP/1.1\r\n Host: a.example\r\n\r\n"),
            "400",
        ),
        ("two Hosts", get("Host: b.example"), "400"),
        ("the same Host twice", get("Host: a.example"), "400"),
        ("a Host list", raw("GET /first HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n"), "400"),
        ("no Host", raw("GET /first HTTP/1.1\r\n\r\n"), "400"),
        (
            "a target of another host",
            raw("GET http://b.example/first HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            "400",
        ),
        (
            "a target of the same host",
            raw("GET http://a.example/first HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            "200 200: GET /first | GET /after",
        ),
        (
            "a target without Host",
            raw("GET http://a.example/first HTTP/1.1\r\n\r\n"),
            "200 200: GET /first | GET /after",
        ),
        ("HTTP/0.9", raw("GET /first\r\n\r\n"), "400"),
        ("HTTP/1.2", raw("GET /first HTTP/1.2\r\nHost: a.example\r\n\r\n"), "400"),
        ("HTTP/2.0", raw("GET /first HTTP/2.0\r\nHost: a.example\r\n\r\n"), "400"),
        ("HTTP/11", raw("GET /first HTTP/11\r\nHost: a.example\r\n\r\n"), "400"),
        ("http/1.1", raw("GET /first http/1.1\r\nHost: a.example\r\n\r\n"), "400"),
        ("a second version", raw("GET /first HTTP/1.1 HTTP/1.1\r\nHost: a.example\r\n\r\n"), "400"),
        ("two spaces", raw("GET  /first HTTP/1.1\r\nHost: a.example\r\n\r\n"), "400"),
        ("tabs for spaces", raw("GET\t/first\tHTTP/1.1\r\nHost: a.example\r\n\r\n"), "400"),
        (
            "an empty line in front",
            raw("\r\nGET /first HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            "200 200: GET /first | GET /after",
        ),
        ("a method with a colon", raw("GE:T /first HTTP/1.1\r\nHost: a.example\r\n\r\n"), "400"),
        (
            "CR LF in a target, encoded",
            raw("GET /first%0d%0aX:%20y HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            "200 200: GET /first%0d%0aX:%20y | GET /after",
        ),
        ("half the preface of HTTP/2", raw("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"), "400"),
        ("TLS", raw("\x16\x03\x01\x02\0\x01\0\x01"), "400"),
    ]);
}

#[test]
fn headers_named_by_connection_do_not_take_others_away() {
    let get = |header: &str| format!("GET /first HTTP/1.1\r\nHost: a.example\r\n{header}\r\n\r\n");
    check(&[
        (
            "its own header",
            get("Connection: X-Hop\r\nX-Hop: 1\r\nX-Kept: 1"),
            "200 200: GET /first x-kept=1 | GET /after",
        ),
        (
            "ours, unprotected",
            get("Connection: X-Real-IP, X-Request-ID, X-Scheme\r\nX-Real-IP: 1.2.3.4\r\nX-Kept: 1"),
            "200 200: GET /first x-kept=1 | GET /after",
        ),
        ("ours", get("Connection: X-Real-IP, X-Forwarded-For\r\nX-Kept: 1"), "400"),
        ("Host", get("Connection: Host"), "400"),
        ("close and another", get("Connection: close, X-Kept\r\nX-Kept: 1"), "200: GET /first"),
        (
            "Content-Length",
            post("Connection: Content-Length\r\nContent-Length: 5\r\n", "hello"),
            "200 200: POST /first transfer-encoding=chunked body=hello | GET /after",
        ),
        (
            "Transfer-Encoding",
            post(
                "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
                "5\r\nhello\r\n0\r\n\r\n",
            ),
            "200 200: POST /first transfer-encoding=chunked body=hello | GET /after",
        ),
        (
            "Cookie and Authorization",
            get("Connection: Cookie, Authorization\r\nCookie: a=b\r\nAuthorization: x"),
            "200 200: GET /first | GET /after",
        ),
        (
            "upgrade to h2c",
            get(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
            ),
            "200 200: GET /first | GET /after",
        ),
        (
            "Keep-Alive",
            get("Connection: Keep-Alive\r\nKeep-Alive: timeout=9"),
            "200 200: GET /first | GET /after",
        ),
        ("Proxy-Connection", get("Proxy-Connection: close"), "200 200: GET /first | GET /after"),
        ("TE", get("Connection: TE\r\nTE: trailers, gzip"), "200 200: GET /first | GET /after"),
        (
            "twice",
            get("Connection: X-A\r\nConnection: X-B\r\nX-A: 1\r\nX-B: 1"),
            "200 200: GET /first | GET /after",
        ),
    ]);
}
