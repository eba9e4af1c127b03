//! Broken and hostile Ingresses, certificates and requests in a cluster: each is told by name, and the
//! others keep serving. What the API server refuses is in `api_kubectl.rs`.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test, with its words")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podium_tests::cluster::{Cluster, INGRESS_CLASS};
use podium_tests::wait::wait_until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn ingress(name: &str, host: &str, service: &str, more: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\nspec:\n  \
         ingressClassName: nginx\n{more}  rules:\n  - host: {host}\n    http: {{paths: [{{path: /, \
         pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}]}}\n"
    )
}

fn tls(host: &str, secret: &str) -> String {
    format!("  tls: [{{hosts: [{host}], secretName: {secret}}}]\n")
}

/// A self-signed certificate for `host` and its key.
fn certificate(host: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn tls_secret(name: &str, certificate: &str, key: &str) -> String {
    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "type": "kubernetes.io/tls", "stringData": {"tls.crt": certificate, "tls.key": key},
    });
    format!("---\n{secret}\n")
}

/// Asks the ingress for `host`, verifying its certificate where one is given; the answer's status
/// and body.
fn ask(cluster: &Cluster, host: &str, ca: Option<&Path>, args: &[&str]) -> Result<String, String> {
    let address = cluster.nodes[0].address;
    let curl = cluster.nodes[0].client(Path::new("curl")).map_err(|e| format!("{e:#}"))?;
    let (scheme, port) = if ca.is_some() { ("https", 443) } else { ("http", 80) };
    let mut curl = curl
        .args(["--silent", "--show-error", "--max-time", "5", "--write-out", "\n%{http_code}"])
        .args(["--resolve", &format!("{host}:{port}:{address}")])
        .args(args)
        .args([format!("{scheme}://{host}/")]);
    if let Some(ca) = ca {
        curl = curl.args([Path::new("--cacert"), ca]);
    }
    curl.output().map_err(|error| format!("{error:#}"))
}

fn wait_status(cluster: &Cluster, host: &str, ca: Option<&Path>, status: &str) {
    wait_until(&format!("{host} answers {status}"), LIMIT, || match ask(cluster, host, ca, &[]) {
        Ok(answer) if answer.ends_with(status) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
}

fn wait_event(cluster: &Cluster, ingress: &str, words: &[&str]) {
    let kubectl = cluster.kubectl("1.36");
    let selector = format!("involvedObject.kind=Ingress,involvedObject.name={ingress}");
    let args = ["get", "events", "--field-selector", &selector];
    kubectl
        .wait_for(&format!("an Event on Ingress {ingress}"), LIMIT, &args, |events| {
            let events = events["items"].as_array().into_iter().flatten();
            let messages: Vec<&Value> = events.map(|event| &event["message"]).collect();
            messages.iter().any(|message| {
                let text = message.as_str().unwrap_or_default();
                words.iter().all(|word| text.contains(word))
            })
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
}

fn write_ca(cluster: &Cluster, name: &str, pem: &str) -> PathBuf {
    let path = cluster.workdir().path().join(format!("{name}.pem"));
    fs::write(&path, pem).unwrap();
    path
}

/// Requests no ingress should pass on, each with the statuses that are an answer to it.
fn send_hostile_requests(cluster: &Cluster) {
    let big = format!("X-Big: {}", "x".repeat(200_000));
    for (name, args, right) in [
        ("unknown host", vec!["-H", "Host: nobody.example"], &["404"][..]),
        ("host with a path", vec!["-H", "Host: missing.example/../x"], &["400", "404"]),
        ("headers too large", vec!["-H", big.as_str()], &["400", "413", "431", "curl"]),
        (
            "two lengths",
            vec!["-H", "Content-Length: 1", "-H", "Content-Length: 2", "-d", "a"],
            &["400", "curl"],
        ),
        (
            "length and chunks",
            vec!["-H", "Transfer-Encoding: chunked", "-H", "Content-Length: 3", "-d", "abc"],
            &["200", "400", "curl"],
        ),
        (
            "climbing path",
            vec!["--path-as-is", "--url", "http://missing.example/a/../../etc"],
            &["200", "400", "404"],
        ),
    ] {
        let answer = ask(cluster, "missing.example", None, &args).unwrap_or_else(|error| error);
        let right = right.iter().any(|status| answer.contains(status));
        assert!(right, "{name}: {}", &answer[..answer.len().min(500)]);
        wait_status(cluster, "missing.example", None, "200");
    }
}

#[test]
fn what_is_wrong_with_one_ingress_is_told_and_the_others_serve() {
    let mut cluster = Cluster::for_test("hostile-ingress").unwrap();
    cluster.add_node().unwrap();
    let kubectl = cluster.kubectl("1.36");
    cluster.wait_nodes_ready(&kubectl).unwrap();
    cluster.start_ingress("nginx").unwrap();
    kubectl.apply(INGRESS_CLASS).unwrap();
    kubectl.apply(include_str!("../../examples/ml-platform/40-user-interface.yaml")).unwrap();
    let (pem, key) = certificate("good.example");
    let ca = write_ca(&cluster, "good", &pem);
    let good = ingress("good", "good.example", "user-interface-svc", &tls("good.example", "good"));
    kubectl.apply(&[tls_secret("good", &pem, &key), good].concat()).unwrap();
    wait_status(&cluster, "good.example", Some(&ca), "200");

    // A Service that is not there: 503 for its host, and the Event names it.
    let missing = ingress("missing", "missing.example", "no-such-svc", "");
    kubectl.apply(&missing).unwrap();
    wait_event(&cluster, "missing", &["no-such-svc"]);
    wait_status(&cluster, "missing.example", None, "503");
    // A port that the Service does not have.
    let port = ingress("port", "port.example", "user-interface-svc", "")
        .replace("number: 80", "number: 81");
    kubectl.apply(&port).unwrap();
    wait_event(&cluster, "port", &["user-interface-svc", "81"]);
    wait_status(&cluster, "port.example", None, "503");
    // A certificate that never was one, and a Secret that is not there.
    let (other_pem, _) = certificate("broken.example");
    let broken =
        ingress("broken", "broken.example", "user-interface-svc", &tls("broken.example", "broken"));
    kubectl.apply(&[tls_secret("broken", &other_pem, "not a key"), broken].concat()).unwrap();
    wait_event(&cluster, "broken", &["broken"]);
    let absent = ingress(
        "absent",
        "absent.example",
        "user-interface-svc",
        &tls("absent.example", "no-such-secret"),
    );
    kubectl.apply(&absent).unwrap();
    wait_event(&cluster, "absent", &["no-such-secret"]);
    wait_status(&cluster, "good.example", Some(&ca), "200");

    // A certificate that breaks later: the one before it stays.
    kubectl.apply(&tls_secret("good", "rubbish", &key)).unwrap();
    wait_event(&cluster, "good", &["good"]);
    wait_status(&cluster, "good.example", Some(&ca), "200");
    // And a good one is swapped in.
    let (pem, key) = certificate("good.example");
    let renewed = write_ca(&cluster, "renewed", &pem);
    kubectl.apply(&tls_secret("good", &pem, &key)).unwrap();
    wait_status(&cluster, "good.example", Some(&renewed), "200");

    // A missing Service that comes is served.
    kubectl.apply(&missing.replace("no-such-svc", "user-interface-svc")).unwrap();
    wait_status(&cluster, "missing.example", None, "200");
    send_hostile_requests(&cluster);
    cluster.check_alive().unwrap();
    cluster.stop().unwrap();
}
