//! What a test describes: Ingresses as data, written once and turned into manifests and into nginx's
//! configuration by others.

use serde_json::{Map, Value, json};

/// Services every description may name; there is a fourth, `empty`, without endpoints.
pub const SERVICES: [&str; 3] = ["one", "two", "three"];

/// The annotations' common prefix.
const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// All Ingresses of a test, oldest first.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub ingresses: Vec<Ingress>,
}

#[derive(Clone, Debug, Default)]
pub struct Ingress {
    pub annotations: Annotations,
    pub default_backend: Option<&'static str>,
    /// Hosts under `spec.tls`, all with one certificate that names them.
    pub tls: Vec<String>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub struct Rule {
    /// Empty for none.
    pub host: String,
    pub paths: Vec<Path>,
}

#[derive(Clone, Debug)]
pub struct Path {
    pub path: String,
    pub kind: Kind,
    pub service: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Exact,
    Prefix,
    ImplementationSpecific,
}

/// Annotations of an Ingress; what is left out stands at its default.
#[derive(Clone, Debug, Default)]
pub struct Annotations {
    pub rewrite_target: Option<String>,
    pub use_regex: bool,
    pub forwarded_prefix: Option<String>,
    pub no_ssl_redirect: bool,
    pub force_ssl_redirect: bool,
    pub preserve_trailing_slash: bool,
    pub app_root: Option<String>,
    pub permanent_redirect: Option<(String, Option<u16>)>,
    pub temporal_redirect: Option<(String, Option<u16>)>,
    pub from_to_www: bool,
    pub upstream_vhost: Option<String>,
    pub allowed: Vec<&'static str>,
    pub denied: Vec<&'static str>,
    pub body_size: Option<&'static str>,
    pub cors: Option<Cors>,
}

/// CORS; origins empty means all.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    pub origins: Vec<&'static str>,
    pub methods: Option<&'static str>,
    pub headers: Option<&'static str>,
    pub exposed: Option<&'static str>,
    pub no_credentials: bool,
    pub max_age_seconds: Option<u32>,
}

/// An Ingress of one host.
pub fn ingress(host: &str, paths: &[(&str, Kind, &'static str)]) -> Ingress {
    let paths = paths.iter().map(|(path, kind, service)| Path {
        path: (*path).into(),
        kind: *kind,
        service,
    });
    Ingress {
        rules: vec![Rule { host: host.into(), paths: paths.collect() }],
        ..Ingress::default()
    }
}

impl Ingress {
    pub fn with(mut self, change: impl FnOnce(&mut Annotations)) -> Ingress {
        change(&mut self.annotations);
        self
    }

    pub fn and(mut self, host: &str, paths: &[(&str, Kind, &'static str)]) -> Ingress {
        self.rules.extend(ingress(host, paths).rules);
        self
    }

    pub fn secured(mut self) -> Ingress {
        self.tls = self.rules.iter().map(|rule| rule.host.clone()).collect();
        self
    }
}

impl Annotations {
    /// The Kubernetes form.
    fn object(&self) -> Value {
        let mut out = Map::new();
        let mut set = |name: &str, value: String| {
            out.insert(format!("{PREFIX}{name}"), Value::String(value));
        };
        for (name, value) in [
            ("rewrite-target", &self.rewrite_target),
            ("x-forwarded-prefix", &self.forwarded_prefix),
            ("app-root", &self.app_root),
            ("upstream-vhost", &self.upstream_vhost),
        ] {
            if let Some(value) = value {
                set(name, value.clone());
            }
        }
        for (name, value) in [
            ("use-regex", self.use_regex),
            ("force-ssl-redirect", self.force_ssl_redirect),
            ("preserve-trailing-slash", self.preserve_trailing_slash),
            ("from-to-www-redirect", self.from_to_www),
        ] {
            if value {
                set(name, "true".into());
            }
        }
        if self.no_ssl_redirect {
            set("ssl-redirect", "false".into());
        }
        for (name, redirect) in [
            ("permanent-redirect", &self.permanent_redirect),
            ("temporal-redirect", &self.temporal_redirect),
        ] {
            if let Some((url, code)) = redirect {
                set(name, url.clone());
                if let Some(code) = code {
                    set(&format!("{name}-code"), code.to_string());
                }
            }
        }
        if !self.allowed.is_empty() {
            set("whitelist-source-range", self.allowed.join(","));
        }
        if !self.denied.is_empty() {
            set("denylist-source-range", self.denied.join(","));
        }
        if let Some(size) = self.body_size {
            set("proxy-body-size", size.into());
        }
        if let Some(cors) = &self.cors {
            cors.write(&mut set);
        }
        Value::Object(out)
    }
}

impl Cors {
    fn write(&self, set: &mut impl FnMut(&str, String)) {
        set("enable-cors", "true".into());
        if !self.origins.is_empty() {
            set("cors-allow-origin", self.origins.join(", "));
        }
        for (name, value) in [
            ("cors-allow-methods", self.methods),
            ("cors-allow-headers", self.headers),
            ("cors-expose-headers", self.exposed),
        ] {
            if let Some(value) = value {
                set(name, value.into());
            }
        }
        if self.no_credentials {
            set("cors-allow-credentials", "false".into());
        }
        if let Some(seconds) = self.max_age_seconds {
            set("cors-max-age", seconds.to_string());
        }
    }
}

impl World {
    /// Every host of a rule.
    pub fn hosts(&self) -> Vec<&str> {
        let mut hosts: Vec<&str> = self.rules().map(|rule| rule.host.as_str()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.ingresses.iter().flat_map(|ingress| &ingress.rules)
    }

    /// The Ingresses as manifests; each a second younger than the one before it.
    pub fn manifests(&self) -> String {
        let mut out = String::new();
        for (at, ingress) in self.ingresses.iter().enumerate() {
            let backend =
                |service: &str| json!({"service": {"name": service, "port": {"number": 80}}});
            let mut spec = Map::new();
            if let Some(service) = ingress.default_backend {
                spec.insert("defaultBackend".into(), backend(service));
            }
            if !ingress.tls.is_empty() {
                spec.insert("tls".into(), json!([{"hosts": ingress.tls, "secretName": "all"}]));
            }
            let rules: Vec<Value> = ingress.rules.iter().map(|rule| {
                let paths: Vec<Value> = rule.paths.iter().map(|path| {
                    json!({"path": path.path, "pathType": format!("{:?}", path.kind), "backend": backend(path.service)})
                }).collect();
                let mut out = json!({"http": {"paths": paths}});
                if !rule.host.is_empty() {
                    out["host"] = json!(rule.host);
                }
                out
            }).collect();
            if !rules.is_empty() {
                spec.insert("rules".into(), json!(rules));
            }
            let object = json!({
                "apiVersion": "networking.k8s.io/v1",
                "kind": "Ingress",
                "metadata": {
                    "name": format!("i{at}"),
                    "creationTimestamp": format!("2026-01-01T00:{:02}:{:02}Z", at / 60, at % 60),
                    "annotations": ingress.annotations.object(),
                },
                "spec": spec,
            });
            out.push_str(&format!("---\n{object}\n"));
        }
        out
    }
}
