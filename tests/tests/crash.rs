//! `kill -9` of the programs of a node while pods serve: no connection fails, no container restarts.
//! The store's part is in `api_kubectl.rs`.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test, with its words")]

use std::time::Duration;

use podium_tests::cluster::Cluster;
use podium_tests::kubectl::Kubectl;
use podium_tests::wait::wait_until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// Name, container id and restarts of each ready model pod.
fn containers(kubectl: &Kubectl) -> Vec<(String, String, u64)> {
    let pods = kubectl.json(&["get", "pods", "-l", "app=ml-model"]).unwrap();
    let items = pods["items"].as_array().cloned().unwrap_or_default();
    let mut found: Vec<_> = items
        .iter()
        .map(|pod| (pod, &pod["status"]["containerStatuses"][0]))
        .filter(|(_, status)| status["ready"] == true)
        .map(|(pod, status)| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let restarts = status["restartCount"].as_u64().unwrap_or(0);
            (text(&pod["metadata"]["name"]), text(&status["containerID"]), restarts)
        })
        .collect();
    found.sort();
    found
}

#[test]
fn killed_programs_of_a_node_interrupt_nothing() {
    let mut cluster = Cluster::for_test("crash-node").unwrap();
    cluster.add_node().unwrap();
    let kubectl = cluster.kubectl("1.36");
    cluster.wait_nodes_ready(&kubectl).unwrap();
    kubectl.apply(include_str!("../seeds/ml-model-svc.yaml")).unwrap();
    let serving = include_str!("../seeds/ml-model-serving.yaml");
    kubectl.apply(&serving.replace("replicas: 10", "replicas: 3")).unwrap();
    wait_until("three pods ready", LIMIT, || match containers(&kubectl).len() {
        3 => Ok(()),
        other => Err(format!("{other} ready")),
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
    let before = containers(&kubectl);
    let service = kubectl.json(&["get", "service", "ml-model-svc"]).unwrap();
    let url = format!("http://{}/", service["spec"]["clusterIP"].as_str().unwrap());
    let testserver = cluster.binaries().static_testserver();
    let load = |cluster: &Cluster, bound: &[&str]| {
        let client = cluster.nodes[0].client(&testserver).unwrap();
        client.args(["load", "--pause-ms", "5", "--url", &url]).args(bound).start_client().unwrap()
    };
    let read = |text: String| -> Value { serde_json::from_str(&text).unwrap() };
    wait_until("the service answers", LIMIT, || {
        let seen = read(load(&cluster, &["--count", "5"]).finish().unwrap());
        if seen["failed"] == 0 { Ok(()) } else { Err(seen.to_string()) }
    })
    .unwrap();
    let (workdir, binaries) = (cluster.workdir().clone(), cluster.binaries().clone());
    let under_way = load(&cluster, &["--seconds", "8", "--clients", "2"]);
    let node = &mut cluster.nodes[0];
    node.proxy.kill().unwrap();
    node.agent.kill().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    node.restart_proxy(&workdir, &binaries).unwrap();
    node.restart_agent(&workdir, &binaries).unwrap();
    let seen = read(under_way.finish().unwrap());
    assert_eq!(seen["failed"], 0, "{seen}");
    cluster.check_alive().unwrap();
    assert_eq!(containers(&kubectl), before);
    // The new agent is in charge: a pod deleted now is replaced.
    kubectl.run(&["delete", "pod", &before[0].0]).unwrap();
    wait_until("the deleted pod is replaced", LIMIT, || {
        let now = containers(&kubectl);
        let replaced = now.len() == 3 && now.iter().all(|(name, ..)| *name != before[0].0);
        if replaced { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .unwrap();
    cluster.stop().unwrap();
}
