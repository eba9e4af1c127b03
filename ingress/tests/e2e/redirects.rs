//! Answers that send the client elsewhere: by annotation of the location, by host, to https.

use crate::backend::Backend;
use crate::harness::{Ingress, annotated, annotated_ingresses, ingress, service, wait_until};

fn start(web: &Backend, annotations: &[&str]) -> Ingress {
    start_with(web, annotations, &[])
}

fn start_with(web: &Backend, annotations: &[&str], flags: &[&str]) -> Ingress {
    let manifests = format!("{}{}", service("web", &[web]), annotated_ingresses(annotations));
    Ingress::start(&[("a.yaml", &manifests)], flags)
}

/// Status and Location of an answer.
fn redirect(podium: &Ingress, host: &str, path: &str) -> (u16, String) {
    let answer = podium.get(host, path);
    (answer.status, answer.header("location"))
}

fn to(status: u16, location: &str) -> (u16, String) {
    (status, location.into())
}

#[test]
fn app_root_redirects_the_root_of_the_host_only() {
    let web = Backend::start("web");
    let podium = start(&web, &["app-root: /app/start", "app-root: http://elsewhere/"]);
    // The root, though no path of the Ingress serves it; the host stays as the client wrote it.
    let own = "A.example:8080";
    assert_eq!(redirect(&podium, own, "/"), to(302, "http://A.example:8080/app/start"));
    assert_eq!(redirect(&podium, "a.example", "/?q=1"), to(302, "http://a.example/app/start"));
    assert_eq!(redirect(&podium, "a.example", "//x/.."), to(302, "http://a.example/app/start"));
    assert_eq!(podium.get("a.example", "/app").seen("backend"), "web");
    assert_eq!(podium.get("a.example", "/other").status, 404);
    assert_eq!(podium.get("b.example", "/").status, 404, "not a path: refused");
    assert!(podium.metrics().contains("{kind=\"Ingress\",severity=\"error\"} 1"));
}

#[test]
fn permanent_redirect_and_its_code() {
    let web = Backend::start("web");
    let podium = start(
        &web,
        &[
            "permanent-redirect: https://new.example/here",
            "permanent-redirect: https://$host.new$request_uri\npermanent-redirect-code: 308",
            "permanent-redirect: /moved\npermanent-redirect-code: 200",
            "permanent-redirect: https://x.example/$unicorn",
        ],
    );
    let first = podium.get("a.example", "/app/x?y=1");
    assert_eq!(
        (first.status, first.header("location").as_str()),
        (301, "https://new.example/here")
    );
    assert!(first.head.starts_with("HTTP/1.1 301 Moved Permanently\r\n"), "{}", first.head);
    assert!(first.body.contains("<title>301 Moved Permanently</title>"), "{}", first.body);
    assert_eq!(
        redirect(&podium, "b.example", "/app/%20x?y=1"),
        to(308, "https://b.example.new/app/%20x?y=1")
    );
    // A path becomes an address of our host; a wrong code is the default one.
    assert_eq!(redirect(&podium, "C.example:99", "/app"), to(301, "http://c.example/moved"));
    assert_eq!(podium.get("d.example", "/app").seen("backend"), "web", "refused by its variable");
    assert_eq!(web.requests(), 1);
    assert!(podium.metrics().contains("{kind=\"Ingress\",severity=\"error\"} 2"));
}

#[test]
fn permanent_redirect_code_values() {
    let web = Backend::start("web");
    let redirect_to = "permanent-redirect: https://n.example";
    let codes = ["301", "302", "303", "307", "308", "304", "500", "soon"];
    let annotations: Vec<String> = codes
        .iter()
        .map(|code| format!("{redirect_to}\npermanent-redirect-code: {code}"))
        .collect();
    let annotations: Vec<&str> = annotations.iter().map(String::as_str).collect();
    let podium = start(&web, &annotations);
    let answered: Vec<u16> =
        ('a'..='h').map(|name| podium.get(&format!("{name}.example"), "/app").status).collect();
    assert_eq!(answered, [301, 302, 303, 307, 308, 301, 301, 301]);
}

