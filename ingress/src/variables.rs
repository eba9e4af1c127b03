//! Text with nginx variables (`https://new.example$request_uri`), parsed and checked when settings are
//! read, filled in for a request.
//!
//! Only variables that mean something here exist; any other is refused by its name. Where a template may
//! stand, and what becomes of its text, is left to the settings that hold it.

use crate::credentials::Credentials;
use crate::snapshot::Route;
use http::{HeaderName, header};
use pingora::http::RequestHeader;
use std::fmt;
use std::net::IpAddr;
use thiserror::Error;

/// Why a text is no template.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TemplateError {
    /// There is no such variable here.
    #[error("names the variable ${0}, which does not exist here")]
    UnknownVariable(String),
    /// A `$` without a name.
    #[error("ends a variable before its name")]
    BareDollar,
}

/// A variable of nginx or ingress-nginx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `$request_uri`: path and query as sent.
    RequestUri,
    /// `$escaped_request_uri`: the same, ready to be a value in a query.
    EscapedRequestUri,
    /// `$uri`, `$document_uri`: the path, decoded and normalised.
    Uri,
    /// `$args`, `$query_string`.
    Args,
    /// `$is_args`: a `?` if there are any.
    IsArgs,
    /// `$host`: lower-case, without a port.
    Host,
    /// `$http_host`: as sent.
    HttpHost,
    /// `$scheme`: of the client's connection.
    Scheme,
    /// `$pass_access_scheme`: the same, or what a trusted proxy says.
    ForwardedScheme,
    /// `$request_method`.
    Method,
    /// `$server_protocol`.
    Protocol,
    /// `$remote_addr`: the client, beyond trusted proxies.
    RemoteAddress,
    /// `$remote_user`: the name in a Basic `Authorization`.
    RemoteUser,
    /// `$server_port`.
    ServerPort,
    /// `$request_id`, `$req_id`.
    RequestId,
    /// `$namespace` of the Ingress.
    Namespace,
    /// `$ingress_name`.
    IngressName,
    /// `$service_name`.
    ServiceName,
    /// `$service_port`.
    ServicePort,
    /// `$proxy_upstream_name`.
    UpstreamName,
    /// `$msec`: seconds since 1970, with milliseconds.
    Milliseconds,
    /// `$time_iso8601`.
    Time,
    /// `$http_NAME`.
    Header(HeaderName),
    /// `$cookie_NAME`.
    Cookie(Box<str>),
    /// `$arg_NAME`.
    Argument(Box<str>),
    /// `$1`…`$9`, where the text is filled in after a regular expression matched.
    Capture(u8),
}

impl Variable {
    /// The variable of a name.
    pub fn named(name: &str) -> Option<Variable> {
        Some(match name {
            "request_uri" => Variable::RequestUri,
            "escaped_request_uri" => Variable::EscapedRequestUri,
            "uri" | "document_uri" => Variable::Uri,
            "args" | "query_string" => Variable::Args,
            "is_args" => Variable::IsArgs,
            "host" => Variable::Host,
            "http_host" | "best_http_host" => Variable::HttpHost,
            "scheme" => Variable::Scheme,
            "pass_access_scheme" => Variable::ForwardedScheme,
            "request_method" => Variable::Method,
            "server_protocol" => Variable::Protocol,
            "remote_addr" | "the_real_ip" => Variable::RemoteAddress,
            "remote_user" => Variable::RemoteUser,
            "server_port" | "pass_server_port" | "pass_port" => Variable::ServerPort,
            "request_id" | "req_id" => Variable::RequestId,
            "namespace" => Variable::Namespace,
            "ingress_name" => Variable::IngressName,
            "service_name" => Variable::ServiceName,
            "service_port" => Variable::ServicePort,
            "proxy_upstream_name" => Variable::UpstreamName,
            "msec" => Variable::Milliseconds,
            "time_iso8601" => Variable::Time,
            _ => {
                if let Some(name) = name.strip_prefix("http_") {
                    let name = name.replace('_', "-");
                    Variable::Header(HeaderName::from_bytes(name.as_bytes()).ok()?)
                } else if let Some(name) = name.strip_prefix("cookie_").filter(|n| !n.is_empty()) {
                    Variable::Cookie(name.into())
                } else {
                    let name = name.strip_prefix("arg_").filter(|name| !name.is_empty())?;
                    Variable::Argument(name.into())
                }
            }
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Variable(Variable),
}

/// A text with variables.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    source: Box<str>,
    parts: Box<[Part]>,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.source, f)
    }
}

/// What variables stand for in one request.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// The request as the client sent it.
    pub request: &'a RequestHeader,
    /// Path and query as sent.
    pub request_uri: &'a [u8],
    /// The path, decoded and normalised.
    pub path: &'a [u8],
    /// The host, lower-case and without a port.
    pub host: &'a str,
    /// The client's connection is TLS.
    pub tls: bool,
    /// `http` or `https`, as the client used it before any trusted proxy.
    pub forwarded_scheme: &'a str,
    /// The client, beyond trusted proxies.
    pub client: IpAddr,
    /// Our port.
    pub port: u16,
    /// The id of the request.
    pub request_id: &'a str,
    /// Where it goes.
    pub route: Option<&'a Route>,
}

