//! `auth-tls-*` with real curl and openssl: who is let in, what others get, what endpoints are told.

use crate::authority::Authority;
use crate::backend::Backend;
use crate::harness::{Answer, Ingress, curl, ingress, parse, service, wait_until};
use crate::tls::{Pair, certificate, secret};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str, is_authority: bool) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Acme, Inc");
    params.distinguished_name.push(DnType::CommonName, name);
    if is_authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

/// Certificates of clients, in files for curl.
struct Clients {
    folder: tempfile::TempDir,
    authority: Issuer,
}

impl Clients {
    fn new() -> Clients {
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params("ca", true), key).unwrap();
        let clients = Clients { folder: tempfile::tempdir().unwrap(), authority };
        clients.issue("client", &clients.authority, &[]);
        let key = KeyPair::generate().unwrap();
        let other = CertifiedIssuer::self_signed(params("other", true), key).unwrap();
        clients.issue("stranger", &other, &[]);
        let middle = |name: &str, by: &Issuer| {
            let key = KeyPair::generate().unwrap();
            CertifiedIssuer::signed_by(params(name, true), key, by).unwrap()
        };
        let one = middle("one", &clients.authority);
        clients.issue("deep", &one, &[&one]);
        let two = middle("two", &one);
        clients.issue("deeper", &two, &[&two, &one]);
        clients
    }

    fn issue(&self, name: &str, by: &Issuer, chain: &[&Issuer]) {
        let key = KeyPair::generate().unwrap();
        let leaf = params(name, false).signed_by(&key, by).unwrap();
        let mut pem = leaf.pem();
        for certificate in chain {
            pem.push_str(&certificate.pem());
        }
        std::fs::write(self.file(&format!("{name}.crt")), pem).unwrap();
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn secret(&self) -> String {
        let data = json!({"ca.crt": self.authority.pem()});
        format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: ca}}\nstringData: {data}\n")
    }
}

const HOST: &str = "guarded.example";

/// An Ingress for `host` with TLS and these annotations.
fn guarded(host: &str, path: &str, annotations: &[(&str, &str)]) -> String {
    let mut all = String::new();
    for (name, value) in annotations {
        write!(all, "\"nginx.ingress.kubernetes.io/{name}\": {}, ", json!(value)).unwrap();
    }
    let name =
        format!("{}{}", host.replace('.', "-"), path.replace('/', "-").trim_end_matches('-'));
    let rules = ingress(&name, &all, &[(host, path, "Prefix", "web")]);
    rules.replace("spec:\n", "spec:\n  tls: [{secretName: server}]\n")
}

fn start(web: &Backend, clients: &Clients, ingresses: &str) -> (Ingress, Pair) {
    let server = certificate(&["*.example"]);
    let manifests = format!(
        "{}{}---\n{}{}",
        service("web", &[web]),
        ingresses,
        secret("server", &server),
        clients.secret()
    );
    (Ingress::start(&[("a.yaml", &manifests)], &[]), server)
}

/// curl as a client with a certificate, or without one.
fn fetch(podium: &Ingress, clients: &Clients, host: &str, client: &str, more: &[&str]) -> Answer {
    let url = format!("https://{host}:{}/x", podium.https.port());
    let resolve = format!("{host}:{}:{}", podium.https.port(), podium.https.ip());
    let (chain, key) =
        (clients.file(&format!("{client}.crt")), clients.file(&format!("{client}.key")));
    let mut arguments = vec!["-k", "-i", "--http1.1", "--resolve", &resolve, &url];
    if !client.is_empty() {
        arguments.extend(["--cert", chain.to_str().unwrap(), "--key", key.to_str().unwrap()]);
    }
    arguments.extend(more);
    let (text, ok) = curl(&arguments);
    assert!(ok, "{text}");
    parse(&text).unwrap()
}

#[test]
fn auth_tls_secret_lets_in_who_shows_a_certificate_of_the_authority() {
    let (web, clients) = (Backend::start("web"), Clients::new());
    let (podium, _) =
        start(&web, &clients, &guarded(HOST, "/", &[("auth-tls-secret", "default/ca")]));
    for more in [&["--tls-max", "1.2"][..], &["--tlsv1.3"], &["--http2"]] {
        let answer = fetch(&podium, &clients, HOST, "client", more);
        assert_eq!(answer.status, 200, "{more:?} {answer:?}");
        assert_eq!(answer.seen("ssl-client-verify"), "SUCCESS");
        assert_eq!(answer.seen("ssl-client-subject-dn"), "CN=client,O=Acme\\, Inc");
        assert_eq!(answer.seen("ssl-client-issuer-dn"), "CN=ca,O=Acme\\, Inc");
        assert_eq!(answer.seen("ssl-client-cert"), "");
    }
    let before = web.requests();
    let missing = fetch(&podium, &clients, HOST, "", &[]);
    assert_eq!(missing.status, 400);
    assert!(missing.body.contains("<center>No required SSL certificate was sent</center>"));
    assert_eq!(missing.header("content-type"), "text/html");
    let stranger = fetch(&podium, &clients, HOST, "stranger", &[]);
    assert_eq!(stranger.status, 400);
    assert!(stranger.body.contains("<center>The SSL certificate error</center>"), "{stranger:?}");
    assert_eq!(web.requests(), before);
}

