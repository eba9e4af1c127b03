//! Cross-origin requests: who may ask, what preflights and answers say.

use crate::backend::Backend;
use crate::harness::{Answer, Ingress, annotated_ingresses, service};

const METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const HEADERS: &str = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization";

fn start(annotations: &[&str]) -> (Backend, Ingress) {
    let web = Backend::start("web");
    let manifests = format!("{}{}", service("web", &[&web]), annotated_ingresses(annotations));
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    (web, podium)
}

fn from(podium: &Ingress, method: &str, host: &str, origin: &str) -> Answer {
    podium.ask(method, host, "/app", &format!("Origin: {origin}\r\n"))
}

/// Allow-Origin, -Credentials, -Methods, -Headers, Expose-Headers, Max-Age of an answer.
fn told(answer: &Answer) -> Vec<String> {
    [
        "allow-origin",
        "allow-credentials",
        "allow-methods",
        "allow-headers",
        "expose-headers",
        "max-age",
    ]
    .iter()
    .map(|name| answer.header(&format!("access-control-{name}")))
    .collect()
}

#[test]
fn enable_cors_and_its_defaults() {
    let (web, podium) = start(&["enable-cors: true", "cors-allow-origin: *", "enable-cors: yes"]);
    let defaults = ["*", "true", METHODS, HEADERS, "", "1728000"];
    // Also where nobody names an origin, as ingress-nginx does.
    assert_eq!(told(&podium.get("a.example", "/app")), defaults);
    let answer = from(&podium, "GET", "a.example", "https://any.example");
    assert_eq!((answer.status, told(&answer)), (200, defaults.map(String::from).to_vec()));
    let before = web.requests();
    let preflight = from(&podium, "OPTIONS", "a.example", "https://any.example");
    assert_eq!((preflight.status, told(&preflight)), (204, defaults.map(String::from).to_vec()));
    assert_eq!((preflight.body.as_str(), preflight.header("content-length").as_str()), ("", "0"));
    assert_eq!(web.requests(), before, "the endpoint is not asked");
    for host in ["b.example", "c.example"] {
        let answer = from(&podium, "OPTIONS", host, "https://any.example");
        assert_eq!((answer.status, told(&answer).concat().as_str()), (200, ""), "{host} is off");
    }
}

#[test]
fn cors_allow_origin_lists_and_wildcards() {
    let list = "enable-cors: true\ncors-allow-origin: https://one.example, http://two.example:8080, https://*.three.example";
    let (_web, podium) = start(&[list, "enable-cors: true\ncors-allow-origin: nonsense"]);
    for (origin, allowed) in [
        ("https://one.example", true),
        ("http://one.example", false),
        ("http://two.example:8080", true),
        ("https://x.three.example", true),
        ("https://x.y.three.example", false),
        ("https://three.example", false),
        ("https://one.example.evil", false),
    ] {
        let answer = from(&podium, "GET", "a.example", origin);
        let told = told(&answer);
        assert_eq!(told[0], if allowed { origin } else { "" }, "{origin}");
        let preflight = from(&podium, "OPTIONS", "a.example", origin);
        // Preflights of others are the endpoint's to answer.
        assert_eq!(preflight.status, if allowed { 204 } else { 200 }, "{origin}");
        assert_eq!(preflight.header("access-control-allow-origin"), told[0]);
    }
    assert_eq!(told(&podium.get("a.example", "/app")).concat(), "", "no origin is named");
    // A wrong list opens the location to nobody.
    assert_eq!(told(&from(&podium, "GET", "b.example", "https://one.example")).concat(), "");
    assert!(podium.metrics().contains("{kind=\"Ingress\",severity=\"error\"} 1"));
}

#[test]
fn cors_allow_methods_headers_credentials_max_age_and_expose_headers() {
    let (_web, podium) = start(&[
        "enable-cors: true\ncors-allow-methods: GET, PUT\ncors-allow-headers: X-One,X-Two\n\
         cors-allow-credentials: false\ncors-max-age: 600\ncors-expose-headers: *, X-Three",
        "enable-cors: true\ncors-allow-methods: GET;\ncors-allow-headers: *\ncors-allow-credentials: no\n\
         cors-max-age: long\ncors-expose-headers: a:b",
    ]);
    assert_eq!(
        told(&podium.get("a.example", "/app")),
        ["*", "", "GET, PUT", "X-One,X-Two", "*, X-Three", "600"]
    );
    assert_eq!(
        told(&podium.get("b.example", "/app")),
        ["*", "true", METHODS, HEADERS, "", "1728000"],
        "wrong values are the defaults"
    );
    assert!(podium.metrics().contains("{kind=\"Ingress\",severity=\"error\"} 5"));
}

#[test]
fn cors_headers_are_in_every_answer_of_the_location() {
    let (web, podium) = start(&[
        "enable-cors: true\ncors-allow-origin: https://one.example",
        "enable-cors: true\nwhitelist-source-range: 10.0.0.0/8",
        "enable-cors: true\npermanent-redirect: https://new.example",
    ]);
    // The endpoint's own ones are replaced, and there is one of each.
    let own =
        "Origin: https://one.example\r\nX-Answer-Header: Access-Control-Allow-Origin: evil\r\n";
    let answer = podium.ask("GET", "a.example", "/app", own);
    assert_eq!(answer.headers("access-control-allow-origin"), ["https://one.example"]);
    for (host, status) in [("b.example", 403), ("c.example", 301)] {
        let answer = podium.get(host, "/app");
        assert_eq!((answer.status, told(&answer)[0].as_str()), (status, "*"));
    }
    // A preflight is answered before anybody is sent elsewhere or refused.
    for host in ["b.example", "c.example"] {
        assert_eq!(podium.ask("OPTIONS", host, "/app", "").status, 204);
    }
    web.kill();
    let answer = from(&podium, "GET", "a.example", "https://one.example");
    assert_eq!((answer.status, told(&answer)[0].as_str()), (502, "https://one.example"));
}
