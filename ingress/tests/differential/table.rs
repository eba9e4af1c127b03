//! Cases worth naming: what users of ingress-nginx write, and what clients send to trip a proxy.

use crate::client::{Body, Request};
use crate::description::{Annotations, Ingress, Kind, World, ingress};
use Kind::{Exact, ImplementationSpecific, Prefix};

type Case = (&'static str, World, Vec<Request>);

fn world(ingresses: &[Ingress]) -> World {
    World { ingresses: ingresses.to_vec() }
}

fn gets(host: &str, targets: &[&str]) -> Vec<Request> {
    targets.iter().map(|target| Request::get(host, target)).collect()
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(paths());
    cases.extend(hosts());
    cases.extend(rewrites());
    cases.extend(headers());
    cases.extend(redirects());
    cases.extend(guards());
    cases.extend(targets());
    cases
}

fn paths() -> Vec<Case> {
    let sent = gets(
        "a.example",
        &[
            "/",
            "/foo",
            "/foo/",
            "/foo/x",
            "/foobar",
            "/FOO",
            "/foo/bar",
            "/foo/bar/",
            "/foo/barx",
            "/fo",
            "/spec",
            "/spec/x",
            "/specx",
            "/exact",
            "/exact/",
            "/exact/x",
            "/slash",
            "/slash/",
            "/slash/x",
            "/slashx",
            "/both",
            "/both/",
            "/both/x",
            "/gone",
            "/nowhere",
        ],
    );
    let rules: &[(&str, Kind, &'static str)] = &[
        ("/foo", Prefix, "one"),
        ("/foo/bar", Prefix, "two"),
        ("/spec", ImplementationSpecific, "three"),
        ("/exact", Exact, "one"),
        ("/slash/", Prefix, "two"),
        ("/both", Exact, "one"),
        ("/both", Prefix, "two"),
        ("/gone", Prefix, "empty"),
    ];
    vec![
        ("path types", world(&[ingress("a.example", rules)]), sent.clone()),
        (
            "path types beside an expression",
            world(&[
                ingress("a.example", rules),
                ingress("a.example", &[("/fo+$", ImplementationSpecific, "three")])
                    .with(|annotations| annotations.use_regex = true),
            ]),
            sent.clone(),
        ),
        (
            "a default backend of the Ingress",
            world(&[Ingress { default_backend: Some("three"), ..ingress("a.example", rules) }]),
            sent.clone(),
        ),
        (
            "a default backend of its own",
            world(&[
                Ingress { default_backend: Some("three"), ..Ingress::default() },
                ingress("a.example", &[("/foo", Prefix, "one")]),
            ]),
            [sent, gets("b.example", &["/", "/foo", "/x?y"])].concat(),
        ),
    ]
}

fn hosts() -> Vec<Case> {
    let all = world(&[
        ingress("a.example", &[("/", Prefix, "one")]),
        ingress("*.wild.example", &[("/", Prefix, "two")]),
        ingress("x.wild.example", &[("/x", Prefix, "one")]),
        ingress("", &[("/any", Prefix, "three")]),
    ]);
    let names = [
        "a.example",
        "A.EXAMPLE",
        "a.example:80",
        "a.example:8080",
        "a.example:",
        "a.example.",
        "a.example.:80",
        "k.wild.example",
        "K.Wild.Example:1",
        "k.l.wild.example",
        "wild.example",
        ".wild.example",
        "x.wild.example",
        "x_y.wild.example",
        "-.wild.example",
        "127.0.0.1",
        "[::1]",
        "[::1]:8080",
        "b.example",
        "_",
        "a..example",
        "a.example/x",
        "a.example?x",
        "a.example#x",
        "user@a.example",
        "a example",
        "",
        ".",
        "..",
        "a.example:x",
        "xn--bcher-kva.example",
        "a!b.wild.example",
        "a.example,b.example",
        "a.example\\x",
        "%61.example",
    ];
    let mut sent: Vec<Request> = names
        .iter()
        .flat_map(|name| [Request::get(name, "/any"), Request::get(name, "/x")])
        .collect();
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        sent.push(Request { host: None, version, ..Request::get("", "/any") });
        sent.push(Request { version, ..Request::get("a.example", "/any") });
    }
    let catch_all = world(&[
        ingress("", &[("/", Prefix, "one")]),
        Ingress { default_backend: Some("three"), ..Ingress::default() },
    ]);
    vec![
        ("names of hosts", all, sent),
        ("a rule without a host beside a catch-all", catch_all, gets("a.example", &["/", "/x"])),
    ]
}

fn rewrites() -> Vec<Case> {
    let rewrite = |path: &str, target: &str| {
        let target = target.to_string();
        ingress("a.example", &[(path, ImplementationSpecific, "one")])
            .with(|annotations| annotations.rewrite_target = Some(target))
    };
    let sent = gets(
        "a.example",
        &[
            "/app",
            "/app/",
            "/app/x/y?q=1",
            "/application",
            "/APP/x",
            "/app?",
            "/app?a",
            "/app//x",
            "/app/%2e%2e/x",
            "/app/a%20b",
            "/app/a+b",
            "/app/%E4%F6",
            "/app/%3F",
            "/app/%23x",
            "/app/a%25b",
            "/app/a%2Fb",
            "/app/é",
            "/app/x;y=z",
            "/app/(x)",
            "/app/\"x\"",
            "/app/<x>",
            "/app/x|y",
            "/app/../other",
            "/other",
            "/",
            "/app/a?b=%20&c=d e",
            "/app/x#frag",
            "/app/x?y#frag",
            "/app/./x",
        ],
    );
    let mut cases: Vec<Case> = [
        ("rewrite to the root", rewrite("/app", "/")),
        ("rewrite with groups", rewrite("/app(/|$)(.*)", "/$2")),
        ("rewrite with groups and a query", rewrite("/app/?(.*)", "/new?path=$1")),
        ("rewrite that drops the query", rewrite("/app/?(.*)", "/new/$1?")),
        ("rewrite with a named group", rewrite("/app/(?<rest>.*)", "/n/$rest")),
        ("rewrite without a slash", rewrite("/app/?(.*)", "$1")),
        ("rewrite to itself", rewrite("/app", "/app")),
        ("rewrite to another site", rewrite("/app/?(.*)", "https://new.example/$1")),
        ("rewrite of the root", rewrite("/", "/sub")),
    ]
    .map(|(name, ingress)| (name, world(&[ingress]), sent.clone()))
    .into();
    let mixed = world(&[
        ingress(
            "a.example",
            &[("/Plain", Prefix, "two"), ("/exact", Exact, "three"), ("/app/x", Prefix, "two")],
        ),
        rewrite("/app(/|$)(.*)", "/$2").with(|annotations| {
            annotations.forwarded_prefix = Some("/app".into());
        }),
    ]);
    let more =
        gets("a.example", &["/plain", "/PLAINx", "/exact/x", "/Exact", "/app/x/y", "/app/xy"]);
    cases.push(("a rewrite changes its neighbours", mixed, [sent, more].concat()));
    cases
}

fn headers() -> Vec<Case> {
    let plain = || Request::get("A.example:8080", "/x?y");
    let mut sent: Vec<Request> = [
        ("X-Forwarded-For", "203.0.113.9, 10.0.0.1"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Port", "1"),
        ("X-Forwarded-Scheme", "https"),
        ("X-Forwarded-Prefix", "/sent"),
        ("X-Forwarded-Server", "s"),
        ("Forwarded", "for=203.0.113.9"),
        ("X-Real-IP", "203.0.113.9"),
        ("X-Scheme", "https"),
        ("X-Original-Forwarded-For", "203.0.113.9"),
        ("X-Original-Forwarded-Host", "evil.example"),
        ("X-Request-ID", "my-id"),
        ("X-Request-ID", ""),
        ("Proxy", "evil:3128"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic dTpw"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "trailers"),
        ("Trailer", "X-T"),
        ("Upgrade-Insecure-Requests", "1"),
        ("Expect", "100-continue"),
        ("X_Real_IP", "203.0.113.9"),
        ("X_Under_Score", "1"),
        ("X.Dot", "1"),
        ("X!Mark", "1"),
        ("Empty", ""),
        ("Accept-Encoding", "gzip"),
        ("Connection", "close"),
        ("Connection", "keep-alive"),
        ("Via", "1.1 other"),
        ("Cookie", "a=b"),
        ("User-Agent", "tab\there"),
        ("X-Latin", "\u{e4}"),
        ("X-Answer", "302"),
        ("X-Answer", "304"),
        ("X-Answer", "204"),
        ("X-Answer", "404"),
        ("X-Answer", "500"),
        ("X-Answer", "cookies"),
    ]
    .map(|(name, value)| plain().header(name, value))
    .into();
    for method in [
        "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND",
        "M-SEARCH", "get",
    ] {
        sent.push(plain().method(method));
    }
    for body in [
        Body::Sized(0),
        Body::Sized(7),
        Body::Sized(70_000),
        Body::Chunked(7),
        Body::Chunked(70_000),
    ] {
        sent.push(plain().method("POST").body(body.clone()));
        sent.push(plain().method("GET").body(body));
    }
    sent.push(plain().header("Cookie", "a=b").header("Cookie", "c=d"));
    sent.push(plain().header("X-Twice", "1").header("X-Twice", "2"));
    sent.push(plain().header("X-Forwarded-For", "1.1.1.1").header("X-Forwarded-For", "2.2.2.2"));
    sent.push(Request { version: "HTTP/1.0", ..plain() });
    sent.push(Request { version: "HTTP/1.0", ..plain() }.header("Connection", "keep-alive"));
    let web = |change: fn(&mut Annotations)| {
        world(&[ingress("a.example", &[("/", Prefix, "one")]).with(change)])
    };
    vec![
        ("headers", web(|_| {}), sent),
        (
            "a Host for the endpoint",
            web(|annotations| annotations.upstream_vhost = Some("inner.example".into())),
            vec![plain(), plain().method("POST").body(Body::Sized(3))],
        ),
        (
            "a prefix without a rewrite",
            web(|annotations| annotations.forwarded_prefix = Some("/p".into())),
            vec![plain(), plain().header("X-Forwarded-Prefix", "/sent")],
        ),
    ]
}

fn redirects() -> Vec<Case> {
    let web = || ingress("a.example", &[("/foo", Prefix, "one"), ("/gone", Prefix, "empty")]);
    let sent = [
        gets(
            "a.example",
            &[
                "/foo",
                "/foo/",
                "/foo/?",
                "/foo?a=b/",
                "/foo//x/",
                "/foo/a%20b/",
                "/",
                "/x",
                "/gone",
            ],
        ),
        gets("A.example:8080", &["/foo", "/"]),
        gets("a.example.", &["/foo"]),
        gets("a.example", &["/.well-known/acme-challenge/t", "/foo/../.well-known/acme-challenge"]),
        vec![
            Request::get("a.example", "/foo").method("HEAD"),
            Request::get("a.example", "/foo").method("POST").body(Body::Sized(3)),
            Request::get("a.example", "/foo").header("X-Forwarded-Proto", "https"),
            Request { version: "HTTP/1.0", ..Request::get("a.example", "/foo") },
            Request { version: "HTTP/1.0", host: None, ..Request::get("a.example", "/foo") },
        ],
        gets("b.example", &["/foo", "/"]),
    ]
    .concat();
    let one = |ingress: Ingress| world(&[ingress]);
    vec![
        ("redirect to https", one(web().secured()), sent.clone()),
        (
            "a redirect that keeps the slash",
            one(web().secured().with(|annotations| annotations.preserve_trailing_slash = true)),
            sent.clone(),
        ),
        ("no redirect", one(web().secured().with(|a| a.no_ssl_redirect = true)), sent.clone()),
        ("a forced redirect", one(web().with(|a| a.force_ssl_redirect = true)), sent.clone()),
        (
            "a forced redirect of a host without paths",
            one(ingress("", &[("/foo", Prefix, "one")]).with(|a| a.force_ssl_redirect = true)),
            sent.clone(),
        ),
        (
            "TLS of another host of the Ingress",
            one(Ingress {
                tls: vec!["a.example".into()],
                ..web().and("b.example", &[("/", Prefix, "two")])
            }),
            sent.clone(),
        ),
        (
            "TLS by a wildcard",
            world(&[
                ingress("*.example", &[("/", Prefix, "two")]).secured(),
                ingress("a.example", &[("/foo", Prefix, "one")]),
            ]),
            sent,
        ),
    ]
}

fn guards() -> Vec<Case> {
    let web = || ingress("a.example", &[("/foo", Prefix, "one"), ("/gone", Prefix, "empty")]);
    let sent = [
        gets("a.example", &["/foo", "/gone", "/other"]),
        [
            Body::Sized(10),
            Body::Sized(11),
            Body::Sized(1 << 20),
            Body::Sized((1 << 20) + 1),
            Body::Chunked(10),
            Body::Chunked(11),
        ]
        .map(|body| Request::get("a.example", "/foo").method("POST").body(body))
        .into(),
        vec![Request::get("a.example", "/gone").method("POST").body(Body::Sized(11))],
    ]
    .concat();
    let with = |change: fn(&mut Annotations)| world(&[web().with(change)]);
    vec![
        ("allowed", with(|a| a.allowed = vec!["127.0.0.0/8"]), sent.clone()),
        ("not allowed", with(|a| a.allowed = vec!["10.0.0.0/8"]), sent.clone()),
        ("denied", with(|a| a.denied = vec!["127.0.0.1"]), sent.clone()),
        (
            "denied before allowed",
            with(|a| {
                a.allowed = vec!["127.0.0.0/8"];
                a.denied = vec!["127.0.0.0/16"];
            }),
            sent.clone(),
        ),
        ("the default limit of bodies", with(|_| {}), sent.clone()),
        ("a small limit", with(|a| a.body_size = Some("10")), sent.clone()),
        ("no limit", with(|a| a.body_size = Some("0")), sent.clone()),
        (
            "limit, range and redirect at once",
            world(&[web().secured().with(|a| {
                a.body_size = Some("10");
                a.denied = vec!["127.0.0.0/8"];
            })]),
            sent,
        ),
    ]
}

fn targets() -> Vec<Case> {
    let all = world(&[ingress(
        "a.example",
        &[("/", Prefix, "one"), ("/foo", Prefix, "two"), ("/foo bar", Prefix, "three")],
    )]);
    let mut sent = gets(
        "a.example",
        &[
            "/",
            "//",
            "///foo",
            "/foo//",
            "/./foo",
            "/foo/.",
            "/foo/..",
            "/foo/../",
            "/foo/../..",
            "/..",
            "/../foo",
            "/.",
            "/...",
            "/foo/...",
            "/%66oo",
            "/%2Ffoo",
            "/%2ffoo",
            "/foo%2Fbar",
            "/foo%2f..%2fx",
            "/%2e%2e/foo",
            "/foo/%2e%2e/x",
            "/foo/.%2e/x",
            "/foo%20bar",
            "/foo+bar",
            "/foo bar",
            "/foo%00",
            "/foo%0a",
            "/foo%0d%0ax",
            "/foo%",
            "/foo%2",
            "/foo%zz",
            "/foo%c3%a4",
            "/foo%ff",
            "/foo\\bar",
            "/foo?",
            "/foo??",
            "/foo?a?b",
            "/foo?a=%00",
            "/foo?%zz",
            "/foo#x",
            "/foo?x#y",
            "/foo;x",
            "/foo,x",
            "/foo:x",
            "/foo@x",
            "/foo'x",
            "/foo\"x",
            "/foo<x>",
            "/foo[x]",
            "/foo{x}",
            "/foo|x",
            "/foo^x",
            "/foo`x",
            "/foo~x",
            "/foo*",
            "*",
            "foo",
            "?a",
            "#",
            "http://a.example/foo",
            "http://a.example",
            "http://a.example?x=y",
            "http://a.example/foo?x#y",
            "HTTP://A.EXAMPLE/foo",
            "http://a.example:8080/foo",
            "https://a.example/foo",
            "http:///foo",
            "http:/foo",
            "ftp://a.example/foo",
            "http://b.example/foo",
            "http://user@a.example/foo",
            "a.example:80",
            "//a.example/foo",
            "/foo/http://x/y",
            "/http://x/..",
            "/é",
            "/foo?é",
        ],
    );
    for length in [1000, 7000, 9000] {
        sent.push(Request::get("a.example", &format!("/{}", "p".repeat(length))));
        sent.push(Request::get("a.example", &format!("/foo?{}", "q".repeat(length))));
    }
    sent.push(Request::get("a.example", "*").method("OPTIONS"));
    sent.push(Request::get("a.example", "/foo/../x").method("HEAD"));
    vec![("targets", all, sent)]
}
