//! Endpoints and routes replaced ten times a second for a minute under load, and no request fails.
//!
//! Objects come from an API, as in a cluster. An endpoint leaves its slice first and ends shortly after.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod endpoint;

#[path = "../e2e/backend.rs"]
#[expect(dead_code, reason = "the harness speaks of it")]
mod backend;
#[path = "../e2e/cluster.rs"]
#[expect(dead_code, reason = "nothing is asked of the API itself")]
mod cluster;
#[path = "../e2e/harness.rs"]
#[expect(dead_code, reason = "only starting the binary is needed here")]
mod harness;

use client::{Habit, Load};
use cluster::Cluster;
use endpoint::Endpoint;
use harness::{Ingress, ingress, wait_until};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: u16 = 600;
const ROUND: Duration = Duration::from_millis(100);
/// How long an endpoint still serves after the list without it is in effect, and routes stay.
const ROUNDS_KEPT: usize = 3;

/// An address of its own for each endpoint, so that one slice holds them all; even in its second number,
/// where those of instances are odd.
fn address(number: u16) -> SocketAddr {
    let [.., low] = std::process::id().to_be_bytes();
    let [high, own] = number.to_be_bytes();
    SocketAddr::new(IpAddr::from([127, (low << 1) | 0x80, high + 1, own]), 8080)
}

fn slice(service: &str, endpoints: &[&Endpoint]) -> String {
    let addresses: Vec<String> =
        endpoints.iter().map(|e| format!("{{addresses: [{}]}}", e.address.ip())).collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}-1, labels: \
         {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: [{{port: 8080}}]\nendpoints: [{}]\n",
        addresses.join(", ")
    )
}

fn service(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n"
    )
}

/// A route that comes and goes: beside the ones under load, below one of them, and of another host.
fn passing(round: u16) -> String {
    let (own, below) = (format!("/r{round}"), format!("/stable/r{round}"));
    let host = format!("r{round}.example");
    let rules = [
        ("a.example", own.as_str(), "Prefix", "passing"),
        ("a.example", below.as_str(), "Exact", "passing"),
        (host.as_str(), "/", "Prefix", "passing"),
    ];
    ingress(&format!("passing-{round}"), "", &rules)
}

fn habits() -> Vec<Habit> {
    let kept = Habit {
        host: "a.example",
        path: "/",
        post_bytes: None,
        fresh: false,
        answer: "web-",
        pause: Duration::from_millis(2),
    };
    let post = Habit { post_bytes: Some(20_000), ..kept };
    let fresh = Habit { fresh: true, pause: Duration::from_millis(10), ..kept };
    let stable = Habit { path: "/stable/x", answer: "stable", ..kept };
    vec![
        kept,
        kept,
        post,
        Habit { post_bytes: Some(3), ..post },
        fresh,
        Habit { post_bytes: Some(700), ..fresh },
        stable,
        Habit { fresh: true, pause: fresh.pause, ..stable },
    ]
}

#[test]
fn a_minute_of_changes_under_load_fails_no_request() {
    let stable = Endpoint::start("stable", address(ROUNDS + 1));
    let mut endpoints = VecDeque::from([Endpoint::start("web-0", address(0))]);
    let cluster = Cluster::start();
    let rules = [("a.example", "/", "Prefix", "web"), ("a.example", "/stable", "Prefix", "stable")];
    cluster.apply(&slice("web", &[&endpoints[0]]));
    for name in ["stable", "passing"] {
        cluster.apply(&slice(name, &[&stable]));
    }
    let services = ["web", "stable", "passing"].map(service).concat();
    cluster.apply(&format!("{}{}", services.trim_start_matches("---\n"), ingress("a", "", &rules)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, cluster.kubeconfig()).unwrap();
    let flags = ["--kubeconfig", path.to_str().unwrap()];
    let podium = Ingress::start_from(folder, &flags, &["--access-log", "off"]);

    let load = Arc::new(Load::default());
    let clients: Vec<_> =
        habits().into_iter().map(|habit| load.client(podium.http, habit)).collect();
    let started = Instant::now();
    for round in 1..=ROUNDS {
        endpoints.push_back(Endpoint::start(&format!("web-{round}"), address(round)));
        let newest: Vec<&Endpoint> = endpoints.iter().rev().take(2).collect();
        cluster.apply(&slice("web", &newest));
        cluster.apply(passing(round).trim_start_matches("---\n"));
        if usize::from(round) > ROUNDS_KEPT {
            let gone = passing(round - u16::try_from(ROUNDS_KEPT).unwrap());
            cluster.delete(gone.trim_start_matches("---\n"));
        }
        // One that is asked shows that lists without older ones are in effect.
        let asked = endpoints.iter().rposition(|endpoint| endpoint.requests() > 0).unwrap_or(0);
        let over = asked.saturating_sub(1 + ROUNDS_KEPT);
        endpoints.drain(..over).for_each(|endpoint| endpoint.end());
        thread::sleep(
            (started + ROUND * u32::from(round)).saturating_duration_since(Instant::now()),
        );
    }
    wait_until("the newest endpoint is asked", || endpoints.back().unwrap().requests() > 0);
    load.stop();
    let failures: Vec<String> =
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    let count = load.done();
    println!("{count} requests during {ROUNDS} changes of endpoints and routes");
    assert!(failures.is_empty(), "{} of {count} failed, first: {}", failures.len(), failures[0]);
    assert!(count > usize::from(ROUNDS) * 10, "only {count} requests: not much of a load");
}
