//! The access log, as ingress-nginx writes it: which requests get a line, and what the line knows.
//!
//! How lines look is in `format` and `line`, how they get out in `writer`.

pub mod format;
pub mod line;
mod writer;

use crate::options::AccessLogOptions;
use crate::snapshot::Route;
use crate::variables::Values;
use jiff::Timestamp;
use line::Line;
use pingora::http::ResponseHeader;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use writer::Writer;

/// How long the last lines may take to get out at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The access log.
#[derive(Clone, Debug)]
pub struct AccessLog(Writer);

/// An attempt at an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Where it went.
    pub address: SocketAddr,
    /// How long it took to get a connection.
    pub connected: Option<Duration>,
    /// How long it took until the answer's header was there.
    pub answered: Option<Duration>,
    /// How long it took in all.
    pub took: Duration,
    /// What was answered.
    pub status: Option<u16>,
}

/// What a line tells.
pub struct Entry<'a> {
    /// What the client asked.
    pub values: Values<'a>,
    /// What it got.
    pub answer: Option<&'a ResponseHeader>,
    /// Its status, or nginx's for how the request ended.
    pub status: u16,
    /// The answer without its header.
    pub sent_body_bytes: u64,
    /// All of it.
    pub sent_bytes: u64,
    /// The request, header and body.
    pub received_bytes: u64,
    /// From the first byte of the request to the last of the answer.
    pub duration: Duration,
    /// All attempts, in their order.
    pub attempts: &'a [Attempt],
    /// The body of the last attempt's answer.
    pub upstream_bytes: u64,
    /// The canary's name, if it took the request.
    pub alternative_upstream_name: &'a str,
}

impl AccessLog {
    /// Starts the writer on standard output.
    pub fn stdout() -> io::Result<AccessLog> {
        Writer::start(io::stdout()).map(AccessLog)
    }

    /// Whether a request gets a line.
    pub fn wants(options: &AccessLogOptions, route: Option<&Route>, request_uri: &[u8]) -> bool {
        let of_route = match route {
            Some(route) if !route.is_default() => route.settings.logging.access_log,
            _ => options.default_backend,
        };
        options.enabled && of_route && !options.skipped.contains(request_uri)
    }

    /// Queues a line.
    pub fn write(&self, options: &AccessLogOptions, entry: &Entry<'_>) {
        self.0.append(|buffer| {
            let mut line = Line::new(&mut buffer.lines, &mut buffer.clock, Timestamp::now());
            options.format.write(entry, options.escape, &mut line);
        });
    }

    /// Waits until everything so far is written.
    pub fn flush(&self) {
        self.0.flush(FLUSH_TIMEOUT);
    }
}

#[cfg(test)]
mod tests {
    use super::format::LogFormat;
    use super::line::Clock;
    use super::*;
    use crate::options::LogEscape;
    use expect_test::{Expect, expect};
    use pingora::http::RequestHeader;

    fn attempt(address: &str, took_ms: u64, status: Option<u16>) -> Attempt {
        let answered = status.map(|_| Duration::from_millis(took_ms - 1));
        Attempt {
            address: address.parse().unwrap(),
            connected: answered.map(|_| Duration::ZERO),
            answered,
            took: Duration::from_millis(took_ms),
            status,
        }
    }

    fn line(format: &LogFormat, escape: LogEscape, attempts: &[Attempt]) -> String {
        let mut request = RequestHeader::build("GET", b"/a?b=c", None).unwrap();
        request.insert_header("User-Agent", "evil\" 200 \"").unwrap();
        request.insert_header("Host", "A.example:8080").unwrap();
        request.insert_header("Authorization", "Basic bWU6c2VjcmV0").unwrap();
        let values = Values {
            request: &request,
            request_uri: request.raw_path(),
            path: b"/a",
            host: "a.example",
            tls: false,
            forwarded_scheme: "http",
            client: "192.0.2.1".parse().unwrap(),
            port: 80,
            request_id: "abc",
            route: None,
        };
        let entry = Entry {
            values,
            answer: None,
            status: 502,
            sent_body_bytes: 150,
            sent_bytes: 250,
            received_bytes: 48,
            duration: Duration::from_millis(12),
            attempts,
            upstream_bytes: 7,
            alternative_upstream_name: "",
        };
        let (mut out, mut clock) = (Vec::new(), Clock::default());
        let now = Timestamp::from_millisecond(1_234_567_890_123).unwrap();
        format.write(&entry, escape, &mut Line::new(&mut out, &mut clock, now));
        String::from_utf8(out).unwrap()
    }

    fn check(format: &str, escape: LogEscape, expected: Expect) {
        let attempts = [attempt("10.0.0.1:80", 5, None), attempt("10.0.0.2:80", 7, Some(200))];
        expected.assert_eq(&line(&LogFormat::parse(format).0, escape, &attempts));
    }

    #[test]
    fn a_line_reads_like_ingress_nginx_and_cannot_be_forged() {
        let format = LogFormat::default();
        let attempts = [attempt("10.0.0.1:80", 5, None), attempt("10.0.0.2:80", 7, Some(200))];
        expect![[r#"
            192.0.2.1 - me [13/Feb/2009:23:31:30 +0000] "GET /a?b=c HTTP/1.1" 502 150 "-" "evil\x22 200 \x22" 48 0.012 [upstream-default-backend] [] 10.0.0.1:80, 10.0.0.2:80 0, 7 0.005, 0.007 -, 200 abc
        "#]]
        .assert_eq(&line(&format, LogEscape::Default, &attempts));
        expect![[r#"
            192.0.2.1 - me [13/Feb/2009:23:31:30 +0000] "GET /a?b=c HTTP/1.1" 502 150 "-" "evil\x22 200 \x22" 48 0.012 [upstream-default-backend] [] - - - - abc
        "#]]
        .assert_eq(&line(&format, LogEscape::Default, &[]));
    }

    #[test]
    fn own_formats_have_variables_and_escapes() {
        check(
            "$msec $time_iso8601 $host ${http_host} $bytes_sent $arg_b $cookie_none$http_none|$scheme",
            LogEscape::Default,
            expect![[r#"
                1234567890.123 2009-02-13T23:31:30+00:00 a.example A.example:8080 250 c --|http
            "#]],
        );
        check(
            "$upstream_connect_time $upstream_header_time $sent_http_etag",
            LogEscape::Default,
            expect![[r#"
                -, 0.000 -, 0.006 -
            "#]],
        );
        check(
            r#"{"agent":"$http_user_agent","none":"$http_none"}"#,
            LogEscape::Json,
            expect![[r#"
                {"agent":"evil\" 200 \"","none":""}
            "#]],
        );
        check(
            "$http_user_agent",
            LogEscape::None,
            expect![[r#"
            evil" 200 "
        "#]],
        );
        let json = line(&LogFormat::json(), LogEscape::Json, &[]);
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&parsed["status"], &parsed["uri"]), (&502.into(), &"/a?b=c".into()));
    }
}
