//! Headers that are added, rewritten and taken out, on the way in and on the way out.

use crate::backend::Backend;
use crate::harness::{Ingress, annotated_ingresses, service};
use crate::tls::{certificate, fetch, secret, secured};
use serde_json::{Value, json};

fn config_map(name: &str, data: &Value) -> String {
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {data}\n")
}

/// With these options, ConfigMaps by name and annotations.
fn start(
    options: &Value,
    config_maps: &[(&str, Value)],
    annotations: &[&str],
) -> (Backend, Ingress) {
    let web = Backend::start("web");
    let mut manifests = format!("{}{}", service("web", &[&web]), config_map("options", options));
    for (name, data) in config_maps {
        manifests.push_str(&config_map(name, data));
    }
    manifests.push_str(&annotated_ingresses(annotations));
    let podium = Ingress::start(&[("a.yaml", &manifests)], &["--configmap", "default/options"]);
    (web, podium)
}

#[test]
fn custom_headers_from_a_config_map() {
    let options = json!({"global-allowed-response-headers": "X-Frame-Options, X-Team"});
    let maps = [
        ("good", json!({"X-Frame-Options": "DENY", "X-Team": "shop; a=\"$b\""})),
        ("forbidden", json!({"X-Frame-Options": "DENY", "X-Other": "1"})),
        ("wrong", json!({"X-Team": "a\nb"})),
    ];
    let (_web, podium) = start(
        &options,
        &maps,
        &[
            "custom-headers: default/good\nwhitelist-source-range: 127.0.0.0/8",
            "custom-headers: good\nwhitelist-source-range: 10.0.0.0/8",
            "custom-headers: default/forbidden",
            "custom-headers: default/wrong",
            "custom-headers: default/missing",
        ],
    );
    // In place of the endpoint's own, and in answers of our own.
    let own = "X-Answer-Header: X-Frame-Options: ALLOW\r\n";
    let answer = podium.ask("GET", "a.example", "/app", own);
    assert_eq!(answer.headers("x-frame-options"), ["DENY"]);
    assert_eq!(answer.header("x-team"), "shop; a=\"$b\"");
    let answer = podium.get("b.example", "/app");
    assert_eq!((answer.status, answer.header("x-frame-options").as_str()), (403, "DENY"));
    for host in ["c.example", "d.example", "e.example"] {
        assert_eq!(podium.get(host, "/app").status, 503, "{host} is closed");
    }
    assert!(podium.metrics().contains("{kind=\"Ingress\",severity=\"error\"} 3"));
}

#[test]
fn upstream_vhost_and_its_variables() {
    let (_web, podium) = start(
        &json!({}),
        &[],
        &[
            "upstream-vhost: inner.example",
            "upstream-vhost: $service_name.$namespace.svc.cluster.local:$service_port",
            "upstream-vhost: $unicorn",
        ],
    );
    let answer = podium.get("a.example", "/app");
    assert_eq!(answer.seen("host"), "inner.example");
    assert_eq!(answer.seen("x-forwarded-host"), "a.example");
    let host = podium.get("b.example", "/app").seen("host");
    assert_eq!(host, "web.default.svc.cluster.local:80");
    assert_eq!(podium.get("c.example", "/app").seen("host"), "c.example", "refused");
}

#[test]
fn connection_proxy_header() {
    let (web, podium) = start(
        &json!({}),
        &[],
        &[
            "connection-proxy-header: keep-alive",
            "connection-proxy-header: close",
            "connection-proxy-header: upgrade",
        ],
    );
    for (host, seen) in [("a.example", "keep-alive"), ("b.example", "close"), ("c.example", "")] {
        assert_eq!(podium.get(host, "/app").seen("connection"), seen, "{host}");
    }
    assert_eq!(web.requests(), 3);
}

#[test]
fn proxy_cookie_domain_and_path() {
    let (_web, podium) = start(
        &json!({}),
        &[],
        &[
            "proxy-cookie-domain: inner.local shop.example\nproxy-cookie-path: /inner/ /",
            "proxy-cookie-domain: ~\\.local$ $host\nproxy-cookie-path: off",
            "proxy-cookie-path: /one",
        ],
    );
    let cookies = "X-Answer-Header: Set-Cookie: a=1; Path=/inner/x; Domain=.inner.local; HttpOnly\r\n\
                   X-Answer-Header: Set-Cookie: b=2; Path=/other\r\n";
    for (host, first) in [
        ("a.example", "a=1; Path=/x; Domain=.shop.example; HttpOnly"),
        ("b.example", "a=1; Path=/inner/x; Domain=b.example; HttpOnly"),
        ("c.example", "a=1; Path=/inner/x; Domain=.inner.local; HttpOnly"),
    ] {
        let answer = podium.ask("GET", host, "/app", cookies);
        assert_eq!(answer.headers("set-cookie"), [first, "b=2; Path=/other"], "{host}");
    }
    assert!(podium.metrics().contains("{kind=\"Ingress\",severity=\"error\"} 1"));
}

