//! What ingress/*.go, defaultbackend/*.go and the features of ingress-controller-conformance check: which
//! rule a request meets, and what happens to one that meets none.

use crate::client::{Reply, Tls};
use crate::origin::Origin;
use crate::world::{Sheet, Site, World, service, shared, site};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

#[track_caller]
fn statuses(site: &Site, expected: &[(&str, u16)]) {
    for (path, status) in expected {
        site.get(path).send().is(*status);
    }
}

/// A site with one Service, called as the backend is, for each name.
fn serving(names: &[&str], sheet: impl Fn(&dyn Fn(&str) -> String) -> Sheet) -> Site {
    let site = shared().new_site();
    for name in names {
        site.with(name, service(&site.own(name), &[&Origin::start(name)]));
    }
    site.put(sheet(&|name| site.own(name)));
    site
}

#[test]
fn one_ingress_several_hosts() {
    let site = shared().new_site();
    let rule = |host: &str, service: &str| {
        json!({"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": service, "port": {"number": 80}}}}]}})
    };
    let (first, second) = (format!("first.{}", site.host), format!("second.{}", site.host));
    let rules = json!([rule(&first, "echo"), rule(&second, "other")]);
    site.put(Sheet::new("simh").spec("rules", rules));
    site.get("/exact").host(&first).send().from("echo");
    site.get("/exact").host(&second).send().from("other");
}

#[test]
fn pathtype_exact_beside_prefix() {
    let site = shared().new_site();
    site.put(Sheet::new("exact").path("/exact", "Exact", "echo"));
    site.put(Sheet::new("exact-suffix").path("/exact", "Prefix", "other"));
    site.get("/exact").send().from("echo");
    site.get("/exact/suffix").send().from("other");
    // The older Ingress keeps the path.
    site.put(Sheet::new("duplicated-prefix").path("/exact", "Prefix", "missing"));
    site.get("/exact").send().from("echo");
    site.get("/exact/suffix").send().from("other");
}

#[test]
fn pathtype_mixed() {
    let names = ["exact-root", "prefix-root", "exact-foo", "prefix-foo"];
    let site = serving(&names, |own| {
        Sheet::new("web")
            .path("/", "Exact", &own("exact-root"))
            .path("/", "Prefix", &own("prefix-root"))
            .path("/foo", "Exact", &own("exact-foo"))
            .path("/foo", "Prefix", &own("prefix-foo"))
    });
    for (path, expected) in [
        ("/", "exact-root"),
        ("/bar", "prefix-root"),
        ("/foo", "exact-foo"),
        ("/foo/bar", "prefix-foo"),
        ("/foobar", "prefix-root"),
    ] {
        site.get(path).send().from(expected);
    }
}

#[test]
fn pathtype_prefix_matches_elements() {
    for path_type in ["Prefix", "ImplementationSpecific"] {
        let site = shared().new_site();
        site.put(Sheet::new("web").path("/aaa", path_type, "echo"));
        statuses(&site, &[("/aaa", 200), ("/aaacccc", 404), ("/aaa/cccc", 200), ("/aaa/", 200)]);
    }
}

fn expression(path: &str, path_type: &str) -> Site {
    let site = shared().new_site();
    site.put(Sheet::new("web").set(&[("use-regex", "true")]).path(path, path_type, "echo"));
    site
}

#[test]
fn expressions_are_anchored_at_their_start_only() {
    let numbers =
        [("/id/1", 200), ("/id/12", 200), ("/id/aaa", 404), ("/id/123a", 200), ("/x/id/1", 404)];
    statuses(&expression("/id/[0-9]+", "Prefix"), &numbers);
    let ended = [("/id/1", 200), ("/id/aaa", 404), ("/id/123a", 404)];
    statuses(&expression("/id/[0-9]+$", "Prefix"), &ended);
    let sized = [("/id/99", 404), ("/id/123", 200), ("/id/9999", 404), ("/id/123a", 404)];
    statuses(&expression("/id/[0-9]{3}$", "Prefix"), &sized);
    let segments =
        [("/id/123/post/abc", 200), ("/id/123/post/abc123", 404), ("/id/abc/post/abc", 404)];
    statuses(&expression("/id/[0-9]+/post/[a-zA-Z]+$", "ImplementationSpecific"), &segments);
}

/// Paths are never part of a configuration text here; upstream drops the whole Ingress.
#[test]
fn deep_inspection_of_a_path_that_injects() {
    let site = shared().new_site();
    let injected = "/bla{alias /var/run/secrets/;}location ~* ^/abcd";
    site.put(Sheet::new("invalidregex").path(injected, "Prefix", "echo"));
    site.put(Sheet::new("valid").path("/xpto", "Prefix", "echo"));
    statuses(&site, &[("/xpto", 200), ("/bla", 404), ("/abcd/", 404)]);
}