#[test]
fn temporal_redirect_wins_and_has_its_own_code() {
    let web = Backend::start("web");
    let podium = start(
        &web,
        &[
            "temporal-redirect: https://t.example\npermanent-redirect: https://p.example",
            "temporal-redirect: https://t.example\ntemporal-redirect-code: 307",
            "temporal-redirect: https://t.example\ntemporal-redirect-code: 308",
            "temporal-redirect: /path\npermanent-redirect: https://p.example",
        ],
    );
    let first = podium.get("a.example", "/app");
    assert_eq!((first.status, first.header("location").as_str()), (302, "https://t.example"));
    // nginx has two names for it.
    assert!(first.head.starts_with("HTTP/1.1 302 Moved Temporarily\r\n"), "{}", first.head);
    assert!(first.body.contains("<title>302 Found</title>"), "{}", first.body);
    assert_eq!(redirect(&podium, "b.example", "/app"), to(307, "https://t.example"));
    assert_eq!(redirect(&podium, "c.example", "/app"), to(302, "https://t.example"));
    assert_eq!(redirect(&podium, "d.example", "/app"), to(301, "https://p.example"));
}

#[test]
fn temporal_redirect_code_refuses_308() {
    let web = Backend::start("web");
    let podium =
        start(&web, &["temporal-redirect: https://t.example\ntemporal-redirect-code: 308"]);
    assert_eq!(redirect(&podium, "a.example", "/app"), to(302, "https://t.example"));
    assert!(podium.metrics().contains("{kind=\"Ingress\",severity=\"error\"} 1"));
}

#[test]
fn relative_redirects_leave_the_host_out() {
    let web = Backend::start("web");
    let podium = start(
        &web,
        &[
            "relative-redirects: true\npermanent-redirect: /moved",
            "permanent-redirect: /moved",
            "relative-redirects: perhaps\npermanent-redirect: /moved",
        ],
    );
    assert_eq!(redirect(&podium, "a.example", "/app"), to(301, "/moved"));
    assert_eq!(redirect(&podium, "b.example", "/app"), to(301, "http://b.example/moved"));
    assert_eq!(redirect(&podium, "c.example", "/app"), to(301, "http://c.example/moved"));
}

#[test]
fn use_port_in_redirects_names_our_ports() {
    let web = Backend::start("web");
    let podium = start(
        &web,
        &[
            "use-port-in-redirects: true\npermanent-redirect: /moved",
            "use-port-in-redirects: true\nforce-ssl-redirect: true",
        ],
    );
    let (http, https) = (podium.http.port(), podium.https.port());
    assert_eq!(
        redirect(&podium, "a.example", "/app"),
        to(301, &format!("http://a.example:{http}/moved"))
    );
    assert_eq!(
        redirect(&podium, "b.example", "/app"),
        to(308, &format!("https://b.example:{https}/app"))
    );
}

#[test]
fn force_ssl_redirect_and_preserve_trailing_slash() {
    let web = Backend::start("web");
    let podium = start(
        &web,
        &[
            "force-ssl-redirect: true",
            "force-ssl-redirect: true\npreserve-trailing-slash: true",
            "force-ssl-redirect: maybe",
        ],
    );
    for (sent, location) in [
        ("/app/", "https://A.example/app"),
        ("/app/%20/?x=/", "https://A.example/app/%20/?x="),
        ("/app/x?y", "https://A.example/app/x?y"),
    ] {
        assert_eq!(redirect(&podium, "A.example:8080", sent), to(308, location), "{sent}");
    }
    assert_eq!(redirect(&podium, "b.example", "/app/"), to(308, "https://b.example/app/"));
    assert_eq!(podium.get("c.example", "/app").status, 200);
}