#[test]
fn auth_tls_headers_of_clients_are_removed_everywhere() {
    let (web, clients) = (Backend::start("web"), Clients::new());
    let rules = [
        guarded(HOST, "/", &[("auth-tls-secret", "ca"), ("auth-tls-verify-client", "optional")]),
        ingress("open", "", &[("open.example", "/", "Prefix", "web")]),
    ];
    let (podium, _) = start(&web, &clients, &rules.concat());
    let forged = [
        "ssl-client-verify: SUCCESS",
        "ssl-client-cert: x",
        "ssl-client-subject-dn: CN=admin",
        "SSL-Client-Issuer-DN: CN=ca",
    ];
    let flags: Vec<&str> = forged.iter().flat_map(|header| ["-H", header]).collect();
    let answer = fetch(&podium, &clients, HOST, "", &flags);
    assert_eq!((answer.status, answer.seen("ssl-client-verify").as_str()), (200, "NONE"));
    assert!(!answer.body.contains("CN="), "{}", answer.body);
    let request = format!(
        "GET / HTTP/1.1\r\nHost: open.example\r\n{}\r\nConnection: close\r\n\r\n",
        forged.join("\r\n")
    );
    let answer = podium.send(&request);
    assert!(answer.status == 200 && !answer.body.to_lowercase().contains("ssl-client"));
}

#[test]
fn auth_tls_verify_client_modes() {
    let (web, clients) = (Backend::start("web"), Clients::new());
    let mode = |mode: &str| {
        let host = format!("{}.example", mode.replace('_', "-"));
        guarded(&host, "/", &[("auth-tls-secret", "default/ca"), ("auth-tls-verify-client", mode)])
    };
    let rules: String = ["on", "off", "optional", "optional_no_ca", "nonsense"].map(mode).concat();
    let (podium, _) = start(&web, &clients, &rules);
    let unknown = "FAILED:unable to verify the first certificate";
    for (host, client, status, verify) in [
        ("on.example", "client", 200, "SUCCESS"),
        ("on.example", "", 400, ""),
        ("off.example", "client", 200, "NONE"),
        ("off.example", "", 200, "NONE"),
        ("optional.example", "client", 200, "SUCCESS"),
        ("optional.example", "", 200, "NONE"),
        ("optional.example", "stranger", 400, ""),
        ("optional-no-ca.example", "client", 200, "SUCCESS"),
        ("optional-no-ca.example", "", 200, "NONE"),
        ("optional-no-ca.example", "stranger", 200, unknown),
        ("nonsense.example", "", 400, ""),
    ] {
        let answer = fetch(&podium, &clients, host, client, &[]);
        let seen = (answer.status, answer.seen("ssl-client-verify"));
        assert_eq!(seen, (status, verify.to_string()), "{host} as {client:?}");
    }
}

#[test]
fn auth_tls_verify_depth_counts_what_is_between() {
    let (web, clients) = (Backend::start("web"), Clients::new());
    let rules = [
        guarded("one.example", "/", &[("auth-tls-secret", "ca")]),
        guarded("two.example", "/", &[("auth-tls-secret", "ca"), ("auth-tls-verify-depth", "2")]),
    ];
    let (podium, _) = start(&web, &clients, &rules.concat());
    for (host, client, status) in [
        ("one.example", "deep", 200),
        ("one.example", "deeper", 400),
        ("two.example", "deeper", 200),
    ] {
        assert_eq!(fetch(&podium, &clients, host, client, &[]).status, status, "{host} {client}");
    }
}

