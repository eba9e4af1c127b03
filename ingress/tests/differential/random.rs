//! Random Ingresses and requests that have something to do with them.

use crate::client::{Body, Request};
use crate::description::{Annotations, Cors, Ingress, Kind, Path, Rule, World};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::collections::BTreeSet;

const HOSTS: [&str; 6] =
    ["a.example", "b.example", "*.wild.example", "x.wild.example", "deep.x.wild.example", ""];
const PATHS: [&str; 12] = [
    "/",
    "/",
    "/foo",
    "/foo/bar",
    "/foo/bar/baz",
    "/Foo",
    "/fo",
    "/foobar",
    "/a.b",
    "/q-1/~x",
    "/with/end/",
    "/.well-known/acme-challenge",
];
/// Expressions and targets that go with them. No named groups: a target may name those of its own path only,
/// where nginx takes them from any location.
const EXPRESSIONS: [(&str, &str); 8] = [
    ("/api(/|$)(.*)", "/$2"),
    ("/v[0-9]+/(.*)", "/$1"),
    ("/foo", "/"),
    ("/foo/(.*)", "/new/$1?from=foo"),
    ("/(.*)", "/all/$1"),
    ("/old/(.+)\\.html", "/$1?"),
    ("/a.b", "/dot"),
    ("/", "/root"),
];
const SERVICES: [&str; 5] = ["one", "two", "three", "one", "empty"];

fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    *from.choose(rng).unwrap()
}

/// A few Ingresses ingress-nginx would accept together.
pub fn world(rng: &mut StdRng) -> World {
    let mut taken = BTreeSet::new();
    let mut world = World::default();
    for _ in 0..rng.random_range(1..=4) {
        let ingress = ingress(rng, &mut taken);
        if !ingress.rules.is_empty() || ingress.default_backend.is_some() {
            world.ingresses.push(ingress);
        }
    }
    world
}

fn ingress(rng: &mut StdRng, taken: &mut BTreeSet<(String, bool, String)>) -> Ingress {
    let expression = rng.random_bool(0.3).then(|| pick(rng, &EXPRESSIONS));
    let mut out = Ingress { annotations: annotations(rng), ..Ingress::default() };
    if let Some((_, target)) = expression {
        if rng.random_bool(0.75) {
            out.annotations.rewrite_target = Some(target.into());
            out.annotations.forwarded_prefix = rng.random_bool(0.4).then(|| "/was".into());
        } else {
            out.annotations.use_regex = true;
        }
    }
    if rng.random_bool(0.2) {
        out.default_backend = Some(pick(rng, &SERVICES));
    }
    for _ in 0..rng.random_range(0..=2) {
        let host = pick(rng, &HOSTS);
        let mut rule = Rule { host: host.into(), paths: Vec::new() };
        for at in 0..rng.random_range(1..=4) {
            let (path, kind) = match expression {
                Some((path, _)) if at == 0 => (path, Kind::ImplementationSpecific),
                _ => (
                    pick(rng, &PATHS),
                    pick(
                        rng,
                        &[Kind::Exact, Kind::Prefix, Kind::Prefix, Kind::ImplementationSpecific],
                    ),
                ),
            };
            let exact = kind == Kind::Exact;
            // nginx does not start with the same location twice.
            let key = if exact { path } else { path.trim_end_matches('/') };
            if taken.insert((host.into(), exact, key.into())) {
                rule.paths.push(Path { path: path.into(), kind, service: pick(rng, &SERVICES) });
            }
        }
        if !rule.paths.is_empty() && out.rules.iter().all(|other: &Rule| other.host != host) {
            out.rules.push(rule);
        }
    }
    if rng.random_bool(0.25) {
        let hosts = out.rules.iter().map(|rule| rule.host.clone());
        out.tls = hosts.filter(|host| !host.is_empty()).collect();
    }
    if out.rules.iter().any(|rule| rule.host.is_empty() || rule.host.starts_with('*')) {
        out.annotations.from_to_www = false;
    }
    out
}

fn annotations(rng: &mut StdRng) -> Annotations {
    let mut out = Annotations::default();
    for _ in 0..rng.random_range(0..=3) {
        match rng.random_range(0..12) {
            0 => out.no_ssl_redirect = true,
            1 => out.force_ssl_redirect = true,
            2 => out.preserve_trailing_slash = true,
            3 => out.app_root = Some("/app/start".into()),
            4 => {
                let code = pick(rng, &[None, Some(308), Some(303)]);
                out.permanent_redirect = Some(("https://moved.example/for-good".into(), code));
            }
            5 => {
                let code = pick(rng, &[None, Some(307)]);
                out.temporal_redirect = Some(("https://moved.example/today".into(), code));
            }
            6 => out.from_to_www = true,
            7 => out.upstream_vhost = Some("inner.example".into()),
            8 => out.allowed = pick(rng, &[&["127.0.0.0/8"][..], &["10.0.0.0/8"]]).to_vec(),
            9 => out.denied = pick(rng, &[&["127.0.0.1/32"][..], &["10.0.0.0/8"]]).to_vec(),
            10 => out.body_size = Some(pick(rng, &["10", "1k", "0"])),
            _ => {
                out.cors = Some(Cors {
                    origins: pick(
                        rng,
                        &[&[][..], &["https://*.origin.example", "http://one.example:8080"]],
                    )
                    .to_vec(),
                    exposed: pick(rng, &[None, Some("X-One, X-Two")]),
                    no_credentials: rng.random_bool(0.3),
                    max_age_seconds: pick(rng, &[None, Some(600)]),
                    ..Cors::default()
                });
            }
        }
    }
    out
}

