//! `nginx.ingress.kubernetes.io` annotations into typed settings of a location.
//!
//! What is not honoured is named; what would guard a location and cannot be honoured closes it.

use crate::objects::{Kind, ObjectKey};
use crate::problem::Problem;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// The prefix all of these annotations share.
pub const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// How the proxy speaks to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendProtocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/1.1 in TLS, certificates not verified.
    Https,
    /// HTTP/2 without TLS.
    Grpc,
    /// HTTP/2 in TLS.
    Grpcs,
}

/// Settings of the locations of one Ingress, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `rewrite-target`, unparsed: it needs the path it belongs to.
    pub rewrite_target: Option<String>,
    /// `use-regex`.
    pub use_regex: bool,
    /// `x-forwarded-prefix`.
    pub forwarded_prefix: Option<String>,
    /// `ssl-redirect`: 308 to https where the host has a certificate.
    pub ssl_redirect: bool,
    /// `force-ssl-redirect`: 308 to https whether or not the host has one.
    pub force_ssl_redirect: bool,
    /// `preserve-trailing-slash`, of redirects to https.
    pub preserve_trailing_slash: bool,
    /// `proxy-body-size` in bytes; 0 is unlimited.
    pub body_size_max: u64,
    /// `proxy-connect-timeout`.
    pub connect_timeout: Duration,
    /// `proxy-read-timeout`.
    pub read_timeout: Duration,
    /// `proxy-send-timeout`.
    pub send_timeout: Duration,
    /// `proxy-next-upstream-tries`; 0 is unlimited.
    pub tries_max: usize,
    /// `backend-protocol`.
    pub backend_protocol: BackendProtocol,
    /// `service-upstream`: use the cluster IP instead of endpoints.
    pub service_upstream: bool,
    /// `upstream-vhost`: the Host header for endpoints.
    pub upstream_vhost: Option<String>,
    /// `whitelist-source-range` or `allowlist-source-range`; empty allows all.
    pub allowed_sources: Vec<IpNet>,
    /// `denylist-source-range`.
    pub denied_sources: Vec<IpNet>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            rewrite_target: None,
            use_regex: false,
            forwarded_prefix: None,
            ssl_redirect: true,
            force_ssl_redirect: false,
            preserve_trailing_slash: false,
            body_size_max: 1 << 20,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            tries_max: 3,
            backend_protocol: BackendProtocol::Http,
            service_upstream: false,
            upstream_vhost: None,
            allowed_sources: Vec::new(),
            denied_sources: Vec::new(),
        }
    }
}

impl Settings {
    /// Whether a client may use the location. Denied networks come first, as in ingress-nginx.
    pub fn admits(&self, client: IpAddr) -> bool {
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
        !within(&self.denied_sources)
            && (self.allowed_sources.is_empty() || within(&self.allowed_sources))
    }
}

/// What the annotations of an Ingress say.
#[derive(Debug)]
pub struct Annotated {
    /// The settings for its locations.
    pub settings: Settings,
    /// Its locations answer 503: something meant to guard them does not work.
    pub closed: bool,
    /// It is the variant of another Ingress and must not claim paths for itself.
    pub canary: bool,
    /// What was wrong.
    pub problems: Vec<Problem>,
}

/// Reads the annotations of an Ingress over the given defaults.
pub fn parse(
    ingress: &ObjectKey,
    annotations: &BTreeMap<String, String>,
    defaults: &Settings,
) -> Annotated {
    let mut read = Annotated {
        settings: defaults.clone(),
        closed: false,
        canary: false,
        problems: Vec::new(),
    };
    for (name, value) in annotations {
        let Some(short) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let field = || format!("metadata.annotations[{name}]");
        match apply(&mut read, short, value.trim()) {
            Ok(()) => {}
            Err(Refusal::Invalid(why)) => {
                let message = format!("value {value:?} is invalid ({why}); the default is used");
                read.problems.push(Problem::error(Kind::Ingress, ingress, field(), message));
            }
            Err(Refusal::Closes(why)) => {
                read.closed = true;
                let message = format!("{why}; its locations answer 503");
                read.problems.push(Problem::error(Kind::Ingress, ingress, field(), message));
            }
            Err(Refusal::Refused(why)) => {
                read.problems.push(Problem::error(Kind::Ingress, ingress, field(), why));
            }
            Err(Refusal::NotHonoured) => {
                read.problems.push(Problem::warning(
                    Kind::Ingress,
                    ingress,
                    field(),
                    "not honoured yet",
                ));
            }
        }
    }
    read
}

