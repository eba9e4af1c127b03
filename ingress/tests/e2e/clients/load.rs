//! h2load and openssl s_client.

use super::start;
use crate::backend::Backend;
use std::process::{Command, Stdio};

/// Runs h2load; all requests have to be answered with 2xx.
fn h2load(arguments: &[&str], requests: usize) {
    let count = requests.to_string();
    let out = Command::new("h2load")
        .args(["-n", &count])
        .args(arguments)
        .output()
        .expect("h2load is needed: cargo xtask setup");
    let text = String::from_utf8_lossy(&out.stdout);
    let all = format!("{count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(text.contains(&all) && text.contains(&format!("{count} 2xx")), "{arguments:?}: {text}");
}

#[test]
fn h2load_by_http_2_and_1_fails_no_request() {
    let web = Backend::start("web");
    let (podium, _) = start(web.address, "");
    let https = podium.https.to_string();
    let body = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(body.path(), vec![b'x'; 30_000]).unwrap();
    let body = body.path().to_str().unwrap();
    let to = |more: &[&'static str]| {
        [&["--connect-to", https.as_str(), "-c", "8"][..], more].concat().to_vec()
    };
    let url = "https://a.example/x";
    h2load(&[&to(&["-m", "20"])[..], &[url]].concat(), 4000);
    h2load(&[&to(&["-m", "100"])[..], &["-d", body, url]].concat(), 1000);
    h2load(&[&to(&["--h1"])[..], &[url]].concat(), 1000);
    h2load(&[&to(&["--h1"])[..], &["-d", body, url]].concat(), 500);
    assert_eq!(web.requests(), 6500);
    let http = podium.http.to_string();
    h2load(&["--h1", "-c", "8", "--connect-to", &http, "http://a.example/x"], 1000);
}

fn s_client(address: &str, arguments: &[&str]) -> String {
    let out = Command::new("openssl")
        .args(["s_client", "-connect", address, "-servername", "a.example"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is needed: cargo xtask setup");
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

#[test]
fn openssl_agrees_on_versions_and_protocols() {
    let web = Backend::start("web");
    let (podium, _) = start(web.address, "");
    let https = podium.https.to_string();
    for (arguments, expected) in [
        (&["-tls1_3"][..], "TLSv1.3, Cipher is TLS_"),
        (&["-tls1_2"], "TLSv1.2, Cipher is ECDHE"),
        (&["-alpn", "h2,http/1.1"], "ALPN protocol: h2"),
        (&["-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
        (&["-alpn", "http/1.0"], "no application protocol"),
        (&["-cipher", "DEFAULT@SECLEVEL=0", "-tls1_1"], "handshake failure"),
        (&["-cipher", "AES128-SHA", "-tls1_2"], "handshake failure"),
    ] {
        let text = s_client(&https, arguments);
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
}
