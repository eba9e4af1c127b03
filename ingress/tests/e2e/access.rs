//! Who may use a location by address, and `satisfy`.

use crate::auth::{asking, get_with, start};
use crate::authority::Authority;
use crate::backend::Backend;
use crate::harness::Ingress;

/// Clients' addresses come in X-Forwarded-For.
const BEHIND_PROXY: [&str; 3] = ["--use-forwarded-headers", "--proxy-real-ip-cidr", "127.0.0.0/8"];

fn from(podium: &Ingress, host: &str, client: &str) -> u16 {
    get_with(podium, host, "/", &format!("X-Forwarded-For: {client}\r\n")).status
}

#[test]
fn whitelist_source_range_keeps_others_out() {
    let web = Backend::start("web");
    let podium = start(
        &web,
        &[
            "whitelist-source-range: 10.0.0.0/8, 192.0.2.7,2001:db8::/32",
            "whitelist-source-range: 10.0.0.0/8,nonsense",
            "whitelist-source-range: 10.0.0.0/33",
        ],
        "",
        &BEHIND_PROXY,
    );
    for (client, status) in [
        ("10.1.2.3", 200),
        ("11.1.2.3", 403),
        ("192.0.2.7", 200),
        ("192.0.2.8", 403),
        ("2001:db8::1", 200),
        ("2001:db9::1", 403),
        ("::ffff:10.0.0.1", 200),
        ("1.2.3.4, 10.0.0.1", 200),
        ("10.0.0.1, 1.2.3.4", 403),
        ("garbage", 403),
    ] {
        assert_eq!(from(&podium, "a.example", client), status, "{client}");
    }
    for host in ["b.example", "c.example"] {
        assert_eq!(from(&podium, host, "10.1.2.3"), 503, "a wrong list closes");
    }
}

#[test]
fn allowlist_source_range_is_the_newer_name() {
    let web = Backend::start("web");
    let both = "allowlist-source-range: 10.0.0.0/8\nwhitelist-source-range: 11.0.0.0/8";
    let podium = start(&web, &["allowlist-source-range: 10.0.0.0/8", both], "", &BEHIND_PROXY);
    for host in ["a.example", "b.example"] {
        assert_eq!((from(&podium, host, "10.0.0.1"), from(&podium, host, "11.0.0.1")), (200, 403));
    }
}

#[test]
fn denylist_source_range_goes_first() {
    let web = Backend::start("web");
    let long: Vec<String> = (0..200).map(|at| format!("10.{at}.0.0/16")).collect();
    let podium = start(
        &web,
        &[
            "denylist-source-range: 10.1.0.0/16,::1",
            "denylist-source-range: 10.1.0.0/16\nwhitelist-source-range: 10.0.0.0/8",
            &format!("denylist-source-range: {}", long.join(",")),
            "denylist-source-range: ,",
        ],
        "",
        &BEHIND_PROXY,
    );
    for (host, client, status) in [
        ("a.example", "10.1.0.1", 403),
        ("a.example", "10.2.0.1", 200),
        ("a.example", "::1", 403),
        ("b.example", "10.1.0.1", 403),
        ("b.example", "10.2.0.1", 200),
        ("b.example", "11.2.0.1", 403),
        ("c.example", "10.199.1.1", 403),
        ("c.example", "10.200.1.1", 200),
        ("d.example", "10.200.1.1", 503),
    ] {
        assert_eq!(from(&podium, host, client), status, "{host} {client}");
    }
}

#[test]
fn satisfy_any_needs_one_guard_and_all_needs_all() {
    let web = Backend::start("web");
    let authority = Authority::start(|head| {
        let yes = head.to_lowercase().contains("\r\nx-pass: yes\r\n");
        crate::authority::plain(if yes { "200 OK" } else { "401 No" }, "X-User: anna\r\n")
    });
    let list = "whitelist-source-range: 10.0.0.0/8\nauth-response-headers: X-User\n";
    let podium = start(
        &web,
        &[
            &asking(&authority, &format!("{list}satisfy: any")),
            &asking(&authority, &format!("{list}satisfy: all")),
            &asking(&authority, &format!("{list}satisfy: some")),
            "satisfy: any",
        ],
        "",
        &BEHIND_PROXY,
    );
    let status = |host: &str, client: &str, pass: &str| {
        let headers = format!("X-Forwarded-For: {client}\r\nX-Pass: {pass}\r\nX-User: root\r\n");
        let answer = get_with(&podium, host, "/", &headers);
        assert!(
            !answer.body.contains("root"),
            "what the client said is not what the authority said"
        );
        answer.status
    };
    for (host, client, pass, expected) in [
        ("a.example", "10.0.0.1", "no", 200),
        ("a.example", "11.0.0.1", "yes", 200),
        ("a.example", "11.0.0.1", "no", 401),
        ("b.example", "10.0.0.1", "yes", 200),
        ("b.example", "10.0.0.1", "no", 401),
        ("b.example", "11.0.0.1", "yes", 403),
        // A wrong word is the default.
        ("c.example", "10.0.0.1", "no", 401),
        ("c.example", "11.0.0.1", "yes", 403),
    ] {
        assert_eq!(status(host, client, pass), expected, "{host} {client} {pass}");
    }
    let asked = authority.asked().len();
    assert_eq!(status("a.example", "10.0.0.1", "no"), 200);
    assert_eq!(authority.asked().len(), asked, "one was enough");
    assert_eq!(from(&podium, "d.example", "11.0.0.1"), 200, "without guards all are let in");
}

#[test]
fn blocked_clients_are_refused_everywhere() {
    let web = Backend::start("web");
    let options = |data: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: options}}\ndata: {{{data}}}\n")
    };
    let data = "block-cidrs: \"10.0.0.0/8,2001:db8::/32\", block-user-agents: \"~*evil.*bot,Bad\", \
                block-referers: \"https://spam.example/\"";
    let flags = [&BEHIND_PROXY[..], &["--configmap", "default/options"]].concat();
    let more = format!("---\n{}", options(data));
    let podium = start(&web, &["whitelist-source-range: 10.0.0.0/8,11.0.0.0/8"], &more, &flags);
    let status = |host: &str, headers: &str| get_with(&podium, host, "/", headers).status;
    for (headers, expected) in [
        ("X-Forwarded-For: 11.0.0.1\r\n", 200),
        ("X-Forwarded-For: 10.0.0.1\r\n", 403),
        ("X-Forwarded-For: 11.0.0.1\r\nUser-Agent: EVIL robot\r\n", 403),
        ("X-Forwarded-For: 11.0.0.1\r\nUser-Agent: bad\r\n", 403),
        ("X-Forwarded-For: 11.0.0.1\r\nUser-Agent: not bad\r\n", 200),
        ("X-Forwarded-For: 11.0.0.1\r\nReferer: https://spam.example/\r\n", 403),
    ] {
        assert_eq!(status("a.example", headers), expected, "{headers}");
    }
    assert_eq!(status("unknown.example", "X-Forwarded-For: 10.0.0.1\r\n"), 403);
}