#[test]
fn proxy_redirect_from_and_to() {
    let (_web, podium) = start(
        &json!({}),
        &[],
        &[
            "proxy-redirect-from: http://inner:8080/\nproxy-redirect-to: https://shop.example/x/",
            "proxy-redirect-from: http://inner:8080/\nproxy-redirect-to: /\nrelative-redirects: true",
            "proxy-redirect-from: http://inner:8080/\nproxy-redirect-to: /",
            "proxy-redirect-from: default",
            "proxy-redirect-from: off\nproxy-redirect-to: /",
            "proxy-redirect-from: http://inner:8080/",
        ],
    );
    let inner = "http://inner:8080/a?b";
    let headers = format!("X-Answer-Status: 302\r\nX-Answer-Header: Location: {inner}\r\n");
    for (host, location) in [
        ("a.example", "https://shop.example/x/a?b"),
        ("b.example", "/a?b"),
        ("c.example", "http://c.example/a?b"),
        ("d.example", inner),
        ("e.example", inner),
        ("f.example", inner),
    ] {
        assert_eq!(
            podium.ask("GET", host, "/app", &headers).header("location"),
            location,
            "{host}"
        );
    }
    let refresh = "X-Answer-Header: Refresh: 5; url=http://inner:8080/a\r\n";
    let answer = podium.ask("GET", "a.example", "/app", refresh);
    assert_eq!(answer.header("refresh"), "5; url=https://shop.example/x/a");
    assert!(podium.metrics().contains("{kind=\"Ingress\",severity=\"error\"} 1"));
}

#[test]
fn x_forwarded_prefix_only_with_a_rewrite() {
    let (_web, podium) = start(
        &json!({}),
        &[],
        &[
            "x-forwarded-prefix: /pre\nrewrite-target: /inner",
            "x-forwarded-prefix: /pre",
            "x-forwarded-prefix: /$unicorn\nrewrite-target: /inner",
        ],
    );
    let seen: Vec<String> = ["a.example", "b.example", "c.example"]
        .map(|host| podium.get(host, "/app").seen("x-forwarded-prefix"))
        .to_vec();
    assert_eq!(seen, ["/pre", "", ""]);
}

#[test]
fn options_of_headers_for_endpoints() {
    let options = json!({"proxy-set-headers": "default/for-endpoints", "generate-request-id": "false",
        "proxy-add-original-uri-header": "true", "enable-underscores-in-headers": "true"});
    let maps = [(
        "for-endpoints",
        json!({"X-Start": "t=${msec}", "X-Who": "$remote_addr", "X-Empty": ""}),
    )];
    let (_web, podium) = start(&options, &maps, &["ssl-redirect: true"]);
    let answer =
        podium.ask("GET", "a.example", "/app/%20?x=1", "X_Odd: 1\r\nX.Odder: 1\r\nX-Empty: 1\r\n");
    for (name, value) in [
        ("x-who", "127.0.0.1"),
        ("x-empty", ""),
        ("x-request-id", ""),
        ("x-original-uri", "/app/%20?x=1"),
        ("x_odd", "1"),
        ("x.odder", ""),
    ] {
        assert_eq!(answer.seen(name), value, "{name} in\n{}", answer.body);
    }
    let start = answer.seen("x-start");
    assert!(start.starts_with("t=") && start.contains('.'), "{start}");
}

#[test]
fn options_of_headers_for_clients() {
    let options = json!({"add-headers": "default/for-clients", "hide-headers": "X-Powered-By,ETag",
        "server-tokens": "true", "hsts-max-age": "60", "hsts-preload": "true"});
    let maps = [("for-clients", json!({"X-Served": "by podium", "X-Id": "$req_id"}))];
    let (_web, podium) = start(&options, &maps, &["ssl-redirect: true"]);
    let own = "X-Request-ID: abc\r\nX-Answer-Header: X-Powered-By: php\r\nX-Answer-Header: ETag: \"1\"\r\n\
               X-Answer-Header: X-Accel-Redirect: /secret\r\nX-Answer-Header: X-Served: by me\r\n";
    let answer = podium.ask("GET", "a.example", "/app", own);
    for (name, value) in [
        ("x-served", "by podium"),
        ("x-id", "abc"),
        ("x-powered-by", ""),
        ("etag", ""),
        ("x-accel-redirect", ""),
        ("server", "nginx"),
        ("strict-transport-security", ""),
    ] {
        assert_eq!(answer.header(name), value, "{name} in\n{}", answer.head);
    }
    let answer = podium.get("a.example", "/none");
    assert_eq!((answer.status, answer.header("x-served").as_str()), (404, "by podium"));
    let plain = start(&json!({}), &[], &["ssl-redirect: true"]).1;
    assert_eq!(plain.get("a.example", "/app").header("server"), "");
}

