//! What annotations/auth.go and satisfy.go check: passwords, external authorities, their caches.

use crate::certificates::object;
use crate::client::basic;
use crate::origin::Origin;
use crate::world::{Sheet, Site, shared, site};

/// `foo:bar` and `uname:pwd`, hashed by bcrypt.
const FOO: &str = "foo:$2y$05$abcdefghijklmnopqrstuuUq7qXkDOZJ5Q8HA9wCOH0FErWp6q0b6\n";
const UNAME: &str = "uname:$2y$05$abcdefghijklmnopqrstuuFMuuBkQrGrwRDUZ30QUNSIGd5YWq3IC\n";

const BASIC: [(&str, &str); 2] = [("auth-type", "basic"), ("auth-realm", "test auth")];

/// A site with passwords from a Secret of these entries.
fn guarded(entries: &[(&str, &str)], more: &[(&str, &str)]) -> Site {
    let site = shared().new_site();
    let secret = site.own("passwords");
    site.with("passwords", object("Secret", &secret, "stringData", entries));
    let sheet = Sheet::new("web").set(&BASIC).set(&[("auth-secret", &secret)]).set(more);
    site.put(sheet.path("/", "Prefix", "echo"));
    site
}

#[test]
fn no_authentication_is_configured() {
    let site = site(&[]);
    site.get("/").send().from("echo").saw("host", &site.host);
}

#[test]
fn a_secret_that_is_not_there_answers_503() {
    let missing = [&BASIC[..], &[("auth-secret", "something")]].concat();
    site(&missing).get("/").send().is(503).says("503 Service Temporarily Unavailable");
}

#[test]
fn without_credentials_401() {
    let site = guarded(&[("auth", FOO)], &[]);
    let reply = site.get("/").send();
    reply.is(401).says("401 Authorization Required");
    reply.has("www-authenticate", "Basic realm=\"test auth\"");
}

#[test]
fn with_wrong_credentials_401() {
    let site = guarded(&[("auth", FOO)], &[]);
    site.get("/").basic("user", "pass").send().is(401).says("401 Authorization Required");
    site.get("/").basic("foo", "pass").send().is(401);
    site.get("/").basic("foo", "").send().is(401);
    site.get("/").header("Authorization", "Bearer x").send().is(401);
    site.get("/").header("Authorization", "Basic !!!").send().is(401);
}

#[test]
fn a_401_has_cors_headers() {
    let site = guarded(&[("auth", FOO)], &[("enable-cors", "true")]);
    site.get("/").send().is(401).has("access-control-allow-origin", "*");
}

#[test]
fn with_credentials_200() {
    let site = guarded(&[("auth", FOO)], &[]);
    // nginx forgets the credentials it checked itself.
    site.get("/").basic("foo", "bar").send().from("echo").saw_no("authorization");
}

#[test]
fn a_secret_with_one_key_for_each_user() {
    let hash = FOO.trim().split_once(':').unwrap().1;
    let site = guarded(&[("foo", hash)], &[("auth-secret-type", "auth-map")]);
    site.get("/").basic("foo", "bar").send().from("echo");
    site.get("/").basic("foo", "baz").send().is(401);
}

#[test]
fn a_secret_without_a_hash_lets_nobody_in() {
    let site = guarded(&[("auth", "foo:")], &[]);
    site.get("/").basic("foo", "bar").send().is(401);
    site.get("/").basic("foo", "").send().is(401);
}

#[test]
fn other_hashes() {
    let lines =
        "apr:$apr1$abcdefgh$bGLO42WqKpmLoPH9uGWTg1\nsha:{SHA}Ys23Ag/5IOWqZCw9QGaVDdHwH00=\n";
    let site = guarded(&[("auth", lines)], &[]);
    site.get("/").basic("apr", "bar").send().from("echo");
    site.get("/").basic("sha", "bar").send().from("echo");
    site.get("/").basic("sha", "baz").send().is(401);
}

/// An authority, and a site that asks it about everything at this path of the authority.
fn asked(path: &str, more: &[(&str, &str)]) -> (Site, Origin) {
    let authority = Origin::start("authority");
    let url = format!("http://{}{path}", authority.address);
    let site = shared().site(&[&[("auth-url", url.as_str())], more].concat());
    (site, authority)
}

const SIGNIN: (&str, &str) = ("auth-signin", "http://$host/auth/start");

#[test]
fn headers_from_a_config_map_go_to_the_authority() {
    let authority = Origin::start("authority");
    let site = shared().new_site();
    let map = site.own("headers");
    site.with("headers", object("ConfigMap", &map, "data", &[("My-Custom-Header", "42")]));
    let url = format!("http://{}/ok", authority.address);
    let map = format!("default/{map}");
    let sheet = Sheet::new("web").set(&[("auth-url", &url), ("auth-proxy-set-headers", &map)]);
    site.put(sheet.path("/", "Prefix", "echo"));
    site.get("/").send().from("echo").saw_no("my-custom-header");
    let (head, _) = authority.received().remove(0);
    assert!(head.to_lowercase().contains("\r\nmy-custom-header: 42\r\n"), "{head}");
}

