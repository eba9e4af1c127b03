//! What annotations/canary.go checks: who reaches the variant of a rule.

use crate::client::{Reply, Request};
use crate::world::{Sheet, Site, World, shared};
use std::collections::BTreeMap;
use std::sync::Arc;

const BY_HEADER: &[(&str, &str)] = &[("canary-by-header", "CanaryByHeader")];

fn main_line() -> Sheet {
    Sheet::new("main").path("/info", "Prefix", "echo")
}

fn variant(annotations: &[(&str, &str)]) -> Sheet {
    Sheet::new("variant")
        .set(&[("canary", "true")])
        .set(annotations)
        .path("/info", "Prefix", "other")
}

/// A rule with its variant.
fn with_variant(annotations: &[(&str, &str)]) -> Site {
    let site = shared().new_site();
    site.put(main_line());
    site.put(variant(annotations));
    site
}

fn info(site: &Site, header: &str, value: &str) -> Reply {
    site.get("/info").header(header, value).send()
}

#[test]
fn others_stay_on_the_main_line() {
    with_variant(BY_HEADER).get("/info").send().from("echo");
}

#[test]
fn a_variant_of_nothing_is_404() {
    let site = shared().new_site();
    site.put(variant(BY_HEADER));
    info(&site, "CanaryByHeader", "always").is(404);
}

#[test]
fn whichever_came_first() {
    let later = shared().new_site();
    later.put(variant(BY_HEADER));
    later.put(main_line());
    for site in [with_variant(BY_HEADER), later] {
        info(&site, "CanaryByHeader", "never").from("echo");
        info(&site, "CanaryByHeader", "always").from("other");
    }
}

#[test]
fn after_a_change_of_either() {
    let site = with_variant(BY_HEADER);
    site.put(main_line().annotate("foo", "bar"));
    info(&site, "CanaryByHeader", "never").from("echo");
    info(&site, "CanaryByHeader", "always").from("other");
    site.put(variant(&[("canary-by-header", "CanaryByHeader2")]));
    info(&site, "CanaryByHeader2", "never").from("echo");
    info(&site, "CanaryByHeader2", "always").from("other");
    info(&site, "CanaryByHeader", "always").from("echo");
}

#[test]
fn by_header_alone() {
    let site = with_variant(BY_HEADER);
    info(&site, "CanaryByHeader", "always").from("other");
    info(&site, "canarybyheader", "always").from("other");
    info(&site, "CanaryByHeader", "never").from("echo");
    info(&site, "CanaryByHeader", "badheadervalue").from("echo");
}

#[test]
fn by_header_and_value() {
    let site = with_variant(&[BY_HEADER, &[("canary-by-header-value", "DoCanary")]].concat());
    info(&site, "CanaryByHeader", "DoCanary").from("other");
    for value in ["always", "never", "otherheadervalue", "docanary"] {
        info(&site, "CanaryByHeader", value).from("echo");
    }
}

const PATTERN: (&str, &str) = ("canary-by-header-pattern", "^Do[A-Z][a-z]+y$");

#[test]
fn by_header_and_pattern() {
    let site = with_variant(&[BY_HEADER, &[PATTERN]].concat());
    info(&site, "CanaryByHeader", "DoCanary").from("other");
    info(&site, "CanaryByHeader", "Docanary").from("echo");
}

#[test]
fn a_value_silences_the_pattern() {
    let both = [BY_HEADER, &[PATTERN, ("canary-by-header-value", "DoCanary")]].concat();
    let site = with_variant(&both);
    info(&site, "CanaryByHeader", "DoCananry").from("echo");
    info(&site, "CanaryByHeader", "DoCanary").from("other");
}

#[test]
fn a_broken_pattern_matches_nothing() {
    let broken = [
        BY_HEADER,
        &[("canary-by-header-pattern", "[][**da?$&*"), ("canary-by-cookie", "CanaryByCookie")],
    ];
    let site = with_variant(&broken.concat());
    let asked = site.get("/info").header("CanaryByHeader", "DoCanary");
    asked.cookie("CanaryByCookie", "always").send().from("echo");
}

#[test]
fn a_header_that_decides_nothing_leaves_it_to_the_cookie() {
    let both = [("canary-by-header-value", "DoCanary"), ("canary-by-cookie", "CanaryByCookie")];
    let site = with_variant(&[BY_HEADER, &both].concat());
    let asked = site.get("/info").header("CanaryByHeader", "otherheadervalue");
    asked.cookie("CanaryByCookie", "always").send().from("other");
}

#[test]
fn by_cookie() {
    let site = with_variant(&[("canary-by-cookie", "Canary-By-Cookie")]);
    for _ in 0..20 {
        for (value, expected) in [("always", "other"), ("never", "echo"), ("badvalue", "echo")] {
            site.get("/info").cookie("Canary-By-Cookie", value).send().from(expected);
        }
    }
}

