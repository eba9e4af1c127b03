//! What rewrite.go, xforwardedprefix.go, upstreamvhost.go, alias.go and connection.go check (all in
//! annotations): what endpoints see, and under which names.

use crate::world::{Sheet, shared, site};

#[test]
fn everything_becomes_the_target() {
    let site = shared().new_site();
    let sheet = Sheet::new("web").set(&[("rewrite-target", "/"), ("enable-rewrite-log", "true")]);
    site.put(sheet.path("/something", "Prefix", "echo"));
    site.get("/something").send().saw_target("/");
}

#[test]
fn the_longest_path_wins_and_keeps_its_own_rewriting() {
    let site = shared().new_site();
    let challenge = "/.well-known/acme/challenge";
    site.put(Sheet::new("kube-lego").path(challenge, "Prefix", "echo"));
    site.get(challenge).send().saw_target(challenge);
    let rewriting = Sheet::new("rewrite").set(&[("rewrite-target", "/new/backend")]);
    site.put(rewriting.path("/", "Prefix", "echo"));
    site.get(challenge).send().saw_target(challenge);
    site.get("/x").send().saw_target("/new/backend");
}

const REGEX: [(&str, &str); 2] = [("use-regex", "true"), ("rewrite-target", "/new/backend")];

#[test]
fn expressions_beside_plain_paths() {
    let site = shared().new_site();
    site.put(Sheet::new("plain").path("/foo", "Prefix", "echo"));
    site.put(Sheet::new("regex").set(&REGEX).path("/foo.+", "ImplementationSpecific", "echo"));
    site.get("/foo").send().saw_target("/foo");
    site.get("/foo/bar").send().saw_target("/new/backend");
}

#[test]
fn a_longer_text_wins_even_where_another_path_fits_better() {
    let site = shared().new_site();
    site.put(Sheet::new("plain").path("/foo/bar/bar", "Prefix", "echo"));
    let regex = Sheet::new("regex").set(&REGEX);
    site.put(regex.path("/foo/bar/[a-z]{3}", "ImplementationSpecific", "echo"));
    site.get("/foo/bar/bar").send().saw_target("/new/backend");
}

#[test]
fn captures() {
    let site = shared().new_site();
    let target = [("use-regex", "true"), ("rewrite-target", "/new/backend/$1")];
    let sheet = Sheet::new("regex").set(&target);
    site.put(sheet.path("/foo/bar/(.+)", "ImplementationSpecific", "echo"));
    site.get("/foo/bar/bar").send().saw_target("/new/backend/bar");
    site.get("/foo/bar/bar?a=b").send().saw_target("/new/backend/bar?a=b");
}

#[test]
fn x_forwarded_prefix() {
    let site = site(&[("x-forwarded-prefix", "/test/value"), ("rewrite-target", "/foo")]);
    site.get("/").send().saw_target("/foo").saw("x-forwarded-prefix", "/test/value");
}

#[test]
fn x_forwarded_prefix_empty() {
    let site = site(&[("x-forwarded-prefix", ""), ("rewrite-target", "/foo")]);
    site.get("/").send().saw_target("/foo").saw_no("x-forwarded-prefix");
}

#[test]
fn x_forwarded_prefix_needs_a_rewrite() {
    site(&[("x-forwarded-prefix", "/test/value")]).get("/").send().saw_no("x-forwarded-prefix");
}

#[test]
fn upstream_vhost() {
    let site = site(&[("upstream-vhost", "upstreamvhost.bar.com")]);
    let reply = site.get("/").send();
    reply.from("echo").saw("host", "upstreamvhost.bar.com").saw("x-forwarded-host", &site.host);
}

#[test]
fn connection_proxy_header() {
    site(&[("connection-proxy-header", "keep-alive")])
        .get("/")
        .send()
        .from("echo")
        .saw("connection", "keep-alive");
}

#[test]
fn server_alias_none() {
    let site = site(&[]);
    site.get("/").send().from("echo").saw("host", &site.host);
    site.get("/").host(&format!("alias.{}", site.host)).send().is(404).says("404 Not Found");
}

#[test]
fn server_alias_of_one_ingress() {
    let site = shared().new_site();
    let alias = format!("alias.{}", site.host);
    let sheet = Sheet::new("web").set(&[("server-alias", &alias)]);
    site.put(sheet.path("/", "Prefix", "echo"));
    for host in [&site.host, &alias] {
        site.get("/").host(host).send().from("echo").saw("host", host);
    }
}

#[test]
fn server_alias_of_one_of_two_ingresses_is_for_the_host() {
    let site = shared().new_site();
    let alias = format!("alias.{}", site.host);
    site.put(Sheet::new("app-a").path("/app-a", "Prefix", "echo"));
    let second = Sheet::new("app-b").set(&[("server-alias", &alias)]);
    site.put(second.path("/app-b", "Prefix", "echo"));
    for host in [&site.host, &alias] {
        site.get("/app-a").host(host).send().from("echo").saw("host", host);
        site.get("/app-b").host(host).send().from("echo").saw("host", host);
    }
}

#[test]
fn server_alias_does_not_take_a_host_with_rules_of_its_own() {
    let first = site(&[]);
    let second = site(&[("server-alias", &first.host)]);
    first.get("/").send().from("echo");
    second.get("/").send().from("echo");
}
