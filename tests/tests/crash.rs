//! `kill -9` of each program while pods serve: no connection fails, no container restarts, and what
//! comes back goes on where it was. That the store loses nothing is in `api_kubectl.rs`.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test, with its words")]

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podium_tests::cluster::{Cluster, INGRESS_CLASS};
use podium_tests::kubectl::Kubectl;
use podium_tests::process::Client;
use podium_tests::wait::wait_until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);

/// One node with three model pods behind a Service and an Ingress.
struct Stage {
    cluster: Cluster,
    kubectl: Kubectl,
    service_url: String,
    ingress_url: String,
}

const INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: model}
spec:
  ingressClassName: nginx
  rules:
  - http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: ml-model-svc, port: {number: 80}}}}]}
";

impl Stage {
    fn set(name: &str) -> Self {
        let mut cluster = Cluster::for_test(name).unwrap();
        cluster.add_node().unwrap();
        let kubectl = cluster.kubectl("1.36");
        cluster.wait_nodes_ready(&kubectl).unwrap();
        cluster.start_ingress("nginx").unwrap();
        kubectl.apply(INGRESS_CLASS).unwrap();
        kubectl.apply(include_str!("../seeds/ml-model-svc.yaml")).unwrap();
        let serving = include_str!("../seeds/ml-model-serving.yaml");
        kubectl.apply(&serving.replace("replicas: 10", "replicas: 3")).unwrap();
        kubectl.apply(INGRESS).unwrap();
        kubectl
            .wait_available("ml-model-serving", LIMIT)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
        let service = kubectl.json(&["get", "service", "ml-model-svc"]).unwrap();
        let service_url = format!("http://{}/", service["spec"]["clusterIP"].as_str().unwrap());
        let ingress_url = format!("http://{}/", cluster.nodes[0].address);
        let stage = Self { cluster, kubectl, service_url, ingress_url };
        stage.wait_serving(&stage.service_url);
        stage.wait_serving(&stage.ingress_url);
        stage
    }

    fn load(&self, url: &str, bound: &[&str]) -> Client {
        let testserver = self.cluster.binaries().static_testserver();
        let client = self.cluster.nodes[0].client(&testserver).unwrap();
        client.args(["load", "--pause-ms", "5", "--url", url]).args(bound).start_client().unwrap()
    }

    fn wait_serving(&self, url: &str) {
        wait_until(&format!("{url} answers"), LIMIT, || {
            let seen = report(self.load(url, &["--count", "5"]));
            if seen["failed"] == 0 { Ok(()) } else { Err(seen.to_string()) }
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.cluster.last_words()));
    }

