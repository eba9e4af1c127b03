//! `auth-url` and what the authority is told and says.

use super::{asking, get_with, start};
use crate::authority::{Authority, header, plain};
use crate::backend::Backend;
use crate::harness::{Ingress, annotated, ingress, service, wait_until};

#[test]
fn auth_url_opens_on_2xx_and_shuts_on_401_and_403() {
    let web = Backend::start("web");
    // The status comes with the request: /status/204.
    let authority = Authority::start(|head| {
        let asked = header(head, "x-original-url").unwrap();
        let status = asked.rsplit('/').next().unwrap().to_string();
        plain(&format!("{status} Whatever"), "WWW-Authenticate: Bearer realm=x\r\n")
    });
    let podium = start(&web, &[&asking(&authority, "")], "", &[]);
    for (status, answer) in [
        (200, 200),
        (201, 200),
        (204, 200),
        (299, 200),
        (401, 401),
        (403, 403),
        // As nginx's auth_request: anything else is an error, and nothing of it reaches the client.
        (302, 500),
        (400, 500),
        (404, 500),
        (500, 500),
        (503, 500),
    ] {
        let asked = podium.get("a.example", &format!("/status/{status}"));
        assert_eq!(asked.status, answer, "{status}");
        assert!(!asked.body.contains("hidden"), "{}", asked.body);
        let challenge = if status == 401 { "Bearer realm=x" } else { "" };
        assert_eq!(asked.header("www-authenticate"), challenge, "{status}");
    }
    assert_eq!(web.requests(), 4, "nothing else reached the endpoint");
    assert!(podium.get("a.example", "/status/401").body.contains("401 Authorization Required"));
}