enum Refusal {
    Invalid(&'static str),
    Closes(&'static str),
    Refused(String),
    NotHonoured,
}

fn apply(read: &mut Annotated, name: &str, value: &str) -> Result<(), Refusal> {
    let settings = &mut read.settings;
    match name {
        "rewrite-target" => {
            settings.rewrite_target = Some(value.into()).filter(|v: &String| !v.is_empty())
        }
        "use-regex" => settings.use_regex = boolean(value)?,
        "x-forwarded-prefix" => settings.forwarded_prefix = Some(header_value(value)?),
        "ssl-redirect" => settings.ssl_redirect = boolean(value)?,
        "force-ssl-redirect" => settings.force_ssl_redirect = boolean(value)?,
        "preserve-trailing-slash" => settings.preserve_trailing_slash = boolean(value)?,
        "proxy-body-size" => {
            settings.body_size_max = parse_size(value)
                .ok_or(Refusal::Invalid("want a number of bytes with k, m or g"))?;
        }
        "proxy-connect-timeout" => settings.connect_timeout = seconds(value)?,
        "proxy-read-timeout" => settings.read_timeout = seconds(value)?,
        "proxy-send-timeout" => settings.send_timeout = seconds(value)?,
        "proxy-next-upstream-tries" => {
            settings.tries_max =
                value.parse().map_err(|_| Refusal::Invalid("want a number of tries"))?;
        }
        "backend-protocol" => settings.backend_protocol = backend_protocol(value)?,
        "service-upstream" => settings.service_upstream = boolean(value)?,
        "upstream-vhost" => settings.upstream_vhost = Some(header_value(value)?),
        "whitelist-source-range" | "allowlist-source-range" => {
            settings.allowed_sources = networks(value)?;
        }
        "denylist-source-range" => settings.denied_sources = networks(value)?,
        "canary" => read.canary = boolean(value)?,
        _ => return unhonoured(name),
    }
    if name == "canary" && read.canary { Err(Refusal::NotHonoured) } else { Ok(()) }
}

/// Annotations without an effect here: harmless, refused, or guarding something.
fn unhonoured(name: &str) -> Result<(), Refusal> {
    match name {
        // They tune buffers that do not exist here.
        "proxy-buffering"
        | "proxy-buffer-size"
        | "proxy-buffers-number"
        | "proxy-busy-buffers-size"
        | "proxy-max-temp-file-size"
        | "client-body-buffer-size"
        | "proxy-request-buffering" => Ok(()),
        "configuration-snippet"
        | "server-snippet"
        | "auth-snippet"
        | "stream-snippet"
        | "modsecurity-snippet" => Err(Refusal::Refused(
            "snippets are refused: there is no nginx to run them; use a typed annotation instead"
                .into(),
        )),
        "auth-url" | "auth-type" | "auth-secret" | "auth-tls-secret" | "auth-tls-verify-client" => {
            Err(Refusal::Closes("authentication is not honoured yet"))
        }
        "enable-modsecurity" | "enable-owasp-core-rules" => Err(Refusal::Refused(
            "there is no ModSecurity here; put a web application firewall in front".into(),
        )),
        _ => Err(Refusal::NotHonoured),
    }
}

fn boolean(value: &str) -> Result<bool, Refusal> {
    // As Go's strconv.ParseBool.
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Refusal::Invalid("want true or false")),
    }
}

fn seconds(value: &str) -> Result<Duration, Refusal> {
    match value.strip_suffix('s').unwrap_or(value).parse::<u32>() {
        Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds.into())),
        _ => Err(Refusal::Invalid("want a positive number of seconds")),
    }
}

