//! Every option that ingress-nginx reads from its ConfigMap, and what becomes of it here.

use super::patterns::Patterns;
use super::values::{
    duration, error_status, header_name, header_names, proxies, seconds_or_zero, texts,
};
use super::{LogEscape, Options, Risk};
use crate::access_log::format::LogFormat;
use crate::annotations::values::{Refusal, boolean, networks, number};
use crate::annotations::{self, Support};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// What an option is read into.
#[derive(Clone, Copy)]
pub enum Target {
    /// A field of [`Options`].
    Global(fn(&mut Options, &str) -> Result<(), Refusal>),
    /// The default of the annotation of the same name.
    Annotation,
    /// The annotation of this name, of the authority asked about every location.
    GlobalAuth(&'static str),
    /// A ConfigMap whose entries become headers of answers.
    HeadersForClients,
    /// A ConfigMap whose entries become headers of requests to endpoints.
    HeadersForEndpoints,
    /// Nothing: no one misses it; why.
    Harmless(&'static str),
    /// Nothing: what to use instead.
    Refused(&'static str),
}

/// One option.
#[derive(Clone, Copy)]
pub struct OptionRow {
    /// Its key in the ConfigMap.
    pub name: &'static str,
    /// What it is read into.
    pub target: Target,
}

impl OptionRow {
    /// What becomes of the option.
    pub fn support(&self) -> Support {
        match self.target {
            Target::Annotation => annotations::support(self.name).unwrap_or(Support::Honoured),
            Target::Harmless(why) => Support::Harmless(why),
            Target::Refused(instead) => Support::Refused(instead),
            Target::Global(_)
            | Target::GlobalAuth(_)
            | Target::HeadersForClients
            | Target::HeadersForEndpoints => Support::Honoured,
        }
    }
}

/// The row of an option.
pub fn row(name: &str) -> Option<OptionRow> {
    static BY_NAME: LazyLock<HashMap<&'static str, OptionRow>> =
        LazyLock::new(|| ROWS.iter().map(|row| (row.name, *row)).collect());
    BY_NAME.get(name).copied()
}

/// A row of an option of the whole controller.
const fn global(
    name: &'static str,
    read: fn(&mut Options, &str) -> Result<(), Refusal>,
) -> OptionRow {
    OptionRow { name, target: Target::Global(read) }
}

const fn as_annotation(name: &'static str) -> OptionRow {
    OptionRow { name, target: Target::Annotation }
}

const fn global_auth(name: &'static str, annotation: &'static str) -> OptionRow {
    OptionRow { name, target: Target::GlobalAuth(annotation) }
}

const fn harmless(name: &'static str, why: &'static str) -> OptionRow {
    OptionRow { name, target: Target::Harmless(why) }
}

const fn refused(name: &'static str, instead: &'static str) -> OptionRow {
    OptionRow { name, target: Target::Refused(instead) }
}

/// Reads a value into a field.
macro_rules! set {
    ($($field:ident).+ = $read:expr) => {
        |options, value| {
            options.$($field).+ = $read(value)?;
            Ok(())
        }
    };
}

const NGINX_MEMORY: &str = "it tunes memory of nginx that does not exist here";
const NGINX_PROCESS: &str = "it tunes processes of nginx; threads are set by --worker-threads";
const SNIPPET: &str =
    "snippets are refused: there is no nginx to run them; use a typed option or annotation instead";
const MODSECURITY: &str = "there is no ModSecurity here; put a web application firewall in front";
const COMPRESSION: &str =
    "answers are passed on as endpoints encode them; let endpoints compress them";
const TRACING: &str = "there is no tracing here; X-Request-ID and traceparent headers are passed on, so let endpoints trace";
const STREAM: &str =
    "TCP and UDP services are not proxied here; use a Service of type LoadBalancer or NodePort";
const SYSLOG: &str =
    "the access log goes to standard output only; let the log collector of the node forward it";
const LOG_PATH: &str =
    "logs go to standard output and standard error, as they do in the image of ingress-nginx";
const GEOIP: &str = "there is no GeoIP database here; put the lookup behind auth-url";

/// All options.
pub const ROWS: &[OptionRow] = &[
    OptionRow { name: "add-headers", target: Target::HeadersForClients },
    OptionRow { name: "proxy-set-headers", target: Target::HeadersForEndpoints },
    // What Ingresses may say.
    global("allow-cross-namespace-resources", set!(ingresses.cross_namespace = boolean)),
    harmless(
        "strict-validate-path-type",
        "Exact and Prefix paths are compared as text: no character of theirs means anything else",
    ),
    global("annotations-risk-level", set!(ingresses.risk_max = risk)),
    global("allow-snippet-annotations", |_, value| match boolean(value)? {
        false => Ok(()),
        true => Err(Refusal::Refused(SNIPPET.into())),
    }),
    global("annotation-value-word-blocklist", |options, value| {
        options.ingresses.words_blocked = texts(value);
        Ok(())
    }),
    global("global-allowed-response-headers", set!(headers.custom_allowed = header_names)),
    // Proxies in front.
    global("use-forwarded-headers", set!(forwarded.trusted = boolean)),
    global("enable-real-ip", set!(forwarded.real_ip = boolean)),
    global("proxy-real-ip-cidr", set!(forwarded.proxies = proxies)),
    global("forwarded-for-header", set!(forwarded.for_header = header_name)),
    global("compute-full-forwarded-for", set!(forwarded.full_chain = boolean)),
    harmless(
        "forwarded-for-proxy-protocol-header",
        "it names a header that ingress-nginx uses between its own parts",
    ),
    refused("forwarded-host-header", "the host of a proxy in front is read from X-Forwarded-Host"),
    global("use-proxy-protocol", set!(connections.proxy_protocol = boolean)),
    global("proxy-protocol-header-timeout", set!(connections.proxy_protocol_timeout = duration)),
    // HSTS.
    global("hsts", set!(hsts.enabled = boolean)),
    global("hsts-include-subdomains", set!(hsts.subdomains = boolean)),
    global("hsts-max-age", set!(hsts.max_age_s = number)),
    global("hsts-preload", set!(hsts.preload = boolean)),
    // TLS and HTTP/2.
    global("ssl-protocols", ssl_protocols),
    global("ssl-ciphers", |options, value| {
        options.tls.ciphers = Some(value.to_owned()).filter(|value| !value.is_empty());
        Ok(())
    }),
    refused(
        "ssl-reject-handshake",
        "hosts without a certificate are served the one of --default-ssl-certificate, or a self-signed one",
    ),
    global("ssl-session-tickets", set!(tls.session_tickets = boolean)),
    global("use-http2", set!(tls.http2 = boolean)),
    global("http2-max-concurrent-streams", set!(connections.http2_streams_max = positive)),
    harmless("ssl-session-cache", "sessions are resumed from memory of bounded size"),
    harmless("ssl-session-cache-size", "sessions are resumed from memory of bounded size"),
    harmless("ssl-session-timeout", "sessions are resumed from memory of bounded size"),
    refused(
        "ssl-session-ticket-key",
        "keys of tickets are made and replaced by themselves; clients of another replica do a full handshake",
    ),
    harmless("ssl-buffer-size", "records are cut as data comes"),
    harmless(
        "ssl-dh-param",
        "finite-field Diffie-Hellman is not spoken here, only elliptic curves",
    ),
    refused("ssl-ecdh-curve", "X25519, P-256 and P-384 are offered, in this order"),
    refused("ssl-early-data", "early data can be replayed and is not accepted"),
    refused(
        "enable-ocsp",
        "answers of OCSP responders are not stapled; use short-lived certificates",
    ),
    harmless("http2-max-field-size", "ingress-nginx removed it; headers have a fixed limit"),
    harmless("http2-max-header-size", "ingress-nginx removed it; headers have a fixed limit"),
    harmless("http2-max-requests", "ingress-nginx removed it; use keep-alive-requests"),
    // Connections.
    global("keep-alive", set!(connections.keep_alive = seconds_or_zero)),
    global("keep-alive-requests", set!(connections.keep_alive_requests = positive)),
    global("client-header-timeout", set!(connections.header_timeout = seconds)),
    global("client-body-timeout", set!(connections.body_timeout = seconds)),
    global("worker-shutdown-timeout", set!(connections.drain_timeout = duration)),
    harmless(
        "upstream-keepalive-connections",
        "idle connections to endpoints are kept as the flag of this name says, for all endpoints together",
    ),
    global("upstream-keepalive-timeout", set!(endpoint_connections.idle_timeout = seconds)),
    harmless("upstream-keepalive-time", "connections to endpoints are not ended by their age"),
    harmless("upstream-keepalive-requests", "connections to endpoints are not ended by their use"),
    global("retry-non-idempotent", set!(endpoint_connections.retry_non_idempotent = boolean)),
    refused("bind-address", "use --http-bind-address and --https-bind-address"),
    refused(
        "disable-ipv6",
        "listen on IPv4 only with --http-bind-address and --https-bind-address",
    ),
    harmless("disable-ipv6-dns", "names of ExternalName Services are looked up as the system does"),
    harmless("reuse-port", "threads share one listening socket"),
    harmless("enable-multi-accept", NGINX_PROCESS),
    // Headers.
    global("server-tokens", set!(headers.server_tokens = boolean)),
    global("allow-backend-server-header", set!(headers.endpoint_server = boolean)),
    global("hide-headers", set!(headers.hidden = header_names)),
    global("generate-request-id", set!(headers.generate_request_id = boolean)),
    global("proxy-add-original-uri-header", set!(headers.original_uri = boolean)),
    global("enable-underscores-in-headers", set!(headers.underscores = boolean)),
    global("ignore-invalid-headers", set!(headers.drop_invalid = boolean)),
    refused("default-type", "answers without a Content-Type are passed on without one"),
    // Redirects.
    global("http-redirect-code", |options, value| match value {
        "301" | "302" | "307" | "308" => {
            options.redirects.code = number(value)?;
            Ok(())
        }
        _ => Err(Refusal::invalid("want 301, 302, 307 or 308")),
    }),
    global("no-tls-redirect-locations", |options, value| {
        options.redirects.plain_paths = texts(value);
        Ok(())
    }),
    refused("use-port-in-redirects", "use --https-redirect-port"),
    // Limits and clients refused everywhere.
    global("limit-req-status-code", set!(limits.rate_status = error_status)),
    global("limit-conn-status-code", set!(limits.connection_status = error_status)),
    refused("limit-conn-zone-variable", "clients are told apart by their address"),
    global("block-cidrs", set!(blocked.sources = networks)),
    global("block-user-agents", set!(blocked.user_agents = Patterns::parse)),
    global("block-referers", set!(blocked.referers = Patterns::parse)),
    // The authority asked about every location.
    global_auth("global-auth-url", "auth-url"),
    global_auth("global-auth-method", "auth-method"),
    global_auth("global-auth-signin", "auth-signin"),
    global_auth("global-auth-signin-redirect-param", "auth-signin-redirect-param"),
    global_auth("global-auth-response-headers", "auth-response-headers"),
    global_auth("global-auth-request-redirect", "auth-request-redirect"),
    global_auth("global-auth-cache-key", "auth-cache-key"),
    global_auth("global-auth-cache-duration", "auth-cache-duration"),
    global_auth("global-auth-always-set-cookie", "auth-always-set-cookie"),
    refused("global-auth-snippet", SNIPPET),
    global("no-auth-locations", |options, value| {
        options.global_auth.exempt_paths = texts(value);
        Ok(())
    }),
    // Logs.
    global("disable-access-log", |options, value| {
        options.access_log.enabled = !boolean(value)?;
        Ok(())
    }),
    global("disable-http-access-log", |options, value| {
        options.access_log.enabled = !boolean(value)?;
        Ok(())
    }),
    global("enable-access-log-for-default-backend", set!(access_log.default_backend = boolean)),
    global("log-format-upstream", log_format),
    global("log-format-escape-json", |options, value| {
        if boolean(value)? {
            options.access_log.escape = LogEscape::Json;
        }
        Ok(())
    }),
    global("log-format-escape-none", |options, value| {
        if boolean(value)? {
            options.access_log.escape = LogEscape::None;
        }
        Ok(())
    }),
    global("skip-access-log-urls", set!(access_log.skipped = Patterns::parse)),
    harmless("access-log-path", LOG_PATH),
    harmless("http-access-log-path", LOG_PATH),
    harmless("error-log-path", LOG_PATH),
    harmless("access-log-params", "lines are written in batches"),
    harmless("error-log-level", "the level is set by the environment variable RUST_LOG"),
    harmless("enable-auth-access-log", "requests to an authority have no line of their own"),
    harmless("debug-connections", "it is for finding faults in nginx"),
    refused("enable-syslog", SYSLOG),
    refused("syslog-host", SYSLOG),
    refused("syslog-port", SYSLOG),
    // Defaults of annotations.
    as_annotation("app-root"),
    as_annotation("custom-http-errors"),
    as_annotation("denylist-source-range"),
    as_annotation("disable-proxy-intercept-errors"),
    as_annotation("force-ssl-redirect"),
    as_annotation("limit-rate"),
    as_annotation("limit-rate-after"),
    as_annotation("load-balance"),
    as_annotation("preserve-trailing-slash"),
    as_annotation("proxy-body-size"),
    as_annotation("proxy-buffer-size"),
    as_annotation("proxy-buffering"),
    as_annotation("proxy-buffers-number"),
    as_annotation("proxy-busy-buffers-size"),
    as_annotation("proxy-connect-timeout"),
    as_annotation("proxy-cookie-domain"),
    as_annotation("proxy-cookie-path"),
    as_annotation("proxy-http-version"),
    as_annotation("proxy-max-temp-file-size"),
    as_annotation("proxy-next-upstream"),
    as_annotation("proxy-next-upstream-timeout"),
    as_annotation("proxy-next-upstream-tries"),
    as_annotation("proxy-read-timeout"),
    as_annotation("proxy-redirect-from"),
    as_annotation("proxy-redirect-to"),
    as_annotation("proxy-request-buffering"),
    as_annotation("proxy-send-timeout"),
    as_annotation("relative-redirects"),
    as_annotation("service-upstream"),
    as_annotation("ssl-redirect"),
    as_annotation("upstream-hash-by"),
    as_annotation("upstream-hash-by-subset"),
    as_annotation("upstream-hash-by-subset-size"),
    as_annotation("whitelist-source-range"),
    harmless(
        "proxy-ssl-location-only",
        "proxy-ssl-* annotations are read for each location anyway",
    ),
    // What is not there.
    refused("main-snippet", SNIPPET),
    refused("http-snippet", SNIPPET),
    refused("server-snippet", SNIPPET),
    refused("location-snippet", SNIPPET),
    refused("stream-snippet", SNIPPET),
    refused("enable-modsecurity", MODSECURITY),
    refused("enable-owasp-modsecurity-crs", MODSECURITY),
    refused("modsecurity-snippet", MODSECURITY),
    refused("use-gzip", COMPRESSION),
    harmless("gzip-disable", COMPRESSION),
    harmless("gzip-level", COMPRESSION),
    harmless("gzip-min-length", COMPRESSION),
    harmless("gzip-types", COMPRESSION),
    refused("enable-brotli", COMPRESSION),
    harmless("brotli-level", COMPRESSION),
    harmless("brotli-min-length", COMPRESSION),
    harmless("brotli-types", COMPRESSION),
    refused("use-geoip", GEOIP),
    refused("use-geoip2", GEOIP),
    harmless("geoip2-autoreload-in-minutes", GEOIP),
    refused("enable-opentelemetry", TRACING),
    harmless("opentelemetry-config", TRACING),
    harmless("opentelemetry-operation-name", TRACING),
    harmless("opentelemetry-trust-incoming-span", TRACING),
    harmless("otlp-collector-host", TRACING),
    harmless("otlp-collector-port", TRACING),
    harmless("otel-max-export-batch-size", TRACING),
    harmless("otel-max-queuesize", TRACING),
    harmless("otel-sampler", TRACING),
    harmless("otel-sampler-parent-based", TRACING),
    harmless("otel-sampler-ratio", TRACING),
    harmless("otel-schedule-delay-millis", TRACING),
    harmless("otel-service-name", TRACING),
    harmless("jaeger-baggage-header", TRACING),
    harmless("jaeger-collector-host", TRACING),
    harmless("jaeger-collector-port", TRACING),
    harmless("jaeger-debug-header", TRACING),
    harmless("jaeger-endpoint", TRACING),
    harmless("jaeger-propagation-format", TRACING),
    harmless("jaeger-sampler-host", TRACING),
    harmless("jaeger-sampler-param", TRACING),
    harmless("jaeger-sampler-port", TRACING),
    harmless("jaeger-sampler-type", TRACING),
    harmless("jaeger-service-name", TRACING),
    harmless("jaeger-trace-baggage-header-prefix", TRACING),
    harmless("jaeger-trace-context-header-name", TRACING),
    harmless("disable-stream-access-log", STREAM),
    harmless("log-format-stream", STREAM),
    harmless("stream-access-log-path", STREAM),
    harmless("proxy-stream-next-upstream", STREAM),
    harmless("proxy-stream-next-upstream-timeout", STREAM),
    harmless("proxy-stream-next-upstream-tries", STREAM),
    harmless("proxy-stream-responses", STREAM),
    harmless("proxy-stream-timeout", STREAM),
    harmless("client-body-buffer-size", NGINX_MEMORY),
    harmless("client-header-buffer-size", NGINX_MEMORY),
    harmless("large-client-header-buffers", NGINX_MEMORY),
    harmless("grpc-buffer-size-kb", NGINX_MEMORY),
    harmless("lua-shared-dicts", NGINX_MEMORY),
    harmless("map-hash-bucket-size", NGINX_MEMORY),
    harmless("proxy-headers-hash-bucket-size", NGINX_MEMORY),
    harmless("proxy-headers-hash-max-size", NGINX_MEMORY),
    harmless("server-name-hash-bucket-size", NGINX_MEMORY),
    harmless("server-name-hash-max-size", NGINX_MEMORY),
    harmless("variables-hash-bucket-size", NGINX_MEMORY),
    harmless("variables-hash-max-size", NGINX_MEMORY),
    harmless("enable-aio-write", NGINX_PROCESS),
    harmless("enable-serial-reloads", NGINX_PROCESS),
    harmless("max-worker-connections", NGINX_PROCESS),
    harmless("max-worker-open-files", NGINX_PROCESS),
    harmless("worker-cpu-affinity", NGINX_PROCESS),
    harmless("worker-processes", NGINX_PROCESS),
    harmless("nginx-status-ipv4-whitelist", "there is no status page of nginx; use /metrics"),
    harmless("nginx-status-ipv6-whitelist", "there is no status page of nginx; use /metrics"),
];

fn positive(value: &str) -> Result<u32, Refusal> {
    match number(value)? {
        0 => Err(Refusal::invalid("want a positive number")),
        count => Ok(count),
    }
}

fn seconds(value: &str) -> Result<std::time::Duration, Refusal> {
    annotations::values::seconds(value)
}

fn risk(value: &str) -> Result<Risk, Refusal> {
    match value.to_ascii_lowercase().as_str() {
        "low" => Ok(Risk::Low),
        "medium" => Ok(Risk::Medium),
        "high" => Ok(Risk::High),
        "critical" => Ok(Risk::Critical),
        _ => Err(Refusal::invalid("want Low, Medium, High or Critical")),
    }
}

fn log_format(options: &mut Options, value: &str) -> Result<(), Refusal> {
    if value.is_empty() {
        return Ok(());
    }
    let (format, unknown) = LogFormat::parse(value);
    options.access_log.format = Arc::new(format);
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Refusal::Refused(format!("{} have no value here and print nothing", unknown.join(", "))))
}

/// Versions that are spoken here are switched; the older ones are gone for good.
fn ssl_protocols(options: &mut Options, value: &str) -> Result<(), Refusal> {
    let (mut v1_2, mut v1_3, mut gone) = (false, false, Vec::new());
    for version in value.split([' ', ',']).filter(|word| !word.is_empty()) {
        match version {
            "TLSv1.2" => v1_2 = true,
            "TLSv1.3" => v1_3 = true,
            "TLSv1.1" | "TLSv1" | "SSLv3" | "SSLv2" => gone.push(version),
            _ => return Err(Refusal::invalid("want TLSv1.2, TLSv1.3 or both")),
        }
    }
    if !v1_2 && !v1_3 {
        return Err(Refusal::invalid("want TLSv1.2, TLSv1.3 or both"));
    }
    (options.tls.v1_2, options.tls.v1_3) = (v1_2, v1_3);
    if gone.is_empty() {
        return Ok(());
    }
    Err(Refusal::Refused(format!("{} cannot be spoken any more; the others are", gone.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_option_has_one_row() {
        let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
    }

    #[test]
    fn defaults_named_like_annotations_are_annotations() {
        for row in ROWS.iter().filter(|row| matches!(row.target, Target::Annotation)) {
            assert!(annotations::support(row.name).is_some(), "{}", row.name);
        }
    }
}
