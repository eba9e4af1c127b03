//! What ipallowlist.go, ipdenylist.go, limitconnections.go, limitrate.go, log.go, disableaccesslog.go and
//! the snippets' files check (all in annotations), and settings/badannotationvalues.go.

use crate::harness::wait_until;
use crate::world::{Site, World, site};
use std::sync::Arc;
use std::thread;

#[test]
fn allowlist_of_others_is_403() {
    for name in ["allowlist-source-range", "whitelist-source-range"] {
        site(&[(name, "18.0.0.0/8, 56.0.0.0/8")]).get("/").send().is(403);
        site(&[(name, "18.0.0.0/8, 127.0.0.0/8")]).get("/").send().from("echo");
    }
}

/// A world that believes `X-Forwarded-For`, so that clients have the addresses a test needs.
fn believing() -> Arc<World> {
    Arc::new(World::configured(&[("use-forwarded-headers", "true")]))
}

#[track_caller]
fn answers(site: &Site, clients: &[(&str, u16)]) {
    for (client, status) in clients {
        site.get("/").header("X-Forwarded-For", client).send().is(*status);
    }
}

#[test]
fn denylist_alone_allows_all_others() {
    let site = believing().site(&[("denylist-source-range", "18.0.0.0/8, 56.0.0.1")]);
    answers(&site, &[("18.0.0.1", 403), ("56.0.0.1", 403), ("56.0.0.2", 200)]);
}

#[test]
fn denylist_comes_before_the_allowlist() {
    let site = believing().site(&[
        ("denylist-source-range", "18.1.0.0/16, 56.0.0.0/8"),
        ("whitelist-source-range", "18.0.0.0/8, 55.0.0.0/8"),
    ]);
    let clients =
        [("18.1.0.1", 403), ("10.10.10.10", 403), ("18.4.0.1", 200), ("55.55.55.55", 200)];
    answers(&site, &clients);
}

/// How many of this many requests at once were answered 200, where all others were answered 503.
fn served_at_once(site: &Site, requests: usize) -> usize {
    let statuses: Vec<u16> = thread::scope(|scope| {
        let asked = (0..requests).map(|_| {
            let request = site.get("/sleep/1500");
            scope.spawn(move || request.send().status)
        });
        let asked: Vec<_> = asked.collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

#[test]
fn limit_connections() {
    assert_eq!(served_at_once(&site(&[("limit-connections", "8")]), 20), 8);
}

#[test]
fn limit_rps_allows_bursts() {
    // One a second with a burst of five times that: the sixth at once is still served.
    let site = site(&[("limit-rps", "1")]);
    let statuses: Vec<u16> = (0..20).map(|_| site.get("/").send().status).collect();
    assert!(statuses[..6].iter().all(|status| *status == 200), "{statuses:?}");
    assert!(statuses.contains(&503), "{statuses:?}");
}

#[test]
fn limit_whitelist() {
    let site = site(&[("limit-rps", "1"), ("limit-whitelist", "127.0.0.0/8")]);
    for _ in 0..20 {
        site.get("/").send().from("echo");
    }
}

#[test]
fn limit_rate_still_serves_all() {
    let slow = [("limit-rate", "90"), ("limit-rate-after", "1"), ("proxy-buffering", "on")];
    site(&slow).get("/bytes/2000").send().is(200).has("content-length", "2000");
}

/// Whether a request to this target appears in the access log, once one after it did.
fn is_logged(quiet: &Site, target: &str) -> bool {
    let loud = quiet.world.site(&[]);
    quiet.get(target).send();
    let last = format!("/last-of-{}", loud.host);
    loud.get(&last).send().from("echo");
    let log = &quiet.world.podium.access_log;
    wait_until("the access log is written", || log.lock().unwrap().contains(&last));
    log.lock().unwrap().contains(target)
}

#[test]
fn access_log_off() {
    assert!(!is_logged(&site(&[("enable-access-log", "false")]), "/quiet-please"));
    assert!(is_logged(&site(&[("enable-access-log", "true")]), "/loud-please"));
}

#[test]
fn access_log_off_by_config_map() {
    for option in ["disable-access-log", "disable-http-access-log"] {
        let world = Arc::new(World::configured(&[(option, "true")]));
        let site = world.site(&[]);
        site.get("/x").send().from("echo");
        world.configure(&[(option, "false")], "");
        assert!(is_logged(&site, "/again"));
        assert!(!world.podium.access_log.lock().unwrap().contains("GET /x "));
    }
    // The log of TCP and UDP streams, which are not served.
    let world = Arc::new(World::configured(&[("disable-stream-access-log", "true")]));
    assert!(is_logged(&world.site(&[]), "/x"));
}

#[test]
fn rewrite_log_serves() {
    site(&[("enable-rewrite-log", "true")]).get("/").send().from("echo");
}

/// Snippets are refused, as ingress-nginx does by default since CVE-2021-25742: the text has no effect
/// and the rest of the Ingress works.
#[test]
fn snippets_have_no_effect() {
    for name in ["configuration-snippet", "server-snippet", "stream-snippet", "auth-snippet"] {
        let site = site(&[(name, "more_set_headers \"Foo: Bar\"; deny all;")]);
        site.get("/").send().from("echo").lacks("foo");
    }
}

/// Upstream leaves out Ingresses with such words (404); here their locations are closed, which says more.
#[test]
fn forbidden_words_close_the_ingress() {
    let words = "something_forbidden,otherthing_forbidden,{";
    let world = Arc::new(World::configured(&[("annotation-value-word-blocklist", words)]));
    for value in ["\n# abc { }", "# something_forbidden"] {
        world.site(&[("configuration-snippet", value)]).get("/").send().is(503);
    }
    world.site(&[("upstream-vhost", "fine.test")]).get("/").send().from("echo");
    // Without the option there is no such list.
    site(&[("configuration-snippet", "# something_forbidden")]).get("/").send().from("echo");
}
