//! Translation as golden text: manifests in, routes and problems out.

use super::*;
use crate::balance::Backend;
use crate::objects::Object;
use crate::snapshot::HostRoutes;
use expect_test::{Expect, expect};
use serde_json::Value;
use std::fmt::Write;

fn everything(manifests: &str) -> Change {
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifests).unwrap();
    let objects = documents.into_iter().map(|document| Object::parse(document).unwrap().unwrap());
    Change::Everything(objects.collect(), Vec::new())
}

pub fn policy() -> Policy {
    Policy {
        classes: ClassSelection { without_class: true, ..ClassSelection::default() },
        defaults: Settings::default(),
        options: Arc::default(),
        named_config_maps: BTreeSet::new(),
        option_problems: Vec::new(),
        no_external_names: false,
        default_backend: None,
        default_certificate: None,
        fake_certificate: Arc::new(Certificate::fake().unwrap()),
        zones: Arc::default(),
        ssl_passthrough: false,
    }
}

fn run(manifests: &str) -> Index {
    run_with(policy(), manifests)
}

fn run_with(policy: Policy, manifests: &str) -> Index {
    let mut index = Index::new(policy);
    change(&mut index, manifests, now());
    index
}

/// Replaces everything an index knows.
fn change(index: &mut Index, manifests: &str, now: Timestamp) -> Update {
    index.apply([everything(manifests)]);
    index.update(now)
}

/// Within the validity of the certificates rcgen makes.
fn now() -> Timestamp {
    "2020-01-01T00:00:00Z".parse().unwrap()
}

/// Asks the snapshot about `host/path` pairs and prints the answers, then the problems.
fn check(manifests: &str, requests: &[&str], expected: Expect) {
    let index = run(manifests);
    let mut text = String::new();
    for request in requests {
        let (host, path) = request.split_at(request.find('/').unwrap());
        let rules = index.snapshot.host(host);
        let answer = match index.snapshot.route_by(rules, path.as_bytes()) {
            _ if rules.is_some_and(|rules| rules.www_redirect.is_some()) => {
                format!("to {}", rules.and_then(|rules| rules.www_redirect.clone()).unwrap())
            }
            None => "404".to_string(),
            Some(route) if route.closed => "closed".into(),
            Some(route) if route.unclaimed && route.backend.endpoints().is_empty() => {
                format!("404 under {}", route.ingress)
            }
            Some(route) => {
                let ends: Vec<String> =
                    route.backend.endpoints().addresses().map(|a| a.to_string()).collect();
                let mut text = format!(
                    "{} {} [{}]",
                    route.ingress,
                    route.backend.upstream_name,
                    ends.join(" ")
                );
                if let Some(canary) = &route.canary {
                    write!(text, " canary {}", canary.backend.upstream_name).unwrap();
                }
                if let Some(backend) = &route.default_backend {
                    write!(text, " default {}", backend.upstream_name).unwrap();
                }
                text
            }
        };
        writeln!(text, "{request} -> {answer}").unwrap();
    }
    for problem in index.problems() {
        writeln!(text, "{:?}: {problem}", problem.severity).unwrap();
    }
    expected.assert_eq(&text);
}

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}, {name: admin, port: 81}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: admin, port: 9090}]
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true}}
- {addresses: [10.0.0.2], conditions: {ready: false, serving: true, terminating: true}}
";

fn ingress(name: &str, more: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  namespace: shop\n  name: {name}\n{more}"
    )
}

fn to_web(name: &str, host: &str, path: &str, path_type: &str, annotations: &str) -> String {
    ingress(
        name,
        &format!(
            "  annotations: {{{annotations}}}\nspec: {{rules: [{{host: \"{host}\", http: {{paths: [{{path: {path:?}, \
             pathType: {path_type}, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]}}\n"
        ),
    )
}