#[test]
fn auth_tls_error_page_is_an_address_or_a_path() {
    let (web, clients) = (Backend::start("web"), Clients::new());
    let page = |host: &str, page: &str| {
        guarded(host, "/", &[("auth-tls-secret", "ca"), ("auth-tls-error-page", page)])
    };
    let rules = [page("url.example", "https://login.example/help"), page("path.example", "/sorry")];
    let (podium, _) = start(&web, &clients, &rules.concat());
    let sent_away = fetch(&podium, &clients, "url.example", "", &[]);
    assert_eq!(
        (sent_away.status, sent_away.header("location").as_str()),
        (302, "https://login.example/help")
    );
    let own = fetch(&podium, &clients, "path.example", "stranger", &[]);
    assert_eq!((own.status, own.seen_target().as_str()), (200, "/sorry"), "{own:?}");
    assert_eq!(own.seen("ssl-client-verify"), "FAILED:unable to verify the first certificate");
    assert_eq!(fetch(&podium, &clients, "url.example", "client", &[]).status, 200);
}

#[test]
fn auth_tls_pass_certificate_to_upstream_sends_the_pem() {
    let (web, clients) = (Backend::start("web"), Clients::new());
    let pass = ("auth-tls-pass-certificate-to-upstream", "true");
    let rules = guarded(HOST, "/", &[("auth-tls-secret", "ca"), pass]);
    let (podium, _) = start(&web, &clients, &rules);
    let sent = fetch(&podium, &clients, HOST, "client", &[]).seen("ssl-client-cert");
    let pem = std::fs::read_to_string(clients.file("client.crt")).unwrap().replace("\r\n", "\n");
    let mut escaped = String::new();
    for byte in pem.bytes() {
        match byte {
            b'-' | b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => escaped.push(char::from(byte)),
            _ => write!(escaped, "%{byte:02X}").unwrap(),
        }
    }
    assert_eq!(sent, escaped);
}

/// An authority (`auth-url`) hears of the certificate what endpoints hear.
#[test]
fn auth_url_is_told_about_the_certificate() {
    let (web, clients) = (Backend::start("web"), Clients::new());
    let authority = Authority::saying("200 OK", "");
    let url = format!("http://{}/", authority.address);
    let ingresses = guarded(HOST, "/", &[("auth-tls-secret", "default/ca"), ("auth-url", &url)]);
    let (podium, _) = start(&web, &clients, &ingresses);
    let forged = ["-H", "ssl-client-subject-dn: CN=root", "-H", "ssl-client-cert: forged"];
    let answer = fetch(&podium, &clients, HOST, "client", &forged);
    assert_eq!(answer.status, 200);
    assert_eq!(authority.last_header("ssl-client-verify").as_deref(), Some("SUCCESS"));
    let subject = authority.last_header("ssl-client-subject-dn");
    assert_eq!(subject, Some(answer.seen("ssl-client-subject-dn")));
    assert!(!authority.last().contains("root") && !authority.last().contains("forged"));
}

#[test]
fn auth_tls_match_cn_refuses_other_subjects() {
    let (web, clients) = (Backend::start("web"), Clients::new());
    let matching = |host: &str, expression: &str| {
        guarded(
            host,
            "/",
            &[
                ("auth-tls-secret", "ca"),
                ("auth-tls-match-cn", expression),
                ("ssl-redirect", "false"),
            ],
        )
    };
    let rules = [
        matching("yes.example", "^CN=(client|other),"),
        matching("no.example", "CN=somebody"),
        matching("broken.example", "somebody"),
    ];
    let (podium, _) = start(&web, &clients, &rules.concat());
    assert_eq!(fetch(&podium, &clients, "yes.example", "client", &[]).status, 200);
    let refused = fetch(&podium, &clients, "no.example", "client", &[]);
    assert_eq!((refused.status, refused.body.as_str()), (403, "client certificate unauthorized"));
    // Without TLS there is no subject, and an expression that guards nothing lets nobody in.
    assert_eq!(podium.get("yes.example", "/x").status, 403);
    assert_eq!(fetch(&podium, &clients, "broken.example", "client", &[]).status, 403);
}

#[test]
fn auth_tls_secret_that_cannot_be_checked_closes_the_whole_host() {
    let (web, clients) = (Backend::start("web"), Clients::new());
    let rules = [
        guarded("missing.example", "/", &[("auth-tls-secret", "none")]),
        guarded("no-ca.example", "/", &[("auth-tls-secret", "server")]),
        guarded("foreign.example", "/", &[("auth-tls-secret", "other/ca")]),
        guarded("two.example", "/", &[("auth-tls-secret", "ca")]),
        guarded("two.example", "/b", &[("auth-tls-secret", "none")]),
        guarded("fine.example", "/", &[("auth-tls-secret", "ca")]),
    ];
    let (podium, _) = start(&web, &clients, &rules.concat());
    for host in ["missing.example", "no-ca.example", "foreign.example", "two.example"] {
        assert_eq!(fetch(&podium, &clients, host, "client", &[]).status, 403, "{host}");
        assert_eq!(podium.get(host, "/x").status, 403, "{host} without TLS");
    }
    assert_eq!(fetch(&podium, &clients, "fine.example", "client", &[]).status, 200);
}

