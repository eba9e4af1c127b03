//! What annotations/affinity.go and affinitymode.go check of sessions kept by a cookie.

use crate::origin::Origin;
use crate::world::{Sheet, Site, World, service, shared, site};
use std::collections::BTreeSet;
use std::sync::Arc;

const STICKY: [(&str, &str); 2] = [("affinity", "cookie"), ("session-cookie-name", "SERVERID")];

fn sticky(more: &[(&str, &str)]) -> Vec<(&'static str, String)> {
    let all = STICKY.iter().chain(more);
    all.map(|(key, value)| (&*String::leak(key.to_string()), value.to_string())).collect()
}

fn sticky_site(path: &str, path_type: &str, more: &[(&str, &str)]) -> Site {
    let site = shared().new_site();
    let annotations = sticky(more);
    let pairs: Vec<(&str, &str)> = annotations.iter().map(|(k, v)| (*k, v.as_str())).collect();
    site.put(Sheet::new("web").set(&pairs).path(path, path_type, "echo"));
    site
}

/// The only cookie an answer sets.
#[track_caller]
fn cookie(site: &Site, target: &str) -> String {
    let reply = site.get(target).send();
    reply.from("echo").expect(reply.all("set-cookie").len() == 1, "one cookie");
    reply.header("set-cookie").to_string()
}

#[test]
fn sets_the_cookie_named() {
    let cookie = cookie(&sticky_site("/", "Prefix", &[]), "/");
    assert!(cookie.starts_with("SERVERID="), "{cookie}");
    assert!(cookie.contains("; Path=/") && cookie.contains("; HttpOnly"), "{cookie}");
}

#[test]
fn cookie_is_called_ingresscookie_by_default() {
    let cookie = cookie(&site(&[("affinity", "cookie")]), "/");
    assert!(cookie.starts_with("INGRESSCOOKIE="), "{cookie}");
}

#[test]
fn name_follows_a_changed_annotation() {
    let site = sticky_site("/", "Prefix", &[]);
    assert!(cookie(&site, "/").starts_with("SERVERID="));
    let renamed = [("affinity", "cookie"), ("session-cookie-name", "OTHERCOOKIENAME")];
    site.put(Sheet::new("web").set(&renamed).path("/", "Prefix", "echo"));
    assert!(cookie(&site, "/").starts_with("OTHERCOOKIENAME="));
}

#[test]
fn path_is_that_of_the_rule() {
    let cookie = cookie(&sticky_site("/something", "Prefix", &[]), "/something");
    assert!(cookie.contains("; Path=/something"), "{cookie}");
}

#[test]
fn each_rule_of_a_service_has_its_own_path() {
    let site = shared().new_site();
    let both = Sheet::new("web").set(&STICKY).path("/something", "Prefix", "echo");
    site.put(both.path("/somewhereelse", "Prefix", "echo"));
    assert!(cookie(&site, "/something").contains("; Path=/something"));
    assert!(cookie(&site, "/somewhereelse").contains("; Path=/somewhereelse"));
}

#[test]
fn expires_and_max_age() {
    let ages = [("session-cookie-expires", "172800"), ("session-cookie-max-age", "259200")];
    let site = sticky_site("/", "Prefix", &ages);
    let expiry = || {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(48);
        at.strftime("; Expires=%a, %d-%b-%y %H:%M").to_string()
    };
    let (before, cookie, after) = (expiry(), cookie(&site, "/"), expiry());
    assert!(cookie.contains(&before) || cookie.contains(&after), "{cookie}, not {before}");
    assert!(cookie.contains("; Max-Age=259200"), "{cookie}");
}

#[test]
fn domain() {
    let with = cookie(&sticky_site("/", "Prefix", &[("session-cookie-domain", "foo.bar")]), "/");
    assert!(with.contains("; Domain=foo.bar"), "{with}");
    let without = cookie(&sticky_site("/", "Prefix", &[]), "/");
    assert!(!without.contains("Domain"), "{without}");
}

#[test]
fn samesite() {
    let strict = cookie(&sticky_site("/", "Prefix", &[("session-cookie-samesite", "Strict")]), "/");
    assert!(strict.contains("; SameSite=Strict"), "{strict}");
}

#[test]
fn samesite_none_is_kept_from_browsers_that_misread_it() {
    let conditional =
        [("session-cookie-samesite", "None"), ("session-cookie-conditional-samesite-none", "true")];
    let site = sticky_site("/", "Prefix", &conditional);
    let old = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
               Chrome/56.0.2924.87 Safari/537.36";
    let reply = site.get("/").header("User-Agent", old).send();
    reply.expect(!reply.header("set-cookie").contains("SameSite"), "no SameSite");
    let new = old.replace("56.0.2924.87", "120.0.0.0");
    let reply = site.get("/").header("User-Agent", &new).send();
    reply.expect(reply.header("set-cookie").contains("; SameSite=None"), "SameSite=None");
}

#[test]
fn a_path_of_its_own_with_use_regex() {
    let own = [("use-regex", "true"), ("session-cookie-path", "/foo/bar")];
    let site = sticky_site("/foo/.*", "ImplementationSpecific", &own);
    let cookie = cookie(&site, "/foo/bar");
    assert!(cookie.contains("; Path=/foo/bar") && cookie.contains("SERVERID="), "{cookie}");
}