#[test]
fn without_host() {
    let world = Arc::new(World::start(&[]));
    world.put("any", &Sheet::new("any").path("/", "Prefix", "echo").to_yaml("any", "", 0));
    world.get("", "/").host("127.0.0.1").send().from("echo");
    world.get("any.test", "/x").send().from("echo");
}

#[test]
fn a_rule_without_paths_uses_the_default_backend_of_its_ingress_for_its_host_only() {
    let site = shared().new_site();
    let annotated = Sheet::new("only-backend").set(&[("proxy-buffer-size", "8k")]);
    site.put(annotated.default_backend("echo"));
    site.get("/").send().from("echo");
    site.get("/x/y").send().from("echo");
    site.get("/").host(&format!("not.{}", site.host)).send().is(404);
}

#[test]
fn unmatched_paths_of_a_host_use_the_default_backend_of_its_ingress() {
    let site = shared().new_site();
    site.put(Sheet::new("web").path("/foo", "Prefix", "echo").default_backend("other"));
    site.get("/foo").send().from("echo");
    site.get("/bar").send().from("other");
}

#[test]
fn nothing_configured_is_404_for_everybody() {
    let world = Arc::new(World::start(&[]));
    for host in ["", "127.0.0.1", "foo.bar.com"] {
        for method in ["GET", "POST"] {
            for path in ["/", "/demo"] {
                let asked = crate::client::Request::new(world.podium.http, method, host, path);
                // A request without Host is not HTTP/1.1 at all.
                let expected = if host.is_empty() { 400 } else { 404 };
                asked.clone().send().is(expected);
                let server_name = if host == "foo.bar.com" { host.into() } else { String::new() };
                let tls = Tls { server_name, ..Tls::default() };
                asked.address(world.podium.https).tls(tls).send().is(expected);
            }
        }
    }
}

#[test]
fn custom_default_backend() {
    let world = Arc::new(World::start(&["--default-backend-service", "default/other"]));
    world.get("any.test", "/x").send().from("other");
    let site = world.new_site();
    site.put(Sheet::new("web").path("/foo", "Prefix", "echo"));
    site.get("/foo").send().from("echo");
    site.get("/bar").send().from("other");
}

/// The conformance feature "Default backend".
#[test]
fn conformance_default_backend() {
    let world = Arc::new(World::start(&[]));
    world.put("any", &Sheet::new("any").default_backend("echo").to_yaml("any", "", 0));
    for (method, host, path) in [
        ("GET", "my-host", "/"),
        ("GET", "my-host", "/sub-path"),
        ("POST", "some-host", "/"),
        ("PUT", "127.0.0.1", "/resource"),
        ("DELETE", "some-host", "/resource"),
        ("PATCH", "my-host", "/resource"),
    ] {
        let asked = crate::client::Request::new(world.podium.http, method, host, path);
        let reply = asked.header("User-Agent", "Go-http-client/1.1").send();
        reply.from("echo").saw_target(path).says(&format!("{method} {path} HTTP/1.1\n"));
        reply.saw("user-agent", "Go-http-client/1.1").saw("host", host);
        for header in ["content-length", "content-type", "date"] {
            reply.expect(!reply.header(header).is_empty(), &format!("header {header}"));
        }
    }
}

/// The conformance feature "Load Balancing".
#[test]
fn conformance_load_balancing() {
    let world = Arc::new(World::start(&[]));
    let pods: Vec<Origin> = (0..10).map(|n| Origin::start(&format!("pod-{n}"))).collect();
    let all: Vec<&Origin> = pods.iter().collect();
    let everything = Sheet::new("any").default_backend("scaled").to_yaml("any", "", 0);
    world.put("any", &format!("{everything}\n---\n{}", service("scaled", &all)));
    let seen: BTreeSet<String> = (0..100)
        .map(|_| world.get("load-balancing", "/").send().is(200).backend().to_string())
        .collect();
    assert_eq!(seen.len(), 10, "{seen:?}");
}

