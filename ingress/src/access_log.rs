//! The access log: nginx's `upstreaminfo` lines or JSON, written by a thread of its own.

use crate::snapshot::Route;
use http::header;
use jiff::{Timestamp, tz::TimeZone};
use pingora::http::RequestHeader;
use serde_json::json;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Lines waiting for a slow reader; beyond that lines are dropped, requests never wait.
const QUEUE_LINES_MAX: usize = 16_384;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// ingress-nginx's `log-format-upstream`.
    UpstreamInfo,
    /// One JSON object a line.
    Json,
}

/// The sending end.
#[derive(Clone)]
pub struct AccessLog {
    format: Format,
    lines: SyncSender<String>,
}

/// What a line tells.
pub struct Entry<'a> {
    pub client: IpAddr,
    pub request: &'a RequestHeader,
    pub status: u16,
    pub sent_bytes: usize,
    pub received_bytes: u64,
    pub duration: Duration,
    pub route: Option<&'a Route>,
    pub endpoint: Option<SocketAddr>,
    pub upstream_time: Option<Duration>,
    pub upstream_status: Option<u16>,
    pub upstream_bytes: usize,
    pub request_id: &'a str,
}

impl AccessLog {
    /// Starts the writer on standard output.
    pub fn stdout(format: Format) -> io::Result<AccessLog> {
        let (lines, queue) = sync_channel(QUEUE_LINES_MAX);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_lines(&queue, io::stdout()))?;
        Ok(AccessLog { format, lines })
    }

    /// Queues a line.
    pub fn write(&self, entry: &Entry<'_>) {
        let now = Timestamp::now();
        let line = match self.format {
            Format::UpstreamInfo => upstream_info(entry, now),
            Format::Json => json_line(entry, now),
        };
        if let Err(TrySendError::Disconnected(_)) = self.lines.try_send(line) {
            tracing::debug!("access log is closed");
        }
    }
}

fn write_lines(queue: &Receiver<String>, out: impl Write) {
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    while let Ok(line) = queue.recv() {
        let mut result = out.write_all(line.as_bytes());
        while let Ok(line) = queue.try_recv() {
            result = result.and_then(|()| out.write_all(line.as_bytes()));
        }
        // Nobody reads standard output any more: that must not stop requests.
        if result.and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn upstream_info(entry: &Entry<'_>, now: Timestamp) -> String {
    let request = entry.request;
    let mut line = String::with_capacity(320);
    let time = now.to_zoned(TimeZone::UTC).strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
    let _ = write!(line, "{} - - [{time}] \"{} ", entry.client, request.method);
    escape(&mut line, request.raw_path());
    let _ = write!(line, " {:?}\" {} {} \"", request.version, entry.status, entry.sent_bytes);
    escape(&mut line, request.headers.get(header::REFERER).map_or(b"-", |value| value.as_bytes()));
    line.push_str("\" \"");
    escape(
        &mut line,
        request.headers.get(header::USER_AGENT).map_or(b"-", |value| value.as_bytes()),
    );
    let length = request_length(request) + entry.received_bytes;
    let upstream = entry.route.map_or("", |route| &route.backend.upstream_name);
    let _ = write!(line, "\" {length} {:.3} [{upstream}] [] ", entry.duration.as_secs_f64());
    match entry.endpoint {
        Some(endpoint) => {
            let took = entry.upstream_time.unwrap_or_default().as_secs_f64();
            let _ = write!(line, "{endpoint} {} {took:.3} ", entry.upstream_bytes);
            match entry.upstream_status {
                Some(status) => drop(write!(line, "{status} ")),
                None => line.push_str("- "),
            }
        }
        None => line.push_str("- - - - "),
    }
    escape(&mut line, if entry.request_id.is_empty() { b"-" } else { entry.request_id.as_bytes() });
    line.push('\n');
    line
}

fn json_line(entry: &Entry<'_>, now: Timestamp) -> String {
    let request = entry.request;
    let header = |name: header::HeaderName| {
        request
            .headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let mut line = json!({
        "time": now.to_string(),
        "remote_addr": entry.client.to_string(),
        "method": request.method.as_str(),
        "uri": String::from_utf8_lossy(request.raw_path()),
        "protocol": format!("{:?}", request.version),
        "host": header(header::HOST),
        "status": entry.status,
        "body_bytes_sent": entry.sent_bytes,
        "request_length": request_length(request) + entry.received_bytes,
        "request_time": entry.duration.as_secs_f64(),
        "referer": header(header::REFERER),
        "user_agent": header(header::USER_AGENT),
        "upstream_name": entry.route.map(|route| route.backend.upstream_name.as_str()),
        "ingress": entry.route.map(|route| route.ingress.to_string()),
        "upstream_addr": entry.endpoint.map(|endpoint| endpoint.to_string()),
        "upstream_status": entry.upstream_status,
        "upstream_response_time": entry.upstream_time.map(|took| took.as_secs_f64()),
        "request_id": entry.request_id,
    })
    .to_string();
    line.push('\n');
    line
}

/// About what nginx's `$request_length` counts: request line and headers.
fn request_length(request: &RequestHeader) -> u64 {
    let headers: usize =
        request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    (request.method.as_str().len() + request.raw_path().len() + 12 + headers + 2) as u64
}

/// nginx's default log escape: quotes, backslashes and whatever is not printable become `\xHH`.
fn escape(line: &mut String, text: &[u8]) {
    for &byte in text {
        if matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\') {
            line.push(char::from(byte));
        } else {
            let _ = write!(line, "\\x{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_line_reads_like_nginx_and_cannot_be_forged() {
        let mut request = RequestHeader::build("GET", b"/a?b=c", None).unwrap();
        request.set_version(http::Version::HTTP_11);
        request.insert_header("User-Agent", "evil\" 200 \"").unwrap();
        let entry = Entry {
            client: "192.0.2.1".parse().unwrap(),
            request: &request,
            status: 502,
            sent_bytes: 150,
            received_bytes: 0,
            duration: Duration::from_millis(12),
            route: None,
            endpoint: Some("10.0.0.1:80".parse().unwrap()),
            upstream_time: Some(Duration::from_millis(11)),
            upstream_status: None,
            upstream_bytes: 0,
            request_id: "abc",
        };
        expect![[r#"
            192.0.2.1 - - [13/Feb/2009:23:31:30 +0000] "GET /a?b=c HTTP/1.1" 502 150 "-" "evil\x22 200 \x22" 48 0.012 [] [] 10.0.0.1:80 0 0.011 - abc
        "#]]
        .assert_eq(&upstream_info(&entry, Timestamp::from_second(1_234_567_890).unwrap()));
        let parsed: serde_json::Value =
            serde_json::from_str(&json_line(&entry, Timestamp::UNIX_EPOCH)).unwrap();
        assert_eq!(parsed["status"], 502);
    }
}
