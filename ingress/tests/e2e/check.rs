//! `podium-ingress check`: files, folders, standard input and a cluster; the report as golden text.

use crate::backend::Backend;
use crate::cluster::Cluster;
use crate::harness::{ingress, service};
use expect_test::expect_file;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/ingress-migration");

/// Standard output, standard error and how it ended.
fn check(arguments: &[&str], input: &str) -> (String, String, i32) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_podium-ingress"))
        .arg("check")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that does not read it is right too.
    drop(process.stdin.take().unwrap().write_all(input.as_bytes()));
    let out = process.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(out.stdout), text(out.stderr), out.status.code().unwrap())
}

#[test]
fn the_sample_of_manifests_has_its_report() {
    let options = "ingress-nginx/ingress-nginx-controller";
    let (text, errors, code) = check(&[EXAMPLES, "--configmap", options], "");
    assert_eq!((errors.as_str(), code), ("", 1));
    expect_file![format!("{EXAMPLES}/report.txt")].assert_eq(&text);
}

#[test]
fn json_says_the_same_to_programs() {
    let manifest = ingress(
        "a",
        r#""nginx.ingress.kubernetes.io/proxy-body-size": "8m", "nginx.ingress.kubernetes.io/proxy-buffering": "on", "nginx.ingress.kubernetes.io/server-snippet": "x""#,
        &[("a.example", "/", "Prefix", "web")],
    );
    let arguments = ["-", "-o", "json", "--watch-ingress-without-class"];
    let (text, _, code) = check(&arguments, &manifest);
    assert_eq!(code, 1);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["version"], 1);
    let own = &report["ingresses"][0];
    assert_eq!((&own["namespace"], &own["name"]), (&"default".into(), &"a".into()));
    assert_eq!((&own["selected"], &own["state"]), (&true.into(), &"refused".into()));
    let findings = own["findings"].as_array().unwrap();
    let states: Vec<(&str, &str)> = findings
        .iter()
        .map(|finding| (finding["about"].as_str().unwrap(), finding["state"].as_str().unwrap()))
        .collect();
    assert_eq!(
        states,
        [
            ("server-snippet", "refused"),
            ("proxy-buffering", "harmless"),
            ("proxy-body-size", "works")
        ]
    );
}

#[test]
fn ends_with_0_1_or_2() {
    let fine = ingress("a", "", &[("a.example", "/", "Prefix", "web")]);
    let without_class = ["-", "--watch-ingress-without-class"];
    assert_eq!(check(&without_class, &fine).2, 0);
    // A set with Services says which are missing.
    let (text, _, code) = check(&without_class, &(service("other", &[]) + &fine));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("Service default/web does not exist"), "{text}");
    // Without its class nothing of it is judged.
    let (text, _, code) = check(&["-"], &fine);
    assert_eq!(code, 0);
    assert!(text.contains("not ours"), "{text}");
    for (arguments, input, says) in [
        (&["-"][..], "a: [", "standard input: not valid YAML"),
        (&["/does/not/exist.yaml"][..], "", "/does/not/exist.yaml"),
        (&["-", "--configmap", "nowhere"][..], "", "no file, and not NAMESPACE/NAME"),
        (&[][..], "", "required"),
    ] {
        let (_, errors, code) = check(arguments, input);
        assert_eq!(code, 2, "{errors}");
        assert!(errors.contains(says), "{errors}");
    }
}

#[test]
fn a_cluster_is_asked_for_what_ingresses_name_and_for_no_other_secret() {
    let web = Backend::start("web");
    let cluster = Cluster::start();
    let annotation = r#""kubernetes.io/ingress.class": "nginx", "nginx.ingress.kubernetes.io/server-snippet": "x""#;
    cluster.apply(&service("web", &[&web]));
    cluster.apply(&ingress("a", annotation, &[("a.example", "/", "Prefix", "web")]));
    cluster.apply(&crate::tls::secured("b.example", "gone"));
    cluster.apply(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: options}\ndata: {use-http2: maybe}\n",
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, cluster.kubeconfig()).unwrap();
    let arguments = [
        "--cluster",
        "--kubeconfig",
        path.to_str().unwrap(),
        "--configmap",
        "default/options",
        "--watch-ingress-without-class",
    ];
    let (text, errors, code) = check(&arguments, "");
    assert_eq!(code, 1, "{errors}");
    assert!(text.contains("server-snippet: snippets are refused"), "{text}");
    assert!(text.contains("use-http2: value \"maybe\" is invalid"), "{text}");
    assert!(text.contains("Secret") && text.contains("does not exist"), "{text}");
    for read in cluster.reads().iter().filter(|read| read.contains("/secrets")) {
        assert!(read.ends_with("/namespaces/default/secrets/gone"), "{read}");
    }
}
