//! What a line of the access log says: a text with nginx variables, parsed once.
//!
//! Variables of the request are those of `variables`; what is known only when the request has ended is
//! here. One that is not known here is reported and prints nothing.

use super::Entry;
use super::line::Line;
use crate::options::LogEscape;
use crate::variables::Variable;
use http::HeaderName;
use std::fmt;

/// ingress-nginx's own `log-format-upstream`.
const UPSTREAM_INFO: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status \
     $body_bytes_sent \"$http_referer\" \"$http_user_agent\" $request_length $request_time \
     [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr \
     $upstream_response_length $upstream_response_time $upstream_status $req_id";
/// The same as JSON, for `--access-log json`.
const JSON: &str = r#"{"time":"$time_iso8601","remote_addr":"$remote_addr","remote_user":"$remote_user","method":"$request_method","uri":"$request_uri","protocol":"$server_protocol","host":"$host","status":$status,"body_bytes_sent":$body_bytes_sent,"request_length":$request_length,"request_time":$request_time,"referer":"$http_referer","user_agent":"$http_user_agent","upstream_name":"$proxy_upstream_name","alternative_upstream_name":"$proxy_alternative_upstream_name","namespace":"$namespace","ingress":"$ingress_name","service":"$service_name","upstream_addr":"$upstream_addr","upstream_status":"$upstream_status","upstream_response_length":"$upstream_response_length","upstream_response_time":"$upstream_response_time","request_id":"$req_id"}"#;

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Value(Value),
}

/// What a variable stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `$request`: the request line.
    RequestLine,
    /// `$remote_user`: the user of Basic authentication.
    RemoteUser,
    /// `$time_local`.
    TimeLocal,
    /// `$time_iso8601`.
    TimeIso,
    /// `$msec`: seconds since 1970.
    TimeSeconds,
    /// `$status`.
    Status,
    /// `$body_bytes_sent`.
    BodyBytesSent,
    /// `$bytes_sent`.
    BytesSent,
    /// `$request_length`.
    RequestLength,
    /// `$request_time`.
    RequestTime,
    /// `$proxy_upstream_name`.
    UpstreamName,
    /// `$proxy_alternative_upstream_name`: the canary that took the request.
    AlternativeUpstreamName,
    /// `$upstream_addr`, one for each attempt.
    UpstreamAddress,
    /// `$upstream_response_length`, likewise.
    UpstreamLength,
    /// `$upstream_response_time`, likewise.
    UpstreamTime,
    /// `$upstream_connect_time`, likewise.
    UpstreamConnectTime,
    /// `$upstream_header_time`, likewise.
    UpstreamHeaderTime,
    /// `$upstream_status`, likewise.
    UpstreamStatus,
    /// `$host`: lower-case and without a port.
    Host,
    /// `$sent_http_NAME`.
    SentHeader(HeaderName),
    /// A variable of the request.
    Request(Variable),
}

impl Value {
    fn named(name: &str) -> Option<Value> {
        Some(match name {
            "request" => Value::RequestLine,
            "remote_user" => Value::RemoteUser,
            "time_local" => Value::TimeLocal,
            "time_iso8601" => Value::TimeIso,
            "msec" => Value::TimeSeconds,
            "status" => Value::Status,
            "body_bytes_sent" => Value::BodyBytesSent,
            "bytes_sent" => Value::BytesSent,
            "request_length" => Value::RequestLength,
            "request_time" => Value::RequestTime,
            "proxy_upstream_name" => Value::UpstreamName,
            "proxy_alternative_upstream_name" => Value::AlternativeUpstreamName,
            "upstream_addr" => Value::UpstreamAddress,
            "upstream_response_length" | "upstream_bytes_received" => Value::UpstreamLength,
            "upstream_response_time" => Value::UpstreamTime,
            "upstream_connect_time" => Value::UpstreamConnectTime,
            "upstream_header_time" => Value::UpstreamHeaderTime,
            "upstream_status" => Value::UpstreamStatus,
            "host" => Value::Host,
            _ => match name.strip_prefix("sent_http_") {
                Some(header) => {
                    let header = header.replace('_', "-");
                    Value::SentHeader(HeaderName::from_bytes(header.as_bytes()).ok()?)
                }
                None => Value::Request(Variable::named(name)?),
            },
        })
    }
}

/// The format of a line.
#[derive(Clone, PartialEq, Eq)]
pub struct LogFormat {
    source: Box<str>,
    parts: Box<[Part]>,
}

impl fmt::Debug for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.source, f)
    }
}

impl Default for LogFormat {
    fn default() -> LogFormat {
        LogFormat::parse(UPSTREAM_INFO).0
    }
}

impl LogFormat {
    /// One JSON object a line; wants JSON escapes.
    pub fn json() -> LogFormat {
        LogFormat::parse(JSON).0
    }

    /// Whether a line tells of headers of the answer.
    pub fn reads_answer(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Value(Value::SentHeader(_))))
    }

    /// Parses a format. With it come the variables that are not known here.
    pub fn parse(text: &str) -> (LogFormat, Vec<String>) {
        let (mut parts, mut unknown) = (Vec::new(), Vec::new());
        let mut plain = String::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            plain.push_str(&rest[..dollar]);
            let (name, after) = crate::variables::take_name(&rest[dollar + 1..]);
            rest = after;
            match Value::named(name) {
                Some(value) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain).into()));
                    }
                    parts.push(Part::Value(value));
                }
                None => unknown.push(format!("${name}")),
            }
        }
        plain.push_str(rest);
        plain.push('\n');
        parts.push(Part::Text(plain.into()));
        (LogFormat { source: text.into(), parts: parts.into() }, unknown)
    }

    /// Appends a line.
    pub fn write(&self, entry: &Entry<'_>, escape: LogEscape, line: &mut Line<'_>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => line.out.extend_from_slice(text.as_bytes()),
                Part::Value(value) => line.value(value, entry, escape),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_parse_and_name_what_they_do_not_know() {
        assert_eq!(LogFormat::parse(UPSTREAM_INFO).1, Vec::<String>::new());
        assert_eq!(LogFormat::parse(JSON).1, Vec::<String>::new());
        let (_, unknown) = LogFormat::parse("$unicorn ${remote_addr} $pid $sent_http_etag $");
        assert_eq!(unknown, ["$unicorn", "$pid", "$"]);
    }
}
