//! TLS by host: ciphers, several certificates, connections passed through.

use crate::backend::Backend;
use crate::harness::{Ingress, curl, ingress, service, wait_until};
use crate::tls::{Pair, certificate, fetch, secret};
use std::process::{Command, Stdio};

/// An Ingress for a host with these annotations and a certificate from a Secret.
fn with(host: &str, secret: &str, annotations: &str) -> String {
    let name = format!("{}-{secret}", host.replace('.', "-"));
    let rules = ingress(&name, annotations, &[(host, "/", "Prefix", "web")]);
    rules
        .replace("spec:\n", &format!("spec:\n  tls: [{{hosts: [{host}], secretName: {secret}}}]\n"))
}

/// What openssl says of a handshake; standard error too.
fn handshake(podium: &Ingress, host: &str, more: &[&str]) -> String {
    let out = Command::new("openssl")
        .args(["s_client", "-connect", &podium.https.to_string(), "-servername", host])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

#[test]
fn ssl_ciphers_and_ssl_prefer_server_ciphers_are_those_of_the_host() {
    let web = Backend::start("web");
    let pair = certificate(&["*.example"]);
    let one = "ECDHE-ECDSA-AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256";
    let key =
        |name: &str, value: &str| format!("\"nginx.ingress.kubernetes.io/{name}\": \"{value}\", ");
    let order = "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256";
    let manifests = [
        service("web", &[&web]),
        with("one.example", "s", &key("ssl-ciphers", one)),
        with("server.example", "s", &key("ssl-ciphers", order)),
        with(
            "client.example",
            "s",
            &format!("{}{}", key("ssl-ciphers", order), key("ssl-prefer-server-ciphers", "false")),
        ),
        with("default.example", "s", &key("ssl-ciphers", "RC4-MD5")),
        format!("---\n{}", secret("s", &pair)),
    ];
    let podium = Ingress::start(&[("a.yaml", &manifests.concat())], &[]);
    let says = |host: &str, offered: &str| {
        let text = handshake(&podium, host, &["-tls1_2", "-cipher", offered]);
        let line = text.lines().find_map(|line| line.split("Cipher is ").nth(1));
        line.unwrap_or_default().to_string()
    };
    let both = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305";
    for (host, offered, chosen) in [
        ("one.example", "ECDHE-ECDSA-AES128-GCM-SHA256", "(NONE)"),
        ("one.example", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("server.example", both, "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("client.example", both, "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("default.example", both, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ] {
        assert_eq!(says(host, offered), chosen, "{host} {offered}");
    }
    assert!(says("default.example", "AES128-SHA").contains("(NONE)"));
}

#[test]
fn an_rsa_and_an_ecdsa_certificate_serve_one_host() {
    let web = Backend::start("web");
    let ecdsa = certificate(&["a.example"]);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    // A key of the old form, PKCS #1.
    for arguments in [
        format!(
            "req -x509 -newkey rsa:2048 -keyout {} -out {} -days 30 -nodes -subj /CN=x -addext subjectAltName=DNS:a.example",
            file("k8"),
            file("crt")
        ),
        format!("rsa -traditional -in {} -out {}", file("k8"), file("k1")),
    ] {
        let out = Command::new("openssl").args(arguments.split(' ')).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    assert!(read("k1").contains("BEGIN RSA PRIVATE KEY"));
    let rsa = Pair { chain: read("crt"), key: read("k1") };
    let manifests = [
        service("web", &[&web]),
        with("a.example", "rsa", ""),
        with("a.example", "zecdsa", "").replace("path: \"/\"", "path: \"/z\""),
        format!("---\n{}---\n{}", secret("rsa", &rsa), secret("zecdsa", &ecdsa)),
    ];
    let podium = Ingress::start(&[("a.yaml", &manifests.concat())], &[]);
    for (schemes, kind) in [("ecdsa_secp256r1_sha256", "ECDSA"), ("rsa_pss_rsae_sha256", "RSA")] {
        for version in ["-tls1_2", "-tls1_3"] {
            let text = handshake(&podium, "a.example", &["-sigalgs", schemes, version]);
            let expected = if kind == "RSA" { "CN = x" } else { "CN = rcgen" };
            let subject =
                text.lines().find(|line| line.starts_with("subject=")).unwrap_or_default();
            let found = subject.replace("CN=", "CN = ");
            assert!(found.contains(expected), "{kind} {version}: {text}");
        }
    }
}

#[test]
fn ssl_passthrough_leaves_tls_to_the_endpoint() {
    let web = Backend::start("web");
    let (inner_pair, outer_pair) = (certificate(&["pass.example"]), certificate(&["*.example"]));
    let inner = [
        service("web", &[&web]),
        with("pass.example", "inner", ""),
        format!("---\n{}", secret("inner", &inner_pair)),
    ];
    let inner = Ingress::start(&[("a.yaml", &inner.concat())], &[]);
    let endpoint = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web, labels: \
         {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nports: [{{port: {}}}]\nendpoints: \
         [{{addresses: [{}]}}]\n",
        inner.https.port(),
        inner.https.ip()
    );
    let pass = r#""nginx.ingress.kubernetes.io/ssl-passthrough": "true""#;
    let manifests = [
        endpoint,
        with("pass.example", "outer", pass),
        with("own.example", "outer", ""),
        format!("---\n{}", secret("outer", &outer_pair)),
    ];
    let podium = Ingress::start(&[("a.yaml", &manifests.concat())], &["--enable-ssl-passthrough"]);
    for flags in [&["--http2"][..], &["--http1.1"], &["--tls-max", "1.2"]] {
        let (body, ok) = fetch(&podium, "pass.example", &inner_pair, flags);
        assert!(ok && body.contains("backend: web"), "{flags:?}: {body}");
    }
    assert!(!fetch(&podium, "pass.example", &outer_pair, &[]).1);
    // A host without it is served here.
    let address = format!("own.example:{}:{}", podium.https.port(), podium.https.ip());
    let url = format!("https://own.example:{}/x", podium.https.port());
    let (text, _) = curl(&["-k", "-v", "--stderr", "-", "--resolve", &address, &url]);
    assert!(!text.contains("backend: web"), "{text}");
    let counted = "podium_ingress_passthrough_connections_total{upstream=\"default-web-80\"}";
    wait_until("connections are counted", || podium.metrics().contains(counted));
}

#[test]
fn ssl_passthrough_without_the_flag_is_reported_and_tls_ends_here() {
    let web = Backend::start("web");
    let pair = certificate(&["pass.example"]);
    let pass = r#""nginx.ingress.kubernetes.io/ssl-passthrough": "true""#;
    let manifests = [
        service("web", &[&web]),
        with("pass.example", "one", pass),
        format!("---\n{}", secret("one", &pair)),
    ];
    let podium = Ingress::start(&[("a.yaml", &manifests.concat())], &[]);
    assert!(fetch(&podium, "pass.example", &pair, &[]).1);
    assert!(podium.metrics().contains("name=\"ssl-passthrough\""));
}
