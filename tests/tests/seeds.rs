//! Every manifest of the user, applied by real kubectl to a cluster of two nodes, doing what it says.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test, with its words")]

use std::path::Path;
use std::time::Duration;

use podium_tests::cluster::{Cluster, is_condition_true};
use podium_tests::kubectl::Kubectl;
use podium_tests::wait::wait_until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

fn wait_available(kubectl: &Kubectl, name: &str, replicas: u64) {
    wait_until(&format!("Deployment {name} available"), LIMIT, || {
        let found = kubectl.json(&["get", "deployment", name]).map_err(|e| format!("{e:#}"))?;
        let available = found["status"]["availableReplicas"].as_u64().unwrap_or(0);
        if available == replicas { Ok(()) } else { Err(found["status"].to_string()) }
    })
    .unwrap();
}

fn get(cluster: &Cluster, url: &str) -> Result<Value, String> {
    let client = cluster.nodes[0].client(Path::new("curl")).map_err(|e| format!("{e:#}"))?;
    let client = client.args(["--silent", "--show-error", "--fail", "--max-time", "3", url]);
    let text = client.output().map_err(|error| format!("{error:#}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
}

#[test]
fn every_manifest_of_the_user_does_what_it_says() {
    let mut cluster = Cluster::for_test("seeds").unwrap();
    cluster.add_node().unwrap();
    cluster.add_node().unwrap();
    let kubectl = cluster.kubectl("1.36");
    cluster.wait_nodes_ready(&kubectl).unwrap();
    cluster.start_ingress("nginx").unwrap();

    kubectl.apply(include_str!("../seeds/nginx-deployment.yaml")).unwrap();
    wait_available(&kubectl, "nginx-deployment", 3);
    kubectl.apply(include_str!("../seeds/deployment-template.yaml")).unwrap();
    wait_available(&kubectl, "template", 1);
    kubectl.run(&["delete", "deployment", "nginx-deployment", "template"]).unwrap();

    kubectl.apply(include_str!("../seeds/ml-model-svc.yaml")).unwrap();
    kubectl.apply(include_str!("../seeds/ml-model-serving.yaml")).unwrap();
    wait_available(&kubectl, "ml-model-serving", 10);
    let service = kubectl.json(&["get", "service", "ml-model-svc"]).unwrap();
    let url = format!("http://{}/", service["spec"]["clusterIP"].as_str().unwrap());
    let answer = wait_until("the model answers", LIMIT, || get(&cluster, &url)).unwrap();
    assert_eq!(answer["server"], "ml-serving", "{answer}");

    let interface = include_str!("../../examples/ml-platform/40-user-interface.yaml");
    kubectl.apply(interface).unwrap();
    kubectl.apply(include_str!("../seeds/ml-product-ingress.yaml")).unwrap();
    wait_available(&kubectl, "user-interface", 2);
    let url = format!("http://{}/app", cluster.nodes[0].address);
    let answer = wait_until("the ingress answers", LIMIT, || get(&cluster, &url)).unwrap();
    assert_eq!((&answer["server"], &answer["path"]), (&"user-interface".into(), &"/".into()));

    kubectl.apply(include_str!("../seeds/model-train-job.yaml")).unwrap();
    wait_until("the Job completes", LIMIT, || {
        let job = kubectl.json(&["get", "job", "model-train-job"]).map_err(|e| format!("{e:#}"))?;
        if is_condition_true(&job, "Complete") { Ok(()) } else { Err(job["status"].to_string()) }
    })
    .unwrap();
    let log = kubectl.run(&["logs", "job/model-train-job"]).unwrap();
    assert!(log.contains("training finished"), "{log}");
    cluster.stop().unwrap();
}