#[test]
fn use_regex_without_a_path_of_its_own_still_serves() {
    let site = sticky_site("/foo/.*", "ImplementationSpecific", &[("use-regex", "true")]);
    site.get("/foo/bar").send().from("echo");
}

#[test]
fn other_ingresses_of_the_host_set_no_cookie() {
    let site = shared().new_site();
    site.put(Sheet::new("one").set(&STICKY).path("/foo/bar", "Prefix", "echo"));
    site.put(Sheet::new("two").path("/foo", "Prefix", "echo"));
    site.get("/foo").send().from("echo").lacks("set-cookie");
    assert!(cookie(&site, "/foo/bar").contains("; Path=/foo/bar"));
}

#[test]
fn rules_without_a_host() {
    let world = Arc::new(World::start(&[]));
    let everything = Sheet::new("any").set(&STICKY).path("/", "Prefix", "echo");
    world.put("any", &everything.to_yaml("any", "", 0));
    let reply = world.get("whatever.test", "/").send();
    reply.from("echo").expect(reply.header("set-cookie").starts_with("SERVERID="), "the cookie");
}

#[test]
fn aliases_have_it_too() {
    let site = shared().new_site();
    let (one, two) = (format!("a1.{}", site.host), format!("a2.{}", site.host));
    let aliases = format!("{one},{two}");
    let sheet = Sheet::new("web").set(&STICKY).set(&[("server-alias", &aliases)]);
    site.put(sheet.path("/bar", "Prefix", "echo"));
    for host in [&site.host, &one, &two] {
        let reply = site.get("/bar").host(host).send();
        reply.from("echo").expect(reply.header("set-cookie").starts_with("SERVERID="), "a cookie");
    }
}

#[test]
fn secure_when_told_so_or_over_https() {
    let secure = |value| sticky_site("/bar", "Prefix", &[("session-cookie-secure", value)]);
    assert!(cookie(&secure("true"), "/bar").contains("; Secure"));
    assert!(!cookie(&secure("false"), "/bar").contains("Secure"));
    // Over HTTPS `false` does not take it away.
    let reply = secure("false").https("/bar").send();
    reply.from("echo").expect(reply.header("set-cookie").contains("; Secure"), "a secure cookie");
}

/// A site of its own Service with this many endpoints.
fn scaled(annotations: &[(&str, &str)], count: usize) -> (Site, Vec<Origin>) {
    let site = shared().new_site();
    let origins: Vec<Origin> = (0..count).map(|n| Origin::start(&format!("pod-{n}"))).collect();
    scale(&site, &origins);
    site.put(Sheet::new("web").set(annotations).path("/", "Prefix", &site.own("svc")));
    (site, origins)
}

fn scale(site: &Site, origins: &[Origin]) {
    let endpoints: Vec<&Origin> = origins.iter().collect();
    site.with("svc", service(&site.own("svc"), &endpoints));
}

const AGES: [(&str, &str); 2] =
    [("session-cookie-expires", "172800"), ("session-cookie-max-age", "172800")];

#[test]
fn mode_balanced_keeps_a_session_and_spreads_sessions() {
    let (site, _pods) = scaled(&[&STICKY[..], &[("affinity-mode", "balanced")], &AGES].concat(), 5);
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let first = site.get("/").send();
        let value = first.is(200).cookie("SERVERID").unwrap().to_string();
        seen.insert(first.backend().to_string());
        for _ in 0..3 {
            let again = site.get("/").cookie("SERVERID", &value).send();
            again.from(first.backend()).lacks("set-cookie");
        }
    }
    assert!(seen.len() > 1, "sessions are spread: {seen:?}");
}

#[test]
fn mode_persistent_keeps_sessions_while_endpoints_come_and_go() {
    let mode = [&STICKY[..], &[("affinity-mode", "persistent")], &AGES].concat();
    let (site, mut pods) = scaled(&mode, 5);
    let first = site.get("/").send();
    let value = first.is(200).cookie("SERVERID").unwrap().to_string();
    for extra in 0..5 {
        pods.push(Origin::start(&format!("more-{extra}")));
        scale(&site, &pods);
        site.write();
        site.get("/").cookie("SERVERID", &value).send().from(first.backend());
    }
    scale(&site, &[]);
    site.write();
    site.get("/").cookie("SERVERID", &value).send().is(503);
    scale(&site, &[Origin::start("new-0"), Origin::start("new-1")]);
    site.write();
    let reply = site.get("/").cookie("SERVERID", &value).send();
    reply.is(200).expect(reply.backend().starts_with("new-"), "a new endpoint");
    reply.expect(reply.cookie("SERVERID").is_some(), "a new cookie");
}

#[test]
fn an_unknown_cookie_is_replaced_where_sessions_persist() {
    let persistent = [&STICKY[..], &[("affinity-mode", "persistent")]].concat();
    let (site, _pods) = scaled(&persistent, 3);
    let reply = site.get("/").cookie("SERVERID", "nonsense").send();
    let value = reply.is(200).cookie("SERVERID").expect("a new cookie").to_string();
    site.get("/").cookie("SERVERID", &value).send().from(reply.backend());
}

/// Balanced sessions hash the cookie, whatever it says.
#[test]
fn any_cookie_leads_to_one_endpoint_where_sessions_are_balanced() {
    let (site, _pods) = scaled(&STICKY, 3);
    let first = site.get("/").cookie("SERVERID", "nonsense").send();
    for _ in 0..5 {
        site.get("/").cookie("SERVERID", "nonsense").send().from(first.is(200).backend());
    }
}
