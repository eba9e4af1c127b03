//! Annotations of authentication: what they say alone and together, and what closes a location.

use super::*;
use crate::annotations::{Annotated, PREFIX, Settings, parse};
use expect_test::{Expect, expect};
use std::time::Duration;

fn read(pairs: &[(&str, &str)]) -> Annotated {
    let annotations = pairs.iter().map(|(n, v)| (format!("{PREFIX}{n}"), v.to_string())).collect();
    parse(&ObjectKey::new("shop", "web"), &annotations, &Settings::default())
}

fn check(pairs: &[(&str, &str)], expected: Expect) {
    let read = read(pairs);
    let mut text: String = read
        .problems
        .iter()
        .map(|problem| {
            let text = problem.to_string();
            let text = text.strip_prefix("Ingress shop/web: metadata.annotations[").unwrap();
            format!("{}\n", text.strip_prefix(PREFIX).unwrap())
        })
        .collect();
    text.push_str(if read.closed { "closed" } else { "open" });
    expected.assert_eq(&text);
}

#[test]
fn passwords_need_type_and_secret() {
    let complete =
        read(&[("auth-type", "basic"), ("auth-secret", "users"), ("auth-realm", "Staff")]);
    assert!(complete.problems.is_empty() && !complete.closed);
    let basic = complete.settings.authentication.basic.clone().unwrap();
    assert_eq!(basic.secret, ObjectKey::new("shop", "users"));
    assert_eq!((basic.form, basic.realm.as_str()), (SecretForm::File, "Staff"));
    let named = complete.settings.named_objects();
    assert_eq!(named.into_iter().collect::<Vec<_>>(), [(Kind::Secret, basic.secret)]);
    check(
        &[("auth-type", "basic")],
        expect![[r#"
            auth-type]: auth-secret is missing; its locations answer 503
            closed"#]],
    );
    check(
        &[("auth-secret", "users")],
        expect![[r#"
            auth-secret]: auth-type is missing; its locations answer 503
            closed"#]],
    );
}

#[test]
fn what_is_wrong_with_passwords_closes() {
    check(
        &[("auth-type", "digest"), ("auth-secret", "users")],
        expect![[r#"
            auth-type]: digest authentication is not available: it needs passwords in a form that is easily broken; use basic over TLS; its locations answer 503
            closed"#]],
    );
    for (name, value) in [
        ("auth-type", "Basic"),
        ("auth-secret", "other/users"),
        ("auth-secret", "a/b/c"),
        ("auth-secret", ""),
        ("auth-secret-type", "auth-list"),
        ("auth-realm", "a\"b"),
        ("auth-realm", "$host"),
    ] {
        let mut pairs = vec![("auth-type", "basic"), ("auth-secret", "users")];
        pairs.retain(|(own, _)| *own != name);
        pairs.push((name, value));
        let read = read(&pairs);
        assert!(read.closed && read.settings.authentication.basic.is_none(), "{name} {value}");
        assert_eq!(read.problems.len(), 1, "{name} {value}");
        assert!(read.settings.named_objects().is_empty(), "nothing of others is read");
    }
}

#[test]
fn other_namespaces_may_be_allowed() {
    let mut defaults = Settings::default();
    defaults.authentication.cross_namespace = true;
    let pairs = [("auth-type", "basic"), ("auth-secret", "other/users")];
    let annotations = pairs.iter().map(|(n, v)| (format!("{PREFIX}{n}"), v.to_string())).collect();
    let read = parse(&ObjectKey::new("shop", "web"), &annotations, &defaults);
    let secret = read.settings.authentication.basic.unwrap().secret;
    assert_eq!(secret, ObjectKey::new("other", "users"));
}

#[test]
fn authorities_are_urls_with_variables() {
    let external = |pairs: &[(&str, &str)]| {
        let read = read(pairs);
        assert!(read.problems.is_empty(), "{:?}", read.problems);
        *read.settings.authentication.external.unwrap()
    };
    let plain = external(&[("auth-url", "http://auth.shop.svc.cluster.local:8080/check?x=$host")]);
    assert_eq!(plain.url.authority.source(), "auth.shop.svc.cluster.local:8080");
    assert_eq!(plain.url.host.source(), "auth.shop.svc.cluster.local");
    assert_eq!(plain.url.target.source(), "/check?x=$host");
    assert!(!plain.url.https && plain.signin.is_none() && plain.method.is_none());
    let bare = external(&[("auth-url", "https://$host")]);
    assert_eq!((bare.url.target.source(), bare.url.https), ("/", true));
    let full = external(&[
        ("auth-url", "https://[::1]/"),
        ("auth-method", "POST"),
        ("auth-response-headers", "X-User, , X-Email"),
        ("auth-proxy-set-headers", "shop/headers"),
        ("auth-cache-key", "$remote_user$http_authorization"),
        ("auth-cache-duration", "200 10m, 401 1s, any 1h30m"),
        ("auth-always-set-cookie", "true"),
        ("auth-request-redirect", "https://shop.example/"),
    ]);
    assert_eq!(full.response_headers, ["x-user", "x-email"]);
    let durations =
        [200, 401, 500].map(|status| full.cache_durations.of(status).unwrap().as_secs());
    assert_eq!(durations, [600, 1, 5400]);
    assert_eq!(full.url.host.source(), "[::1]");
}

#[test]
fn what_is_wrong_with_authorities_closes() {
    check(
        &[("auth-url", "auth.shop.svc")],
        expect![[r#"
            auth-url]: want a URL that begins with http:// or https://; its locations answer 503
            closed"#]],
    );
    check(
        &[("auth-url", "http://$http_x_auth/")],
        expect![[r#"
            auth-url]: only $host and variables of the Ingress may stand in the host: what a client sends must not say who is asked; its locations answer 503
            closed"#]],
    );
    check(
        &[("auth-url", "http://auth/$unicorn")],
        expect![[r#"
            auth-url]: names the variable $unicorn, which does not exist here; its locations answer 503
            closed"#]],
    );
    for (name, value) in [
        ("auth-url", ""),
        ("auth-url", "ftp://auth/"),
        ("auth-url", "http:///check"),
        ("auth-url", "http://user:secret@auth/"),
        ("auth-url", "http://a..b/"),
        ("auth-url", "http://auth:port/"),
        ("auth-url", "http://auth:99999/"),
        ("auth-url", "http://auth/a b"),
        ("auth-url", "http://auth/\"; deny all"),
        ("auth-method", "get"),
        ("auth-method", "CONNECT"),
        ("auth-signin", "ftp://login"),
        ("auth-signin", "https://"),
        ("auth-signin", "https://login/$unicorn"),
        ("auth-signin-redirect-param", "a=b&c"),
        ("auth-response-headers", "X-User; X"),
        ("auth-proxy-set-headers", "other/headers"),
        ("auth-cache-duration", "200"),
        ("auth-cache-duration", "5m 200"),
        ("auth-cache-duration", "200 5x"),
        ("auth-request-redirect", "a\nb"),
    ] {
        let mut pairs = vec![("auth-url", "http://auth/")];
        pairs.retain(|(own, _)| *own != name);
        pairs.push((name, value));
        assert!(read(&pairs).closed, "{name} {value:?}");
    }
}

#[test]
fn what_opens_nothing_is_only_named() {
    check(
        &[("auth-url", "http://auth/"), ("auth-cache-key", "$unicorn")],
        expect![[r#"
            auth-cache-key]: value "$unicorn" is invalid (names the variable $unicorn, which does not exist here); the default is used
            open"#]],
    );
    check(
        &[("auth-signin", "https://login/")],
        expect![[r#"
            auth-signin]: has no effect without auth-url
            open"#]],
    );
    check(
        &[("auth-snippet", "deny all;"), ("auth-keepalive", "5")],
        expect![[r#"
            auth-snippet]: snippets are refused: there is no nginx to run them; use auth-response-headers or auth-proxy-set-headers
            open"#]],
    );
}

#[test]
fn clients_come_back_from_signing_in() {
    let signin = |pairs: &[(&str, &str)]| {
        let mut all = vec![("auth-url", "http://auth/")];
        all.extend(pairs);
        let external = read(&all).settings.authentication.external.unwrap();
        external.signin.unwrap().source().to_string()
    };
    let back = "=$pass_access_scheme://$http_host$escaped_request_uri";
    for (url, parameter, expected) in [
        ("https://login/start", None, format!("https://login/start?rd{back}")),
        ("https://login/start?a=b", None, format!("https://login/start?a=b&rd{back}")),
        ("https://login/start?rd=/x", None, "https://login/start?rd=/x".into()),
        ("https://login/start?rd=", None, format!("https://login/start?rd=&rd{back}")),
        ("https://login/start?rd=/x", Some("to"), format!("https://login/start?rd=/x&to{back}")),
        ("/oauth2/start", Some("to"), format!("/oauth2/start?to{back}")),
        (
            "https://$host/oauth2/start?rd=$escaped_request_uri",
            None,
            "https://$host/oauth2/start?rd=$escaped_request_uri".into(),
        ),
    ] {
        let mut pairs = vec![("auth-signin", url)];
        pairs.extend(parameter.map(|parameter| ("auth-signin-redirect-param", parameter)));
        assert_eq!(signin(&pairs), expected);
    }
}

#[test]
fn answers_are_remembered_by_status() {
    let of = |text: &str, status| external::cache_durations(text).unwrap().of(status);
    let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
    for (text, status, duration) in [
        ("", 200, minutes(5)),
        ("", 401, minutes(5)),
        ("", 403, None),
        ("10m", 200, minutes(10)),
        ("10m", 401, None),
        ("200 202 10m, 401 5m", 202, minutes(10)),
        ("200 202 10m, 401 5m", 401, minutes(5)),
        ("200 0s", 200, None),
        ("any 1m, 200 5m", 200, minutes(1)),
    ] {
        assert_eq!(of(text, status), duration, "{text:?} {status}");
    }
}
