//! Requests of the fast path: which are plain, and how they are sent on.

use super::super::client_certificate;
use super::super::forwarded::Forwarded;
use super::super::headers::{ip_value, port_value};
use crate::options::Options;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use httparse::{Header, Status};
use pingora::http::RequestHeader;
use std::mem::MaybeUninit;

/// More header lines than this are left to pingora.
pub const LINES_MAX: usize = 100;

/// Room for the lines of a head.
pub type Lines<'a> = [MaybeUninit<Header<'a>>; LINES_MAX];

/// What was read of a request.
#[expect(clippy::large_enum_variant, reason = "it lives for a moment, and on the stack")]
pub enum Head<'a> {
    /// Not all of its head.
    Incomplete,
    /// The preface of HTTP/2.
    Http2,
    /// Something that is not plain, or is wrong.
    Other,
    /// A plain request.
    Plain(Plain<'a>),
}

/// A GET or HEAD without a body or anything else that concerns more than its one answer.
pub struct Plain<'a> {
    /// The request as routing reads it.
    pub request: RequestHeader,
    /// Length of its head.
    pub head_bytes: usize,
    /// The client wants the connection to end with it.
    pub closes: bool,
    lines: &'a [Header<'a>],
    host: &'a [u8],
}

/// Reads what a client sent.
pub fn read<'a>(bytes: &'a [u8], room: &'a mut Lines<'a>) -> Head<'a> {
    if bytes.starts_with(b"PRI ") {
        return Head::Http2;
    }
    let mut parsed = httparse::Request::new(&mut []);
    let head_bytes = match parsed.parse_with_uninit_headers(bytes, room) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Head::Incomplete,
        Err(_) => return Head::Other,
    };
    let httparse::Request { method: Some(method), path: Some(path), version: Some(1), headers } =
        parsed
    else {
        return Head::Other;
    };
    if !matches!(method, "GET" | "HEAD") || !path.starts_with('/') {
        return Head::Other;
    }
    let lines: &'a [Header<'a>] = headers;
    let Some((host, closes)) = scan(lines) else {
        return Head::Other;
    };
    let head = Bytes::copy_from_slice(&bytes[..head_bytes]);
    match request(method, path, lines, bytes, &head) {
        Some(request) => Head::Plain(Plain { request, head_bytes, closes, lines, host }),
        None => Head::Other,
    }
}

/// The one host, and whether the connection is to end; nothing where a line makes the request more than
/// plain.
fn scan<'a>(lines: &[Header<'a>]) -> Option<(&'a [u8], bool)> {
    let (mut host, mut closes) = (None, false);
    for line in lines {
        let name = line.name.as_bytes();
        // Others are dropped, or refused.
        if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') {
            return None;
        }
        let is = |other: &str| line.name.eq_ignore_ascii_case(other);
        match name.first().map(u8::to_ascii_lowercase) {
            Some(b'h') if is("host") && host.replace(line.value).is_some() => return None,
            Some(b'h') if is("http2-settings") => return None,
            Some(b'c') if is("connection") => match line.value {
                value if value.eq_ignore_ascii_case(b"close") => closes = true,
                value if value.eq_ignore_ascii_case(b"keep-alive") => {}
                _ => return None,
            },
            Some(b'c') if is("content-length") => return None,
            Some(b't') if is("transfer-encoding") || is("te") || is("trailer") => return None,
            Some(b'u') if is("upgrade") => return None,
            Some(b'e') if is("expect") => return None,
            Some(b'k') if is("keep-alive") => return None,
            Some(b'p') if is("proxy-connection") || is("proxy") => return None,
            _ => {}
        }
    }
    Some((host?, closes))
}

/// The request as everything else wants it. Values share one copy of the head.
fn request(
    method: &str,
    path: &str,
    lines: &[Header<'_>],
    bytes: &[u8],
    head: &Bytes,
) -> Option<RequestHeader> {
    let mut request =
        RequestHeader::build_no_case(method, path.as_bytes(), Some(lines.len())).ok()?;
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        let value = if line.value.is_empty() {
            HeaderValue::from_static("")
        } else {
            let start = line.value.as_ptr().addr() - bytes.as_ptr().addr();
            HeaderValue::from_maybe_shared(head.slice(start..start + line.value.len())).ok()?
        };
        request.append_header(name, value).ok()?;
    }
    Some(request)
}

/// Whether endpoints learn about a header from us only, or not at all.
fn is_replaced(name: &str) -> bool {
    let is = |other: &&str| name.eq_ignore_ascii_case(other);
    match name.as_bytes().first().map(u8::to_ascii_lowercase) {
        Some(b'x') => [
            "x-request-id",
            "x-real-ip",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-proto",
            "x-forwarded-scheme",
            "x-scheme",
            "x-original-forwarded-for",
            "x-original-forwarded-host",
        ]
        .iter()
        .any(is),
        Some(b's') => client_certificate::HEADERS.iter().any(is),
        Some(b'c') => is(&"connection"),
        Some(b'h') => is(&"host"),
        _ => false,
    }
}

