//! Reading the ConfigMap over what flags say. Wrong values are problems of the ConfigMap; the default
//! stays in effect, or for guards what was right before.

use super::Options;
use super::table::{Target, row};
use crate::annotations::authentication::Authentication;
use crate::annotations::values::Refusal;
use crate::annotations::{Group, Settings};
use crate::objects::{Kind, ObjectKey, World};
use crate::problem::Problem;
use crate::translate::Policy;
use crate::variables::Template;
use http::{HeaderName, HeaderValue};
use k8s_openapi::api::core::v1::ConfigMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The ConfigMap with the options, and the ones it names.
pub struct ConfigMapOptions {
    key: ObjectKey,
    base: Options,
    base_settings: Settings,
    /// The ConfigMaps the policy was made from.
    seen: Option<Vec<Option<Arc<ConfigMap>>>>,
    /// Values of guards that were right once.
    last_good: BTreeMap<String, String>,
}

/// What a ConfigMap says.
#[derive(Debug)]
pub struct Read {
    /// Options of the whole controller.
    pub options: Options,
    /// Defaults of annotations.
    pub settings: Settings,
    /// ConfigMaps that options name.
    pub named: BTreeSet<ObjectKey>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl ConfigMapOptions {
    /// Options over those of a policy made from flags.
    pub fn new(key: ObjectKey, policy: &Policy) -> ConfigMapOptions {
        ConfigMapOptions {
            key,
            base: (*policy.options).clone(),
            base_settings: policy.defaults.clone(),
            seen: None,
            last_good: BTreeMap::new(),
        }
    }

    /// Brings a policy up to date. True if it is another one now.
    pub fn refresh(&mut self, world: &World, policy: &mut Policy) -> bool {
        let current = |named: &BTreeSet<ObjectKey>| {
            named.iter().map(|key| world.config_maps.get(key).cloned()).collect::<Vec<_>>()
        };
        let now = current(&policy.named_config_maps);
        let same = |seen: &Vec<Option<Arc<ConfigMap>>>| {
            seen.len() == now.len()
                && seen.iter().zip(&now).all(|pair| match pair {
                    (Some(seen), Some(now)) => Arc::ptr_eq(seen, now),
                    (None, None) => true,
                    _ => false,
                })
        };
        if self.seen.as_ref().is_some_and(same) {
            return false;
        }
        let read = self.read(world);
        policy.named_config_maps = read.named;
        policy.named_config_maps.insert(self.key.clone());
        policy.options = Arc::new(read.options);
        policy.defaults = read.settings;
        policy.option_problems = read.problems;
        self.seen = Some(current(&policy.named_config_maps));
        true
    }

    fn read(&mut self, world: &World) -> Read {
        let mut read = Read {
            options: self.base.clone(),
            settings: self.base_settings.clone(),
            named: BTreeSet::new(),
            problems: Vec::new(),
        };
        let Some(config_map) = world.config_maps.get(&self.key) else {
            let problem = Problem::warning(
                Kind::ConfigMap,
                &self.key,
                "",
                "does not exist; defaults are used",
            );
            read.problems.push(problem);
            return read;
        };
        read_options(&self.key, config_map, world, &mut self.last_good, &mut read);
        read
    }
}

/// Reads all options of a ConfigMap over what `read` holds.
pub fn read_options(
    key: &ObjectKey,
    config_map: &ConfigMap,
    world: &World,
    last_good: &mut BTreeMap<String, String>,
    read: &mut Read,
) {
    let mut global_auth = Authentication::default();
    let none = BTreeMap::new();
    let data = config_map.data.as_ref().unwrap_or(&none);
    for (name, value) in data {
        let mut take = |value: &str| option(key, name, value.trim(), world, read, &mut global_auth);
        let refusal = match take(value) {
            Ok(()) => {
                last_good.insert(name.clone(), value.clone());
                continue;
            }
            Err(refusal) => refusal,
        };
        let kept = match (&refusal, last_good.get(name)) {
            (Refusal::Closes(_), Some(good)) => take(&good.clone()).is_ok(),
            _ => false,
        };
        read.problems.push(problem(key, name, value, &refusal, kept));
        read.options.closed |= matches!(refusal, Refusal::Closes(_)) && !kept;
    }
    last_good.retain(|name, _| data.contains_key(name));
    if data.get("global-auth-url").is_some_and(|url| !url.trim().is_empty()) {
        for (name, refusal) in global_auth.finish() {
            read.problems.push(problem(key, &format!("global-{name}"), "", &refusal, false));
            read.options.closed |= matches!(refusal, Refusal::Closes(_));
        }
        read.options.global_auth.authentication = Some(Box::new(global_auth));
    }
    read.options.hsts.write_value();
    read.settings.authentication.cross_namespace = read.options.ingresses.cross_namespace;
}

fn option(
    key: &ObjectKey,
    name: &str,
    value: &str,
    world: &World,
    read: &mut Read,
    global_auth: &mut Authentication,
) -> Result<(), Refusal> {
    let row = row(name).ok_or(Refusal::Unknown)?;
    match row.target {
        Target::Global(apply) => apply(&mut read.options, value),
        // As in ingress-nginx: nothing is the default.
        Target::GlobalAuth(_) | Target::Annotation if value.is_empty() => Ok(()),
        Target::Annotation => read.settings.apply(name, value, key),
        Target::GlobalAuth(annotation) => global_auth.apply(annotation, value, key),
        Target::HeadersForClients => {
            headers(value, world, read).map(|headers| read.options.headers.for_clients = headers)
        }
        Target::HeadersForEndpoints => {
            headers(value, world, read).map(|headers| read.options.headers.for_endpoints = headers)
        }
        Target::Harmless(_) => Ok(()),
        // Switched off it is what there is.
        Target::Refused(_) if matches!(value, "" | "false") => Ok(()),
        Target::Refused(instead) => Err(Refusal::Refused(instead.into())),
    }
}

/// The entries of a ConfigMap as headers.
fn headers(
    value: &str,
    world: &World,
    read: &mut Read,
) -> Result<Vec<(HeaderName, Template)>, Refusal> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let key = match value.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            ObjectKey::new(namespace, name)
        }
        _ => return Err(Refusal::invalid("want the NAMESPACE/NAME of a ConfigMap")),
    };
    read.named.insert(key.clone());
    let Some(config_map) = world.config_maps.get(&key) else {
        return Err(Refusal::Refused(format!(
            "ConfigMap {key} does not exist; no headers are set"
        )));
    };
    let mut headers = Vec::new();
    for (name, value) in config_map.data.iter().flatten() {
        let header = HeaderName::from_bytes(name.as_bytes()).ok();
        let header = header.filter(|_| value.parse::<HeaderValue>().is_ok());
        let read_value = Template::parse(value).map_err(|error| format!("{error}: it is not set"));
        match header.ok_or_else(|| "is not a header".to_owned()).and_then(|h| Ok((h, read_value?)))
        {
            Ok(header) => headers.push(header),
            Err(why) => {
                read.problems.push(Problem::error(Kind::ConfigMap, &key, field(name), why));
            }
        }
    }
    Ok(headers)
}

