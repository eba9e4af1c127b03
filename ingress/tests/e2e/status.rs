//! `status.loadBalancer` by the leader only: the Lease, one leader after the other, and what is left when
//! all are gone.

use crate::backend::Backend;
use crate::cluster::Cluster;
use crate::from_api::start;
use crate::harness::{Ingress, ingress, service, wait_until};
use serde_json::{Value, json};
use std::process::Command;

const INGRESSES: &str = "/apis/networking.k8s.io/v1/ingresses";
const LEASES: &str = "/apis/coordination.k8s.io/v1/leases";
const RULE: [(&str, &str, &str, &str); 1] = [("a.example", "/", "Prefix", "web")];

fn addresses(cluster: &Cluster) -> Value {
    let ingress = cluster.object(INGRESSES, "a").unwrap();
    ingress["status"]["loadBalancer"]["ingress"].clone()
}

fn holder(cluster: &Cluster) -> Option<String> {
    let lease = cluster.object(LEASES, "podium-ingress-leader")?;
    lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
}

fn leads(podium: &Ingress) -> bool {
    podium.metrics().lines().any(|line| {
        line.starts_with("nginx_ingress_controller_leader_election_status{") && line.ends_with(" 1")
    })
}

fn terminate(podium: &mut Ingress) {
    let id = podium.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    podium.process.wait().unwrap();
}

fn cluster(web: &Backend) -> Cluster {
    let cluster = Cluster::start();
    cluster.apply(&format!("{}{}", service("web", &[web]), ingress("a", "", &RULE)));
    cluster
}

#[test]
fn the_leader_writes_statuses_and_takes_them_back_when_it_was_the_last() {
    let web = Backend::start("web");
    let cluster = cluster(&web);
    let mut podium = start(&cluster, &["--publish-status-address", "192.0.2.9"]);
    wait_until("the status is written", || addresses(&cluster) == json!([{"ip": "192.0.2.9"}]));
    assert_eq!(cluster.writes_to("PATCH", "/a/status").len(), 1, "written once");
    assert!(leads(&podium));
    // Somebody else's hand is corrected.
    cluster.apply(&format!(
        "{}status: {{loadBalancer: {{ingress: [{{ip: 192.0.2.1}}]}}}}\n",
        ingress("a", "", &RULE)
    ));
    wait_until("it is put right", || addresses(&cluster) == json!([{"ip": "192.0.2.9"}]));
    terminate(&mut podium);
    assert_eq!(addresses(&cluster), json!([]));
    assert_eq!(holder(&cluster).as_deref(), Some(""), "the Lease is given back");
}

#[test]
fn several_addresses_and_told_so_statuses_stay_at_shutdown() {
    let web = Backend::start("web");
    for flags in [
        &["--publish-status-address", "192.0.2.9,lb.example"][..],
        &["--publish-status-address", "192.0.2.9", "--no-update-status-on-shutdown"][..],
    ] {
        let cluster = cluster(&web);
        let mut podium = start(&cluster, flags);
        wait_until("the status is written", || addresses(&cluster).is_array());
        let before = addresses(&cluster);
        terminate(&mut podium);
        assert_eq!(addresses(&cluster), before);
    }
}

#[test]
fn one_replica_leads_and_the_other_follows_when_it_is_killed() {
    let web = Backend::start("web");
    let cluster = cluster(&web);
    let flags = ["--publish-status-address", "192.0.2.1,192.0.2.2", "--election-ttl", "2s"];
    let mut first = start(&cluster, &flags);
    wait_until("the first leads", || leads(&first));
    let other = ["--publish-status-address", "192.0.2.7,192.0.2.8", "--election-ttl", "2s"];
    let mut second = start(&cluster, &other);
    let leader = holder(&cluster).unwrap();
    wait_until("the leader has written its addresses", || {
        addresses(&cluster)[0]["ip"] == "192.0.2.1"
    });
    assert!(!leads(&second), "there is one leader");

    first.process.kill().unwrap();
    first.process.wait().unwrap();
    wait_until("the other took over", || leads(&second));
    assert_ne!(holder(&cluster).unwrap(), leader);
    wait_until("the new leader's addresses are written", || {
        addresses(&cluster)[0]["ip"] == "192.0.2.7"
    });
    let lease = cluster.object(LEASES, "podium-ingress-leader").unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], 1);

    // One that ends in order gives it back: nobody waits for the lease to run out.
    let third = start(
        &cluster,
        &["--publish-status-address", "192.0.2.1,192.0.2.2", "--election-ttl", "20s"],
    );
    assert!(!leads(&third));
    terminate(&mut second);
    wait_until("the third leads", || leads(&third));
}

#[test]
fn without_addresses_the_nodes_of_the_pods_are_published() {
    let web = Backend::start("web");
    let cluster = cluster(&web);
    for (pod, node, ready) in [("p-1", "n-1", "True"), ("p-2", "n-2", "False")] {
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}, labels: {{app: podium, pod-template-hash: x}}}}\n\
             spec: {{nodeName: {node}, containers: [{{name: c}}]}}\nstatus: {{phase: Running, conditions: [{{type: Ready, status: {ready:?}}}]}}\n"
        ));
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\nstatus: {{addresses: [{{type: InternalIP, \
             address: 10.0.0.1}}, {{type: ExternalIP, address: 203.0.113.1}}]}}\n"
        ));
    }
    let mut podium = crate::from_api::start_as(&cluster, &[], ("default", "p-1"));
    wait_until("the node's address is written", || {
        addresses(&cluster) == json!([{"ip": "203.0.113.1"}])
    });
    assert_eq!(holder(&cluster).as_deref(), Some("p-1"));
    // There is another pod: it goes on serving, and the status stays.
    terminate(&mut podium);
    assert_eq!(addresses(&cluster), json!([{"ip": "203.0.113.1"}]));
}

#[test]
fn statuses_are_left_alone_where_told_so() {
    let web = Backend::start("web");
    let cluster = cluster(&web);
    let flags = [
        "--update-status=false",
        "--publish-status-address=192.0.2.9",
        "--disable-leader-election",
    ];
    let podium = start(&cluster, &flags);
    assert_eq!(podium.get("a.example", "/").status, 200);
    wait_until("Events are written", || !cluster.writes_to("POST", "/events").is_empty());
    assert!(cluster.writes_to("PATCH", "/status").is_empty());
    assert!(holder(&cluster).is_none() && leads(&podium));
}

#[test]
fn health_ends_with_the_signal_and_liveness_does_not() {
    let web = Backend::start("web");
    let cluster = cluster(&web);
    let mut podium = start(&cluster, &["--shutdown-delay", "1"]);
    let status =
        |path: &str| crate::harness::try_get(podium.status, "status", path).map(|a| a.status);
    assert_eq!([status("/healthz"), status("/readyz"), status("/livez")], [Some(200); 3]);
    assert_eq!(status("/unknown"), Some(404));
    let id = podium.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    wait_until("health ends", || status("/healthz") == Some(503));
    assert_eq!([status("/readyz"), status("/livez")], [Some(503), Some(200)]);
    assert_eq!(podium.get("a.example", "/").status, 200, "still serving");
    podium.process.wait().unwrap();
}
