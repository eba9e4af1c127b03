//! HTTPS with real curl: names, live swaps, broken certificates, redirects, HTTP/2.

use crate::backend::Backend;
use crate::harness::{Ingress, curl, ingress, service, wait_until};
use serde_json::json;

pub struct Pair {
    pub chain: String,
    pub key: String,
}

pub fn certificate(names: &[&str]) -> Pair {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    Pair { chain: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

pub fn secret(name: &str, pair: &Pair) -> String {
    let data = json!({"tls.crt": pair.chain, "tls.key": pair.key});
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/tls\nstringData: {data}\n"
    )
}

/// An Ingress for a host with TLS from the Secret of that name.
pub fn secured(host: &str, secret: &str) -> String {
    let name = secret.replace('.', "-");
    let rules = ingress(&name, "", &[(host, "/", "Prefix", "web")]);
    rules.replace(
        "spec:\n",
        &format!("spec:\n  tls: [{{hosts: [\"{host}\"], secretName: {secret}}}]\n"),
    )
}

/// curl for `https://host/path`, trusting only the given certificate.
pub fn fetch(podium: &Ingress, host: &str, trusted: &Pair, more: &[&str]) -> (String, bool) {
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), &trusted.chain).unwrap();
    let url = format!("https://{host}:{}/x", podium.https.port());
    let resolve = format!("{host}:{}:{}", podium.https.port(), podium.https.ip());
    let path = ca.path().to_str().unwrap();
    curl(&[&["--resolve", &resolve, "--cacert", path, &url], more].concat())
}

#[test]
fn certificates_by_name_swapped_live_and_kept_when_broken() {
    let web = Backend::start("web");
    let (one, two, wild) = (
        certificate(&["a.example"]),
        certificate(&["b.example"]),
        certificate(&["*.wild.example"]),
    );
    let rules = [
        secured("a.example", "one"),
        secured("b.example", "two"),
        secured("*.wild.example", "wild"),
        secured("c.example", "none"),
    ];
    let podium = Ingress::start(
        &[
            ("web.yaml", &format!("{}{}", service("web", &[&web]), rules.concat())),
            ("one.yaml", &secret("one", &one)),
            ("two.yaml", &secret("two", &two)),
            ("wild.yaml", &secret("wild", &wild)),
        ],
        &[],
    );
    for (host, pair) in [("a.example", &one), ("b.example", &two), ("x.wild.example", &wild)] {
        let (body, ok) = fetch(&podium, host, pair, &[]);
        assert!(ok && body.contains("backend: web"), "{host}: {body}");
        assert!(
            body.contains("X-Forwarded-Proto: https") || body.contains("x-forwarded-proto: https"),
            "{body}"
        );
    }
    // A name of its own is not served another's certificate.
    assert!(!fetch(&podium, "b.example", &one, &[]).1);
    let (subject, _) = curl(&[
        "-k",
        "-v",
        "--stderr",
        "-",
        "--resolve",
        &format!("c.example:{}:{}", podium.https.port(), podium.https.ip()),
        &format!("https://c.example:{}/x", podium.https.port()),
    ]);
    assert!(subject.contains("Kubernetes Ingress Controller Fake Certificate"), "{subject}");

    let renewed = certificate(&["a.example"]);
    podium.write("one.yaml", &secret("one", &renewed));
    wait_until("the renewed certificate is served", || {
        fetch(&podium, "a.example", &renewed, &[]).1
    });
    assert!(!fetch(&podium, "a.example", &one, &[]).1);

    podium.write(
        "one.yaml",
        &secret("one", &Pair { chain: "broken".into(), key: renewed.key.clone() }),
    );
    wait_until("the broken certificate is reported", || {
        podium.metrics().contains("podium_ingress_problems{kind=\"Ingress\",severity=\"error\"} 2")
    });
    assert!(fetch(&podium, "a.example", &renewed, &[]).1, "the last good certificate stays");
    assert!(fetch(&podium, "b.example", &two, &[]).1, "others are not affected");
}