#[test]
fn auth_url_is_asked_without_the_body_in_the_words_of_ingress_nginx() {
    let web = Backend::start("web");
    let authority = Authority::saying("200 OK", "");
    let podium = start(&web, &[&asking(&authority, "")], "", &[]);
    let answer = podium.send(
        "POST /a/%20b?c=d HTTP/1.1\r\nHost: A.example:8080\r\nCookie: s=1\r\nAuthorization: Bearer t\r\n\
         Content-Type: text/plain\r\nContent-Length: 5\r\nX-Own: 1\r\nConnection: close\r\n\r\nhello",
    );
    assert_eq!((answer.status, answer.seen("body-bytes").as_str()), (200, "5"));
    assert!(authority.last().starts_with("GET /check HTTP/1.1\r\n"), "{}", authority.last());
    for (name, value) in [
        ("host", Some("127.0.0.1")),
        ("x-original-url", Some("http://A.example:8080/a/%20b?c=d")),
        ("x-original-method", Some("POST")),
        ("x-sent-from", Some("nginx-ingress-controller")),
        ("x-auth-request-redirect", Some("/a/%20b?c=d")),
        ("x-real-ip", Some("127.0.0.1")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-request-id", Some(answer.seen("x-request-id").as_str())),
        ("cookie", Some("s=1")),
        ("authorization", Some("Bearer t")),
        ("content-type", Some("text/plain")),
        ("x-own", Some("1")),
        ("content-length", None),
        ("transfer-encoding", None),
        ("x-forwarded-proto", None),
        ("x-original-uri", None),
        ("x-scheme", None),
    ] {
        assert_eq!(authority.last_header(name).as_deref(), value, "{name}");
    }
    // An answer of the authority is no reason for another connection.
    for _ in 0..5 {
        assert_eq!(podium.get("a.example", "/").status, 200);
    }
}

#[test]
fn auth_url_holds_variables() {
    let web = Backend::start("web");
    let authority = Authority::saying("200 OK", "");
    let port = authority.address.port();
    let path =
        format!("auth-url: http://{}/$namespace/$ingress_name$request_uri", authority.address);
    let host = format!("auth-url: http://$host:{port}/x");
    let podium = Ingress::start(
        &[(
            "a.yaml",
            &format!(
                "{}{}{}{}",
                service("web", &[&web]),
                ingress("path", &annotated(&path), &[("a.example", "/", "Prefix", "web")]),
                ingress("host", &annotated(&host), &[("localhost", "/", "Prefix", "web")]),
                ingress("other", &annotated(&host), &[("b.example", "/", "Prefix", "web")]),
            ),
        )],
        &[],
    );
    assert_eq!(podium.get("a.example", "/a%20b?c=d").status, 200);
    let line = authority.last().lines().next().unwrap().to_string();
    assert_eq!(line, "GET /default/path/a%20b?c=d HTTP/1.1");
    assert_eq!(podium.get("localhost", "/").status, 200);
    assert_eq!(authority.last_header("host").as_deref(), Some("localhost"));
    assert_eq!(podium.get("b.example", "/").status, 500, "there is no such host");
}

#[test]
fn auth_url_of_a_service_needs_no_dns() {
    let (web, auth) = (Backend::start("web"), Backend::start("auth"));
    let url = "auth-url: http://auth.default.svc.cluster.local/check";
    let manifests = service("web", &[&web])
        + &ingress("web", &annotated(url), &[("a.example", "/", "Prefix", "web")]);
    let files = [("web.yaml", manifests.as_str()), ("auth.yaml", &service("auth", &[&auth]))];
    let podium = Ingress::start(&files, &[]);
    assert_eq!(podium.get("a.example", "/").status, 200);
    assert_eq!((auth.requests(), web.requests()), (1, 1));
    // Its endpoints move; the location follows.
    let moved = Backend::start("moved");
    podium.write("auth.yaml", &service("auth", &[&moved]));
    wait_until("the new endpoint is asked", || {
        podium.get("a.example", "/").status == 200 && moved.requests() > 0
    });
    // One of two is dead: the other one is asked.
    let dead = Backend::start("dead");
    dead.kill();
    podium.write("auth.yaml", &service("auth", &[&dead, &moved]));
    for _ in 0..20 {
        assert_eq!(podium.get("a.example", "/").status, 200);
    }
}

#[test]
fn auth_url_over_tls_takes_any_certificate() {
    let (web, auth) = (Backend::start("web"), Backend::start("auth"));
    let rule = ingress("auth", "", &[("", "/", "Prefix", "auth")]);
    let rule = rule.replace("host: \"\"\n    http", "http");
    let other = Ingress::start(&[("a.yaml", &(service("auth", &[&auth]) + &rule))], &[]);
    let url = format!("auth-url: https://{}/check", other.https);
    let podium = start(&web, &[&url], "", &[]);
    assert_eq!(podium.get("a.example", "/").status, 200);
    assert_eq!(auth.requests(), 1);
    drop(other);
    wait_until("it is gone", || podium.get("a.example", "/").status == 500);
}

#[test]
fn auth_method_is_the_authority_s() {
    let web = Backend::start("web");
    let authority = Authority::saying("200 OK", "");
    let head = Authority::start(|_| "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".into());
    let podium = start(
        &web,
        &[
            &asking(&authority, "auth-method: POST"),
            &asking(&head, "auth-method: HEAD"),
            &asking(&authority, "auth-method: post"),
        ],
        "",
        &[],
    );
    assert_eq!(podium.get("a.example", "/x?y").status, 200);
    assert!(authority.last().starts_with("POST /check HTTP/1.1\r\n"), "{}", authority.last());
    assert_eq!(authority.last_header("x-original-method").as_deref(), Some("GET"));
    assert_eq!(authority.last_header("x-original-uri").as_deref(), Some("/x?y"));
    assert_eq!(authority.last_header("x-scheme").as_deref(), Some("http"));
    for _ in 0..2 {
        assert_eq!(podium.get("b.example", "/").status, 200);
    }
    assert_eq!(podium.get("c.example", "/").status, 503, "a wrong one closes");
}

#[test]
fn auth_response_headers_are_the_authority_s_and_no_one_else_s() {
    let web = Backend::start("web");
    let authority = Authority::saying(
        "200 OK",
        "X-User: anna\r\nX-Groups: a\r\nX-Groups: b\r\nX-Empty:\r\nX-Unasked: x\r\n",
    );
    let wanted = "auth-response-headers: X-User, X-Groups, X-Empty, X-Missing, Authorization";
    let podium = start(
        &web,
        &[&asking(&authority, wanted), &asking(&authority, "auth-response-headers: X User")],
        "",
        &[],
    );
    let sent = "X-User: root\r\nX-Groups: admin\r\nX-Empty: no\r\nX-Missing: forged\r\nx-missing: twice\r\n\
                Authorization: Bearer stolen\r\nX_User: root\r\n";
    let answer = get_with(&podium, "a.example", "/", sent);
    assert_eq!(
        (answer.seen("x-user").as_str(), answer.seen("x-groups").as_str()),
        ("anna", "a, b")
    );
    let seen = answer.body.to_lowercase();
    for name in ["x-empty", "x-missing", "x-unasked", "authorization", "x_user", "root", "forged"] {
        assert!(!seen.contains(name), "{name} in {seen}");
    }
    assert_eq!(podium.get("b.example", "/").status, 503, "a wrong list closes");
}

#[test]
fn auth_request_redirect_replaces_the_target() {
    let web = Backend::start("web");
    let authority = Authority::saying("200 OK", "");
    let podium = start(
        &web,
        &[&asking(&authority, "auth-request-redirect: https://shop.example/")],
        "",
        &[],
    );
    assert_eq!(podium.get("a.example", "/x").status, 200);
    let told = authority.last_header("x-auth-request-redirect");
    assert_eq!(told.as_deref(), Some("https://shop.example/"));
}

#[test]
fn auth_proxy_set_headers_come_from_a_config_map() {
    let web = Backend::start("web");
    let authority = Authority::saying("200 OK", "");
    let map = |data: &str| {
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: told}}\ndata: {{{data}}}\n"
        )
    };
    let podium = start(
        &web,
        &[
            &asking(&authority, "auth-proxy-set-headers: told"),
            &asking(&authority, "auth-proxy-set-headers: default/missing"),
            &asking(&authority, "auth-proxy-set-headers: other/told"),
        ],
        "",
        &[],
    );
    assert_eq!(podium.get("a.example", "/").status, 503, "not there yet");
    podium.write(
        "map.yaml",
        map("X-Key: secret, X-For: \"$host$uri\", Cookie: \"\"").trim_start_matches("---\n"),
    );
    wait_until("the ConfigMap is read", || podium.get("a.example", "/").status == 200);
    assert_eq!(
        get_with(&podium, "a.example", "/x", "Cookie: a=b\r\nX-Key: forged\r\n").status,
        200
    );
    assert_eq!(authority.last_header("x-key").as_deref(), Some("secret"));
    assert_eq!(authority.last_header("x-for").as_deref(), Some("a.example/x"));
    assert_eq!(authority.last_header("cookie"), None, "an empty value takes a header out");
    assert_eq!(podium.get("b.example", "/").status, 503, "a missing ConfigMap closes");
    assert_eq!(podium.get("c.example", "/").status, 503, "another namespace closes");
    podium.write("map.yaml", map("X-Key: \"$unicorn\"").trim_start_matches("---\n"));
    wait_until("a wrong ConfigMap closes", || podium.get("a.example", "/").status == 503);
    podium.write("map.yaml", map("X-Key: fine").trim_start_matches("---\n"));
    wait_until("it is right again", || podium.get("a.example", "/").status == 200);
    podium.write("map.yaml", map("Content-Length: \"5\"").trim_start_matches("---\n"));
    wait_until("framing is not for it to set", || podium.get("a.example", "/").status == 503);
}