#[test]
fn options_of_hsts() {
    let web = Backend::start("web");
    let pair = certificate(&["a.example"]);
    let manifests = [
        service("web", &[&web]),
        secured("a.example", "one"),
        format!("---\n{}", secret("one", &pair)),
    ]
    .concat();
    for (options, value) in [
        (json!({}), "max-age=31536000; includeSubDomains"),
        (
            json!({"hsts-max-age": "60", "hsts-include-subdomains": "false", "hsts-preload": "true"}),
            "max-age=60; preload",
        ),
        (json!({"hsts": "false"}), ""),
    ] {
        let options = config_map("options", &options);
        let podium = Ingress::start(
            &[("a.yaml", &manifests), ("b.yaml", options.trim_start_matches("---\n"))],
            &["--configmap", "default/options"],
        );
        let own = "X-Answer-Header: Strict-Transport-Security: max-age=1";
        for more in [&["-i", "-H", own][..], &["-i", "-H", "Host: other.example"]] {
            let (answer, _) = fetch(&podium, "a.example", &pair, more);
            let is_told =
                |line: &&str| line.to_lowercase().starts_with("strict-transport-security: ");
            let told = answer.lines().filter(is_told).map(|line| &line[27..]);
            let told: Vec<&str> = told.collect();
            let expected: Vec<&str> = match value {
                // What an endpoint says passes then.
                "" if more.len() == 3 && more[2] == own => vec!["max-age=1"],
                "" => Vec::new(),
                _ => vec![value],
            };
            assert_eq!(told, expected, "{answer}");
        }
        assert_eq!(podium.get("a.example", "/x").header("strict-transport-security"), "");
    }
}

#[test]
fn options_of_trusted_proxies() {
    let chain = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 8443\r\n\
                 X-Forwarded-Host: shop.example, inner\r\nCF-Connecting-IP: 198.51.100.7\r\n";
    for (options, expected) in [
        (json!({}), ["127.0.0.1", "127.0.0.1", "http", "8080", "a.example"]),
        (
            json!({"use-forwarded-headers": "true", "proxy-real-ip-cidr": "127.0.0.0/8"}),
            ["203.0.113.9", "203.0.113.9", "https", "8443", "shop.example"],
        ),
        (
            json!({"use-forwarded-headers": "true", "proxy-real-ip-cidr": "10.0.0.0/8"}),
            ["127.0.0.1", "127.0.0.1", "http", "8080", "a.example"],
        ),
        (
            json!({"use-forwarded-headers": "true", "compute-full-forwarded-for": "true"}),
            ["203.0.113.9", "203.0.113.9, 127.0.0.1", "https", "8443", "shop.example"],
        ),
        (
            json!({"enable-real-ip": "true", "forwarded-for-header": "CF-Connecting-IP"}),
            ["198.51.100.7", "198.51.100.7", "http", "8080", "a.example"],
        ),
    ] {
        let (_web, podium) = start(&options, &[], &["ssl-redirect: true"]);
        let answer = podium.ask("GET", "a.example", "/app", chain);
        let seen = [
            "x-real-ip",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-port",
            "x-forwarded-host",
        ]
        .map(|name| answer.seen(name));
        assert_eq!(seen, expected, "{options} {}", answer.body);
        assert_eq!(answer.seen("host"), expected[4], "endpoints get it as Host");
    }
}

#[test]
fn http2_push_preload_and_buffers_of_nginx_change_nothing() {
    let harmless = "http2-push-preload: true\nproxy-buffering: on\nproxy-buffer-size: 8k\nproxy-buffers-number: 4\n\
                    proxy-busy-buffers-size: 8k\nproxy-max-temp-file-size: 1m\nclient-body-buffer-size: 8k\n\
                    proxy-request-buffering: off";
    let (_web, podium) = start(&json!({}), &[], &[harmless]);
    let link = "X-Answer-Header: Link: </style.css>; rel=preload\r\n";
    let answer = podium.ask("GET", "a.example", "/app", link);
    assert_eq!((answer.status, answer.header("link").as_str()), (200, "</style.css>; rel=preload"));
    assert!(!podium.metrics().contains("podium_ingress_problems{kind=\"Ingress\""), "none");
}

#[test]
fn configuration_snippet_server_snippet_stream_snippet_and_modsecurity_are_refused() {
    let (_web, podium) = start(
        &json!({}),
        &[],
        &[
            "configuration-snippet: return 200;",
            "server-snippet: deny all;",
            "stream-snippet: x",
            "enable-modsecurity: true\nenable-owasp-core-rules: true\nmodsecurity-snippet: x\n\
             modsecurity-transaction-id: x",
        ],
    );
    for host in ["a.example", "b.example", "c.example", "d.example"] {
        assert_eq!(podium.get(host, "/app").seen("backend"), "web", "{host}");
    }
    assert!(podium.metrics().contains("{kind=\"Ingress\",severity=\"error\"} 7"));
}
