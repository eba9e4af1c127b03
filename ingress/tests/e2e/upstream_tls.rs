//! TLS with endpoints: `backend-protocol` and `proxy-ssl-*`, the endpoints being nginx.

use crate::harness::{Ingress, curl, ingress, own_address, wait_until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// An authority of its own, and what it vouches for.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key for a name.
    fn vouch(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// nginx as an endpoint that says what it saw of the connection.
struct Endpoint {
    address: SocketAddr,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Endpoint {
    fn start(certificate: &(String, String), clients: &Authority, http2: bool) -> Endpoint {
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddr::new(own_address(), 8443);
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("tls.crt", &certificate.0);
        write("tls.key", &certificate.1);
        write("clients.crt", &clients.pem());
        let http2 = if http2 { "http2" } else { "" };
        write(
            "nginx.conf",
            &format!(
                "daemon off; master_process off; pid nginx.pid;\nevents {{}}\nhttp {{ access_log off;\n\
                 client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
                 server {{ listen {address} ssl {http2}; ssl_certificate tls.crt; ssl_certificate_key tls.key; ssl_protocols TLSv1.2 TLSv1.3;\n\
                 ssl_client_certificate clients.crt; ssl_verify_client optional;\n\
                 location / {{ return 200 'sni: $ssl_server_name\\nverified: $ssl_client_verify\\nclient: $ssl_client_s_dn\\n\
                 protocol: $ssl_protocol\\nhttp: $server_protocol\\nconnection: $connection\\n'; }} }} }}"
            ),
        );
        let mut process = run(folder.path());
        wait_until("nginx listens", || {
            assert!(process.try_wait().unwrap().is_none(), "nginx ended: {}", error(folder.path()));
            TcpStream::connect(address).is_ok()
        });
        Endpoint { address, process, _folder: folder }
    }

    /// A Service that is this endpoint.
    fn service(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-0, labels: \
             {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nports: [{{port: {}}}]\nendpoints: \
             [{{addresses: [{}]}}]\n",
            self.address.port(),
            self.address.ip()
        )
    }
}

fn run(folder: &Path) -> Child {
    Command::new("nginx")
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(folder.join("nginx.conf"))
        .arg("-e")
        .arg(folder.join("error.log"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx is needed: cargo xtask setup")
}

fn error(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("error.log")).unwrap_or_default()
}

fn rule(name: &str, pairs: &[(&str, &str)]) -> String {
    let notes = pairs
        .iter()
        .map(|(name, value)| format!("\"nginx.ingress.kubernetes.io/{name}\": {value:?}"));
    let host = format!("{name}.example");
    let annotations = notes.collect::<Vec<_>>().join(", ");
    ingress(name, &annotations, &[(&host, "/", "Prefix", "web")])
}

fn secret(name: &str, fields: &[(&str, &str)]) -> String {
    let data: serde_json::Map<_, _> =
        fields.iter().map(|(name, text)| (name.to_string(), (*text).into())).collect();
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {}\n",
        serde_json::Value::Object(data)
    )
}

#[test]
fn backend_protocol_https_auto_http_and_the_rest() {
    let authority = Authority::new();
    let endpoint = Endpoint::start(&authority.vouch("web.internal"), &authority, false);
    let rules = [
        rule("https", &[("backend-protocol", "HTTPS")]),
        rule("http", &[]),
        rule("auto", &[("backend-protocol", "AUTO_HTTP"), ("ssl-redirect", "false")]),
        rule("fcgi", &[("backend-protocol", "FCGI")]),
        rule("wrong", &[("backend-protocol", "SPDY")]),
    ];
    let manifests = format!("{}{}", endpoint.service(), rules.concat());
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    let answer = podium.get("https.example", "/");
    assert_eq!(answer.status, 200, "{answer:?}");
    // Nothing is verified and no name is sent unless an annotation asks for it.
    assert_eq!((answer.seen("sni").as_str(), answer.seen("verified").as_str()), ("", "NONE"));
    assert_eq!(answer.seen("protocol"), "TLSv1.3");
    // Plain HTTP to a TLS port: nginx says so with a 400 of its own.
    assert_eq!(podium.get("http.example", "/").status, 400);
    assert_eq!(podium.get("auto.example", "/").status, 400);
    let (body, good) = curl(&[
        "-k",
        "--resolve",
        &format!("auto.example:{}:{}", podium.https.port(), podium.https.ip()),
        &format!("https://auto.example:{}/", podium.https.port()),
    ]);
    assert!(good && body.contains("protocol: TLSv1.3"), "{body}");
    assert_eq!(podium.get("fcgi.example", "/").status, 503);
    assert_eq!(podium.get("wrong.example", "/").status, 400, "the default is HTTP");
    let counted = || podium.metrics().contains("kind=\"Ingress\",severity=\"error\"} 2");
    wait_until("the problem is counted", counted);
}

#[test]
fn backend_protocol_grpcs_is_http_2_in_tls() {
    let authority = Authority::new();
    let endpoint = Endpoint::start(&authority.vouch("web.internal"), &authority, true);
    let rules = rule("grpcs", &[("backend-protocol", "GRPCS")]);
    let podium = Ingress::start(&[("a.yaml", &format!("{}{rules}", endpoint.service()))], &[]);
    let answer = podium.get("grpcs.example", "/");
    assert_eq!((answer.status, answer.seen("http").as_str()), (200, "HTTP/2.0"), "{answer:?}");
}

#[test]
fn proxy_ssl_verify_wants_the_authority_and_the_name() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let endpoint = Endpoint::start(&authority.vouch("web.internal"), &authority, false);
    let https = ("backend-protocol", "HTTPS");
    let on = ("proxy-ssl-verify", "on");
    let name = ("proxy-ssl-name", "web.internal");
    let rules = [
        rule("good", &[https, on, name, ("proxy-ssl-secret", "trusted")]),
        rule("stranger", &[https, on, name, ("proxy-ssl-secret", "stranger")]),
        rule(
            "misnamed",
            &[
                https,
                on,
                ("proxy-ssl-name", "other.internal"),
                ("proxy-ssl-secret", "default/trusted"),
            ],
        ),
        rule(
            "unverified",
            &[https, name, ("proxy-ssl-secret", "stranger"), ("proxy-ssl-verify", "off")],
        ),
        rule("nobody", &[https, on, name]),
        rule("nameless", &[https, on, ("proxy-ssl-secret", "trusted")]),
        rule("missing", &[https, on, name, ("proxy-ssl-secret", "nowhere")]),
        rule("foreign", &[https, ("proxy-ssl-secret", "other/trusted")]),
        rule(
            "depth",
            &[https, on, name, ("proxy-ssl-secret", "trusted"), ("proxy-ssl-verify-depth", "2")],
        ),
    ];
    let manifests = format!(
        "{}{}{}{}",
        endpoint.service(),
        secret("trusted", &[("ca.crt", &authority.pem())]),
        secret("stranger", &[("ca.crt", &stranger.pem())]),
        rules.concat()
    );
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    // In this order connections that must not be shared would be.
    for (host, status) in [
        ("unverified", 200),
        ("good", 200),
        ("stranger", 502),
        ("misnamed", 502),
        ("unverified", 200),
        ("nobody", 503),
        ("nameless", 503),
        ("missing", 503),
        ("foreign", 503),
        ("depth", 200),
        ("stranger", 502),
    ] {
        let answer = podium.get(&format!("{host}.example"), "/");
        assert_eq!(answer.status, status, "{host}: {answer:?}");
    }
}