#[test]
fn ports_by_number_and_name_and_ready_endpoints_only() {
    let rules = ingress(
        "ports",
        "spec: {rules: [{host: a.example, http: {paths: [
          {path: /n, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}},
          {path: /a, pathType: Prefix, backend: {service: {name: web, port: {name: admin}}}},
          {path: /x, pathType: Prefix, backend: {service: {name: web, port: {number: 99}}}},
          {path: /m, pathType: Prefix, backend: {service: {name: gone, port: {number: 80}}}},
          {path: /r, pathType: Prefix, backend: {resource: {kind: Bucket, name: b}}}]}}]}\n",
    );
    check(
        &format!("{WEB}{rules}"),
        &["a.example/n", "a.example/a", "a.example/x", "a.example/m", "a.example/r", "b.example/n"],
        expect![[r#"
            a.example/n -> shop/ports shop-web-80 [10.0.0.1:8080]
            a.example/a -> shop/ports shop-web-admin [10.0.0.1:9090]
            a.example/x -> shop/ports shop-web-99 []
            a.example/m -> shop/ports shop-gone-80 []
            a.example/r -> 404 under shop/ports
            b.example/n -> 404
            Error: Ingress shop/ports: spec.rules[0].http.paths[2].backend.service.port: Service shop/web has no port "99"
            Error: Ingress shop/ports: spec.rules[0].http.paths[3].backend.service.name: Service shop/gone does not exist
            Error: Ingress shop/ports: spec.rules[0].http.paths[4].backend: names no Service; other resources cannot be backends here
        "#]],
    );
}

#[test]
fn terminating_endpoints_serve_only_while_nothing_else_does() {
    let terminating = WEB.replace("conditions: {ready: true}", "conditions: {ready: false}");
    let rule = to_web("t", "a.example", "/", "Prefix", "");
    check(
        &format!("{terminating}{rule}"),
        &["a.example/"],
        expect![[r#"
            a.example/ -> shop/t shop-web-80 [10.0.0.2:8080]
        "#]],
    );
}

#[test]
fn hosts_take_precedence_over_wildcards_over_none() {
    let rules: String =
        [("exact", "a.example"), ("wild", "*.example"), ("any", ""), ("bad", "*.*.example")]
            .map(|(name, host)| to_web(name, host, "/", "Prefix", ""))
            .concat();
    check(
        &format!("{WEB}{rules}"),
        &["a.example/", "b.example/", "a.b.example/", "example/", "other.org/"],
        expect![[r#"
            a.example/ -> shop/exact shop-web-80 [10.0.0.1:8080]
            b.example/ -> shop/wild shop-web-80 [10.0.0.1:8080]
            a.b.example/ -> shop/any shop-web-80 [10.0.0.1:8080]
            example/ -> shop/any shop-web-80 [10.0.0.1:8080]
            other.org/ -> shop/any shop-web-80 [10.0.0.1:8080]
            Error: Ingress shop/bad: spec.rules[0].host: "*.*.example" is not a DNS name, nor one with * as its whole first label
        "#]],
    );
}

#[test]
fn the_older_ingress_wins() {
    let aged = |name: &str, year: u16| {
        to_web(name, "a.example", "/", "Prefix", "").replace(
            "  annotations: {}\n",
            &format!("  creationTimestamp: {year}-01-01T00:00:00Z\n"),
        )
    };
    check(
        &format!("{WEB}{}{}", aged("a-younger", 2025), aged("b-older", 2024)),
        &["a.example/"],
        expect![[r#"
            a.example/ -> shop/b-older shop-web-80 [10.0.0.1:8080]
            Error: Ingress shop/a-younger: spec.rules[0].http.paths[0].path: "/" of a.example belongs to the older Ingress shop/b-older
        "#]],
    );
}

/// "rewrite-target or use-regex on any Ingress of a host turns all its paths into expressions."
#[test]
fn one_rewrite_turns_the_whole_host_into_expressions() {
    let rewrite = "nginx.ingress.kubernetes.io/rewrite-target: /";
    let rules = [
        to_web("rewritten", "a.example", "/app", "Prefix", rewrite),
        to_web("exact", "a.example", "/other", "Exact", ""),
        to_web("plain", "b.example", "/other", "Exact", ""),
        to_web("same", "c.example", "/", "Prefix", rewrite),
        to_web("exact-too", "c.example", "/other", "Exact", ""),
    ];
    check(
        &format!("{WEB}{}", rules.concat()),
        &[
            "a.example/application",
            "a.example/OTHER/x",
            "b.example/other",
            "b.example/OTHER",
            "c.example/other/x",
            "c.example/other",
        ],
        expect![[r#"
            a.example/application -> shop/rewritten shop-web-80 [10.0.0.1:8080]
            a.example/OTHER/x -> shop/exact shop-web-80 [10.0.0.1:8080]
            b.example/other -> shop/plain shop-web-80 [10.0.0.1:8080]
            b.example/OTHER -> 404 under shop/plain
            c.example/other/x -> shop/same shop-web-80 [10.0.0.1:8080]
            c.example/other -> shop/exact-too shop-web-80 [10.0.0.1:8080]
        "#]],
    );
}

#[test]
fn bad_expressions_and_targets_harm_only_themselves() {
    let regex = r#""nginx.ingress.kubernetes.io/use-regex": "true""#;
    let rules = [
        to_web("good", "a.example", "/good/.*", "ImplementationSpecific", regex),
        to_web("bad", "a.example", "/bad/(", "ImplementationSpecific", regex),
        to_web("ahead", "a.example", "/(?!x)", "ImplementationSpecific", regex),
        to_web(
            "target",
            "a.example",
            "/t",
            "Prefix",
            "nginx.ingress.kubernetes.io/rewrite-target: /$host",
        ),
        to_web("type", "a.example", "/p", "Sometimes", ""),
        to_web("path", "a.example", "p", "Prefix", ""),
    ];
    check(
        &format!("{WEB}{}", rules.concat()),
        &["a.example/good/x", "a.example/bad/x", "a.example/t"],
        expect![[r#"
            a.example/good/x -> shop/good shop-web-80 [10.0.0.1:8080]
            a.example/bad/x -> 404 under shop/ahead
            a.example/t -> 404 under shop/ahead
            Error: Ingress shop/ahead: spec.rules[0].http.paths[0].path: "/(?!x)" cannot be used as an expression: look-around, including look-ahead and look-behind, is not supported
            Error: Ingress shop/bad: spec.rules[0].http.paths[0].path: "/bad/(" cannot be used as an expression: unclosed group
            Error: Ingress shop/path: spec.rules[0].http.paths[0].path: "p" does not start with a slash
            Error: Ingress shop/target: metadata.annotations[nginx.ingress.kubernetes.io/rewrite-target]: "/$host" names the variable $host, which is neither a capture group ($1…$9) nor a named group of the path
            Error: Ingress shop/type: spec.rules[0].http.paths[0].pathType: "Sometimes" is not a path type
        "#]],
    );
}

#[test]
fn default_backends() {
    let of = |name: &str, rules: &str| {
        ingress(
            name,
            &format!(
                "spec: {{defaultBackend: {{service: {{name: web, port: {{number: 81}}}}}}{rules}}}\n"
            ),
        )
    };
    let with_rules = of(
        "rules",
        ", rules: [{host: a.example, http: {paths: [{path: /x, pathType: Exact, backend: {service: {name: web, port: {number: 80}}}}]}}]",
    );
    check(
        &format!("{WEB}{with_rules}{}", to_web("bare", "b.example", "/x", "Exact", "")),
        &["a.example/x", "a.example/y", "b.example/y", "c.example/y"],
        expect![[r#"
            a.example/x -> shop/rules shop-web-80 [10.0.0.1:8080]
            a.example/y -> shop/rules shop-web-81 [10.0.0.1:9090]
            b.example/y -> 404 under shop/bare
            c.example/y -> 404
        "#]],
    );
    check(
        &format!("{WEB}{}{}", of("catch-all", ""), to_web("bare", "b.example", "/x", "Exact", "")),
        &["b.example/y", "c.example/y"],
        expect![[r#"
            b.example/y -> 404 under shop/bare
            c.example/y -> shop/catch-all shop-web-81 [10.0.0.1:9090]
        "#]],
    );
}

#[test]
fn guards_close_canaries_stay_out_service_upstream_uses_the_cluster_ip() {
    let annotation =
        |name: &str, value: &str| format!(r#""nginx.ingress.kubernetes.io/{name}": "{value}""#);
    let rules = [
        to_web("a-canary", "a.example", "/", "Prefix", &annotation("canary", "true")),
        to_web("b-main", "a.example", "/", "Prefix", ""),
        to_web("guarded", "b.example", "/", "Prefix", &annotation("auth-url", "auth")),
        to_web("vip", "c.example", "/", "Prefix", &annotation("service-upstream", "true")),
    ];
    check(
        &format!("{WEB}{}", rules.concat()),
        &["a.example/", "b.example/", "c.example/"],
        expect![[r#"
            a.example/ -> shop/b-main shop-web-80 [10.0.0.1:8080]
            b.example/ -> closed
            c.example/ -> shop/vip shop-web-80 [10.96.0.7:80]
            Error: Ingress shop/a-canary: spec.rules[0].http.paths[0].path: "/" of a.example goes to the same Service and port by Ingress shop/b-main
            Error: Ingress shop/guarded: metadata.annotations[nginx.ingress.kubernetes.io/auth-url]: want a URL that begins with http:// or https://; its locations answer 503
        "#]],
    );
}

#[test]
fn endpoints_objects_serve_where_there_are_no_slices() {
    let endpoints = "---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: web, namespace: shop}\nsubsets:\n- addresses: [{ip: 10.0.0.9}]\n  ports: [{name: http, port: 8080}]\n";
    let service = WEB.split("---").next().unwrap();
    check(
        &format!("{service}{endpoints}{}", to_web("e", "a.example", "/", "Prefix", "")),
        &["a.example/"],
        expect![[r#"
            a.example/ -> shop/e shop-web-80 [10.0.0.9:8080]
        "#]],
    );
}

fn secret(name: &str, chain: &str, key: &str) -> String {
    let data = serde_json::json!({"tls.crt": chain, "tls.key": key});
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\nstringData: {data}\n"
    )
}

fn tls(name: &str, host: &str, secret: &str) -> String {
    ingress(
        name,
        &format!(
            "spec: {{tls: [{{hosts: [{host}], secretName: {secret}}}], rules: [{{host: {host}, http: {{paths: [{{path: /, \
             pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]}}\n"
        ),
    )
}

/// The certificates a host has of its own.
fn certificates(snapshot: &Snapshot, host: &str) -> Vec<Arc<Certificate>> {
    let own = snapshot.certificates.get(host);
    own.map(|tls| tls.certificates.clone()).unwrap_or_default()
}

/// A certificate for a name, valid from one year's beginning to another's.
fn made(name: &str, from: i32, until: i32) -> (String, String) {
    let mut params = rcgen::CertificateParams::new(vec![name.to_string()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_host_has_the_certificates_of_all_its_ingresses() {
    let (one, two) = (made("a.example", 2000, 2030), made("a.example", 2010, 2040));
    let (other, wild) = (made("b.example", 2000, 2030), made("*.wild.example", 2000, 2030));
    let named_by_certificate =
        tls("wild", "c.wild.example", "wild").replace("hosts: [c.wild.example], ", "");
    let manifests = [
        WEB.to_string(),
        tls("a-one", "a.example", "one"),
        tls("b-two", "a.example", "two"),
        tls("c-other", "c.example", "other"),
        named_by_certificate,
        secret("one", &one.0, &one.1),
        secret("two", &two.0, &two.1),
        secret("other", &other.0, &other.1),
        secret("wild", &wild.0, &wild.1),
    ];
    let mut index = run(&manifests.concat());
    let ends = |index: &Index, host: &str| {
        let years = certificates(&index.snapshot, host).into_iter();
        years.map(|c| c.not_after.to_string()[..4].to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ends(&index, "a.example"), "2030 2040");
    assert_eq!(ends(&index, "c.wild.example"), "2030");
    assert_eq!(ends(&index, "c.example"), "");
    let problems = |index: &Index| {
        let found = index.problems().map(|problem| problem.to_string());
        found.filter(|text| text.contains("certificate")).collect::<Vec<_>>().join("\n")
    };
    expect![[r#"
        Ingress shop/c-other: spec.tls[0].secretName: the certificate is for b.example and does not serve c.example"#]]
    .assert_eq(&problems(&index));
    // Time passes: what is out of date comes last, and is told of some days before.
    index.update("2029-12-25T00:00:00Z".parse().unwrap());
    assert!(problems(&index).contains("shop/one: the certificate expires at 2030"));
    assert_eq!(ends(&index, "a.example"), "2030 2040");
    index.update("2030-01-02T00:00:00Z".parse().unwrap());
    assert!(problems(&index).contains("shop/one: the certificate expired at 2030"));
    assert_eq!(ends(&index, "a.example"), "2040 2030");
    let early = made("a.example", 2050, 2060);
    let early = manifests
        .concat()
        .replace(&serde_json::json!(one.0).to_string(), &serde_json::json!(early.0).to_string())
        .replace(&serde_json::json!(one.1).to_string(), &serde_json::json!(early.1).to_string());
    change(&mut index, &early, "2030-01-03T00:00:00Z".parse().unwrap());
    assert!(problems(&index).contains("shop/one: the certificate is not valid before 2050"));
}

#[test]
fn a_broken_certificate_is_reported_and_the_old_one_kept() {
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_string()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let with = |chain: &str| {
        format!(
            "{WEB}{}{}{}",
            tls("one", "a.example", "good"),
            tls("two", "b.example", "none"),
            secret("good", chain, &key)
        )
    };
    let mut index = run(&with(&chain));
    let good = certificates(&index.snapshot, "a.example").remove(0);
    assert_eq!(good.names, ["a.example"]);
    assert!(certificates(&index.snapshot, "b.example").is_empty());
    let host: &Arc<HostRoutes> = index.snapshot.host("b.example").unwrap();
    assert!(host.tls, "redirected to https although the certificate is missing");

    let update = change(&mut index, &with("broken"), now());
    assert!(Arc::ptr_eq(&certificates(&update.snapshot, "a.example")[0], &good));
    assert_eq!((update.problems.new.len(), update.problems.gone.len()), (1, 0));
    let text: String = index.problems().map(|problem| format!("{problem}\n")).collect();
    expect![[r#"
        Ingress shop/one: spec.tls[0].secretName: Secret shop/good: key tls.crt is missing or empty; the last good certificate is served
        Ingress shop/two: spec.tls[0].secretName: Secret shop/none does not exist; the default certificate is served
    "#]]
    .assert_eq(&text);
    let update = change(&mut index, &with(&chain), now());
    assert!(Arc::ptr_eq(&certificates(&update.snapshot, "a.example")[0], &good), "parsed once");

    let late: Timestamp = "9999-01-01T00:00:00Z".parse().unwrap();
    let expired = index.update(late).problems.new;
    assert!(expired.iter().any(|p| p.message.contains("expired at")), "{expired:?}");
}

#[test]
fn only_named_secrets_of_our_ingresses_are_wanted() {
    let foreign = tls("foreign", "c.example", "theirs")
        .replace("spec:", "spec: {ingressClassName: other}\nx:");
    let mut index = run(&format!("{}{foreign}", tls("one", "a.example", "mine")));
    let wanted: Vec<String> =
        index.take_named().unwrap().iter().map(|(_, key)| key.to_string()).collect();
    assert_eq!(wanted, ["shop/mine"]);
    change(&mut index, "", now());
    assert!(index.take_named().unwrap().is_empty() && index.take_named().is_none());
}

#[test]
fn a_backend_survives_a_change() {
    let rules = format!("{WEB}{}", to_web("w", "a.example", "/", "Prefix", ""));
    let rules = rules.replace(
        "conditions: {ready: false, serving: true, terminating: true}",
        "conditions: {ready: true}",
    );
    let mut index = run(&rules);
    let backend = |index: &Index| -> Arc<Backend> {
        index.snapshot.backends.values().next().unwrap().clone()
    };
    let first = backend(&index);
    let update = change(&mut index, &rules, now());
    assert!(Arc::ptr_eq(&backend(&index), &first) && update.endpoint_changes.is_empty());
    let fewer = rules.replace("{addresses: [10.0.0.2]", "{addresses: [10.0.0.7]");
    assert_ne!(fewer, rules);
    let update = change(&mut index, &fewer, now());
    assert!(Arc::ptr_eq(&backend(&index), &first));
    assert_eq!(update.endpoint_changes.len(), 1);
}

fn annotation(name: &str, value: &str) -> String {
    format!(r#""nginx.ingress.kubernetes.io/{name}": "{value}""#)
}

fn canary() -> String {
    annotation("canary", "true")
}

const OTHER: &str = "---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: shop}
spec: {ports: [{name: http, port: 80, targetPort: 7070}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: other-1, namespace: shop, labels: {kubernetes.io/service-name: other}}
addressType: IPv4
ports: [{name: http, port: 7070}]
endpoints: [{addresses: [10.0.0.3]}]
";

fn to_other(rule: &str) -> String {
    rule.replace("name: web,", "name: other,")
}

#[test]
fn canary_joins_the_rule_of_the_same_host_path_and_type() {
    let rules = [
        to_web("main", "a.example", "/x", "Prefix", ""),
        to_web("exact", "a.example", "/x", "Exact", ""),
        to_other(&to_web("new", "a.example", "/x/", "Prefix", &canary())),
        to_other(&to_web("second", "a.example", "/x", "Prefix", &canary())),
        to_web("same", "a.example", "/x", "Exact", &canary()),
        to_other(&to_web("alone", "a.example", "/y", "Prefix", &canary())),
        to_other(&to_web("hostless", "b.example", "/", "Prefix", &canary())),
    ];
    check(
        &format!("{WEB}{OTHER}{}", rules.concat()),
        &["a.example/x", "a.example/x/1", "a.example/y", "b.example/"],
        expect![[r#"
            a.example/x -> shop/exact shop-web-80 [10.0.0.1:8080]
            a.example/x/1 -> shop/main shop-web-80 [10.0.0.1:8080] canary shop-other-80
            a.example/y -> 404 under shop/exact
            b.example/ -> 404
            Error: Ingress shop/alone: spec.rules[0].http.paths[0].path: there is no Ingress without canary for "/y" of a.example with the same path type: nothing to be a canary of
            Error: Ingress shop/hostless: spec.rules[0].http.paths[0].path: there is no Ingress without canary for "/" of b.example with the same path type: nothing to be a canary of
            Error: Ingress shop/same: spec.rules[0].http.paths[0].path: "/x" of a.example goes to the same Service and port by Ingress shop/exact
            Error: Ingress shop/second: spec.rules[0].http.paths[0].path: "/x" of a.example has a canary already, Ingress shop/new: there can be one
        "#]],
    );
}

#[test]
fn canary_of_a_default_backend_joins_the_root_of_the_host() {
    let root = ingress(
        "root",
        "spec: {defaultBackend: {service: {name: web, port: {number: 81}}}, rules: [{host: a.example}]}\n",
    );
    let rules = [
        root,
        to_web("bare", "b.example", "/x", "Prefix", ""),
        to_other(&to_web("new", "a.example", "/", "Prefix", &canary())),
        to_other(&to_web("none", "b.example", "/", "Prefix", &canary())),
    ];
    check(
        &format!("{WEB}{OTHER}{}", rules.concat()),
        &["a.example/", "a.example/any", "b.example/any"],
        expect![[r#"
            a.example/ -> shop/root shop-web-81 [10.0.0.1:9090] canary shop-other-80
            a.example/any -> shop/root shop-web-81 [10.0.0.1:9090] canary shop-other-80
            b.example/any -> 404 under shop/bare
            Error: Ingress shop/none: spec.rules[0].http.paths[0].path: there is no Ingress without canary for "/" of b.example with the same path type: nothing to be a canary of
        "#]],
    );
}

#[test]
fn server_alias_serves_the_same_rules_where_the_name_is_free() {
    let alias = |value: &str| annotation("server-alias", value);
    let rules = [
        to_web("a", "a.example", "/x", "Prefix", &alias("A1.example, *.wild.example, b.example")),
        to_web("b", "b.example", "/x", "Prefix", ""),
        to_web("c", "c.example", "/x", "Prefix", &alias("a1.example,c.example")),
        to_web("late", "a.example", "/y", "Prefix", &alias("a2.example")),
        to_web("regex", "d.example", "/y", "Prefix", &alias("~^d.*$")),
        to_web("bad", "e.example", "/y", "Prefix", &alias("e_.example")),
    ];
    check(
        &format!("{WEB}{}", rules.concat()),
        &[
            "a1.example/x",
            "a1.example/y",
            "one.wild.example/x",
            "b.example/x",
            "c.example/x",
            "a2.example/y",
            "e_.example/y",
        ],
        expect![[r#"
            a1.example/x -> shop/a shop-web-80 [10.0.0.1:8080]
            a1.example/y -> shop/late shop-web-80 [10.0.0.1:8080]
            one.wild.example/x -> shop/a shop-web-80 [10.0.0.1:8080]
            b.example/x -> shop/b shop-web-80 [10.0.0.1:8080]
            c.example/x -> shop/c shop-web-80 [10.0.0.1:8080]
            a2.example/y -> 404
            e_.example/y -> 404
            Error: Ingress shop/a: metadata.annotations[nginx.ingress.kubernetes.io/server-alias]: b.example is not made another name of a.example: it is taken
            Error: Ingress shop/bad: metadata.annotations[nginx.ingress.kubernetes.io/server-alias]: "e_.example" is not a DNS name, nor one with * as its whole first label
            Error: Ingress shop/c: metadata.annotations[nginx.ingress.kubernetes.io/server-alias]: a1.example is not made another name of c.example: it is taken
            Error: Ingress shop/late: metadata.annotations[nginx.ingress.kubernetes.io/server-alias]: the older Ingress shop/a gives a.example its other names already
            Error: Ingress shop/regex: metadata.annotations[nginx.ingress.kubernetes.io/server-alias]: it holds a name that is not one of a host: expressions are not taken here; write the hosts out, or use a wildcard such as *.example.com
        "#]],
    );
}

#[test]
fn server_alias_has_the_certificate_of_its_host() {
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_string()]).unwrap();
    let secret = secret("good", &made.cert.pem(), &made.signing_key.serialize_pem());
    let names = format!(
        "{}, {}",
        annotation("server-alias", "b.example"),
        annotation("from-to-www-redirect", "true")
    );
    let rule = tls("a", "a.example", "good")
        .replace("  name: a\n", &format!("  name: a\n  annotations: {{{names}}}\n"));
    let index = run(&format!("{WEB}{rule}{secret}"));
    let certificates = &index.snapshot.certificates;
    assert!(certificates.get("a.example").is_some() && certificates.get("b.example").is_some());
    assert!(certificates.get("www.a.example").is_none(), "it does not cover that name");
}

#[test]
fn from_to_www_redirect_makes_the_other_host_where_there_is_none() {
    let www = annotation("from-to-www-redirect", "true");
    let rules = [
        to_web("bare", "a.example", "/", "Prefix", &www),
        to_web("www", "www.b.example", "/", "Prefix", &www),
        to_web("c", "c.example", "/", "Prefix", &www),
        to_web("c-www", "www.c.example", "/", "Prefix", ""),
        to_web("wild", "*.d.example", "/", "Prefix", &www),
    ];
    check(
        &format!("{WEB}{}", rules.concat()),
        &["www.a.example/", "b.example/", "www.c.example/", "c.example/", "www.d.example/"],
        expect![[r#"
            www.a.example/ -> to a.example
            b.example/ -> to www.b.example
            www.c.example/ -> shop/c-www shop-web-80 [10.0.0.1:8080]
            c.example/ -> shop/c shop-web-80 [10.0.0.1:8080]
            www.d.example/ -> shop/wild shop-web-80 [10.0.0.1:8080]
            Warning: Ingress shop/c: metadata.annotations[nginx.ingress.kubernetes.io/from-to-www-redirect]: www.c.example is a host of its own and is not redirected to c.example
        "#]],
    );
}

#[test]
fn default_backend_annotation_names_a_service_by_its_first_port() {
    let default = |value: &str| annotation("default-backend", value);
    let rules = [
        to_web("good", "a.example", "/x", "Prefix", &default("other")),
        to_web("gone", "b.example", "/x", "Prefix", &default("gone")),
        to_web("foreign", "c.example", "/x", "Prefix", &default("elsewhere/other")),
    ];
    check(
        &format!("{WEB}{OTHER}{}", rules.concat()),
        &["a.example/x", "a.example/y", "b.example/x", "c.example/x"],
        expect![[r#"
            a.example/x -> shop/good shop-web-80 [10.0.0.1:8080] default shop-other-
            a.example/y -> 404 under shop/good
            b.example/x -> shop/gone shop-web-80 [10.0.0.1:8080] default shop-gone-
            c.example/x -> shop/foreign shop-web-80 [10.0.0.1:8080]
            Error: Ingress shop/foreign: metadata.annotations[nginx.ingress.kubernetes.io/default-backend]: value "elsewhere/other" is invalid (want the name of a Service in the namespace of the Ingress); the default is used
            Error: Ingress shop/gone: metadata.annotations[nginx.ingress.kubernetes.io/default-backend]: Service shop/gone does not exist
        "#]],
    );
}

#[test]
fn of_the_same_second_the_last_name_wins_and_in_files_the_first() {
    let aged = |name: &str| {
        to_web(name, "a.example", "/", "Prefix", "")
            .replace("  annotations: {}\n", "  creationTimestamp: 2025-01-01T00:00:00Z\n")
    };
    check(
        &format!("{WEB}{}{}", aged("a"), aged("b")),
        &["a.example/"],
        expect![[r#"
        a.example/ -> shop/b shop-web-80 [10.0.0.1:8080]
        Error: Ingress shop/a: spec.rules[0].http.paths[0].path: "/" of a.example belongs to the older Ingress shop/b
    "#]],
    );
    let plain = |name: &str| to_web(name, "a.example", "/", "Prefix", "");
    check(
        &format!("{WEB}{}{}", plain("a"), plain("b")),
        &["a.example/"],
        expect![[r#"
        a.example/ -> shop/a shop-web-80 [10.0.0.1:8080]
        Error: Ingress shop/b: spec.rules[0].http.paths[0].path: "/" of a.example belongs to the older Ingress shop/a
    "#]],
    );
}

#[test]
fn an_ingress_can_be_in_its_own_way() {
    let twice = ingress(
        "twice",
        "spec: {rules: [{host: a.example, http: {paths: [
          {path: /x, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}},
          {path: /x/, pathType: ImplementationSpecific, backend: {service: {name: web, port: {number: 81}}}}]}}]}\n",
    );
    check(
        &format!("{WEB}{twice}"),
        &["a.example/x"],
        expect![[r#"
        a.example/x -> shop/twice shop-web-80 [10.0.0.1:8080]
        Error: Ingress shop/twice: spec.rules[0].http.paths[1].path: "/x/" of a.example is there twice; the first one counts
    "#]],
    );
}

/// The tables of ingress-nginx's `location.go`: in regex mode a Prefix path beside an Exact one of the
/// same text keeps what is below it.
#[test]
fn exact_and_prefix_of_one_text_in_regex_mode() {
    let regex = annotation("use-regex", "true");
    let rules = [
        to_web("a-prefix", "a.example", "/x", "Prefix", ""),
        to_other(&to_web("exact", "a.example", "/x", "Exact", "")),
        to_web("regex", "a.example", "/r.*", "ImplementationSpecific", &regex),
        to_web("plain-bad", "a.example", "/(", "Prefix", ""),
    ];
    check(
        &format!("{WEB}{OTHER}{}", rules.concat()),
        &["a.example/x", "a.example/x/1", "a.example/xy", "a.example/room"],
        expect![[r#"
            a.example/x -> shop/exact shop-other-80 [10.0.0.3:7070]
            a.example/x/1 -> shop/a-prefix shop-web-80 [10.0.0.1:8080]
            a.example/xy -> shop/exact shop-other-80 [10.0.0.3:7070]
            a.example/room -> shop/regex shop-web-80 [10.0.0.1:8080]
            Warning: Ingress shop/plain-bad: spec.rules[0].http.paths[0].path: "/(" holds characters that ingress-nginx refuses in paths of type Prefix (strict-validate-path-type); it is served, but ImplementationSpecific is the type for it
            Error: Ingress shop/plain-bad: spec.rules[0].http.paths[0].path: other paths of a.example are rewritten or use-regex, which makes all its paths expressions; "/(" cannot be one: unclosed group
        "#]],
    );
}

#[test]
fn strict_validate_path_type_is_told_of() {
    let rules = to_web("odd", "a.example", "/a b", "Exact", "");
    check(
        &format!("{WEB}{rules}"),
        &["a.example/a b"],
        expect![[r#"
        a.example/a b -> shop/odd shop-web-80 [10.0.0.1:8080]
        Warning: Ingress shop/odd: spec.rules[0].http.paths[0].path: "/a b" holds characters that ingress-nginx refuses in paths of type Exact (strict-validate-path-type); it is served, but ImplementationSpecific is the type for it
    "#]],
    );
}

/// What a change costs, told by what is not the same object any more.
#[test]
fn a_change_touches_what_it_concerns() {
    let many: String = (0..500)
        .map(|at| to_web(&format!("i{at}"), &format!("h{at}.example"), "/", "Prefix", ""))
        .collect();
    let mut index = run(&format!("{WEB}{OTHER}{many}"));
    let before = index.snapshot.clone();
    let changed = to_other(&to_web("i7", "h7.example", "/new", "Prefix", ""));
    let document: Value = serde_saphyr::from_str(&changed).unwrap();
    index.apply([Change::Apply(Kind::Ingress, document)]);
    let update = index.update(Timestamp::UNIX_EPOCH);
    let other = |(host, old): (&Arc<str>, &Arc<HostRoutes>)| {
        let new = update.snapshot.hosts.get(host).unwrap();
        (!Arc::ptr_eq(old, new)).then(|| host.to_string())
    };
    let touched: Vec<String> = before.hosts.iter().filter_map(other).collect();
    assert_eq!(touched, ["h7.example"]);
    assert_eq!(Vec::from_iter(&update.ingresses), [&ObjectKey::new("shop", "i7")]);

    let slice = WEB.rsplit("---").next().unwrap().replace("10.0.0.1", "10.0.0.8");
    let before = update.snapshot;
    index.apply([Change::Apply(Kind::EndpointSlice, serde_saphyr::from_str(&slice).unwrap())]);
    let update = index.update(Timestamp::UNIX_EPOCH);
    assert_eq!(update.endpoint_changes.len(), 1);
    let same = |(host, old)| Arc::ptr_eq(old, update.snapshot.hosts.get::<str>(host).unwrap());
    assert!(before.hosts.iter().map(|(host, old)| (&**host, old)).all(same));
}
