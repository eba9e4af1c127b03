//! `/app` over HTTPS: a certificate in a Secret, an Ingress that names it, and clients that verify it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use podium_tests::wait::wait_until;
use serde_json::Value;

use crate::build::Project;
use crate::demo::Demo;
use crate::demo::measure::{pods_in, table};
use crate::demo::section::Section;

/// The host in `examples/ml-platform/https`.
pub const HOST: &str = "ml.example.com";
const REQUESTS: usize = 40;
const LIMIT: Duration = Duration::from_secs(30);

/// Where its certificate lies.
pub fn certificate(demo: &Demo) -> PathBuf {
    demo.cluster.workdir().path().join("tls.crt")
}

/// Makes a certificate, applies the example, asks.
pub fn measure(demo: &mut Demo) -> anyhow::Result<Section> {
    let mut section = Section::new("requests to /app over HTTPS");
    let certificate = certificate(demo);
    let key = certificate.with_extension("key");
    self_signed(&certificate, &key)?;
    let secret = ["create", "secret", "tls", "ml-product-tls"];
    let files = [format!("--cert={}", certificate.display()), format!("--key={}", key.display())];
    demo.kubectl.run(&[&secret[..], &[&files[0], &files[1]]].concat())?;
    let example = Project::find()?.root().join("examples/ml-platform/https");
    demo.kubectl.run(&["apply", "-f", &example.to_string_lossy()])?;
    let client = Https { demo, certificate: &certificate };
    let url = format!("https://{HOST}/app");
    let answer = wait_until(&format!("{url} answers"), LIMIT, || {
        client.curl(&["--fail", &url]).map_err(|error| format!("{error:#}"))
    })?;
    let answer: Value =
        serde_json::from_str(&answer).with_context(|| format!("read the answer of {url}"))?;
    section.line(format!("GET {url}: pod {} saw the path {}", answer["pod"], answer["path"]));
    section.check(
        answer["path"] == "/",
        "the certificate is the Secret's; rewrite-target: / was applied",
    );
    let version =
        client.curl(&["--output", "/dev/null", "--write-out", "%{http_version}", &url])?;
    section.check(version == "2", format!("HTTP/{version} was negotiated"));
    let plain = format!("http://{HOST}/app");
    let format = "%{response_code} %{redirect_url}";
    let redirect = client.curl(&["--output", "/dev/null", "--write-out", format, &plain])?;
    section.check(redirect == format!("308 {url}"), format!("GET {plain}: {redirect}"));
    let many = format!("{url}?[1-{REQUESTS}]");
    let text = client.curl(&["--fail", "--write-out", "\n", &many])?;
    let seen = count_by_pod(&text)?;
    for line in table(&seen) {
        section.line(line);
    }
    section.check(pods_in(&seen) == 2, "both user-interface pods answered");
    Ok(section)
}

fn self_signed(certificate: &Path, key: &Path) -> anyhow::Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-nodes", "-days", "1", "-subj", &format!("/CN={HOST}")]);
    openssl.args(["-addext", &format!("subjectAltName=DNS:{HOST}")]);
    openssl.arg("-out").arg(certificate).arg("-keyout").arg(key);
    let made = openssl.output().context("run openssl")?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr).trim());
    Ok(())
}

/// A client on the first node that trusts one certificate.
struct Https<'a> {
    demo: &'a Demo,
    certificate: &'a Path,
}

impl Https<'_> {
    fn curl(&self, args: &[&str]) -> anyhow::Result<String> {
        let node = &self.demo.cluster.nodes[0];
        let curl = node.client("curl".as_ref())?;
        let curl = curl.args(["--silent", "--show-error", "--max-time", "10", "--cacert"]);
        let curl = curl.args([self.certificate]);
        let here = [443, 80].map(|port| format!("{HOST}:{port}:{}", node.address));
        let curl = curl.args(["--resolve", &here[0], "--resolve", &here[1]]);
        curl.args(args).output()
    }
}

/// How many of the answers, one a line, each pod gave.
fn count_by_pod(text: &str) -> anyhow::Result<Value> {
    let mut pods = serde_json::Map::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let answer: Value = serde_json::from_str(line).context("read an answer")?;
        let pod = answer["pod"].as_str().context("an answer names no pod")?;
        let count = pods.get(pod).and_then(Value::as_u64).unwrap_or(0) + 1;
        pods.insert(pod.to_owned(), count.into());
    }
    let requests: u64 = pods.values().filter_map(Value::as_u64).sum();
    ensure!(requests == REQUESTS as u64, "{requests} of {REQUESTS} requests were answered");
    Ok(serde_json::json!({ "pods": pods }))
}
