//! The options of the whole controller: flags, and over them the ConfigMap that ingress-nginx reads.
//!
//! What an option means for one location is a default of [`Settings`] and is read as the annotation of the
//! same name; the rest is typed here and travels in the snapshot. The list of options is `table`'s.

pub mod config_map;
pub mod patterns;
pub mod table;
pub mod values;

use crate::access_log::format::LogFormat;
use crate::annotations::authentication::Authentication;
use crate::variables::Template;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use patterns::Patterns;
use std::sync::Arc;
use std::time::Duration;

/// Options of the whole controller, ingress-nginx's defaults filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// What is believed of proxies in front.
    pub forwarded: ForwardedOptions,
    /// `Strict-Transport-Security` on answers over TLS.
    pub hsts: Hsts,
    /// TLS with clients, where no annotation says otherwise.
    pub tls: TlsOptions,
    /// Connections of clients.
    pub connections: ConnectionOptions,
    /// Connections to endpoints.
    pub endpoint_connections: EndpointConnectionOptions,
    /// Headers of every request and answer.
    pub headers: HeaderOptions,
    /// Redirects of every location.
    pub redirects: RedirectOptions,
    /// Answers to clients that ask too much.
    pub limits: LimitOptions,
    /// Clients refused everywhere.
    pub blocked: Blocked,
    /// An authority asked about every location that names none.
    pub global_auth: GlobalAuth,
    /// The access log.
    pub access_log: AccessLogOptions,
    /// What Ingresses may say.
    pub ingresses: IngressOptions,
    /// A guard among the options is wrong and never was right: every location answers 503.
    pub closed: bool,
}

/// What is believed of proxies in front.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardedOptions {
    /// `use-forwarded-headers`: believe `X-Forwarded-*` of the proxies.
    pub trusted: bool,
    /// `enable-real-ip`: believe their client address only.
    pub real_ip: bool,
    /// `proxy-real-ip-cidr`: which those are.
    pub proxies: Vec<IpNet>,
    /// `forwarded-for-header`: where they write the client's address.
    pub for_header: HeaderName,
    /// `compute-full-forwarded-for`: add to the chain instead of replacing it.
    pub full_chain: bool,
}

impl Default for ForwardedOptions {
    fn default() -> ForwardedOptions {
        ForwardedOptions {
            trusted: false,
            real_ip: false,
            proxies: vec![IpNet::default(), IpNet::V6(Default::default())],
            for_header: HeaderName::from_static("x-forwarded-for"),
            full_chain: false,
        }
    }
}

impl ForwardedOptions {
    /// Whether the client's address may come from a header.
    pub fn reads_client(&self) -> bool {
        self.trusted || self.real_ip
    }
}

/// `Strict-Transport-Security`.
#[derive(Clone, Debug, PartialEq)]
pub struct Hsts {
    /// `hsts`.
    pub enabled: bool,
    /// `hsts-include-subdomains`.
    pub subdomains: bool,
    /// `hsts-max-age`, in seconds.
    pub max_age_s: u64,
    /// `hsts-preload`.
    pub preload: bool,
    /// The header's value for all of that; `None` when it is off.
    pub value: Option<HeaderValue>,
}

impl Default for Hsts {
    fn default() -> Hsts {
        let mut hsts = Hsts {
            enabled: true,
            subdomains: true,
            max_age_s: 31_536_000,
            preload: false,
            value: None,
        };
        hsts.write_value();
        hsts
    }
}

impl Hsts {
    fn write_value(&mut self) {
        let subdomains = if self.subdomains { "; includeSubDomains" } else { "" };
        let preload = if self.preload { "; preload" } else { "" };
        let text = format!("max-age={}{subdomains}{preload}", self.max_age_s);
        self.value = HeaderValue::from_str(&text).ok().filter(|_| self.enabled);
    }
}

/// TLS with clients.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsOptions {
    /// TLS 1.2 is spoken (`ssl-protocols`).
    pub v1_2: bool,
    /// TLS 1.3 is spoken (`ssl-protocols`).
    pub v1_3: bool,
    /// `ssl-ciphers` in the words of OpenSSL, best first; `None` for all that are safe.
    pub ciphers: Option<String>,
    /// `ssl-session-tickets`.
    pub session_tickets: bool,
    /// `use-http2`.
    pub http2: bool,
}

impl Default for TlsOptions {
    fn default() -> TlsOptions {
        TlsOptions { v1_2: true, v1_3: true, ciphers: None, session_tickets: false, http2: true }
    }
}

/// Connections of clients.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionOptions {
    /// `use-proxy-protocol`: every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// `proxy-protocol-header-timeout`.
    pub proxy_protocol_timeout: Duration,
    /// `keep-alive`: how long an idle connection is kept; zero closes it after each answer.
    pub keep_alive: Duration,
    /// `keep-alive-requests`: requests a connection may carry.
    pub keep_alive_requests: u32,
    /// `client-header-timeout`.
    pub header_timeout: Duration,
    /// `client-body-timeout`: between two reads of a body.
    pub body_timeout: Duration,
    /// `worker-shutdown-timeout`: how long a connection may go on after shutdown began.
    pub drain_timeout: Duration,
    /// `http2-max-concurrent-streams`.
    pub http2_streams_max: u32,
}

impl Default for ConnectionOptions {
    fn default() -> ConnectionOptions {
        ConnectionOptions {
            proxy_protocol: false,
            proxy_protocol_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(75),
            keep_alive_requests: 1000,
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(240),
            http2_streams_max: 128,
        }
    }
}

