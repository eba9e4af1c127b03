//! Starting the demo's cluster and waiting until what was applied does its work.

use std::time::{Duration, Instant};

use podium_tests::cluster::Cluster;
use podium_tests::wait::wait_until;
use podium_tests::workdir::Workdir;
use serde_json::Value;

use crate::build::Project;
use crate::demo::{Demo, say};
use crate::down;
use crate::setup::KUBECTL_NEWEST;

/// Prefix of the demo's namespaces and cgroups.
const PREFIX: &str = "podium-demo";
const NODES: usize = 2;
/// What the user's Ingress names in `kubernetes.io/ingress.class`.
const INGRESS_CLASS: &str = "nginx";
const ROLLOUT_LIMIT: Duration = Duration::from_secs(120);
const TRAFFIC_LIMIT: Duration = Duration::from_secs(30);
const DEPLOYMENTS: [&str; 3] = ["ml-model-serving", "gateway", "user-interface"];

/// Starts control plane, nodes and ingress.
pub fn start(project: &Project, started: Instant) -> anyhow::Result<Demo> {
    let workdir = Workdir::create(&down::demo_dir(project), PREFIX)?;
    say(started, "starting the control plane");
    let mut cluster = Cluster::start(workdir, project.binaries())?;
    say(started, &format!("starting {NODES} nodes, each with containerd, agent and proxy"));
    for _ in 0..NODES {
        cluster.add_node()?;
    }
    let kubectl = cluster.kubectl(KUBECTL_NEWEST);
    let ready = cluster.wait_nodes_ready(&kubectl);
    let demo = Demo { cluster, kubectl, started };
    if let Err(error) = ready {
        describe(&demo);
        return Err(error);
    }
    demo.say("nodes are ready");
    Ok(demo)
}

/// Starts the ingress, applies the example, waits until it works.
pub fn deploy(project: &Project, demo: &mut Demo) -> anyhow::Result<()> {
    demo.say("starting the ingress");
    demo.cluster.start_ingress(INGRESS_CLASS)?;
    let example = project.root().join("examples/ml-platform");
    demo.say("applying examples/ml-platform with kubectl");
    let applied = demo.kubectl.run(&["apply", "-f", &example.to_string_lossy()])?;
    for line in applied.lines() {
        println!("          {line}");
    }
    wait_until("deployments available", ROLLOUT_LIMIT, || {
        demo.cluster.check_alive().map_err(|error| format!("{error:#}"))?;
        let list = demo.kubectl.json(&["get", "deployments"]).map_err(|e| format!("{e:#}"))?;
        let states: Vec<(bool, String)> =
            DEPLOYMENTS.iter().map(|name| availability(&list, name)).collect();
        if states.iter().all(|(available, _)| *available) {
            return Ok(());
        }
        Err(states.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(", "))
    })?;
    demo.say("all pods are available");
    let node = &demo.cluster.nodes[0];
    let url = format!("http://{}/app", node.address);
    wait_until("the ingress answers for /app", TRAFFIC_LIMIT, || {
        let curl = node.client("curl".as_ref()).map_err(|error| format!("{error:#}"))?;
        let curl = curl.args(["--silent", "--show-error", "--fail", "--max-time", "2", &url]);
        curl.output().map(drop).map_err(|error| format!("{error:#}"))
    })?;
    demo.say("the ingress answers");
    Ok(())
}

fn availability(list: &Value, name: &str) -> (bool, String) {
    let mut items = list["items"].as_array().into_iter().flatten();
    let found = items.find(|item| item["metadata"]["name"] == name);
    let Some(found) = found else {
        return (false, format!("{name} missing"));
    };
    let wanted = found["spec"]["replicas"].as_u64().unwrap_or(1);
    let available = found["status"]["availableReplicas"].as_u64().unwrap_or(0);
    (available >= wanted, format!("{name} {available}/{wanted}"))
}

/// Prints what helps to understand a failure.
pub fn describe(demo: &Demo) {
    for args in [
        &["get", "nodes,pods,services,deployments,jobs,ingresses", "-o", "wide"][..],
        &["get", "events"],
    ] {
        match demo.kubectl.run(args) {
            Ok(text) => eprintln!("{text}"),
            Err(error) => eprintln!("{error:#}"),
        }
    }
    eprintln!("{}", demo.cluster.last_words());
}