impl Template {
    /// Parses a text. Captures of a regular expression are refused.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        Template::parse_with(text, false)
    }

    /// Parses a text that is filled in after a regular expression matched.
    pub fn parse_with_captures(text: &str) -> Result<Template, TemplateError> {
        Template::parse_with(text, true)
    }

    fn parse_with(text: &str, captures: bool) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            if dollar > 0 {
                parts.push(Part::Text(rest[..dollar].into()));
            }
            let (name, after) = take_name(&rest[dollar + 1..]);
            rest = after;
            let digit = name.parse::<u8>().ok().filter(|digit| (1..=9).contains(digit));
            let variable = match digit {
                Some(digit) if captures => Variable::Capture(digit),
                _ if name.is_empty() => return Err(TemplateError::BareDollar),
                _ => Variable::named(name)
                    .ok_or_else(|| TemplateError::UnknownVariable(name.into()))?,
            };
            parts.push(Part::Variable(variable));
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Template { source: text.into(), parts: parts.into() })
    }

    /// The text as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text, if it is the same for all requests.
    pub fn constant(&self) -> Option<&str> {
        let variable = self.parts.iter().any(|part| matches!(part, Part::Variable(_)));
        (!variable).then_some(&self.source)
    }

    /// Whether the text begins with this variable.
    pub fn starts_with(&self, variable: &Variable) -> bool {
        matches!(self.parts.first(), Some(Part::Variable(first)) if first == variable)
    }

    /// The variables in the text.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable),
            Part::Text(_) => None,
        })
    }

    /// The text for a request.
    pub fn expand(&self, values: &Values<'_>) -> Vec<u8> {
        self.expand_captured(values, |_| None)
    }

    /// The text for a request, after a regular expression matched: `captured` has its groups.
    pub fn expand_captured<'c>(
        &self,
        values: &Values<'_>,
        captured: impl Fn(usize) -> Option<&'c [u8]>,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.source.len() + values.request_uri.len());
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(Variable::Capture(group)) => {
                    out.extend_from_slice(captured((*group).into()).unwrap_or_default());
                }
                Part::Variable(variable) => values.write(variable, &mut out),
            }
        }
        out
    }
}

impl<'a> Values<'a> {
    /// Appends the value of a variable; nothing where it has none.
    pub fn write(&self, variable: &Variable, out: &mut Vec<u8>) {
        let header = |name: &HeaderName| {
            self.request.headers.get(name).map_or(b"".as_slice(), http::HeaderValue::as_bytes)
        };
        let query = self.query();
        match variable {
            Variable::RequestUri => out.extend_from_slice(self.request_uri),
            Variable::EscapedRequestUri => escape_component(self.request_uri, out),
            Variable::Uri => out.extend_from_slice(self.path),
            Variable::Args => out.extend_from_slice(query),
            Variable::IsArgs if query.is_empty() => {}
            Variable::IsArgs => out.push(b'?'),
            Variable::Host => out.extend_from_slice(self.host.as_bytes()),
            Variable::HttpHost => out.extend_from_slice(self.http_host()),
            Variable::Scheme if self.tls => out.extend_from_slice(b"https"),
            Variable::Scheme => out.extend_from_slice(b"http"),
            Variable::ForwardedScheme => out.extend_from_slice(self.forwarded_scheme.as_bytes()),
            Variable::Method => out.extend_from_slice(self.request.method.as_str().as_bytes()),
            Variable::Protocol => out.extend_from_slice(match self.request.version {
                http::Version::HTTP_10 => b"HTTP/1.0",
                http::Version::HTTP_2 => b"HTTP/2.0",
                _ => b"HTTP/1.1",
            }),
            Variable::RemoteAddress => out.extend_from_slice(self.client.to_string().as_bytes()),
            Variable::RemoteUser => {
                if let Some(credentials) = Credentials::of(&self.request.headers) {
                    out.extend_from_slice(&credentials.user);
                }
            }
            Variable::ServerPort => out.extend_from_slice(self.port.to_string().as_bytes()),
            Variable::RequestId => out.extend_from_slice(self.request_id.as_bytes()),
            Variable::Header(name) => out.extend_from_slice(header(name)),
            Variable::Cookie(name) => out.extend_from_slice(self.cookie(name).unwrap_or_default()),
            Variable::Argument(name) => out.extend_from_slice(argument(query, name)),
            Variable::Milliseconds => {
                let ms = jiff::Timestamp::now().as_millisecond();
                out.extend_from_slice(format!("{}.{:03}", ms / 1000, ms % 1000).as_bytes());
            }
            Variable::Time => {
                let now = jiff::Zoned::now();
                out.extend_from_slice(now.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().as_bytes());
            }
            Variable::Capture(_) => {}
            Variable::Namespace
            | Variable::IngressName
            | Variable::ServiceName
            | Variable::ServicePort
            | Variable::UpstreamName => out.extend_from_slice(self.of_route(variable).as_bytes()),
        }
    }