#[test]
fn auth_tls_is_not_escaped_by_asking_for_another_host() {
    let (web, clients) = (Backend::start("web"), Clients::new());
    let rules =
        [guarded(HOST, "/", &[("auth-tls-secret", "ca")]), guarded("open.example", "/", &[])];
    let (podium, _) = start(&web, &clients, &rules.concat());
    for version in ["--http1.1", "--http2"] {
        let host = format!("Host: {HOST}");
        let answer = fetch(&podium, &clients, "open.example", "client", &["-H", &host, version]);
        assert_eq!(answer.status, 421, "{version}");
    }
    // Without a name in the handshake the host's own checks count.
    let (text, _) =
        curl(&["-k", "-i", "-H", &format!("Host: {HOST}"), &format!("https://{}/x", podium.https)]);
    assert!(text.contains("No required SSL certificate was sent"), "{text}");
}

/// A resumed session says who the client is, as its first handshake did.
#[test]
fn auth_tls_holds_for_resumed_sessions() {
    let (web, clients) = (Backend::start("web"), Clients::new());
    let (podium, _) = start(&web, &clients, &guarded(HOST, "/", &[("auth-tls-secret", "ca")]));
    let session = clients.file("session");
    for version in ["-tls1_2", "-tls1_3"] {
        let ask = |more: &[&str]| {
            let mut openssl = Command::new("openssl")
                .args(["s_client", "-connect", &podium.https.to_string(), "-servername", HOST])
                .args(["-ign_eof", version])
                .args(more)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let request = format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
            openssl.stdin.as_mut().unwrap().write_all(request.as_bytes()).unwrap();
            String::from_utf8_lossy(&openssl.wait_with_output().unwrap().stdout).into_owned()
        };
        let (chain, key) = (clients.file("client.crt"), clients.file("client.key"));
        let file = session.to_str().unwrap();
        let first = ask(&[
            "-cert",
            chain.to_str().unwrap(),
            "-key",
            key.to_str().unwrap(),
            "-sess_out",
            file,
        ]);
        assert!(first.contains("ssl-client-verify: SUCCESS"), "{version}: {first}");
        let again = ask(&["-sess_in", file]);
        assert!(again.contains("Reused, "), "{version}: {again}");
        assert!(again.contains("ssl-client-verify: SUCCESS"), "{version}: {again}");
    }
}

#[test]
fn auth_tls_secret_may_hold_revocations_and_change() {
    let (web, clients) = (Backend::start("web"), Clients::new());
    let (podium, server) = start(&web, &clients, "");
    let list = |serial: u64| {
        let revoked = rcgen::RevokedCertParams {
            serial_number: rcgen::SerialNumber::from(serial),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 1, 1),
            next_update: rcgen::date_time_ymd(2090, 1, 1),
            crl_number: rcgen::SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&clients.authority).unwrap().pem().unwrap()
    };
    let key = KeyPair::generate().unwrap();
    let mut leaf = params("numbered", false);
    leaf.serial_number = Some(rcgen::SerialNumber::from(7));
    let leaf = leaf.signed_by(&key, &clients.authority).unwrap();
    std::fs::write(clients.file("numbered.crt"), leaf.pem()).unwrap();
    std::fs::write(clients.file("numbered.key"), key.serialize_pem()).unwrap();
    let write = |list: &str| {
        let data = json!({"ca.crt": clients.authority.pem(), "ca.crl": list});
        let manifests = format!(
            "{}{}---\n{}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: ca}}\nstringData: {data}\n",
            service("web", &[&web]),
            guarded(HOST, "/", &[("auth-tls-secret", "ca")]),
            secret("server", &server)
        );
        podium.write("a.yaml", &manifests);
    };
    write(&list(8));
    wait_until("the certificate is accepted", || {
        fetch(&podium, &clients, HOST, "numbered", &[]).status == 200
    });
    write(&list(7));
    wait_until("the certificate is revoked", || {
        fetch(&podium, &clients, HOST, "numbered", &[]).status == 400
    });
    write("nonsense");
    wait_until("a broken list lets nobody in", || {
        fetch(&podium, &clients, HOST, "client", &[]).status == 403
    });
}