    /// Name, container id and restarts of each ready model pod.
    fn containers(&self) -> Vec<(String, String, u64)> {
        let pods = self.kubectl.json(&["get", "pods", "-l", "app=ml-model"]).unwrap();
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

    /// Deletes a pod and waits until another stands in for it: control plane and node are at work.
    fn replace_a_pod(&self) {
        let before = self.containers();
        let gone = &before[0].0;
        self.kubectl.run(&["delete", "pod", gone, "--grace-period=1"]).unwrap();
        wait_until("the deleted pod is replaced", LIMIT, || {
            let now = self.containers();
            let replaced = now.len() == before.len() && now.iter().all(|(name, ..)| name != gone);
            if replaced { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.cluster.last_words()));
    }
}

fn report(client: Client) -> Value {
    serde_json::from_str(&client.finish().unwrap()).unwrap()
}

fn pause() {
    std::thread::sleep(Duration::from_secs(1));
}

/// The kernel goes on with what the killed one left, and the next one takes over.
fn kill_the_proxy(stage: &mut Stage) {
    let under_way = stage.load(&stage.service_url, &["--seconds", "4", "--clients", "2"]);
    let (workdir, binaries) = (stage.cluster.workdir().clone(), stage.cluster.binaries().clone());
    let node = &mut stage.cluster.nodes[0];
    node.proxy.kill().unwrap();
    pause();
    node.restart_proxy(&workdir, &binaries).unwrap();
    let seen = report(under_way);
    assert_eq!(seen["failed"], 0, "{seen}");
    stage.cluster.check_alive().unwrap();
    stage.replace_a_pod();
    stage.wait_serving(&stage.service_url);
}

/// The containers belong to their shims, not to the agent.
fn kill_the_agent(stage: &mut Stage) {
    let before = stage.containers();
    let under_way = stage.load(&stage.service_url, &["--seconds", "4", "--clients", "2"]);
    let (workdir, binaries) = (stage.cluster.workdir().clone(), stage.cluster.binaries().clone());
    let node = &mut stage.cluster.nodes[0];
    node.agent.kill().unwrap();
    pause();
    node.restart_agent(&workdir, &binaries).unwrap();
    let seen = report(under_way);
    assert_eq!(seen["failed"], 0, "{seen}");
    stage.cluster.check_alive().unwrap();
    assert_eq!(stage.containers(), before);
    stage.replace_a_pod();
}

/// Nor do they belong to containerd, which the agent starts again.
fn kill_containerd(stage: &mut Stage) {
    let before = stage.containers();
    let under_way = stage.load(&stage.service_url, &["--seconds", "4", "--clients", "2"]);
    let killed = stage.cluster.nodes[0].containerd_pid().unwrap();
    kill(Pid::from_raw(killed), Signal::SIGKILL).unwrap();
    wait_until("containerd runs again", LIMIT, || match stage.cluster.nodes[0].containerd_pid() {
        Ok(pid) if pid != killed => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    let seen = report(under_way);
    assert_eq!(seen["failed"], 0, "{seen}");
    stage.replace_a_pod();
    let after = stage.containers();
    let kept = before.iter().filter(|container| after.contains(container)).count();
    assert_eq!(kept, before.len() - 1, "{before:?} {after:?}");
}

#[test]
fn killed_programs_of_a_node_interrupt_nothing() {
    let mut stage = Stage::set("crash-node");
    kill_the_proxy(&mut stage);
    kill_the_agent(&mut stage);
    kill_containerd(&mut stage);
    stage.cluster.stop().unwrap();
}

/// While it is down its own clients are refused, and only they; then its routes are back by
/// themselves.
fn kill_the_ingress(stage: &mut Stage) {
    let beside = stage.load(&stage.service_url, &["--seconds", "4", "--clients", "2"]);
    let through = stage.load(&stage.ingress_url, &["--seconds", "4", "--clients", "2"]);
    pause();
    stage.cluster.ingress.as_mut().unwrap().kill().unwrap();
    pause();
    stage.cluster.start_ingress("nginx").unwrap();
    stage.wait_serving(&stage.ingress_url);
    let (beside, through) = (report(beside), report(through));
    assert_eq!(beside["failed"], 0, "{beside}");
    let (requests, failed) = (through["requests"].as_u64(), through["failed"].as_u64());
    eprintln!("    through the killed ingress: {failed:?} of {requests:?} requests failed");
    assert!(failed > Some(0) && failed < requests, "{through}");
    // A route that is down is refused or cut off; nothing hangs and nothing is answered wrongly.
    let honest = |failure: &Value| {
        let why = failure["why"].to_string();
        ["refused", "reset", "unanswered", "early"].iter().any(|word| why.contains(word))
    };
    assert!(through["failures"].as_array().unwrap().iter().all(honest), "{through}");
}

/// Traffic does not need the control plane, and its controllers go on where they were.
fn kill_the_server(stage: &mut Stage) {
    let before = stage.containers();
    let beside = stage.load(&stage.service_url, &["--seconds", "6", "--clients", "2"]);
    let through = stage.load(&stage.ingress_url, &["--seconds", "6", "--clients", "2"]);
    // In the middle of a change.
    stage.kubectl.run(&["scale", "deployment/ml-model-serving", "--replicas=4"]).unwrap();
    stage.cluster.control.process.kill().unwrap();
    pause();
    let (workdir, binaries) = (stage.cluster.workdir().clone(), stage.cluster.binaries().clone());
    stage.cluster.control.restart(&workdir, &binaries).unwrap();
    stage.kubectl.run(&["scale", "deployment/ml-model-serving", "--replicas=5"]).unwrap();
    for seen in [report(beside), report(through)] {
        assert_eq!(seen["failed"], 0, "{seen}");
    }
    stage
        .kubectl
        .wait_available("ml-model-serving", LIMIT)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.cluster.last_words()));
    stage.cluster.check_alive().unwrap();
    let after = stage.containers();
    assert_eq!(after.len(), 5, "{after:?}");
    assert!(before.iter().all(|container| after.contains(container)), "{before:?} {after:?}");
    stage.replace_a_pod();
    wait_until("traffic reaches the new pods", LIMIT, || {
        let seen = report(stage.load(&stage.service_url, &["--count", "100"]));
        let pods = seen["pods"].as_object().map_or(0, serde_json::Map::len);
        if pods == 5 { Ok(()) } else { Err(seen.to_string()) }
    })
    .unwrap();
}

#[test]
fn killed_ingress_and_server_come_back_where_they_were() {
    let mut stage = Stage::set("crash-control");
    kill_the_ingress(&mut stage);
    kill_the_server(&mut stage);
    stage.cluster.stop().unwrap();
}