/// The conformance feature "Host rules".
#[test]
fn conformance_host_rules() {
    let site = shared().new_site();
    let host = site.host.clone();
    let port = |port: Value| json!({"service": {"name": site.own("svc"), "port": port}});
    let named = service(&site.own("svc"), &[&Origin::start("named")])
        .replace("\"ports\":[{\"port\":80}]", "\"ports\":[{\"name\":\"http\",\"port\":8080}]");
    let named = named.replace("\"ports\":[{\"port\":", "\"ports\":[{\"name\":\"http\",\"port\":");
    site.with("svc", named);
    site.with(
        "tls",
        crate::certificates::self_signed(&[&format!("foo.bar.{host}")]).secret(&site.own("tls")),
    );
    let rule = |host: String, backend: Value| json!({"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}});
    let rules = json!([
        rule(format!("*.foo.{host}"), json!({"service": {"name": "echo", "port": {"number": 80}}})),
        rule(format!("foo.bar.{host}"), port(json!({"name": "http"}))),
    ]);
    let tls = json!([{"hosts": [format!("foo.bar.{host}")], "secretName": site.own("tls")}]);
    let quiet = Sheet::new("host-rules").set(&[("ssl-redirect", "false")]);
    site.put(quiet.spec("rules", rules).spec("tls", tls));
    let ask = |name: &str| site.get("/").host(&format!("{name}.{host}")).send();
    let server_name = format!("foo.bar.{host}");
    let tls = Tls { server_name: server_name.clone(), ..Tls::default() };
    let reply = site.https("/").host(&server_name).tls(tls).send();
    reply.from("named").saw("host", &server_name);
    assert_eq!(
        crate::certificates::names(&reply.certificates[0]).1,
        std::slice::from_ref(&server_name)
    );
    ask("foo.bar").from("named").saw("host", &server_name);
    ask("bar.foo").from("echo").saw("host", &format!("bar.foo.{host}"));
    for other in ["subdomain.bar", "baz.bar.foo", "foo"] {
        ask(other).is(404);
    }
}

/// The conformance feature "Path rules".
#[test]
fn conformance_path_rules() {
    let names = [
        "foo-exact",
        "foo-prefix",
        "aaa-slash-bbb-prefix",
        "aaa-prefix",
        "slashed-prefix",
        "slashed-exact",
    ];
    let site = serving(&names, |own| {
        let backend = |name: &str| json!({"service": {"name": own(name), "port": {"number": 80}}});
        let path = |path: &str, kind: &str, name: &str| json!({"path": path, "pathType": kind, "backend": backend(name)});
        Sheet::new("path-rules").spec(
            "rules",
            json!([
                {"host": own("exact.test"), "http": {"paths": [path("/foo", "Exact", "foo-exact")]}},
                {"host": own("prefix.test"), "http": {"paths": [
                    path("/foo", "Prefix", "foo-prefix"),
                    path("/aaa/bbb", "Prefix", "aaa-slash-bbb-prefix"),
                    path("/aaa", "Prefix", "aaa-prefix"),
                ]}},
                {"host": own("mixed.test"), "http": {"paths": [
                    path("/foo", "Prefix", "foo-prefix"),
                    path("/foo", "Exact", "foo-exact"),
                ]}},
                {"host": own("slash.test"), "http": {"paths": [
                    path("/aaa/bbb/", "Prefix", "slashed-prefix"),
                    path("/foo/", "Exact", "slashed-exact"),
                ]}},
            ]),
        )
    });
    for (host, path, expected) in [
        ("exact.test", "/foo", "foo-exact"),
        ("exact.test", "/foo/", ""),
        ("exact.test", "/FOO", ""),
        ("exact.test", "/bar", ""),
        ("prefix.test", "/foo", "foo-prefix"),
        ("prefix.test", "/foo/", "foo-prefix"),
        ("prefix.test", "/FOO", ""),
        ("prefix.test", "/aaa/bbb", "aaa-slash-bbb-prefix"),
        ("prefix.test", "/aaa/bbb/ccc", "aaa-slash-bbb-prefix"),
        ("prefix.test", "/aaa/ccc", "aaa-prefix"),
        ("prefix.test", "/aaaccc", ""),
        ("mixed.test", "/foo", "foo-exact"),
        ("slash.test", "/aaa/bbb", "slashed-prefix"),
        ("slash.test", "/aaa/bbb/", "slashed-prefix"),
        ("slash.test", "/foo", ""),
        ("slash.test", "/foo/", "slashed-exact"),
    ] {
        let reply: Reply = site.get(path).host(&site.own(host)).send();
        if expected.is_empty() {
            reply.is(404);
        } else {
            reply.from(expected);
        }
    }
}

/// security/request_smuggling.go: what follows a body is not answered as part of it.
#[test]
fn request_smuggling_through_an_error_page() {
    let hidden = Origin::start("hidden");
    let authority = Origin::start("authority");
    let refusing = format!("http://{}/status/401", authority.address);
    let site = site(&[("auth-url", &refusing), ("auth-signin", "https://sign.test/in")]);
    let inside = shared().new_site();
    inside.with("svc", service(&inside.own("svc"), &[&hidden]));
    inside.put(Sheet::new("web").path("/_hidden/index.html", "Exact", &inside.own("svc")));
    let smuggled = format!("GET /_hidden/index.html HTTP/1.1\r\nHost: {}\r\n\r\n", inside.host);
    let reply = site.get("/echo").body(&smuggled).send();
    reply.is(302).expect(!reply.body.contains("hidden"), "nothing of the smuggled request");
    assert!(hidden.received().is_empty());
}