#[test]
fn ssl_redirect_believes_trusted_proxies() {
    let web = Backend::start("web");
    let trusting = ["--use-forwarded-headers", "--proxy-real-ip-cidr", "127.0.0.0/8"];
    let podium = start_with(&web, &["force-ssl-redirect: true"], &trusting);
    let ask = |podium: &Ingress, headers: &str| {
        let answer = podium.send(&format!(
            "GET /app HTTP/1.1\r\nHost: a.example\r\n{headers}Connection: close\r\n\r\n"
        ));
        (answer.status, answer.header("location"))
    };
    assert_eq!(ask(&podium, "X-Forwarded-Proto: https\r\n").0, 200);
    assert_eq!(ask(&podium, "X-Forwarded-Proto: http\r\n"), to(308, "https://a.example/app"));
    assert_eq!(
        ask(&podium, "X-Forwarded-Host: shop.example:444, b.example\r\n"),
        to(308, "https://shop.example/app")
    );
    let wary = start(&web, &["force-ssl-redirect: true"]);
    assert_eq!(
        ask(&wary, "X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n"),
        to(308, "https://a.example/app")
    );
}

#[test]
fn redirects_change_with_the_ingress() {
    let web = Backend::start("web");
    let podium = start(&web, &["permanent-redirect: https://one.example"]);
    assert_eq!(redirect(&podium, "a.example", "/app"), to(301, "https://one.example"));
    let rule = ingress(
        "a",
        &annotated("permanent-redirect: https://two.example"),
        &[("a.example", "/app", "Prefix", "web")],
    );
    podium.write("a.yaml", &format!("{}{rule}", service("web", &[&web])));
    wait_until("the other address", || {
        redirect(&podium, "a.example", "/app") == to(301, "https://two.example")
    });
}

#[test]
fn from_to_www_redirect_both_ways() {
    let web = Backend::start("web");
    let www = annotated("from-to-www-redirect: true");
    let manifests = [
        service("web", &[&web]),
        ingress("bare", &www, &[("bare.example", "/", "Prefix", "web")]),
        ingress("www", &www, &[("www.other.example", "/", "Prefix", "web")]),
        ingress("both", &www, &[("both.example", "/", "Prefix", "web")]),
        ingress("taken", "", &[("www.both.example", "/", "Prefix", "web")]),
        ingress(
            "wrong",
            &annotated("from-to-www-redirect: yes"),
            &[("c.example", "/", "Prefix", "web")],
        ),
    ];
    let podium = Ingress::start(&[("a.yaml", &manifests.concat())], &[]);
    let port = podium.http.port();
    for (host, path, location) in [
        ("www.bare.example", "/x/?y=1", format!("http://bare.example:{port}/x/?y=1")),
        ("WWW.bare.example:99", "/x/", format!("http://bare.example:{port}/x")),
        ("other.example", "/", format!("http://www.other.example:{port}")),
    ] {
        assert_eq!(redirect(&podium, host, path), to(308, &location), "{host}{path}");
    }
    for host in ["bare.example", "www.other.example", "both.example", "www.both.example"] {
        assert_eq!(podium.get(host, "/").seen("backend"), "web", "{host}");
    }
    assert_eq!(podium.get("www.c.example", "/").status, 404);
}

#[test]
fn options_of_redirects() {
    let web = Backend::start("web");
    let options = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: options}\ndata: {http-redirect-code: \"301\", \
                   no-tls-redirect-locations: \"/app/plain, /.well-known/acme-challenge\", force-ssl-redirect: \"true\"}\n";
    let rules =
        annotated_ingresses(&["preserve-trailing-slash: true", "force-ssl-redirect: false"]);
    let manifests = format!("{}{options}{rules}", service("web", &[&web]));
    let podium = Ingress::start(&[("a.yaml", &manifests)], &["--configmap", "default/options"]);
    assert_eq!(redirect(&podium, "a.example", "/app/"), to(301, "https://a.example/app/"));
    assert_eq!(podium.get("a.example", "/app/plain/x").seen("backend"), "web");
    assert_eq!(podium.get("b.example", "/app").seen("backend"), "web");
}
