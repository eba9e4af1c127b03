//! `auth-url` and what goes with it: whom to ask, how, and what to do with the answer.

use crate::annotations::values::{Refusal, list};
use crate::objects::ObjectKey;
use crate::variables::{Template, Variable};
use http::{HeaderName, HeaderValue, Method};
use std::time::Duration;

/// An authority and how it is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct External {
    /// Where it is.
    pub url: AuthorityUrl,
    /// `auth-method`, GET otherwise.
    pub method: Option<Method>,
    /// `auth-signin` with its parameter: where clients without a session are sent.
    pub signin: Option<Template>,
    /// `auth-response-headers`: what endpoints get of its answer.
    pub response_headers: Vec<HeaderName>,
    /// `auth-request-redirect`.
    pub request_redirect: Option<HeaderValue>,
    /// `auth-proxy-set-headers`: a ConfigMap with headers for it.
    pub set_headers: Option<ObjectKey>,
    /// `auth-cache-key`: its answers are remembered under this.
    pub cache_key: Option<Template>,
    /// `auth-cache-duration`: for how long, by status.
    pub cache_durations: CacheDurations,
    /// `auth-always-set-cookie`: its cookies reach the client whatever the status.
    pub always_set_cookie: bool,
}

/// The URL of an authority.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorityUrl {
    /// As it was written.
    pub text: String,
    /// Speak TLS.
    pub https: bool,
    /// Host, and port where one is written.
    pub authority: Template,
    /// The host alone, for the `Host` header.
    pub host: Template,
    /// Path and query.
    pub target: Template,
}

impl AuthorityUrl {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<AuthorityUrl, Refusal> {
        AuthorityUrl::read(text).map_err(Refusal::closes)
    }

    fn read(text: &str) -> Result<AuthorityUrl, String> {
        let (https, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err("want a URL that begins with http:// or https://".into()),
        };
        if text.bytes().any(|b| b <= b' ' || b >= 0x7f || matches!(b, b'"' | b'\\' | b'#')) {
            return Err("the URL holds a character no URL may hold".into());
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            return Err(
                "a user name or password in the URL is not sent; use auth-proxy-set-headers".into(),
            );
        }
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') && !port.ends_with('}') => {
                port.parse::<u16>().map_err(|_| format!("{port:?} is not a port"))?;
                host
            }
            _ => authority,
        };
        if host.is_empty() || host.contains("..") {
            return Err("the URL names no host".into());
        }
        let template = |text: &str| Template::parse(text).map_err(|error| error.to_string());
        let authority = template(authority)?;
        if !authority.variables().all(names_the_route) {
            return Err(
                "only $host and variables of the Ingress may stand in the host: what a client \
                        sends must not say who is asked"
                    .into(),
            );
        }
        let target = match target.chars().next() {
            Some('/') => target.into(),
            _ => format!("/{target}"),
        };
        Ok(AuthorityUrl {
            text: text.into(),
            https,
            authority,
            host: template(host)?,
            target: template(&target)?,
        })
    }
}

/// A client cannot choose the value beyond what led to the route.
fn names_the_route(variable: &Variable) -> bool {
    matches!(
        variable,
        Variable::Host
            | Variable::HttpHost
            | Variable::Namespace
            | Variable::IngressName
            | Variable::ServiceName
            | Variable::ServicePort
    )
}

/// How long answers are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheDurations(Vec<(Vec<u16>, Duration)>);

impl Default for CacheDurations {
    fn default() -> CacheDurations {
        CacheDurations(vec![(vec![200, 202, 401], Duration::from_secs(300))])
    }
}

impl CacheDurations {
    /// How long an answer of this status is remembered, if at all.
    pub fn of(&self, status: u16) -> Option<Duration> {
        let matches = |codes: &[u16]| codes.is_empty() || codes.contains(&status);
        let found = self.0.iter().find(|(codes, _)| matches(codes));
        found.map(|(_, duration)| *duration).filter(|duration| !duration.is_zero())
    }
}

/// What the annotations say, before it is known whether it fits together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExternalText {
    pub url: Option<AuthorityUrl>,
    pub method: Option<Method>,
    pub signin: Option<String>,
    pub signin_parameter: Option<String>,
    pub response_headers: Vec<HeaderName>,
    pub request_redirect: Option<HeaderValue>,
    pub set_headers: Option<ObjectKey>,
    pub cache_key: Option<Template>,
    pub cache_durations: CacheDurations,
    pub always_set_cookie: bool,
}

impl ExternalText {
    /// Puts it together; `None` where no authority is named.
    pub fn finish(self) -> Result<Option<External>, (&'static str, Refusal)> {
        let Some(url) = self.url else {
            return match self.signin {
                Some(_) => {
                    Err(("auth-signin", Refusal::Refused("has no effect without auth-url".into())))
                }
                None => Ok(None),
            };
        };
        let parameter = self.signin_parameter.as_deref().unwrap_or("rd");
        let signin = self.signin.as_deref().map(|signin| signin_url(signin, parameter));
        let signin = signin.transpose().map_err(|why| ("auth-signin", Refusal::closes(why)))?;
        Ok(Some(External {
            url,
            method: self.method,
            signin,
            response_headers: self.response_headers,
            request_redirect: self.request_redirect,
            set_headers: self.set_headers,
            cache_key: self.cache_key,
            cache_durations: self.cache_durations,
            always_set_cookie: self.always_set_cookie,
        }))
    }
}

