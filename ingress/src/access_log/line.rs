//! One line: values as nginx writes them, escaped so that nobody can forge a line.

use super::format::Value;
use super::{Attempt, Entry};
use crate::options::LogEscape;
use crate::variables::Variable;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, header};
use jiff::{Timestamp, tz::TimeZone};
use std::io::Write;
use std::time::Duration;

/// The time of the last line, as text; it changes once a second.
#[derive(Debug, Default)]
pub struct Clock {
    second: i64,
    local: String,
    iso: String,
}

impl Clock {
    fn set(&mut self, now: Timestamp) {
        if self.second == now.as_second() && !self.local.is_empty() {
            return;
        }
        self.second = now.as_second();
        let utc = now.to_zoned(TimeZone::UTC);
        self.local = utc.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
        self.iso = utc.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string();
    }
}

/// Where a line goes.
pub struct Line<'a> {
    /// The buffer.
    pub out: &'a mut Vec<u8>,
    clock: &'a Clock,
    now: Timestamp,
}

impl<'a> Line<'a> {
    /// A line of this moment.
    pub fn new(out: &'a mut Vec<u8>, clock: &'a mut Clock, now: Timestamp) -> Line<'a> {
        clock.set(now);
        Line { out, clock, now }
    }

    /// Appends a value.
    pub fn value(&mut self, value: &Value, entry: &Entry<'_>, escape: LogEscape) {
        match value {
            Value::Status => self.number(entry.status.into()),
            Value::BodyBytesSent => self.number(entry.sent_body_bytes),
            Value::BytesSent => self.number(entry.sent_bytes),
            Value::RequestLength => self.number(entry.received_bytes),
            Value::RequestTime => self.seconds(entry.duration),
            Value::TimeLocal => self.out.extend_from_slice(self.clock.local.as_bytes()),
            Value::TimeIso => self.out.extend_from_slice(self.clock.iso.as_bytes()),
            Value::TimeSeconds => {
                let (seconds, ms) = (self.now.as_second(), self.now.subsec_millisecond());
                self.print(format_args!("{seconds}.{ms:03}"));
            }
            Value::RequestLine => self.request_line(entry, escape),
            Value::RemoteUser => {
                let user = remote_user(entry);
                self.text(user.as_deref().unwrap_or_default(), escape);
            }
            Value::Host => self.text(&host(entry), escape),
            Value::SentHeader(name) => {
                let sent = entry.answer.and_then(|answer| answer.headers.get(name));
                self.text(sent.map_or(b"", |value| value.as_bytes()), escape);
            }
            Value::UpstreamName => {
                let route = entry.values.route.filter(|route| !route.is_default());
                let name = route.map_or("upstream-default-backend", |r| &r.backend.upstream_name);
                self.out.extend_from_slice(name.as_bytes());
            }
            Value::AlternativeUpstreamName => {
                self.out.extend_from_slice(entry.alternative_upstream_name.as_bytes());
            }
            Value::Request(Variable::RemoteAddress) => {
                self.print(format_args!("{}", entry.values.client));
            }
            Value::Request(variable) => self.of_request(variable, entry, escape),
            attempts => self.attempts(attempts, entry, escape),
        }
    }

    fn print(&mut self, text: std::fmt::Arguments<'_>) {
        // A Vec takes everything.
        let _ = self.out.write_fmt(text);
    }

    fn request_line(&mut self, entry: &Entry<'_>, escape: LogEscape) {
        let request = entry.values.request;
        self.out.extend_from_slice(request.method.as_str().as_bytes());
        self.out.push(b' ');
        self.escaped(entry.values.request_uri, escape);
        self.out.push(b' ');
        entry.values.write(&Variable::Protocol, self.out);
    }

    fn of_request(&mut self, variable: &Variable, entry: &Entry<'_>, escape: LogEscape) {
        if let Variable::Header(name) = variable {
            let value = entry.values.request.headers.get(name);
            return self.text(value.map_or(b"", |value| value.as_bytes()), escape);
        }
        let start = self.out.len();
        entry.values.write(variable, self.out);
        let harmless = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if self.out.len() == start || !self.out[start..].iter().all(harmless) {
            let value = self.out.split_off(start);
            self.text(&value, escape);
        }
    }

    /// One value for each attempt, or a dash.
    fn attempts(&mut self, value: &Value, entry: &Entry<'_>, escape: LogEscape) {
        if entry.attempts.is_empty() {
            return self.text(b"", escape);
        }
        for (at, attempt) in entry.attempts.iter().enumerate() {
            if at > 0 {
                self.out.extend_from_slice(b", ");
            }
            self.attempt(value, attempt, at + 1 == entry.attempts.len(), entry);
        }
    }

    fn attempt(&mut self, value: &Value, attempt: &Attempt, last: bool, entry: &Entry<'_>) {
        let time = match value {
            Value::UpstreamAddress => {
                return self.print(format_args!("{}", attempt.address));
            }
            Value::UpstreamLength => {
                return self.number(if last { entry.upstream_bytes } else { 0 });
            }
            Value::UpstreamStatus => {
                return match attempt.status {
                    Some(status) => self.number(status.into()),
                    None => self.out.push(b'-'),
                };
            }
            Value::UpstreamConnectTime => attempt.connected,
            Value::UpstreamHeaderTime => attempt.answered,
            _ => Some(attempt.took),
        };
        match time {
            Some(time) => self.seconds(time),
            None => self.out.push(b'-'),
        }
    }

    fn number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
            if number == 0 {
                return self.out.extend_from_slice(&digits[at..]);
            }
        }
    }

    /// Seconds with three places, as nginx counts them.
    fn seconds(&mut self, time: Duration) {
        self.number(time.as_secs());
        let ms = time.subsec_millis();
        let digit = |value: u32| b'0' + u8::try_from(value % 10).unwrap_or_default();
        self.out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms)]);
    }

    /// A text that may be missing.
    fn text(&mut self, text: &[u8], escape: LogEscape) {
        if text.is_empty() && escape == LogEscape::Default {
            return self.out.push(b'-');
        }
        self.escaped(text, escape);
    }

    fn escaped(&mut self, text: &[u8], escape: LogEscape) {
        match escape {
            LogEscape::Default => {
                for &byte in text {
                    if matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\') {
                        self.out.push(byte);
                    } else {
                        self.print(format_args!("\\x{byte:02X}"));
                    }
                }
            }
            LogEscape::Json => {
                for &byte in text {
                    match byte {
                        b'"' | b'\\' => self.out.extend_from_slice(&[b'\\', byte]),
                        b'\n' => self.out.extend_from_slice(b"\\n"),
                        b'\r' => self.out.extend_from_slice(b"\\r"),
                        b'\t' => self.out.extend_from_slice(b"\\t"),
                        0..0x20 => self.print(format_args!("\\u{byte:04X}")),
                        _ => self.out.push(byte),
                    }
                }
            }
            // What would end the line is left out even so.
            LogEscape::None => {
                self.out.extend(text.iter().filter(|byte| !matches!(byte, b'\n' | b'\r')));
            }
        }
    }
}

/// The host as nginx's `$host`.
fn host(entry: &Entry<'_>) -> Vec<u8> {
    let host = entry.values.http_host();
    let end = match host.first() {
        Some(b'[') => host.iter().position(|byte| *byte == b']').map(|at| at + 1),
        _ => host.iter().position(|byte| *byte == b':'),
    };
    host[..end.unwrap_or(host.len())].to_ascii_lowercase()
}

/// The user that Basic authentication names, right or wrong.
fn remote_user(entry: &Entry<'_>) -> Option<Vec<u8>> {
    let credentials = entry.values.request.headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, rest) = credentials.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut user = STANDARD.decode(rest.trim_ascii()).ok()?;
    let end = user.iter().position(|byte| *byte == b':')?;
    user.truncate(end);
    Some(user)
}

/// About what nginx counts of a header: its first line and its fields.
pub fn header_bytes(first_line: usize, headers: &http::HeaderMap) -> u64 {
    let field =
        |(name, value): (&HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + 4;
    (first_line + 2 + headers.iter().map(field).sum::<usize>()) as u64
}