/// Requests for the hosts and paths of a world and their neighbours.
pub fn requests(rng: &mut StdRng, world: &World, count: usize) -> Vec<Request> {
    let mut hosts: Vec<String> = world.hosts().iter().map(|host| host.replace('*', "k")).collect();
    hosts.extend(["unknown.example".into(), "www.a.example".into()]);
    let paths: Vec<&str> =
        world.rules().flat_map(|rule| rule.paths.iter().map(|path| path.path.as_str())).collect();
    (0..count).map(|_| request(rng, &hosts, &paths)).collect()
}

fn request(rng: &mut StdRng, hosts: &[String], paths: &[&str]) -> Request {
    let host = host(rng, hosts);
    let base = match paths.is_empty() || rng.random_bool(0.1) {
        true => pick(rng, &PATHS).to_string(),
        false => example_of(pick(rng, paths)),
    };
    let mut request = Request::get(&host, &target(rng, &base));
    match rng.random_range(0..12) {
        0 => request.method = "HEAD",
        1 => {
            request.method = "POST";
            request.body = Body::Sized(pick(rng, &[0, 5, 11, 2000]));
        }
        2 => {
            request.method = "POST";
            request.body = Body::Chunked(pick(rng, &[5, 2000]));
        }
        3 => request.method = "OPTIONS",
        4 => request.method = pick(rng, &["PUT", "DELETE", "PATCH"]),
        _ => {}
    }
    for _ in 0..rng.random_range(0..3) {
        let (name, value) = pick(rng, &HEADERS);
        if request.headers.iter().all(|(own, _)| *own != name) {
            request = request.header(name, value);
        }
    }
    request
}

const HEADERS: [(&str, &str); 20] = [
    ("X-Forwarded-For", "203.0.113.9"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Port", "1"),
    ("X-Forwarded-Scheme", "https"),
    ("X-Forwarded-Prefix", "/sent"),
    ("X-Real-IP", "203.0.113.9"),
    ("X-Scheme", "https"),
    ("X-Request-ID", "0123456789abcdef"),
    ("X-Original-Forwarded-For", "203.0.113.9"),
    ("Proxy", "evil:3128"),
    ("Origin", "https://a.origin.example"),
    ("Origin", "https://other.example"),
    ("Cookie", "a=b; c=d"),
    ("Authorization", "Basic dTpw"),
    ("Accept-Encoding", "gzip, br"),
    ("X-Answer", "302"),
    ("X-Answer", "404"),
    ("X-Answer", "cookies"),
    ("Referer", "http://r.example/?x=\"1\""),
];

fn host(rng: &mut StdRng, hosts: &[String]) -> String {
    let host = match hosts.choose(rng).unwrap().as_str() {
        "" => "anything.example".to_string(),
        host => host.to_string(),
    };
    match rng.random_range(0..10) {
        0 => host.to_ascii_uppercase(),
        1 => format!("{host}:8080"),
        2 => format!("{host}:"),
        3 => format!("{host}."),
        4 => format!("sub.{host}"),
        _ => host,
    }
}

/// A path an expression of ours matches; others stand for themselves.
fn example_of(path: &str) -> String {
    let example = match path {
        "/api(/|$)(.*)" => "/api/list/1",
        "/v[0-9]+/(.*)" => "/v12/list",
        "/foo/(.*)" => "/foo/sub",
        "/(.*)" => "/any",
        "/old/(.+)\\.html" => "/old/page.html",
        other => other,
    };
    example.into()
}

fn target(rng: &mut StdRng, path: &str) -> String {
    let path = match rng.random_range(0..22) {
        0 => format!("{path}/"),
        1 => format!("{path}/x"),
        2 => format!("{path}x"),
        3 => path.to_ascii_uppercase(),
        4 => path.replacen('/', "//", 1),
        5 => format!("{path}//y"),
        6 => format!("{path}/../z"),
        7 => format!("{path}/./z"),
        8 => format!("{path}%2Fw"),
        9 => format!("{path}/a%20b"),
        10 => format!("{path}/%e4%C3%A4"),
        11 => format!("{path}/.."),
        12 => format!("{path};v=1"),
        13 => format!("{path}/a+b&c=d"),
        14 => path.replacen('o', "%6F", 1),
        15 => format!("{path}/%3Fx%23y%25z"),
        16 => format!("/x/..{path}"),
        _ => path.into(),
    };
    match rng.random_range(0..8) {
        0 => format!("{path}?"),
        1 => format!("{path}?a=b&c=%20d"),
        2 => format!("{path}?a=/../b?c"),
        3 => format!("{path}?next=http://x/"),
        _ => path,
    }
}