#[test]
fn auth_keepalive_and_its_kin_change_nothing() {
    let web = Backend::start("web");
    let authority = Authority::saying("200 OK", "");
    let kept = "auth-keepalive: 5\nauth-keepalive-requests: 10\nauth-keepalive-timeout: 5\n\
                auth-keepalive-share-vars: true";
    let podium = start(&web, &[&asking(&authority, kept)], "", &[]);
    assert_eq!(podium.get("a.example", "/").status, 200);
    assert!(
        !podium
            .metrics()
            .contains("podium_ingress_problems{kind=\"Ingress\",severity=\"error\"} 1")
    );
}

#[test]
fn auth_snippet_is_refused() {
    let web = Backend::start("web");
    let authority = Authority::saying("200 OK", "");
    let podium = start(&web, &[&asking(&authority, "auth-snippet: deny all;")], "", &[]);
    assert_eq!(podium.get("a.example", "/").status, 200);
    assert!(
        podium.metrics().contains("podium_ingress_problems{kind=\"Ingress\",severity=\"error\"} 1")
    );
}

#[test]
fn enable_global_auth_asks_for_all_that_do_not_opt_out() {
    let web = Backend::start("web");
    let (global, own) = (Authority::saying("403 No", ""), Authority::saying("200 OK", ""));
    let options = |url: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: options}}\n\
             data: {{global-auth-url: \"{url}\", no-auth-locations: \"/public,/.well-known\"}}\n"
        )
    };
    let public = ingress("public", "", &[("d.example", "/public", "Prefix", "web")]);
    let more = format!("{public}---\n{}", options(&format!("http://{}/global", global.address)));
    let podium = start(
        &web,
        &["", "enable-global-auth: false", &asking(&own, "")],
        &more,
        &["--configmap", "default/options"],
    );
    assert_eq!(podium.get("a.example", "/").status, 403);
    assert!(global.last().starts_with("GET /global HTTP/1.1\r\n"));
    assert_eq!(podium.get("b.example", "/").status, 200);
    assert_eq!(podium.get("c.example", "/").status, 200);
    assert_eq!(podium.get("d.example", "/public").status, 200, "no-auth-locations");
    assert_eq!((global.asked().len(), own.asked().len()), (1, 1));
}