impl Plain<'_> {
    /// Writes the request for an endpoint: what `headers::identify` does to one of pingora's.
    pub fn write(
        &self,
        target: Option<&[u8]>,
        forwarded: &Forwarded,
        options: &Options,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(self.request.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(target.unwrap_or_else(|| self.request.raw_path()));
        out.extend_from_slice(b" HTTP/1.1\r\n");
        let host = forwarded.host().unwrap_or(self.host);
        line(out, "Host", host);
        for Header { name, value } in self.lines {
            if !is_replaced(name) {
                line(out, name, value);
            }
        }
        self.write_original(out, "X-Forwarded-For", "X-Original-Forwarded-For");
        self.write_original(out, "X-Forwarded-Host", "X-Original-Forwarded-Host");
        let id = forwarded.request_id();
        if !id.is_empty() {
            line(out, "X-Request-ID", id.as_bytes());
        }
        let client = ip_value(forwarded.client);
        line(out, "X-Real-IP", client.as_bytes());
        line(out, "X-Forwarded-For", client.as_bytes());
        line(out, "X-Forwarded-Host", host);
        line(out, "X-Forwarded-Port", port_value(forwarded, options).as_bytes());
        let scheme = forwarded.scheme_value();
        for name in ["X-Forwarded-Proto", "X-Forwarded-Scheme", "X-Scheme"] {
            line(out, name, scheme.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Passes on what the client sent as `from` under the name `to`.
    fn write_original(&self, out: &mut Vec<u8>, from: &str, to: &str) {
        let mut values = self.lines.iter().filter(|line| line.name.eq_ignore_ascii_case(from));
        let Some(first) = values.next() else {
            return;
        };
        out.extend_from_slice(to.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(first.value);
        for more in values {
            out.extend_from_slice(b", ");
            out.extend_from_slice(more.value);
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::connection::Connection;
    use crate::proxy::headers;
    use proptest::prelude::*;

    fn head<T>(text: &str, with: impl FnOnce(Head<'_>) -> T) -> T {
        let mut room = [MaybeUninit::uninit(); LINES_MAX];
        with(read(text.as_bytes(), &mut room))
    }

    #[test]
    fn what_is_plain() {
        for (text, expected) in [
            ("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", "plain"),
            ("HEAD /a HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\nGET", "plain"),
            ("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "closes"),
            ("GET /a HTTP/1.1\r\nHost: a\r\n", "incomplete"),
            ("G", "incomplete"),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"),
            ("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", "other"),
            ("GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", "other"),
            ("GET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "other"),
            ("GET /a HTTP/1.0\r\nHost: a\r\n\r\n", "other"),
            ("GET /a HTTP/1.1\r\n\r\n", "other"),
            ("GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "other"),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "other"),
            ("GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "other"),
            ("GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n", "other"),
            ("GET /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", "other"),
            ("GET /a HTTP/1.1\r\nHost: a\r\nX_Real_IP: 1\r\n\r\n", "other"),
            ("GET /a HTTP/1.1\r\nHost: a\r\nProxy: x\r\n\r\n", "other"),
            ("GET /a HTTP/1.1\r\nHost : a\r\n\r\n", "other"),
            ("GET /a HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "other"),
            ("get /a HTTP/1.1\r\nHost: a\r\n\r\n", "other"),
        ] {
            let found = head(text, |head| match head {
                Head::Incomplete => "incomplete",
                Head::Http2 => "http2",
                Head::Other => "other",
                Head::Plain(plain) if plain.closes => "closes",
                Head::Plain(_) => "plain",
            });
            assert_eq!(found, expected, "{text:?}");
        }
    }

    /// The lines of a head, names in lower case, sorted; values of one name stay in their order.
    fn sorted(mut lines: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
        lines.sort_by(|one, other| one.0.cmp(&other.0));
        lines
    }

    proptest! {
        /// Both ways to an endpoint send the same lines.
        #[test]
        fn endpoints_are_told_the_same_as_by_pingora(
            names in proptest::collection::vec(proptest::sample::select(vec![
                "X-Forwarded-For", "x-forwarded-host", "X-Forwarded-Proto", "X-Forwarded-Port",
                "X-Real-IP", "X-Request-ID", "X-Scheme", "X-Forwarded-Scheme", "Accept", "Cookie",
                "X-Original-Forwarded-For", "X-Original-Forwarded-Host", "ssl-client-verify", "Te-St",
            ]), 0..8),
            values in proptest::collection::vec("[a-z0-9.:, ]{0,12}", 8),
            trusted: bool,
            tls: bool,
        ) {
            let mut text = String::from("GET /a?b HTTP/1.1\r\nHost: Shop.example:81\r\n");
            for (name, value) in names.iter().zip(&values) {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            text.push_str("\r\n");
            let mut options = Options::default();
            options.forwarded.trusted = trusted;
            let connection = Connection { peer: "192.0.2.7".parse().unwrap(), port: 8443, tls };
            head(&text, |head| {
                let Head::Plain(plain) = head else { panic!("{text} is plain") };
                let (trust, rules) = (&options.forwarded, &options.headers);
                let forwarded = Forwarded::read(&plain.request, &connection, trust, rules);
                let mut out = Vec::new();
                plain.write(None, &forwarded, &options, &mut out);
                let mut room = [httparse::EMPTY_HEADER; 64];
                let mut written = httparse::Request::new(&mut room);
                assert!(written.parse(&out).unwrap().is_complete());
                let ours = written.headers.iter();
                let ours = ours.map(|line| (line.name.to_lowercase(), line.value.to_vec()));

                let mut theirs = plain.request.clone();
                for name in client_certificate::HEADERS {
                    theirs.remove_header(name);
                }
                headers::identify(&mut theirs, &forwarded, &options).unwrap();
                let theirs = theirs.headers.iter();
                let theirs = theirs.map(|(name, value)| (name.to_string(), value.as_bytes().trim_ascii().to_vec()));
                assert_eq!(sorted(ours.collect()), sorted(theirs.collect()), "{text}");
            });
        }
    }
}
