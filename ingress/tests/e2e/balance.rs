//! The choice of endpoints: in turn, by latency, by hash, by cookie, by health.

use crate::backend::Backend;
use crate::harness::{Answer, Ingress, curl, ingress, service, wait_until};
use std::collections::BTreeMap;
use std::fmt::Write as _;

fn annotations(pairs: &[(&str, &str)]) -> String {
    let notes = pairs.iter().map(|(name, value)| {
        let prefix = if name.contains('/') { "" } else { "nginx.ingress.kubernetes.io/" };
        format!("\"{prefix}{name}\": {value:?}")
    });
    notes.collect::<Vec<_>>().join(", ")
}

struct Web {
    podium: Ingress,
    backends: Vec<Backend>,
}

fn web(count: usize, pairs: &[(&str, &str)]) -> Web {
    let backends: Vec<Backend> = (0..count).map(|n| Backend::start(&n.to_string())).collect();
    let listed: Vec<&Backend> = backends.iter().collect();
    let rules = ingress("a", &annotations(pairs), &[("a.example", "/app", "Prefix", "web")]);
    let files = [
        ("web.yaml", service("web", &listed)),
        ("rules.yaml", rules.trim_start_matches("---\n").into()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(n, text)| (*n, text.as_str())).collect();
    Web { podium: Ingress::start(&files, &[]), backends }
}

impl Web {
    fn ask(&self, target: &str, header: &str) -> Answer {
        let answer = self.podium.send(&format!(
            "GET {target} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n{header}\r\n"
        ));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    /// Who answers how many of some requests.
    fn counts(&self, requests: usize, target: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..requests {
            *counts.entry(self.ask(target, "").seen("backend")).or_default() += 1;
        }
        counts
    }

    fn list(&self, backends: &[&Backend]) {
        self.podium.write("web.yaml", &service("web", backends));
    }

    fn problems(&self, count: usize) {
        let found = format!("kind=\"Ingress\",severity=\"error\"}} {count}");
        wait_until("the problem is counted", || self.podium.metrics().contains(&found));
    }
}

#[test]
fn load_balance_round_robin_is_the_default() {
    let by_default = web(3, &[]);
    assert_eq!(by_default.counts(30, "/app").into_values().collect::<Vec<_>>(), [10, 10, 10]);
    let wrong = web(2, &[("load-balance", "ip_hash")]);
    assert_eq!(wrong.counts(20, "/app").into_values().collect::<Vec<_>>(), [10, 10]);
    wrong.problems(1);
}

#[test]
fn load_balance_ewma_prefers_the_faster() {
    let web = web(3, &[("load-balance", "ewma")]);
    web.counts(6, "/app?sleep-1=40&sleep-2=40");
    let counts = web.counts(40, "/app?sleep-1=40&sleep-2=40");
    let fast = counts.get("0").copied().unwrap_or_default();
    // Of two at random the fast one is chosen whenever it is among them: two times of three.
    assert!(fast >= 18, "{counts:?}");
}

#[test]
fn upstream_hash_by_finds_the_same_endpoint_for_the_same_value() {
    let by_argument = web(4, &[("upstream-hash-by", "user-${arg_user}")]);
    let mut used = BTreeMap::new();
    for user in 0..24 {
        let counts = by_argument.counts(3, &format!("/app/{user}?user={user}"));
        assert_eq!(counts.len(), 1, "{user}: {counts:?}");
        *used.entry(counts.into_keys().next().unwrap()).or_insert(0) += 1;
    }
    assert!(used.len() >= 3, "{used:?}");
    for variable in ["$request_uri", "$remote_addr", "$host", "$http_x_user$cookie_user"] {
        let web = web(3, &[("upstream-hash-by", variable)]);
        assert_eq!(web.counts(6, "/app/same?x=y").len(), 1, "{variable}");
    }
    let by_header = web(4, &[("upstream-hash-by", "$http_x_user")]);
    let of = |user: usize| by_header.ask("/app", &format!("X-User: {user}\r\n")).seen("backend");
    let first: Vec<String> = (0..24).map(of).collect();
    assert_eq!(first, (0..24).map(of).collect::<Vec<_>>());

    // One leaves: only what it had goes elsewhere.
    let left: Vec<&Backend> = by_header.backends.iter().filter(|b| b.name != first[0]).collect();
    by_header.list(&left);
    wait_until("the endpoint is not used any more", || of(0) != first[0]);
    for (user, before) in first.iter().enumerate() {
        assert!(*before == of(user) || *before == first[0], "{user} moved from {before}");
    }

    let wrong = web(2, &[("upstream-hash-by", "$geoip_country")]);
    assert_eq!(wrong.counts(10, "/app").len(), 2);
    wrong.problems(1);
}

#[test]
fn upstream_hash_by_subset_uses_a_few_endpoints_for_each_value() {
    let pairs = [
        ("upstream-hash-by", "$arg_user"),
        ("upstream-hash-by-subset", "true"),
        ("upstream-hash-by-subset-size", "2"),
    ];
    let web = web(6, &pairs);
    for user in 0..4 {
        let counts = web.counts(30, &format!("/app?user={user}"));
        assert_eq!(counts.len(), 2, "{counts:?}");
    }
}

#[test]
fn service_upstream_goes_to_the_cluster_ip() {
    let (by_ip, endpoint) = (Backend::start("cluster-ip"), Backend::start("endpoint"));
    let listed = service("web", &[&endpoint]).replace(
        "spec: {ports: [{port: 80}]}",
        &format!(
            "spec: {{clusterIP: {}, ports: [{{port: {}}}]}}",
            by_ip.address.ip(),
            by_ip.address.port()
        ),
    );
    let rule = |name: &str, host: &str, pairs: &[(&str, &str)]| {
        ingress(name, &annotations(pairs), &[(host, "/", "Prefix", "web")])
            .replace("number: 80", &format!("number: {}", by_ip.address.port()))
    };
    let manifests = format!(
        "{listed}{}{}{}",
        rule("a", "a.example", &[("service-upstream", "true"), ("affinity", "cookie")]),
        rule("b", "b.example", &[("service-upstream", "false")]),
        rule("c", "c.example", &[("service-upstream", "1.5")])
    );
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    let answer = podium.get("a.example", "/");
    assert_eq!(answer.seen("backend"), "cluster-ip");
    assert_eq!(answer.header("set-cookie"), "", "there is nobody to stay with");
    assert_eq!(podium.get("b.example", "/").seen("backend"), "endpoint");
    assert_eq!(podium.get("c.example", "/").seen("backend"), "endpoint");
    let counted = || podium.metrics().contains("kind=\"Ingress\",severity=\"error\"} 2");
    wait_until("the problem is counted", counted);
}

fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().unwrap_or_default().to_string()
}

#[test]
fn affinity_cookie_keeps_a_client_with_its_endpoint() {
    let web = web(4, &[("affinity", "cookie")]);
    let first = web.ask("/app/x", "");
    let set = first.header("set-cookie");
    assert!(set.starts_with("INGRESSCOOKIE="), "{set}");
    assert!(set.ends_with("; Path=/app; HttpOnly"), "{set}");
    let value = cookie(&first);
    for backend in &web.backends {
        assert!(!value.contains(&backend.address.to_string()), "{value}");
    }
    for _ in 0..12 {
        let again = web.ask("/app", &format!("Cookie: a=b; {value}\r\n"));
        assert_eq!(again.seen("backend"), first.seen("backend"));
        assert_eq!(again.header("set-cookie"), "");
    }
    // Others are spread.
    assert!(web.counts(40, "/app").len() >= 3);
    let wrong = web_with_problem(&[("affinity", "ip")]);
    assert_eq!(wrong.ask("/app", "").header("set-cookie"), "");
}

fn web_with_problem(pairs: &[(&str, &str)]) -> Web {
    let web = web(2, pairs);
    web.problems(1);
    web
}

#[test]
fn affinity_mode_persistent_moves_only_from_endpoints_that_are_gone() {
    let web = web(2, &[("affinity", "cookie"), ("affinity-mode", "persistent")]);
    let first = web.ask("/app", "");
    let value = cookie(&first);
    let own = first.seen("backend");
    let (kept, gone): (Vec<&Backend>, Vec<&Backend>) =
        web.backends.iter().partition(|backend| backend.name == own);
    // However many there are more, it stays.
    let more: Vec<Backend> = (10..20).map(|n| Backend::start(&n.to_string())).collect();
    web.list(&more.iter().chain(kept.iter().copied()).collect::<Vec<_>>());
    wait_until("the new ones are used", || {
        web.podium.get("a.example", "/app").seen("backend").len() == 2
    });
    for _ in 0..5 {
        assert_eq!(web.ask("/app", &format!("Cookie: {value}\r\n")).seen("backend"), own);
    }
    web.list(&gone);
    let mut moved = None;
    wait_until("it moves", || {
        let answer = web.ask("/app", &format!("Cookie: {value}\r\n"));
        let there = answer.seen("backend") == gone[0].name;
        moved = Some(answer);
        there
    });
    assert!(cookie(&moved.unwrap()).starts_with("INGRESSCOOKIE="), "a new session, a new cookie");
    web_with_problem(&[("affinity", "cookie"), ("affinity-mode", "loose")]);
}

#[test]
fn affinity_mode_balanced_finds_another_endpoint_without_a_new_cookie() {
    let web = web(3, &[("affinity", "cookie"), ("affinity-mode", "balanced")]);
    let first = web.ask("/app", "");
    let (own, value) = (first.seen("backend"), cookie(&first));
    let left: Vec<&Backend> = web.backends.iter().filter(|b| b.name != own).collect();
    web.list(&left);
    let mut moved = None;
    wait_until("it moves", || {
        let answer = web.ask("/app", &format!("Cookie: {value}\r\n"));
        let there = answer.seen("backend") != own;
        moved = Some(answer);
        there
    });
    let moved = moved.unwrap();
    assert_eq!(moved.header("set-cookie"), "");
    for _ in 0..5 {
        let again = web.ask("/app", &format!("Cookie: {value}\r\n"));
        assert_eq!(again.seen("backend"), moved.seen("backend"));
    }
}

#[test]
fn session_cookie_attributes() {
    let pairs = [
        ("affinity", "cookie"),
        ("session-cookie-name", "route"),
        ("session-cookie-path", "/shop"),
        ("session-cookie-domain", "a.example"),
        ("session-cookie-secure", "true"),
        ("session-cookie-samesite", "None"),
        ("session-cookie-conditional-samesite-none", "true"),
        ("session-cookie-expires", "172800"),
        ("session-cookie-max-age", "3600"),
    ];
    let web = web(2, &pairs);
    let modern = web.ask("/app", "User-Agent: Mozilla/5.0 Chrome/120.0\r\n").header("set-cookie");
    assert!(modern.starts_with("route="), "{modern}");
    assert!(
        modern.ends_with(
            " GMT; Max-Age=3600; Domain=a.example; Path=/shop; Secure; HttpOnly; SameSite=None"
        ),
        "{modern}"
    );
    assert!(modern.contains("; Expires="), "{modern}");
    let old = web.ask("/app", "User-Agent: Mozilla/5.0 Chrome/60.0\r\n").header("set-cookie");
    assert!(old.ends_with("; Secure; HttpOnly"), "{old}");
    for (name, value) in [
        ("session-cookie-name", "a b"),
        ("session-cookie-path", "/;"),
        ("session-cookie-secure", "perhaps"),
        ("session-cookie-samesite", "Sometimes"),
        ("session-cookie-expires", "tomorrow"),
        ("session-cookie-max-age", "1h"),
        ("session-cookie-change-on-failure", "never"),
    ] {
        let web = web_with_problem(&[("affinity", "cookie"), (name, value)]);
        let set = web.ask("/app", "").header("set-cookie");
        assert!(
            set.starts_with("INGRESSCOOKIE=") && set.ends_with("; Path=/app; HttpOnly"),
            "{set}"
        );
    }
}

#[test]
fn session_cookie_secure_is_set_where_the_client_uses_tls() {
    let web = web(2, &[("affinity", "cookie"), ("session-cookie-secure", "false")]);
    let (head, good) = curl(&[
        "-k",
        "-D",
        "-",
        "-o",
        "/dev/null",
        "--resolve",
        &format!("a.example:{}:{}", web.podium.https.port(), web.podium.https.ip()),
        &format!("https://a.example:{}/app", web.podium.https.port()),
    ]);
    assert!(good && head.contains("; Path=/app; Secure; HttpOnly"), "{head}");
}

#[test]
fn session_cookie_path_is_everything_where_paths_are_expressions() {
    let web = web(2, &[("affinity", "cookie"), ("use-regex", "true")]);
    let set = web.ask("/app", "").header("set-cookie");
    assert!(set.ends_with("; Path=/; HttpOnly"), "{set}");
}

#[test]
fn session_cookie_change_on_failure() {
    for (change, statuses) in [("false", [502, 502]), ("true", [200, 200])] {
        let pairs = [("affinity", "cookie"), ("session-cookie-change-on-failure", change)];
        let web = web(2, &pairs);
        let first = web.ask("/app", "");
        let (own, value) = (first.seen("backend"), cookie(&first));
        web.backends.iter().find(|backend| backend.name == own).unwrap().kill();
        for status in statuses {
            let answer = web.podium.send(&format!(
                "GET /app HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nCookie: {value}\r\n\r\n"
            ));
            assert_eq!(answer.status, status, "{change}: {answer:?}");
            let set = cookie(&answer).starts_with("INGRESSCOOKIE=");
            assert_eq!(set, status == 200, "{answer:?}");
        }
    }
}

#[test]
fn podium_dev_health_check_takes_endpoints_out_and_back() {
    let pairs = [
        ("podium.dev/health-check-path", "/health?answer-1=503"),
        ("podium.dev/health-check-interval", "1"),
        ("podium.dev/health-check-timeout", "5"),
        ("podium.dev/health-check-unhealthy-threshold", "1"),
        ("podium.dev/health-check-healthy-threshold", "1"),
    ];
    let web = web(3, &pairs);
    wait_until("the unhealthy one gets nothing", || {
        let counts = web.counts(6, "/app");
        !counts.contains_key("1") && counts.len() == 2
    });
    // Asked for what all answer well, it comes back.
    let rule = |path: &str| {
        let mut pairs = pairs;
        pairs[0].1 = path;
        ingress("a", &annotations(&pairs), &[("a.example", "/app", "Prefix", "web")])
    };
    web.podium.write("rules.yaml", rule("/health").trim_start_matches("---\n"));
    wait_until("all get some", || web.counts(6, "/app").len() == 3);
    // None healthy: all are used.
    let none = rule("/health?answer-0=500&answer-1=500&answer-2=500");
    web.podium.write("rules.yaml", none.trim_start_matches("---\n"));
    for _ in 0..40 {
        web.ask("/app", "");
    }
    web_with_problem(&[("podium.dev/health-check-path", "health")]);
    web_with_problem(&[("podium.dev/health-check-path", "/health"), ("backend-protocol", "GRPC")]);
}

#[test]
fn podium_dev_max_fails_rests_an_endpoint_that_cannot_be_reached() {
    let web = web(2, &[("podium.dev/max-fails", "1"), ("podium.dev/fail-timeout", "3600")]);
    web.backends[0].kill();
    web.counts(4, "/app");
    let log = |web: &Web| web.podium.access_log.lock().unwrap().clone();
    wait_until("the lines are logged", || log(&web).lines().count() == 4);
    web.counts(20, "/app");
    wait_until("the lines are logged", || log(&web).lines().count() == 24);
    let mut failed = String::new();
    for line in log(&web).lines().filter(|line| line.contains(", ")) {
        writeln!(failed, "{line}").unwrap();
    }
    assert_eq!(failed.lines().count(), 1, "{failed}");
    web_with_problem(&[("podium.dev/max-fails", "few"), ("podium.dev/slow-start", "30")]);
}

#[test]
fn podium_dev_slow_start_gives_new_endpoints_little_at_first() {
    let web = web(3, &[("podium.dev/slow-start", "3600")]);
    let old = &web.backends[..2];
    web.list(&old.iter().collect::<Vec<_>>());
    wait_until("two are left", || web.counts(6, "/app").len() == 2);
    web.list(&web.backends.iter().collect::<Vec<_>>());
    let before = web.backends[2].requests();
    wait_until("the third is back", || {
        web.counts(3, "/app");
        web.backends[2].requests() > before
    });
    let before = web.backends[2].requests();
    web.counts(150, "/app");
    let new = web.backends[2].requests() - before;
    assert!(new < 30, "{new} of 150 for a tenth of a share");
}