    fn of_route(&self, variable: &Variable) -> &'a str {
        let Some(route) = self.route else {
            return "";
        };
        match variable {
            Variable::Namespace => &route.ingress.namespace,
            Variable::IngressName => &route.ingress.name,
            Variable::ServiceName => &route.backend.key.service.name,
            Variable::ServicePort => &route.backend.key.port,
            _ => &route.backend.upstream_name,
        }
    }

    /// The host as the client wrote it, with its port.
    pub fn http_host(&self) -> &'a [u8] {
        let authority = || self.request.uri.authority().map(|named| named.as_str().as_bytes());
        let host = self.request.headers.get(header::HOST).map(http::HeaderValue::as_bytes);
        host.or_else(authority).unwrap_or_default()
    }

    /// What follows the first `?` of the request's target.
    pub fn query(&self) -> &'a [u8] {
        let mark = self.request_uri.iter().position(|byte| *byte == b'?');
        mark.map_or(b"".as_slice(), |mark| &self.request_uri[mark + 1..])
    }

    fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        cookie(&self.request.headers, name)
    }
}

/// The value of a request's cookie.
pub fn cookie<'a>(headers: &'a http::HeaderMap, name: &str) -> Option<&'a [u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        (&pair[..equals] == name.as_bytes()).then(|| &pair[equals + 1..])
    })
}

/// The value of an argument of a query, as it stands there. As nginx: names without regard to case.
fn argument<'a>(query: &'a [u8], name: &str) -> &'a [u8] {
    let found = query.split(|byte| *byte == b'&').find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        pair[..equals].eq_ignore_ascii_case(name.as_bytes()).then(|| &pair[equals + 1..])
    });
    found.unwrap_or_default()
}

/// Percent-escapes everything but unreserved characters (RFC 3986).
fn escape_component(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
        }
    }
}

/// The variable name at the start of `text` (`name`, `{name}` or one digit) and what follows it.
pub fn take_name(text: &str) -> (&str, &str) {
    if let Some(braced) = text.strip_prefix('{')
        && let Some((name, rest)) = braced.split_once('}')
    {
        return (name, rest);
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return text.split_at(1);
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expand(text: &str) -> String {
        let mut request = RequestHeader::build("GET", b"/a%20b?x=1&Y=2", None).unwrap();
        request.insert_header("Host", "Shop.Example:8080").unwrap();
        request.insert_header("Cookie", "a=1; session=abc=d").unwrap();
        request.insert_header("X-Tenant", "t1").unwrap();
        let values = Values {
            request: &request,
            request_uri: request.raw_path(),
            path: b"/a b",
            host: "shop.example",
            tls: true,
            forwarded_scheme: "http",
            client: "192.0.2.7".parse().unwrap(),
            port: 8443,
            request_id: "0123",
            route: None,
        };
        let template = Template::parse(text).unwrap();
        String::from_utf8(template.expand(&values)).unwrap()
    }

    #[test]
    fn variables_of_a_request() {
        for (text, expected) in [
            ("https://new.example$request_uri", "https://new.example/a%20b?x=1&Y=2"),
            ("$scheme://$http_host", "https://Shop.Example:8080"),
            ("${pass_access_scheme}s $host", "https shop.example"),
            ("$uri$is_args$args", "/a b?x=1&Y=2"),
            ("$arg_y$arg_z-$cookie_session-$cookie_none", "2-abc=d-"),
            ("$http_x_tenant $http_x_none", "t1 "),
            ("$remote_addr:$server_port", "192.0.2.7:8443"),
            ("$request_method $server_protocol $req_id", "GET HTTP/1.1 0123"),
            ("?rd=$escaped_request_uri", "?rd=%2Fa%2520b%3Fx%3D1%26Y%3D2"),
            ("$namespace", ""),
            ("plain", "plain"),
        ] {
            assert_eq!(expand(text), expected, "{text}");
        }
    }

    #[test]
    fn others_are_refused_by_name() {
        let unknown = |name: &str| TemplateError::UnknownVariable(name.into());
        for (text, error) in [
            ("$unicorn", unknown("unicorn")),
            ("${pid}", unknown("pid")),
            ("$1", unknown("1")),
            ("$cookie_", unknown("cookie_")),
            ("100$", TemplateError::BareDollar),
            ("$/x", TemplateError::BareDollar),
        ] {
            assert_eq!(Template::parse(text).unwrap_err(), error, "{text}");
        }
        assert!(Template::parse_with_captures("/$1").is_ok());
        assert!(Template::parse_with_captures("/$0").is_err());
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "[a-z$_{}0-9/ ]{0,24}") {
            if let Ok(template) = Template::parse_with_captures(&text) {
                prop_assert_eq!(template.source(), text.as_str());
                prop_assert_eq!(template.constant().is_some(), !text.contains('$'));
            }
        }
    }
}