#[test]
fn what_the_authority_is_told() {
    let (site, authority) = asked("/ok", &[]);
    let reply = site.request("POST", "/a%20b?c=d").body("hello").header("X-Own", "1").send();
    reply.from("echo").says("body-bytes: 5");
    let (head, body) = authority.received().remove(0);
    assert!(head.starts_with("GET /ok HTTP/1.1\r\n"), "{head}");
    assert!(body.is_empty(), "{head}");
    let lower = head.to_lowercase();
    for line in [
        format!("x-original-url: http://{}/a%20b?c=d", site.host),
        "x-original-method: post".into(),
        "x-sent-from: nginx-ingress-controller".into(),
        "x-auth-request-redirect: /a%20b?c=d".into(),
        "x-own: 1".into(),
        format!("host: {}", authority.address.ip()),
    ] {
        assert!(lower.contains(&format!("\r\n{line}\r\n")), "no {line} in {head}");
    }
}

#[test]
fn method_of_the_question() {
    let (site, authority) = asked("/ok", &[("auth-method", "POST")]);
    site.get("/").send().from("echo");
    assert!(authority.received()[0].0.starts_with("POST /ok "));
}

#[test]
fn cookies_of_the_authority_reach_the_client() {
    let (site, _authority) = asked("/cookies/set/alma/armud", &[SIGNIN]);
    site.get("/?a=b&c=d").send().from("echo").has("set-cookie", "alma=armud");
}

#[test]
fn cookies_of_the_authority_are_dropped_with_errors() {
    let (site, _authority) = asked("/cookies/set/alma/armud", &[SIGNIN]);
    site.get("/status/503").send().is(503).lacks("set-cookie");
}

#[test]
fn cookies_of_the_authority_are_kept_with_errors_when_told_so() {
    let always = [SIGNIN, ("auth-always-set-cookie", "true")];
    let (site, _authority) = asked("/cookies/set/alma/armud", &always);
    site.get("/status/503").send().is(503).has("set-cookie", "alma=armud");
}

#[test]
fn signed_in_200() {
    let (site, _authority) = asked("/basic-auth/user/password", &[SIGNIN]);
    site.get("/").basic("user", "password").send().from("echo");
}

#[test]
fn not_signed_in_is_sent_to_sign_in() {
    let (site, _authority) = asked("/basic-auth/user/password", &[SIGNIN]);
    let host = &site.host;
    let location = format!("http://{host}/auth/start?rd=http://{host}%2F%3Fa%3Db%26c%3Dd");
    site.get("/?a=b&c=d").send().is(302).has("location", &location);
    // The port the client used is part of where it returns to.
    let location = format!("http://{host}/auth/start?rd=http://{host}:8080%2F");
    site.get("/").host(&format!("{host}:8080")).send().is(302).has("location", &location);
}

#[test]
fn sign_in_with_a_parameter_of_another_name() {
    let orig = [SIGNIN, ("auth-signin-redirect-param", "orig")];
    let (site, _authority) = asked("/basic-auth/user/password", &orig);
    site.get("/").basic("user", "password").send().from("echo");
    let host = &site.host;
    let location = format!("http://{host}/auth/start?orig=http://{host}%2F%3Fa%3Db%26c%3Dd");
    site.get("/?a=b&c=d").send().is(302).has("location", &location);
}

#[test]
fn sign_in_url_with_a_query_or_the_parameter_already() {
    let (site, _authority) =
        asked("/status/401", &[("auth-signin", "https://sign.test/in?realm=x")]);
    let location = format!("https://sign.test/in?realm=x&rd=http://{}%2Fa", site.host);
    site.get("/a").send().is(302).has("location", &location);
    let (site, _authority) =
        asked("/status/401", &[("auth-signin", "https://sign.test/in?rd=https://home.test")]);
    site.get("/a").send().is(302).has("location", "https://sign.test/in?rd=https://home.test");
}

#[test]
fn without_sign_in_the_refusal_reaches_the_client() {
    let (site, _authority) = asked("/status/401?WWW-Authenticate=Negotiate", &[]);
    site.get("/").send().is(401).has("www-authenticate", "Negotiate");
    let (site, _authority) = asked("/status/403", &[SIGNIN]);
    site.get("/").send().is(403);
}

#[test]
fn other_answers_of_the_authority_are_an_error() {
    for status in ["302", "404", "500"] {
        let (site, _authority) = asked(&format!("/status/{status}"), &[SIGNIN]);
        site.get("/").send().is(500);
    }
}