/// The sign-in URL with what brings the client back, unless it says that itself.
fn signin_url(url: &str, parameter: &str) -> Result<Template, String> {
    let begins = ["http://", "https://", "$scheme://", "$pass_access_scheme://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        // As in nginx, a path is completed with scheme and host of the request.
        .map_or(url.starts_with('/'), |host| !host.is_empty() && !host.starts_with(['/', '?']));
    let forbidden = |b: u8| b <= b' ' || b >= 0x7f || matches!(b, b'"' | b'\\');
    if !begins || url.bytes().any(forbidden) {
        return Err("want a URL, or a path that begins with a slash".into());
    }
    let query = url.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let mut pairs = query.split('&').filter(|pair| !pair.is_empty()).peekable();
    let separator = if pairs.peek().is_some() { '&' } else { '?' };
    let back =
        |pair: &str| pair.split_once('=').is_some_and(|(n, v)| n == parameter && !v.is_empty());
    let text = if pairs.any(back) {
        url.to_string()
    } else {
        format!("{url}{separator}{parameter}=$pass_access_scheme://$http_host$escaped_request_uri")
    };
    Template::parse(&text).map_err(|error| error.to_string())
}

/// Reads `auth-method`.
pub fn method(value: &str) -> Result<Method, Refusal> {
    match value {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" | "TRACE" => {
            Method::from_bytes(value.as_bytes()).map_err(|_| Refusal::Unknown)
        }
        _ => Err(Refusal::closes("want GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS or TRACE")),
    }
}

/// Reads `auth-signin-redirect-param`.
pub fn signin_parameter(value: &str) -> Result<String, Refusal> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    if value.is_empty() || !value.bytes().all(plain) {
        return Err(Refusal::closes("want the name of a query parameter"));
    }
    Ok(value.into())
}

/// Headers that say how a message is framed or what becomes of its connection: nobody's to set.
pub fn is_of_the_connection(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Reads `auth-response-headers`.
pub fn header_names(value: &str) -> Result<Vec<HeaderName>, Refusal> {
    list(value)
        .map(|name| {
            if is_of_the_connection(name) || name.eq_ignore_ascii_case("host") {
                return Err(Refusal::closes(format!("{name} is not for an authority to set")));
            }
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
            let parsed = HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| plain);
            parsed.ok_or_else(|| Refusal::closes(format!("{name:?} is not the name of a header")))
        })
        .collect()
}

/// Reads `auth-request-redirect`.
pub fn request_redirect(value: &str) -> Result<HeaderValue, Refusal> {
    let value = HeaderValue::from_str(value).ok().filter(|value| !value.is_empty());
    value.ok_or_else(|| Refusal::closes("not usable as a header value"))
}

/// Reads `auth-cache-key`. A wrong one means that nothing is remembered, which opens nothing.
pub fn cache_key(value: &str) -> Result<Option<Template>, Refusal> {
    match Template::parse(value) {
        Ok(_) if value.is_empty() => Ok(None),
        Ok(template) => Ok(Some(template)),
        Err(error) => Err(Refusal::invalid(error.to_string())),
    }
}

/// Reads `auth-cache-duration`: `200 202 10m, 401 5m`, each as nginx's `proxy_cache_valid`.
pub fn cache_durations(value: &str) -> Result<CacheDurations, Refusal> {
    let entries: Option<Vec<_>> = list(value).map(cache_duration).collect();
    match entries {
        Some(entries) if entries.is_empty() => Ok(CacheDurations::default()),
        Some(entries) => Ok(CacheDurations(entries)),
        None => Err(Refusal::closes("want status codes and a time, such as 200 202 10m, 401 5m")),
    }
}

fn cache_duration(entry: &str) -> Option<(Vec<u16>, Duration)> {
    let mut words: Vec<&str> = entry.split_whitespace().collect();
    let duration = time(words.pop()?)?;
    if words.is_empty() {
        return Some((vec![200, 301, 302], duration));
    }
    if words.contains(&"any") {
        return Some((Vec::new(), duration));
    }
    let codes = words.iter().map(|word| word.parse().ok().filter(|code| (100..600).contains(code)));
    Some((codes.collect::<Option<_>>()?, duration))
}

/// A time as nginx writes it, with its units: `30m`, `1h30m`.
fn time(text: &str) -> Option<Duration> {
    let mut seconds = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.chars().next();
        let in_seconds = match unit {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some('w') => 7 * 86_400,
            Some('M') => 30 * 86_400,
            Some('y') => 365 * 86_400,
            // Three digits alone are a status.
            _ => return None,
        };
        rest = rest.get(unit.map_or(0, char::len_utf8)..)?;
        seconds = seconds.checked_add(number.checked_mul(in_seconds)?)?;
    }
    (!text.is_empty()).then(|| Duration::from_secs(seconds))
}