/// An nginx size: bytes, or with `k`, `m`, `g`.
pub fn parse_size(value: &str) -> Option<u64> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match value[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn backend_protocol(value: &str) -> Result<BackendProtocol, Refusal> {
    match value.to_ascii_uppercase().as_str() {
        "HTTP" | "AUTO_HTTP" => Ok(BackendProtocol::Http),
        "HTTPS" => Ok(BackendProtocol::Https),
        "GRPC" => Ok(BackendProtocol::Grpc),
        "GRPCS" => Ok(BackendProtocol::Grpcs),
        "FCGI" => Err(Refusal::Refused("FCGI is not spoken here; HTTP is used".into())),
        _ => Err(Refusal::Invalid("want HTTP, HTTPS, GRPC, GRPCS or AUTO_HTTP")),
    }
}

fn header_value(value: &str) -> Result<String, Refusal> {
    match http::HeaderValue::from_str(value) {
        Ok(_) if !value.is_empty() => Ok(value.into()),
        _ => Err(Refusal::Invalid("not usable as a header value")),
    }
}

/// A comma-separated list. One wrong entry closes the location: the list was meant to keep clients out.
fn networks(value: &str) -> Result<Vec<IpNet>, Refusal> {
    let entries = value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let nets: Result<Vec<IpNet>, _> = entries
        .map(|entry| entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from)))
        .collect();
    nets.map_err(|_| {
        Refusal::Closes("the list holds an entry that is neither an address nor a network")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn read(pairs: &[(&str, &str)]) -> Annotated {
        let annotations =
            pairs.iter().map(|(n, v)| (format!("{PREFIX}{n}"), v.to_string())).collect();
        parse(&ObjectKey::new("shop", "web"), &annotations, &Settings::default())
    }

    fn check(pairs: &[(&str, &str)], expected: Expect) {
        let read = read(pairs);
        let mut text: String = read.problems.iter().map(|p| format!("{p}\n")).collect();
        if read.closed {
            text.push_str("closed\n");
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn good_values_are_taken() {
        let pairs = [
            ("proxy-body-size", "8m"),
            ("proxy-read-timeout", "5"),
            ("rewrite-target", "/$1"),
            ("use-regex", "true"),
            ("ssl-redirect", "false"),
            ("backend-protocol", "grpc"),
            ("proxy-buffer-size", "8k"),
        ];
        let Annotated { settings, closed, problems, .. } = read(&pairs);
        assert!(problems.is_empty() && !closed, "{problems:?}");
        assert_eq!(settings.body_size_max, 8 << 20);
        assert_eq!(settings.read_timeout, Duration::from_secs(5));
        assert_eq!(settings.rewrite_target.as_deref(), Some("/$1"));
        assert!(settings.use_regex && !settings.ssl_redirect);
        assert_eq!(settings.backend_protocol, BackendProtocol::Grpc);
    }

    #[test]
    fn wrong_values_name_annotation_and_default() {
        check(
            &[("proxy-body-size", "big"), ("use-regex", "yes")],
            expect![[r#"
                Ingress shop/web: metadata.annotations[nginx.ingress.kubernetes.io/proxy-body-size]: value "big" is invalid (want a number of bytes with k, m or g); the default is used
                Ingress shop/web: metadata.annotations[nginx.ingress.kubernetes.io/use-regex]: value "yes" is invalid (want true or false); the default is used
            "#]],
        );
    }

    #[test]
    fn guards_that_do_not_work_close_the_location() {
        check(
            &[("auth-url", "http://auth"), ("whitelist-source-range", "10.0.0.0/8,nonsense")],
            expect![[r#"
                Ingress shop/web: metadata.annotations[nginx.ingress.kubernetes.io/auth-url]: authentication is not honoured yet; its locations answer 503
                Ingress shop/web: metadata.annotations[nginx.ingress.kubernetes.io/whitelist-source-range]: the list holds an entry that is neither an address nor a network; its locations answer 503
                closed
            "#]],
        );
    }

    #[test]
    fn unknown_ones_and_snippets_are_named() {
        check(
            &[("enable-cors", "true"), ("server-snippet", "deny all;")],
            expect![[r#"
                Ingress shop/web: metadata.annotations[nginx.ingress.kubernetes.io/enable-cors]: not honoured yet
                Ingress shop/web: metadata.annotations[nginx.ingress.kubernetes.io/server-snippet]: snippets are refused: there is no nginx to run them; use a typed annotation instead
            "#]],
        );
    }

    #[test]
    fn sources_are_admitted_deny_first() {
        let settings = read(&[
            ("whitelist-source-range", "10.0.0.0/8, 192.0.2.7"),
            ("denylist-source-range", "10.1.0.0/16"),
        ])
        .settings;
        for (client, admitted) in
            [("10.2.0.1", true), ("10.1.0.1", false), ("192.0.2.7", true), ("192.0.2.8", false)]
        {
            assert_eq!(settings.admits(client.parse().unwrap()), admitted, "{client}");
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("0", Some(0)),
            ("1m", Some(1 << 20)),
            ("10K", Some(10240)),
            ("1g", Some(1 << 30)),
            ("m", None),
            ("1x", None),
        ] {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }
}