#[test]
fn one_wrong_ingress_does_not_keep_others_from_working() {
    let wrong = [&BASIC[..], &[("auth-secret", "something"), ("auth-url", "http://127.0.0.1:1/")]];
    site(&wrong.concat()).get("/").send().is(503);
    site(&[]).get("/").send().from("echo");
}

#[test]
fn headers_of_the_authority_replace_the_clients() {
    let (site, _authority) = asked("/status/200?Foo=theirs", &[("auth-response-headers", "Foo")]);
    site.get("/").header("Foo", "bar").send().from("echo").saw("foo", "theirs");
    // One the authority does not send is not the client's to make up.
    let (site, _authority) = asked("/status/200", &[("auth-response-headers", "Foo,Bar")]);
    site.get("/").header("Foo", "bar").send().from("echo").saw_no("foo");
}

#[test]
fn kept_connections_to_the_authority() {
    for keepalive in [
        &[("auth-keepalive", "-1")][..],
        &[("auth-keepalive", "10"), ("auth-keepalive-share-vars", "true")],
        &[
            ("auth-keepalive", "123"),
            ("auth-keepalive-requests", "456"),
            ("auth-keepalive-timeout", "789"),
        ],
    ] {
        let (site, authority) = asked("/ok", keepalive);
        site.get("/").send().from("echo");
        site.get("/").send().from("echo");
        assert_eq!(authority.received().len(), 2);
    }
}

#[test]
fn cached_answers_outlive_the_authority_but_only_where_they_were_given() {
    let authority = Origin::start("authority");
    let url = format!("http://{}/basic-auth/user/password", authority.address);
    let cached = [
        ("auth-url", url.as_str()),
        SIGNIN,
        ("auth-cache-key", "fixed"),
        ("auth-cache-duration", "200 201 401 30m"),
    ];
    let sites = [shared().new_site(), shared().new_site()];
    for site in &sites {
        site.put(Sheet::new("foo").set(&cached).path("/foo", "Prefix", "echo"));
        site.put(Sheet::new("bar").set(&cached).path("/bar", "Prefix", "echo"));
    }
    let [this, that] = &sites;
    this.get("/foo").basic("user", "password").send().from("echo");
    authority.stop();
    this.get("/foo").basic("user", "password").send().from("echo");
    this.get("/bar").basic("user", "password").send().is(500);
    that.get("/foo").basic("user", "password").send().is(500);
}

#[test]
fn refusals_are_cached_too() {
    let cached = [
        SIGNIN,
        ("auth-cache-key", "$remote_user$http_authorization"),
        ("auth-cache-duration", "200 202 10m, 401 5m"),
    ];
    let (site, authority) = asked("/basic-auth/user/password", &cached);
    site.get("/").send().is(302);
    site.get("/").send().is(302);
    assert_eq!(authority.received().len(), 1);
    site.get("/").header("Authorization", &basic("user", "password")).send().from("echo");
    assert_eq!(authority.received().len(), 2);
}

#[test]
fn a_url_that_is_none_closes_the_location() {
    let site = shared().new_site();
    let sheet = Sheet::new("web").set(&[("auth-url", "https://invalid..auth.url")]);
    site.put(sheet.path("/denied-auth", "Prefix", "echo"));
    site.get("/denied-auth").send().is(503);
}

#[test]
fn satisfy_alone_guards_nothing() {
    for value in ["any", "all"] {
        let site = site(&[("satisfy", value)]);
        site.get("/").send().from("echo").saw("host", &site.host);
    }
}

#[test]
fn satisfy_any_of_password_and_authority() {
    let authority = Origin::start("authority");
    let url = format!("http://{}/basic-auth/user/password", authority.address);
    let either = [("auth-url", url.as_str()), SIGNIN, ("satisfy", "any")];
    let site = guarded(&[("auth", UNAME)], &either);
    site.get("/").basic("uname", "pwd").send().from("echo");
    site.get("/").basic("user", "password").send().from("echo");
    let host = &site.host;
    let location = format!("http://{host}/auth/start?rd=http://{host}%2F%3Fa%3Db%26c%3Dd");
    site.get("/?a=b&c=d").send().is(302).has("location", &location);
}

#[test]
fn satisfy_any_of_address_and_password() {
    let near = [("satisfy", "any"), ("whitelist-source-range", "127.0.0.0/8")];
    guarded(&[("auth", UNAME)], &near).get("/").send().from("echo");
    let far = [("satisfy", "any"), ("whitelist-source-range", "10.0.0.0/8")];
    let site = guarded(&[("auth", UNAME)], &far);
    site.get("/").basic("uname", "pwd").send().from("echo");
    site.get("/").send().is(401);
    let both = [("satisfy", "all"), ("whitelist-source-range", "10.0.0.0/8")];
    guarded(&[("auth", UNAME)], &both).get("/").basic("uname", "pwd").send().is(403);
}