#[test]
fn proxy_ssl_secret_shows_a_certificate_to_the_endpoint() {
    let authority = Authority::new();
    let endpoint = Endpoint::start(&authority.vouch("web.internal"), &authority, false);
    let (certificate, key) = authority.vouch("proxy.internal");
    let https = ("backend-protocol", "HTTPS");
    let rules = [
        rule("mutual", &[https, ("proxy-ssl-secret", "client")]),
        rule("plain", &[https]),
        rule("half", &[https, ("proxy-ssl-secret", "half")]),
    ];
    let manifests = |client: &(String, String)| {
        format!(
            "{}{}{}{}",
            endpoint.service(),
            secret("client", &[("tls.crt", &client.0), ("tls.key", &client.1)]),
            secret("half", &[("tls.crt", &client.0)]),
            rules.concat()
        )
    };
    let podium = Ingress::start(&[("a.yaml", &manifests(&(certificate, key)))], &[]);
    for _ in 0..2 {
        let answer = podium.get("mutual.example", "/");
        assert_eq!(answer.seen("verified"), "SUCCESS", "{answer:?}");
        assert!(answer.seen("client").contains("CN=proxy.internal"), "{answer:?}");
        assert_eq!(podium.get("plain.example", "/").seen("verified"), "NONE");
    }
    assert_eq!(podium.get("half.example", "/").status, 503);
    // Another certificate is another connection.
    podium.write("a.yaml", &manifests(&authority.vouch("renewed.internal")));
    wait_until("the new certificate is shown", || {
        podium.get("mutual.example", "/").seen("client").contains("CN=renewed.internal")
    });
}

#[test]
fn proxy_ssl_server_name_sends_proxy_ssl_name() {
    let authority = Authority::new();
    let endpoint = Endpoint::start(&authority.vouch("web.internal"), &authority, false);
    let https = ("backend-protocol", "HTTPS");
    let name = ("proxy-ssl-name", "web.internal");
    let rules = [
        rule("named", &[https, name, ("proxy-ssl-server-name", "on")]),
        rule("unnamed", &[https, name]),
        rule("nameless", &[https, ("proxy-ssl-server-name", "on")]),
        rule("wrong", &[https, name, ("proxy-ssl-server-name", "perhaps")]),
    ];
    let manifests = format!("{}{}", endpoint.service(), rules.concat());
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    assert_eq!(podium.get("named.example", "/").seen("sni"), "web.internal");
    assert_eq!(podium.get("unnamed.example", "/").seen("sni"), "");
    let answer = podium.get("nameless.example", "/");
    assert_eq!((answer.status, answer.seen("sni").as_str()), (200, ""));
    assert_eq!(podium.get("wrong.example", "/").status, 503);
}

#[test]
fn proxy_ssl_ciphers_and_proxy_ssl_protocols_say_what_cannot_be_had() {
    let authority = Authority::new();
    let endpoint = Endpoint::start(&authority.vouch("web.internal"), &authority, false);
    let https = ("backend-protocol", "HTTPS");
    let rules = [
        rule("default", &[https, ("proxy-ssl-ciphers", "DEFAULT")]),
        rule("ciphers", &[https, ("proxy-ssl-ciphers", "AES256-SHA")]),
        rule("protocols", &[https, ("proxy-ssl-protocols", "TLSv1.2 TLSv1.3")]),
        rule("old", &[https, ("proxy-ssl-protocols", "TLSv1 TLSv1.1")]),
    ];
    let manifests = format!("{}{}", endpoint.service(), rules.concat());
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    for (host, status) in [("default", 200), ("ciphers", 200), ("protocols", 200), ("old", 503)] {
        assert_eq!(podium.get(&format!("{host}.example"), "/").status, status, "{host}");
    }
    let counted = || podium.metrics().contains("kind=\"Ingress\",severity=\"error\"} 2");
    wait_until("the problem is counted", counted);
}