#[test]
fn by_weight_none_and_all() {
    for (weights, expected) in [
        (&[("canary-weight", "0")][..], "echo"),
        (&[("canary-weight", "100")], "other"),
        (&[("canary-weight", "1000"), ("canary-weight-total", "1000")], "other"),
    ] {
        let site = with_variant(weights);
        for _ in 0..20 {
            site.get("/info").send().from(expected);
        }
    }
}

/// How 200 requests were shared out where half should go to the variant: each gets 40 percent at least.
/// (Fewer than 80 of 200 fair choices happen once in 500; the limit here is 60, once in a hundred million.)
#[track_caller]
fn halves(request: impl Fn() -> Request) {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..200 {
        *counts.entry(request().send().is(200).backend().to_string()).or_default() += 1;
    }
    assert!(counts.len() == 2 && counts.values().all(|count| *count >= 60), "{counts:?}");
}

#[test]
fn by_weight_half() {
    for weights in [
        &[("canary-weight", "50")][..],
        &[("canary-weight", "100"), ("canary-weight-total", "200")],
    ] {
        let site = with_variant(weights);
        halves(|| site.get("/info"));
    }
}

#[test]
fn a_variant_is_not_the_catch_all() {
    let world = Arc::new(World::start(&[]));
    let variant = Sheet::new("variant").set(&[("canary", "true")]).set(BY_HEADER);
    let variant = variant.default_backend("other").to_yaml("variant", "", 0);
    let main_line = Sheet::new("main").default_backend("echo").to_yaml("main", "", 1);
    world.put("any", &format!("{variant}\n---\n{main_line}"));
    world.get("any.test", "/").send().from("echo");
}

#[test]
fn a_variant_makes_no_host() {
    let site = shared().new_site();
    site.put(variant(BY_HEADER));
    site.get("/info").send().is(404);
    site.get("/").send().is(404);
}

#[test]
fn several_paths_without_a_main_line_harm_nothing() {
    let site = shared().new_site();
    let lost = Sheet::new("variant").set(&[("canary", "true")]).set(BY_HEADER);
    site.put(lost.path("/foo", "Prefix", "missing").path("/bar", "Prefix", "missing"));
    site.put(main_line());
    site.get("/info").send().from("echo");
    info(&site, "CanaryByHeader", "always").from("echo");
    site.get("/foo").send().is(404);
}

#[test]
fn a_variant_without_endpoints_leaves_all_to_the_main_line() {
    let site = shared().new_site();
    site.put(main_line());
    let empty = Sheet::new("variant").set(&[("canary", "true")]).set(BY_HEADER);
    site.put(empty.path("/info", "Prefix", "missing"));
    info(&site, "CanaryByHeader", "never").from("echo");
    info(&site, "CanaryByHeader", "always").from("echo");
}

#[test]
fn a_main_line_without_endpoints_is_503_whatever_the_variant_has() {
    let site = shared().new_site();
    site.put(Sheet::new("main").path("/info", "Prefix", "missing"));
    site.put(variant(BY_HEADER));
    info(&site, "CanaryByHeader", "never").is(503);
    info(&site, "CanaryByHeader", "always").is(503);
}

/// A rule kept by a cookie, with a variant that `ForceCanary: yes` reaches.
fn kept(more: &[(&str, &str)]) -> Site {
    let site = shared().new_site();
    let cookie = [("affinity", "cookie"), ("session-cookie-name", "aff")];
    site.put(main_line().set(&cookie));
    let forced = [("canary-by-header", "ForceCanary"), ("canary-by-header-value", "yes")];
    site.put(variant(&[&forced, more].concat()));
    site
}

#[test]
fn a_session_that_began_on_the_variant_stays_there() {
    for behaviour in [&[][..], &[("affinity-canary-behavior", "sticky")]] {
        let site = kept(&[&[("canary-weight", "1")], behaviour].concat());
        let forced = info(&site, "ForceCanary", "yes");
        let value = forced.from("other").cookie("aff").expect("a cookie").to_string();
        for _ in 0..50 {
            site.get("/info").cookie("aff", &value).send().from("other");
        }
    }
}

#[test]
fn legacy_sessions_do_not_bind_to_the_variant() {
    let site = kept(&[("canary-weight", "50"), ("affinity-canary-behavior", "legacy")]);
    let forced = info(&site, "ForceCanary", "yes");
    forced.from("other").expect(forced.cookie("aff").is_none(), "no cookie");
    halves(|| site.get("/info"));
}

#[test]
fn settings_come_from_the_main_line() {
    let site = shared().new_site();
    site.put(main_line().set(&[("upstream-vhost", "main.test")]));
    let own = [("upstream-vhost", "variant.test"), ("auth-url", "http://127.0.0.1:1/")];
    site.put(variant(&[BY_HEADER, &own].concat()));
    info(&site, "CanaryByHeader", "always").from("other").saw("host", "main.test");
}