/// Connections to endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointConnectionOptions {
    /// `upstream-keepalive-timeout`: how long an idle one is kept.
    pub idle_timeout: Duration,
    /// `retry-non-idempotent`.
    pub retry_non_idempotent: bool,
}

impl Default for EndpointConnectionOptions {
    fn default() -> EndpointConnectionOptions {
        EndpointConnectionOptions {
            idle_timeout: Duration::from_secs(60),
            retry_non_idempotent: false,
        }
    }
}

/// Headers of every request and answer.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderOptions {
    /// `server-tokens`: answers say `Server: nginx`.
    pub server_tokens: bool,
    /// `allow-backend-server-header`: answers keep the `Server` of their endpoint.
    pub endpoint_server: bool,
    /// `hide-headers`: taken out of answers of endpoints.
    pub hidden: Vec<HeaderName>,
    /// `add-headers`: set in every answer.
    pub for_clients: Vec<(HeaderName, Template)>,
    /// `proxy-set-headers`: set in every request to an endpoint; an empty value takes the header out.
    pub for_endpoints: Vec<(HeaderName, Template)>,
    /// `global-allowed-response-headers`: what `custom-headers` of an Ingress may set.
    pub custom_allowed: Vec<HeaderName>,
    /// `generate-request-id`.
    pub generate_request_id: bool,
    /// `proxy-add-original-uri-header`: endpoints get `X-Original-Uri`.
    pub original_uri: bool,
    /// `enable-underscores-in-headers`: names with underscores are passed on.
    pub underscores: bool,
    /// `ignore-invalid-headers`: other odd names are dropped; else they are a bad request.
    pub drop_invalid: bool,
}

impl Default for HeaderOptions {
    fn default() -> HeaderOptions {
        HeaderOptions {
            server_tokens: false,
            endpoint_server: false,
            hidden: Vec::new(),
            for_clients: Vec::new(),
            for_endpoints: Vec::new(),
            custom_allowed: Vec::new(),
            generate_request_id: true,
            original_uri: false,
            underscores: false,
            drop_invalid: true,
        }
    }
}

/// Redirects of every location.
#[derive(Clone, Debug, PartialEq)]
pub struct RedirectOptions {
    /// `http-redirect-code`, of redirects to https and between a host and its `www.`.
    pub code: u16,
    /// `no-tls-redirect-locations`: beginnings of paths that are never redirected to https.
    pub plain_paths: Vec<String>,
}

impl Default for RedirectOptions {
    fn default() -> RedirectOptions {
        RedirectOptions { code: 308, plain_paths: vec![ACME_CHALLENGE.into()] }
    }
}

/// Where an authority that issues certificates looks, without TLS and without a password.
const ACME_CHALLENGE: &str = "/.well-known/acme-challenge";

/// Answers to clients that ask too much.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitOptions {
    /// `limit-req-status-code`.
    pub rate_status: u16,
    /// `limit-conn-status-code`.
    pub connection_status: u16,
}

impl Default for LimitOptions {
    fn default() -> LimitOptions {
        LimitOptions { rate_status: 503, connection_status: 503 }
    }
}

/// Clients refused everywhere, with 403.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blocked {
    /// `block-cidrs`.
    pub sources: Vec<IpNet>,
    /// `block-user-agents`.
    pub user_agents: Patterns,
    /// `block-referers`.
    pub referers: Patterns,
}

/// An authority asked about every location that names none of its own and does not opt out.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalAuth {
    /// As if an Ingress said so in `auth-*` annotations; `None` without `global-auth-url`.
    pub authentication: Option<Box<Authentication>>,
    /// `no-auth-locations`: beginnings of paths that are not asked about.
    pub exempt_paths: Vec<String>,
}

impl Default for GlobalAuth {
    fn default() -> GlobalAuth {
        GlobalAuth { authentication: None, exempt_paths: vec![ACME_CHALLENGE.into()] }
    }
}

/// The access log.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLogOptions {
    /// Not `disable-access-log`.
    pub enabled: bool,
    /// `enable-access-log-for-default-backend`.
    pub default_backend: bool,
    /// `log-format-upstream`.
    pub format: Arc<LogFormat>,
    /// `log-format-escape-json`, `log-format-escape-none`.
    pub escape: LogEscape,
    /// `skip-access-log-urls`: request targets that are not logged.
    pub skipped: Patterns,
}

impl Default for AccessLogOptions {
    fn default() -> AccessLogOptions {
        AccessLogOptions {
            enabled: true,
            default_backend: false,
            format: Arc::default(),
            escape: LogEscape::Default,
            skipped: Patterns::default(),
        }
    }
}

/// How values are written into a line of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEscape {
    /// `\xHH` for quotes, backslashes and what is not printable.
    Default,
    /// As within a JSON string.
    Json,
    /// Only what would break the line.
    None,
}

/// What Ingresses may say.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressOptions {
    /// `allow-cross-namespace-resources`: annotations may name Secrets of other namespaces.
    pub cross_namespace: bool,
    /// `annotations-risk-level`: riskier annotations are refused.
    pub risk_max: Risk,
    /// `annotation-value-word-blocklist`: values with one of these are refused.
    pub words_blocked: Vec<String>,
}

impl Default for IngressOptions {
    fn default() -> IngressOptions {
        IngressOptions { cross_namespace: false, risk_max: Risk::High, words_blocked: Vec::new() }
    }
}

/// How much harm an annotation can do in the hands of who may write Ingresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Risk {
    /// Of the location only.
    Low,
    /// Of what is behind it.
    Medium,
    /// Of other locations.
    High,
    /// Of the controller.
    Critical,
}
