//! Answers of endpoints: what their heads say about the body and the connection, and how they are passed on.
//! What pingora and `response` change in an answer, for the locations that are served here.

use super::body::Body;
use http::HeaderValue;
use httparse::{Header, Status};
use jiff::Timestamp;
use std::cell::RefCell;
use std::io::Write;
use std::mem::MaybeUninit;

/// A longer head is no answer.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
const LINES_MAX: usize = 256;

/// How an answer is passed on.
pub struct Manner<'a> {
    /// It answers HEAD.
    pub to_head: bool,
    /// The client's connection ends with it.
    pub closes: bool,
    /// The `Server` of the endpoint is passed on.
    pub endpoint_server: bool,
    /// An answer that has no `Server` says it is nginx's.
    pub server_tokens: bool,
    /// `Strict-Transport-Security`.
    pub hsts: Option<&'a HeaderValue>,
    /// A cookie for the client.
    pub cookie: Option<&'a str>,
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Length of the head as it came.
    pub head_bytes: usize,
    /// What follows.
    pub body: Body,
    /// The endpoint keeps the connection.
    pub keeps: bool,
}

/// Not HTTP, or not of a kind that may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

/// Reads the head of an answer and writes it for the client. `None` while it is incomplete.
pub fn pass_on(
    bytes: &[u8],
    manner: &Manner<'_>,
    out: &mut Vec<u8>,
) -> Result<Option<Answer>, Invalid> {
    let mut room = [MaybeUninit::<Header<'_>>::uninit(); LINES_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    // As pingora reads them.
    parser.allow_spaces_after_header_name_in_responses(true);
    parser.allow_obsolete_multiline_headers_in_responses(true);
    let read = parser.parse_response_with_uninit_headers(&mut parsed, bytes, &mut room);
    let head_bytes = match read {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(Status::Partial) | Err(_) => return Err(Invalid),
    };
    let status = parsed.code.filter(|code| (100..600).contains(code)).ok_or(Invalid)?;
    // Nobody asked for another protocol.
    if status == 101 {
        return Err(Invalid);
    }
    let said = Said::of(parsed.headers, parsed.version == Some(1))?;
    let body = match (&said, status) {
        (_, 100..200 | 204 | 304) => Body::Done,
        _ if manner.to_head => Body::Done,
        (Said { chunked: true, .. }, _) => Body::chunked(),
        (Said { length: Some(0), .. }, _) => Body::Done,
        (Said { length: Some(length), .. }, _) => Body::Length(*length),
        _ => Body::UntilClose,
    };
    let keeps = said.keeps && body != Body::UntilClose;
    write_status(status, parsed.reason.unwrap_or_default(), out);
    write_lines(parsed.headers, &said, manner, out);
    if status >= 200 {
        write_own(status, &said, body.is_chunked() || said.chunked, manner, out);
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some(Answer { status, head_bytes, body, keeps }))
}

/// What the lines of a head say about the message.
struct Said {
    length: Option<u64>,
    chunked: bool,
    keeps: bool,
    server: bool,
}

impl Said {
    fn of(lines: &[Header<'_>], is_1_1: bool) -> Result<Said, Invalid> {
        let mut said = Said { length: None, chunked: false, keeps: is_1_1, server: false };
        for Header { name, value } in lines {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            if is("content-length") {
                let length = number(value).ok_or(Invalid)?;
                if said.length.replace(length).is_some_and(|before| before != length) {
                    return Err(Invalid);
                }
            } else if is("transfer-encoding") {
                // Nothing else was asked for, and nothing else can be passed on.
                if said.chunked || !is_1_1 || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Invalid);
                }
                said.chunked = true;
            } else if is("connection") {
                let mut tokens = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                said.keeps &= !tokens.any(|token| token.eq_ignore_ascii_case(b"close"));
            } else if is("server") {
                said.server = true;
            }
        }
        // Chunks go before a length (RFC 9112 section 6.3); whoever sends both may mean anything.
        said.keeps &= !(said.chunked && said.length.is_some());
        Ok(said)
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

fn write_status(status: u16, reason: &str, out: &mut Vec<u8>) {
    // A Vec takes everything.
    let _ = write!(out, "HTTP/1.1 {status} {reason}\r\n");
}

fn write_lines(lines: &[Header<'_>], said: &Said, manner: &Manner<'_>, out: &mut Vec<u8>) {
    for Header { name, value } in lines {
        if is_dropped(name, said, manner) {
            continue;
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        let start = out.len();
        out.extend_from_slice(value);
        // A value that was folded over lines is one line now.
        for byte in &mut out[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// What goes for one connection only, what is nobody's business but nginx's, and what is said anew.
fn is_dropped(name: &str, said: &Said, manner: &Manner<'_>) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.as_bytes().first().map(u8::to_ascii_lowercase) {
        Some(b'c') => is("connection") || (said.chunked && is("content-length")),
        Some(b'd') => is("date"),
        Some(b'k') => is("keep-alive"),
        Some(b'p') => is("proxy-connection"),
        Some(b't') => is("transfer-encoding"),
        Some(b's') if is("server") => !(manner.endpoint_server && manner.server_tokens),
        Some(b's') => manner.hsts.is_some() && is("strict-transport-security"),
        Some(b'x') => name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("x-accel-")),
        _ => false,
    }
}

/// What every answer says.
fn write_own(status: u16, said: &Said, chunked: bool, manner: &Manner<'_>, out: &mut Vec<u8>) {
    let passes_server = said.server && manner.endpoint_server;
    if manner.server_tokens && !passes_server {
        out.extend_from_slice(b"Server: nginx\r\n");
    }
    if chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    out.extend_from_slice(b"Date: ");
    write_date(out);
    out.extend_from_slice(b"\r\n");
    if let Some(hsts) = manner.hsts.filter(|_| status != 400) {
        out.extend_from_slice(b"Strict-Transport-Security: ");
        out.extend_from_slice(hsts.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if let Some(cookie) = manner.cookie {
        out.extend_from_slice(b"Set-Cookie: ");
        out.extend_from_slice(cookie.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let connection = if manner.closes { "close" } else { "keep-alive" };
    out.extend_from_slice(b"Connection: ");
    out.extend_from_slice(connection.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The date of this second (RFC 9110 section 5.6.7), written once for all answers of the second.
fn write_date(out: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = Timestamp::now();
    LAST.with_borrow_mut(|(second, text)| {
        if *second != now.as_second() || text.is_empty() {
            *second = now.as_second();
            *text = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        }
        out.extend_from_slice(text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(sent: &str, expected: Expect) {
        check_as(sent, &MANNER, expected);
    }

    const MANNER: Manner<'_> = Manner {
        to_head: false,
        closes: false,
        endpoint_server: false,
        server_tokens: false,
        hsts: None,
        cookie: None,
    };

    fn check_as(sent: &str, manner: &Manner<'_>, expected: Expect) {
        let mut out = Vec::new();
        let found = match pass_on(sent.as_bytes(), manner, &mut out) {
            Ok(Some(answer)) => {
                let text = String::from_utf8(out).unwrap();
                let lines = text.lines().filter(|line| !line.starts_with("Date: "));
                let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
                let keeps = if answer.keeps { "kept" } else { "closed" };
                format!("{:?}, {keeps}\n{}", answer.body, lines.join("\n"))
            }
            other => format!("{other:?}"),
        };
        expected.assert_eq(&found);
    }

    #[test]
    fn what_concerns_one_connection_stays_there() {
        check(
            "HTTP/1.1 200 Fine\r\nServer: x\r\nDate: y\r\nX-Accel-Expires: 1\r\nX-Camel: a\r\n\
             Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok",
            expect![[r#"
                Length(2), kept
                HTTP/1.1 200 Fine
                X-Camel: a
                Content-Length: 2
                Connection: keep-alive"#]],
        );
    }

    #[test]
    fn bodies_are_found_as_they_are_framed() {
        for (sent, expected) in [
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "chunked kept"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
                "chunked closed",
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", "until close closed"),
            ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", "length closed"),
            (
                "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 3\r\n\r\n",
                "length closed",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", "length kept"),
            ("HTTP/1.1 204 No Content\r\n\r\n", "none kept"),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "none kept"),
            ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "none kept"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", "invalid"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\n", "invalid"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "invalid"),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "invalid"),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "invalid"),
            ("HTTP/1.1 999 No\r\n\r\n", "invalid"),
            ("SSH-2.0-OpenSSH\r\n", "invalid"),
            ("HTTP/1.1 200 OK\r\nX", "incomplete"),
        ] {
            let mut out = Vec::new();
            let found = match pass_on(sent.as_bytes(), &MANNER, &mut out) {
                Err(Invalid) => "invalid".to_owned(),
                Ok(None) => "incomplete".to_owned(),
                Ok(Some(answer)) => {
                    let body = match answer.body {
                        Body::Done => "none",
                        Body::Length(_) => "length",
                        Body::Chunked(_) => "chunked",
                        Body::UntilClose => "until close",
                    };
                    format!("{body} {}", if answer.keeps { "kept" } else { "closed" })
                }
            };
            assert_eq!(found, expected, "{sent:?}");
        }
    }

    #[test]
    fn answers_to_head_keep_their_framing_without_a_body() {
        check_as(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            &Manner { to_head: true, closes: true, ..MANNER },
            expect![[r#"
                Done, kept
                HTTP/1.1 200 OK
                Transfer-Encoding: chunked
                Connection: close"#]],
        );
    }

    #[test]
    fn what_options_add() {
        let hsts = HeaderValue::from_static("max-age=1");
        let manner = Manner {
            server_tokens: true,
            hsts: Some(&hsts),
            cookie: Some("INGRESSCOOKIE=x; Path=/"),
            ..MANNER
        };
        check_as(
            "HTTP/1.1 200 OK\r\nServer: x\r\nStrict-Transport-Security: no\r\nX: folded\r\n  over\r\n\
             Content-Length: 0\r\n\r\n",
            &manner,
            expect![[r#"
                Done, kept
                HTTP/1.1 200 OK
                X: folded    over
                Content-Length: 0
                Server: nginx
                Strict-Transport-Security: max-age=1
                Set-Cookie: INGRESSCOOKIE=x; Path=/
                Connection: keep-alive"#]],
        );
    }
}
