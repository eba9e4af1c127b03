//! `canary-*`: which requests the variant of a service gets.

use crate::backend::Backend;
use crate::harness::{Answer, Ingress, ingress, service, wait_until};

struct Shop {
    podium: Ingress,
    _endpoints: [Backend; 2],
}

fn annotations(pairs: &[(&str, &str)]) -> String {
    let notes = pairs
        .iter()
        .map(|(name, value)| format!("\"nginx.ingress.kubernetes.io/{name}\": {value:?}"));
    notes.collect::<Vec<_>>().join(", ")
}

fn shop(main: &[(&str, &str)], canary: &[(&str, &str)]) -> Shop {
    let (old, new) = (Backend::start("old"), Backend::start("new"));
    let rule = |service| [("a.example", "/", "Prefix", service)];
    let manifests = format!(
        "{}---\n{}{}{}",
        service("old", &[&old]),
        service("new", &[&new]),
        ingress("main", &annotations(main), &rule("old")),
        ingress("variant", &annotations(canary), &rule("new"))
    );
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    Shop { podium, _endpoints: [old, new] }
}

impl Shop {
    fn ask(&self, header: &str) -> Answer {
        self.podium.send(&format!(
            "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n{header}\r\n"
        ))
    }

    fn backend(&self, header: &str) -> String {
        self.ask(header).seen("backend")
    }

    /// How many of `of` requests the variant gets.
    fn of_new(&self, of: usize) -> usize {
        (0..of).filter(|_| self.backend("") == "new").count()
    }
}

#[test]
fn canary_without_a_rule_gets_nothing() {
    let shop = shop(&[], &[("canary", "true")]);
    assert_eq!(shop.of_new(20), 0);
}

#[test]
fn canary_by_header_decides_with_always_and_never_only() {
    let shop = shop(
        &[],
        &[("canary", "true"), ("canary-by-header", "X-Canary"), ("canary-by-cookie", "canary")],
    );
    assert_eq!(shop.backend("X-Canary: always\r\n"), "new");
    assert_eq!(shop.backend("X-Canary: never\r\nCookie: canary=always\r\n"), "old");
    assert_eq!(shop.backend("X-Canary: perhaps\r\nCookie: canary=always\r\n"), "new");
    assert_eq!(shop.backend(""), "old");
}

#[test]
fn canary_by_header_value_replaces_always_and_never() {
    let shop = shop(
        &[],
        &[
            ("canary", "true"),
            ("canary-by-header", "X-Canary"),
            ("canary-by-header-value", "tester"),
            ("canary-by-header-pattern", ".*"),
        ],
    );
    for (header, backend) in
        [("tester", "new"), ("always", "old"), ("never", "old"), ("tester2", "old")]
    {
        assert_eq!(shop.backend(&format!("X-Canary: {header}\r\n")), backend, "{header}");
    }
}

#[test]
fn canary_by_header_pattern_is_an_expression() {
    let by = |pattern: &str| {
        shop(
            &[],
            &[
                ("canary", "true"),
                ("canary-by-header", "X-Canary"),
                ("canary-by-header-pattern", pattern),
                ("canary-weight", "100"),
            ],
        )
    };
    let shop = by("^(eu|us)-[0-9]+$");
    assert_eq!(shop.backend("X-Canary: eu-7\r\n"), "new");
    // What does not match leaves it to the weight.
    assert_eq!(shop.backend("X-Canary: asia-7\r\n"), "new");
    let broken = by("(");
    assert_eq!(broken.backend("X-Canary: (\r\n"), "old");
    assert_eq!(broken.backend(""), "new");
    let counted = || broken.podium.metrics().contains("kind=\"Ingress\",severity=\"error\"} 1");
    wait_until("the problem is counted", counted);
}

#[test]
fn canary_by_cookie_comes_before_the_weight() {
    let shop =
        shop(&[], &[("canary", "true"), ("canary-by-cookie", "beta"), ("canary-weight", "0")]);
    assert_eq!(shop.backend("Cookie: a=b; beta=always\r\n"), "new");
    assert_eq!(shop.backend("Cookie: beta=never\r\n"), "old");
    assert_eq!(shop.backend("Cookie: beta=yes\r\n"), "old");
}

#[test]
fn canary_weight_and_canary_weight_total() {
    let half = shop(&[], &[("canary", "true"), ("canary-weight", "50")]);
    let count = half.of_new(200);
    assert!((60..140).contains(&count), "{count} of 200");
    let all = shop(&[], &[("canary", "true"), ("canary-weight", "100")]);
    assert_eq!(all.of_new(20), 20);
    let tenth = [("canary", "true"), ("canary-weight", "100"), ("canary-weight-total", "1000")];
    let count = shop(&[], &tenth).of_new(200);
    assert!((3..50).contains(&count), "{count} of 200");
}

#[test]
fn canary_without_endpoints_leaves_all_to_the_main_service() {
    let old = Backend::start("old");
    let rule = |service| [("a.example", "/", "Prefix", service)];
    let canary = annotations(&[("canary", "true"), ("canary-weight", "100")]);
    let manifests = format!(
        "{}---\n{}{}{}",
        service("old", &[&old]),
        service("new", &[]),
        ingress("main", "", &rule("old")),
        ingress("variant", &canary, &rule("new"))
    );
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    assert_eq!(podium.get("a.example", "/").seen("backend"), "old");
}

fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().unwrap_or_default().to_string()
}

#[test]
fn affinity_canary_behavior_sticky_keeps_clients_where_they_are() {
    let shop = shop(
        &[("affinity", "cookie")],
        &[("canary", "true"), ("canary-weight", "50"), ("canary-by-header", "X-Canary")],
    );
    for backend in ["old", "new"] {
        let header = if backend == "new" { "always" } else { "never" };
        let first = shop.ask(&format!("X-Canary: {header}\r\n"));
        assert_eq!(first.seen("backend"), backend);
        let cookie = cookie(&first);
        assert!(cookie.starts_with("INGRESSCOOKIE="), "{first:?}");
        // Neither chance nor a header moves it.
        for other in ["", "X-Canary: always\r\n", "X-Canary: never\r\n", "", ""] {
            let again = shop.ask(&format!("Cookie: {cookie}\r\n{other}"));
            assert_eq!(again.seen("backend"), backend);
            assert_eq!(again.header("set-cookie"), "");
        }
    }
}

#[test]
fn affinity_canary_behavior_legacy_gives_the_canary_no_session() {
    let shop = shop(
        &[("affinity", "cookie")],
        &[
            ("canary", "true"),
            ("canary-by-header", "X-Canary"),
            ("affinity-canary-behavior", "legacy"),
        ],
    );
    let by_canary = shop.ask("X-Canary: always\r\n");
    assert_eq!((by_canary.seen("backend").as_str(), cookie(&by_canary).as_str()), ("new", ""));
    let by_main = shop.ask("");
    assert_eq!(by_main.seen("backend"), "old");
    assert!(cookie(&by_main).starts_with("INGRESSCOOKIE="));
}