#[test]
fn http_versions_and_tls_versions() {
    let web = Backend::start("web");
    let pair = certificate(&["a.example"]);
    let podium = Ingress::start(
        &[(
            "a.yaml",
            &format!(
                "{}{}---\n{}",
                service("web", &[&web]),
                secured("a.example", "one"),
                secret("one", &pair)
            ),
        )],
        &[],
    );
    let show = "%{http_version} %{response_code}";
    for (flags, version) in [
        (&["--http2", "-o", "/dev/null", "-w", show][..], "2 200"),
        (&["--http1.1", "-o", "/dev/null", "-w", show], "1.1 200"),
        (&["--tls-max", "1.2", "-o", "/dev/null", "-w", show], "2 200"),
        (&["--tlsv1.3", "-o", "/dev/null", "-w", show], "2 200"),
    ] {
        assert_eq!(fetch(&podium, "a.example", &pair, flags).0, version, "{flags:?}");
    }
    let (body, _) = fetch(&podium, "a.example", &pair, &["--http2", "-d", "hello"]);
    assert!(body.contains("body-bytes: 5") && body.contains("POST /x HTTP/1.1"), "{body}");
    let host = format!("a.example:{}", podium.https.port());
    assert!(body.to_lowercase().contains(&format!("host: {host}")), "{body}");
    let (missing, _) = fetch(
        &podium,
        "a.example",
        &pair,
        &["--http2", "-o", "/dev/null", "-w", "%{response_code}", "-H", "Host: z.example"],
    );
    assert_eq!(missing, "404");
}

#[test]
fn hosts_with_a_certificate_redirect_to_https() {
    let web = Backend::start("web");
    let pair = certificate(&["a.example"]);
    let off = secured("off.example", "two").replace(
        "annotations: {}",
        r#"annotations: {"nginx.ingress.kubernetes.io/ssl-redirect": "false"}"#,
    );
    let plain = ingress("plain", "", &[("plain.example", "/", "Prefix", "web")]);
    let forced = ingress(
        "forced",
        r#""nginx.ingress.kubernetes.io/force-ssl-redirect": "true""#,
        &[("forced.example", "/", "Prefix", "web")],
    );
    let manifests = [
        service("web", &[&web]),
        secured("a.example", "one"),
        off,
        plain,
        forced,
        format!("---\n{}", secret("one", &pair)),
    ];
    let podium =
        Ingress::start(&[("a.yaml", &manifests.concat())], &["--https-redirect-port", "8443"]);
    for (host, path, status, location) in [
        ("a.example", "/x?y=1", 308, "https://a.example:8443/x?y=1"),
        ("a.example", "/x/", 308, "https://a.example:8443/x"),
        ("forced.example", "/x", 308, "https://forced.example:8443/x"),
        ("a.example", "/.well-known/acme-challenge/t", 200, ""),
        ("off.example", "/x", 200, ""),
        ("plain.example", "/x", 200, ""),
    ] {
        let answer = podium.get(host, path);
        assert_eq!(
            (answer.status, answer.header("location").as_str()),
            (status, location),
            "{host}{path}"
        );
    }
    let http_only = Ingress::start(&[("a.yaml", &manifests.concat())], &["--no-ssl-redirect"]);
    assert_eq!(http_only.get("a.example", "/x").status, 200);
}

/// A second ingress serves as the endpoint: it speaks TLS and HTTP/2.
#[test]
fn endpoints_over_tls_and_http_2() {
    let web = Backend::start("web");
    let pair = certificate(&["a.example"]);
    let inner = Ingress::start(
        &[(
            "a.yaml",
            &format!(
                "{}{}---\n{}",
                service("web", &[&web]),
                secured("a.example", "one"),
                secret("one", &pair)
            ),
        )],
        &[],
    );
    let slices = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: \
             {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{port: {}}}]\nendpoints: \
             [{{addresses: [{}]}}]\n",
            inner.https.port(),
            inner.https.ip()
        )
    };
    let of = |name: &str, protocol: &str, path: &str| {
        let annotation = format!("\"nginx.ingress.kubernetes.io/backend-protocol\": {protocol}");
        ingress(name, &annotation, &[("a.example", path, "Prefix", "inner")])
    };
    let manifests = [slices("inner"), of("tls", "HTTPS", "/tls"), of("grpcs", "GRPCS", "/grpcs")];
    let outer = Ingress::start(&[("a.yaml", &manifests.concat())], &[]);
    for (path, version) in [("/tls", "HTTP/1.1"), ("/grpcs", "HTTP/2.0")] {
        let answer = outer.get("a.example", path);
        assert_eq!((answer.status, answer.seen("backend").as_str()), (200, "web"), "{path}");
        assert_eq!(answer.seen("x-forwarded-proto"), "https");
        wait_until("the inner log tells the version", || {
            inner.access_log.lock().unwrap().contains(&format!("\"GET {path} {version}\" 200"))
        });
    }
}