fn field(name: &str) -> String {
    format!("data[{name}]")
}

fn problem(key: &ObjectKey, name: &str, value: &str, refusal: &Refusal, kept: bool) -> Problem {
    let error = |message: String| Problem::error(Kind::ConfigMap, key, field(name), message);
    match refusal {
        Refusal::Invalid(why) => {
            error(format!("value {value:?} is invalid ({why}); the default is used"))
        }
        Refusal::Closes(why) if kept => {
            error(format!("{why}; what it said before stays in effect"))
        }
        Refusal::Closes(why) => error(format!("{why}; all locations answer 503")),
        Refusal::Refused(why) => error(why.clone()),
        Refusal::Unknown => Problem::warning(
            Kind::ConfigMap,
            key,
            field(name),
            "is not an option of ingress-nginx and has no effect",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Object;
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    fn world(data: &Value) -> World {
        let mut world = World::default();
        for (name, data) in [("podium", data), ("extra", &json!({"X-Team": "shop", "a b": "c"}))] {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": "infra"}, "data": data});
            world.apply(Object::parse(object).unwrap().unwrap());
        }
        world
    }

    fn reader() -> ConfigMapOptions {
        ConfigMapOptions {
            key: ObjectKey::new("infra", "podium"),
            base: Options::default(),
            base_settings: Settings::default(),
            seen: None,
            last_good: BTreeMap::new(),
        }
    }

    fn check(data: Value, expected: Expect) -> Read {
        let read = reader().read(&world(&data));
        let mut text: String = read.problems.iter().map(|p| format!("{p}\n")).collect();
        if read.options.closed {
            text.push_str("closed\n");
        }
        expected.assert_eq(&text);
        read
    }

    #[test]
    fn good_values_are_taken() {
        let read = check(
            json!({
                "proxy-body-size": "8m", "ssl-redirect": "false", "hsts-max-age": "60",
                "hsts-include-subdomains": "false", "use-forwarded-headers": "true",
                "proxy-real-ip-cidr": "10.0.0.0/8, 192.0.2.1", "ssl-protocols": "TLSv1.3",
                "add-headers": "infra/extra", "worker-processes": "4", "use-gzip": "false",
                "block-user-agents": "bad, ~*curl",
            }),
            expect![[r#"
                ConfigMap infra/extra: data[a b]: is not a header
            "#]],
        );
        let options = read.options;
        assert_eq!(read.settings.limits.body_bytes_max, 8 << 20);
        assert!(!read.settings.redirects.to_https);
        assert_eq!(options.hsts.value.as_ref().unwrap(), "max-age=60");
        assert!(options.forwarded.trusted && options.forwarded.proxies.len() == 2);
        assert!(!options.tls.v1_2 && options.tls.v1_3);
        assert_eq!(options.headers.for_clients[0].0, "x-team");
        assert!(options.blocked.user_agents.contains(b"Curl/8"));
        assert!(read.named.contains(&ObjectKey::new("infra", "extra")));
    }

    #[test]
    fn wrong_ones_are_named_and_leave_the_default() {
        let read = check(
            json!({
                "hsts-max-age": "long", "http-redirect-code": "200", "use-http2": "maybe",
                "ssl-protocols": "TLSv1 TLSv1.2", "use-gzip": "true", "unicorns": "true",
                "server-snippet": "deny all;", "proxy-read-timeout": "never",
                "add-headers": "elsewhere", "allow-snippet-annotations": "true",
            }),
            expect![[r#"
                ConfigMap infra/podium: data[add-headers]: value "elsewhere" is invalid (want the NAMESPACE/NAME of a ConfigMap); the default is used
                ConfigMap infra/podium: data[allow-snippet-annotations]: snippets are refused: there is no nginx to run them; use a typed option or annotation instead
                ConfigMap infra/podium: data[hsts-max-age]: value "long" is invalid (want a whole number); the default is used
                ConfigMap infra/podium: data[http-redirect-code]: value "200" is invalid (want 301, 302, 307 or 308); the default is used
                ConfigMap infra/podium: data[proxy-read-timeout]: value "never" is invalid (want a positive number of seconds); the default is used
                ConfigMap infra/podium: data[server-snippet]: snippets are refused: there is no nginx to run them; use a typed option or annotation instead
                ConfigMap infra/podium: data[ssl-protocols]: TLSv1 cannot be spoken any more; the others are
                ConfigMap infra/podium: data[unicorns]: is not an option of ingress-nginx and has no effect
                ConfigMap infra/podium: data[use-gzip]: answers are passed on as endpoints encode them; let endpoints compress them
                ConfigMap infra/podium: data[use-http2]: value "maybe" is invalid (want true or false); the default is used
            "#]],
        );
        assert!(read.options.tls.v1_2 && !read.options.tls.v1_3);
        assert_eq!(read.options.hsts, super::super::Hsts::default());
        assert!(read.options.tls.http2);
    }

    #[test]
    fn a_wrong_guard_keeps_what_was_right_or_closes() {
        check(
            json!({"whitelist-source-range": "10.0.0.0/8,nonsense"}),
            expect![[r#"
                ConfigMap infra/podium: data[whitelist-source-range]: the list holds an entry that is neither an address nor a network; all locations answer 503
                closed
            "#]],
        );
        let mut reader = reader();
        let good = reader.read(&world(&json!({"block-cidrs": "192.0.2.0/24"})));
        let wrong = reader.read(&world(&json!({"block-cidrs": "192.0.2.0/240"})));
        assert_eq!(good.options, wrong.options);
        assert!(wrong.problems[0].to_string().ends_with("what it said before stays in effect"));
        let gone = reader.read(&world(&json!({})));
        assert!(gone.options.blocked.sources.is_empty());
    }

    /// A value that is not the default, and one that is wrong, if any is.
    const VALUES: &[(&str, &str, &str)] = &[
        ("add-headers", "infra/extra", "nowhere"),
        ("allow-backend-server-header", "true", "x"),
        ("allow-cross-namespace-resources", "true", "x"),
        ("annotation-value-word-blocklist", "load_module", ""),
        ("annotations-risk-level", "Low", "x"),
        ("block-cidrs", "192.0.2.0/24", "x"),
        ("block-referers", "~bad", "~("),
        ("block-user-agents", "bad", "~("),
        ("client-body-timeout", "9", "x"),
        ("client-header-timeout", "9", "0"),
        ("compute-full-forwarded-for", "true", "x"),
        ("disable-access-log", "true", "x"),
        ("disable-http-access-log", "true", "x"),
        ("enable-access-log-for-default-backend", "true", "x"),
        ("enable-real-ip", "true", "x"),
        ("enable-underscores-in-headers", "true", "x"),
        ("forwarded-for-header", "x-client", "a b"),
        ("generate-request-id", "false", "x"),
        ("global-allowed-response-headers", "x-a", "a b"),
        ("hide-headers", "x-a", "a b"),
        ("hsts", "false", "x"),
        ("hsts-include-subdomains", "false", "x"),
        ("hsts-max-age", "9", "x"),
        ("hsts-preload", "true", "x"),
        ("http-redirect-code", "301", "200"),
        ("http2-max-concurrent-streams", "9", "0"),
        ("ignore-invalid-headers", "false", "x"),
        ("keep-alive", "9", "x"),
        ("keep-alive-requests", "9", "0"),
        ("limit-conn-status-code", "429", "200"),
        ("limit-req-status-code", "429", "200"),
        ("log-format-escape-json", "true", "x"),
        ("log-format-escape-none", "true", "x"),
        ("log-format-upstream", "$status", "$unicorn"),
        ("no-auth-locations", "/open", ""),
        ("no-tls-redirect-locations", "/open", ""),
        ("proxy-add-original-uri-header", "true", "x"),
        ("proxy-protocol-header-timeout", "9s", "x"),
        ("proxy-real-ip-cidr", "192.0.2.0/24", "x"),
        ("proxy-set-headers", "infra/extra", "nowhere"),
        ("retry-non-idempotent", "true", "x"),
        ("server-tokens", "true", "x"),
        ("skip-access-log-urls", "/health", "~("),
        ("ssl-ciphers", "ECDHE-RSA-AES128-GCM-SHA256", ""),
        ("ssl-protocols", "TLSv1.3", "SSLv3"),
        ("ssl-session-tickets", "true", "x"),
        ("upstream-keepalive-timeout", "9", "x"),
        ("use-forwarded-headers", "true", "x"),
        ("use-http2", "false", "x"),
        ("use-proxy-protocol", "true", "x"),
        ("worker-shutdown-timeout", "9s", "x"),
    ];

    #[test]
    fn every_option_of_its_own_is_read_and_checked() {
        let read = |name: &str, value: &str| reader().read(&world(&json!({ name: value })));
        for (name, good, wrong) in VALUES {
            let taken = read(name, good);
            let own = |problem: &Problem| problem.field == field(name);
            assert!(!taken.problems.iter().any(own), "{name}: {:?}", taken.problems);
            assert_ne!(taken.options, Options::default(), "{name}");
            if !wrong.is_empty() {
                let refused = read(name, wrong);
                assert!(refused.problems.iter().any(own), "{name}: {wrong:?} is taken");
            }
        }
        use super::super::table::ROWS;
        for row in ROWS {
            let listed = VALUES.iter().any(|(name, ..)| *name == row.name);
            let is_own = matches!(
                row.target,
                Target::Global(_) | Target::HeadersForClients | Target::HeadersForEndpoints
            );
            assert_eq!(listed, is_own && row.name != "allow-snippet-annotations", "{}", row.name);
        }
    }

    #[test]
    fn every_harmless_option_is_no_problem_and_every_refused_one_says_what_to_use() {
        use super::super::table::ROWS;
        for row in ROWS {
            let read = reader().read(&world(&json!({ row.name: "true" })));
            match row.target {
                Target::Harmless(_) => assert!(read.problems.is_empty(), "{}", row.name),
                Target::Refused(instead) => {
                    assert!(read.problems[0].message.contains(instead), "{}", row.name);
                    let off = reader().read(&world(&json!({ row.name: "false" })));
                    assert!(off.problems.is_empty(), "{}", row.name);
                }
                _ => {}
            }
        }
    }
}
