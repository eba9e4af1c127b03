//! What annotations/cors.go checks: which origins are answered, and with which headers.

use crate::client::Reply;
use crate::world::site;

const ALLOW_ORIGIN: &str = "access-control-allow-origin";

fn enabled<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("enable-cors", "true")], more].concat()
}

/// The answer for an origin where these are allowed.
fn answer(allowed: &str, origin: &str) -> Reply {
    site(&enabled(&[("cors-allow-origin", allowed)])).get("/").header("Origin", origin).send()
}

#[track_caller]
fn admits(allowed: &str, origins: &[&str]) {
    for origin in origins {
        answer(allowed, origin).from("echo").has(ALLOW_ORIGIN, origin);
    }
}

/// The client gets its answer; it is for the browser to refuse it.
#[track_caller]
fn ignores(allowed: &str, origins: &[&str]) {
    for origin in origins {
        let reply = answer(allowed, origin);
        reply.from("echo").lacks(ALLOW_ORIGIN).lacks("access-control-allow-credentials");
    }
}

#[test]
fn defaults() {
    let site = site(&enabled(&[]));
    for reply in [site.get("/").send(), site.request("OPTIONS", "/").send()] {
        reply
            .has(ALLOW_ORIGIN, "*")
            .has("access-control-allow-credentials", "true")
            .has("access-control-allow-methods", "GET, PUT, POST, DELETE, PATCH, OPTIONS")
            .has(
                "access-control-allow-headers",
                "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,\
                 Content-Type,Range,Authorization",
            )
            .has("access-control-max-age", "1728000")
            .lacks("access-control-expose-headers");
    }
}

#[test]
fn preflight_is_answered_without_the_endpoint() {
    let site = site(&enabled(&[]));
    let reply = site.request("OPTIONS", "/x").header("Origin", "https://a.test").send();
    reply.is(204).expect(reply.body.is_empty(), "no body").has("content-length", "0");
}

#[test]
fn off_by_default_and_when_false() {
    for annotations in [&[][..], &[("enable-cors", "false"), ("cors-allow-origin", "*")]] {
        let site = site(annotations);
        site.get("/").header("Origin", "https://a.test").send().from("echo").lacks(ALLOW_ORIGIN);
        site.request("OPTIONS", "/").send().from("echo");
    }
}

#[test]
fn methods() {
    let site = site(&enabled(&[("cors-allow-methods", "POST, GET")]));
    site.get("/").send().from("echo").has("access-control-allow-methods", "POST, GET");
}

#[test]
fn max_age() {
    let site = site(&enabled(&[("cors-max-age", "200")]));
    site.get("/").send().from("echo").has("access-control-max-age", "200");
}

#[test]
fn no_credentials() {
    let site = site(&enabled(&[("cors-allow-credentials", "false")]));
    site.get("/").send().from("echo").lacks("access-control-allow-credentials");
}

#[test]
fn headers() {
    let site = site(&enabled(&[("cors-allow-headers", "DNT, User-Agent")]));
    site.get("/").send().from("echo").has("access-control-allow-headers", "DNT, User-Agent");
}

#[test]
fn exposed_headers() {
    let exposed = "X-CustomResponseHeader, X-CustomSecondHeader";
    let site = site(&enabled(&[("cors-expose-headers", exposed)]));
    site.get("/").send().from("echo").has("access-control-expose-headers", exposed);
}

#[test]
fn one_origin() {
    admits("https://origin.cors.com:8080", &["https://origin.cors.com:8080"]);
}

#[test]
fn one_of_several_origins() {
    let several = "https://origin.cors.com:8080, https://origin2.cors.com";
    admits(several, &["https://origin.cors.com:8080", "https://origin2.cors.com"]);
    ignores("http://origin2.cors.com, https://origin.com", &["http://no.origin.com"]);
}

#[test]
fn an_entry_that_is_no_origin_is_left_out() {
    let mixed = "origin.cors.com:8080, https://origin2.cors.com, https://origin.com";
    ignores(mixed, &["origin.cors.com:8080"]);
    admits(mixed, &["https://origin2.cors.com", "https://origin.com"]);
}

#[test]
fn a_star_alone_or_among_others_admits_all() {
    for allowed in ["*", "*, foo.bar.com"] {
        let site = site(&enabled(&[("cors-allow-origin", allowed)]));
        site.get("/").send().from("echo").has(ALLOW_ORIGIN, "*");
        answer(allowed, "https://any.test").from("echo").has(ALLOW_ORIGIN, "*");
    }
}

#[test]
fn a_dot_is_a_dot() {
    ignores("https://foo.bar.com", &["https://fooxbar.com"]);
}

/// Upstream compares the end only, so that `xhttps://foo.bar.com` is admitted; we do not.
#[test]
fn the_beginning_and_the_end_count() {
    ignores("https://foo.bar.com", &["https://foo.bar.com.evil.test", "xhttps://foo.bar.com"]);
    ignores("https://*.bar.com", &["https://a.bar.com.evil.test", "https://evil.test/.bar.com"]);
}

#[test]
fn ports_count() {
    admits("http://origin.cors.com:8080, http://origin.com:8080", &["http://origin.com:8080"]);
    ignores("https://origin2.cors.com, http://origin.com", &["http://origin.com:8080"]);
    ignores("http://origin.cors.com:8080, http://origin.com:8080", &["http://origin.com"]);
}

const WILD: &str = "http://*.origin.cors.com, http://*.origin.com:8080";

#[test]
fn a_wildcard_is_one_label() {
    admits(WILD, &["http://foo.origin.cors.com", "http://bar-foo.origin.cors.com"]);
    ignores(WILD, &["http://bar.foo.origin.cors.com", "http://origin.cors.com"]);
}

#[test]
fn a_wildcard_with_a_port() {
    admits(WILD, &["http://abc.origin.com:8080"]);
    ignores(WILD, &["http://abc.origin.com", "http://origin.com:8080"]);
}

#[test]
fn blank_is_all() {
    for origin in ["http://origin.com", "http://book.origin.com", "test.origin.com"] {
        answer("      ", origin).from("echo").has(ALLOW_ORIGIN, "*");
    }
}

#[test]
fn empty_entries_are_not_all() {
    let gaps = "https://origin-123.cors.com:8080,   ,https://origin-321.cors.com:8080,";
    admits(gaps, &["https://origin-123.cors.com:8080", "https://origin-321.cors.com:8080"]);
    ignores(gaps, &["https://unknown.cors.com:8080"]);
}

#[test]
fn origins_of_other_schemes() {
    let others = "test://localhost, tauri://localhost:3000";
    admits(others, &["test://localhost", "tauri://localhost:3000"]);
}
