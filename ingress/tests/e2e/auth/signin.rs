//! `auth-signin`: where clients without a session go, and the cookies they get.

use super::{asking, start};
use crate::authority::Authority;
use crate::backend::Backend;

const COOKIES: &str = "Set-Cookie: s=1; Path=/\r\nSet-Cookie: t=2\r\n";

fn cookies(head: &str) -> Vec<&str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines
        .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn auth_signin_redirects_and_brings_back() {
    let web = Backend::start("web");
    let authority = Authority::saying(
        "401 No",
        "WWW-Authenticate: Basic realm=\"x\"\r\nSet-Cookie: csrf=1\r\nLocation: https://evil.example/\r\n",
    );
    let podium = start(
        &web,
        &[
            &asking(&authority, "auth-signin: https://login.example/start"),
            &asking(&authority, "auth-signin: https://login.example/start?a=b"),
            &asking(&authority, "auth-signin: https://$host/oauth2/start?rd=$escaped_request_uri"),
            &asking(&authority, "auth-signin: /oauth2/start"),
            &asking(&authority, "auth-signin: ftp://login.example"),
        ],
        "",
        &[],
    );
    let location = |host: &str, path: &str| {
        let answer = podium.get(host, path);
        assert_eq!(answer.status, 302, "{}", answer.head);
        assert_eq!(answer.header("www-authenticate"), "Basic realm=\"x\"");
        assert_eq!(cookies(&answer.head), ["csrf=1"]);
        answer.header("location")
    };
    assert_eq!(
        location("A.example:8080", "/a b".replace(' ', "%20").as_str()),
        "https://login.example/start?rd=http://A.example:8080%2Fa%2520b"
    );
    assert_eq!(
        location("b.example", "/?x=1&y=2"),
        "https://login.example/start?a=b&rd=http://b.example%2F%3Fx%3D1%26y%3D2"
    );
    assert_eq!(location("c.example", "/x"), "https://c.example/oauth2/start?rd=%2Fx");
    assert_eq!(
        location("d.example", "/x"),
        "http://d.example/oauth2/start?rd=http://d.example%2Fx"
    );
    assert_eq!(podium.get("e.example", "/").status, 503, "a wrong one closes");
    assert_eq!(web.requests(), 0);
}

#[test]
fn auth_signin_is_for_401_only() {
    let web = Backend::start("web");
    let (no, broken) = (Authority::saying("403 No", ""), Authority::saying("302 Found", ""));
    let signin = "auth-signin: https://login.example/";
    let podium = start(&web, &[&asking(&no, signin), &asking(&broken, signin)], "", &[]);
    assert_eq!(podium.get("a.example", "/").status, 403);
    assert_eq!(podium.get("b.example", "/").status, 500);
}

#[test]
fn auth_signin_redirect_param_names_the_way_back() {
    let web = Backend::start("web");
    let authority = Authority::saying("401 No", "");
    let podium = start(
        &web,
        &[
            &asking(
                &authority,
                "auth-signin: https://l.example/\nauth-signin-redirect-param: next",
            ),
            &asking(
                &authority,
                "auth-signin: https://l.example/?next=/home\nauth-signin-redirect-param: next",
            ),
            &asking(&authority, "auth-signin: https://l.example/\nauth-signin-redirect-param: a&b"),
        ],
        "",
        &[],
    );
    let location = |host: &str| podium.get(host, "/x").header("location");
    assert_eq!(location("a.example"), "https://l.example/?next=http://a.example%2Fx");
    assert_eq!(location("b.example"), "https://l.example/?next=/home");
    assert_eq!(podium.get("c.example", "/").status, 503);
}

#[test]
fn auth_always_set_cookie_is_for_answers_that_have_none_by_default() {
    let web = Backend::start("web");
    let (yes, no) = (Authority::saying("200 OK", COOKIES), Authority::saying("403 No", COOKIES));
    let always = "auth-always-set-cookie: true";
    let podium = start(
        &web,
        &[&asking(&yes, ""), &asking(&no, ""), &asking(&yes, always), &asking(&no, always)],
        "",
        &[],
    );
    for (host, status, set) in [
        ("a.example", 200, true),
        ("b.example", 403, false),
        ("c.example", 200, true),
        ("d.example", 403, true),
    ] {
        let answer = podium.get(host, "/");
        assert_eq!(answer.status, status);
        let expected: &[&str] = if set { &["s=1; Path=/", "t=2"] } else { &[] };
        assert_eq!(cookies(&answer.head), expected, "{host}");
    }
}
