//! Services as a machine beside the cluster reaches them: by the ports of nodes and by load balancer
//! addresses, through either node, with and without endpoints there.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test, with its words")]

use std::collections::BTreeSet;
use std::time::Duration;

use podium_tests::cluster::{Cluster, OutsideClient};
use podium_tests::kubectl::Kubectl;
use podium_tests::wait::wait_until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);
const COUNT: u64 = 40;

/// Two pods anywhere and one on the first node, each behind a Service of its own policy.
const SERVERS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: testserver
        imagePullPolicy: IfNotPresent
        args: [serve, --port, "8080", --drain-ms, "0"]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: near}
spec:
  replicas: 1
  selector: {matchLabels: {app: near}}
  template:
    metadata: {labels: {app: near}}
    spec:
      nodeName: node-1
      terminationGracePeriodSeconds: 1
      containers:
      - name: near
        image: testserver
        imagePullPolicy: IfNotPresent
        args: [serve, --port, "8080", --drain-ms, "0"]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: ports}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {app: near}
  ports: [{port: 80, targetPort: 8080}]
"#;

struct Outside {
    cluster: Cluster,
    client: OutsideClient,
    kubectl: Kubectl,
}

impl Outside {
    fn requests(&self, url: &str, count: u64) -> Value {
        let testserver = self.cluster.binaries().static_testserver();
        self.client.requests(&testserver, url, count).unwrap()
    }

    /// Waits until `url` is answered at all, then sends [`COUNT`] requests, all of which have to be;
    /// gives the names of the pods and the addresses they saw as the client's.
    fn all_answered(&self, url: &str) -> (BTreeSet<String>, BTreeSet<String>) {
        let answered = wait_until(&format!("{url} answers"), LIMIT, || {
            let seen = self.requests(url, 1);
            if seen["failed"] == 0 { Ok(()) } else { Err(seen.to_string()) }
        });
        answered.unwrap_or_else(|error| panic!("{error:#}\n{}", self.cluster.last_words()));
        let seen = self.requests(url, COUNT);
        assert_eq!((&seen["requests"], &seen["failed"]), (&COUNT.into(), &0.into()), "{seen}");
        let names = |part: &str| -> BTreeSet<String> {
            seen[part].as_object().unwrap().keys().cloned().collect()
        };
        (names("pods"), names("sources"))
    }

    fn service(&self, name: &str) -> Value {
        let what = format!("Service {name} complete");
        let has_address = |service: &Value| {
            service["spec"]["type"] != "LoadBalancer"
                || service["status"]["loadBalancer"]["ingress"][0]["ip"].is_string()
        };
        self.kubectl.wait_for(&what, LIMIT, &["get", "service", name], has_address).unwrap()
    }

    fn pods(&self, app: &str) -> BTreeSet<String> {
        let label = format!("app={app}");
        let list = self.kubectl.json(&["get", "pods", "-l", &label]).unwrap();
        let items = list["items"].as_array().unwrap().iter();
        items.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn node_port(service: &Value) -> u64 {
    service["spec"]["ports"][0]["nodePort"].as_u64().unwrap()
}

fn balancer(service: &Value) -> String {
    service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().unwrap().to_owned()
}

#[test]
fn clients_outside_reach_node_ports_and_load_balancers() {
    let mut cluster = Cluster::for_test("outside").unwrap();
    cluster.add_node().unwrap();
    cluster.add_node().unwrap();
    let kubectl = cluster.kubectl("1.36");
    cluster.wait_nodes_ready(&kubectl).unwrap();
    kubectl.apply(SERVERS).unwrap();
    for name in ["web", "near"] {
        kubectl
            .wait_available(name, LIMIT)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
    }
    let client = cluster.add_client().unwrap();
    let outside = Outside { cluster, client, kubectl };
    cluster_policy(&outside);
    local_policy(&outside);
    outside.cluster.stop().unwrap();
}

/// Any node leads to any pod, wherever it runs, and the pods see nodes as clients.
fn cluster_policy(outside: &Outside) {
    let (ports, balanced) = (outside.service("ports"), outside.service("balanced"));
    let client = outside.client.address.to_string();
    for node in &outside.cluster.nodes {
        outside.client.route(&balancer(&balanced), node.address).unwrap();
        for url in [
            format!("http://{}:{}/", node.address, node_port(&ports)),
            format!("http://{}:{}/", node.address, node_port(&balanced)),
            format!("http://{}/", balancer(&balanced)),
        ] {
            let (pods, sources) = outside.all_answered(&url);
            assert_eq!(pods, outside.pods("web"), "{url} by way of {}", node.name);
            assert!(!sources.contains(&client), "{url}: pods saw {sources:?}");
        }
    }
}

/// Only the node with the pod answers, and the pod sees the client itself.
fn local_policy(outside: &Outside) {
    let local = outside.service("local");
    let (address, port) = (balancer(&local), node_port(&local));
    let client = BTreeSet::from([outside.client.address.to_string()]);
    let nodes = &outside.cluster.nodes;
    outside.client.route(&address, nodes[0].address).unwrap();
    for url in [format!("http://{}:{port}/", nodes[0].address), format!("http://{address}/")] {
        let seen = outside.all_answered(&url);
        assert_eq!(seen, (outside.pods("near"), client.clone()), "{url}");
    }
    let health = local["spec"]["healthCheckNodePort"].as_u64().unwrap();
    for (node, endpoints) in nodes.iter().zip([1, 0]) {
        let url = format!("http://{}:{health}/", node.address);
        let curl = outside.client.launch("curl".as_ref()).unwrap();
        let answer = curl.args(["--silent", "--max-time", "5", &url]).output().unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["localEndpoints"], endpoints, "{}: {answer}", node.name);
    }
    outside.client.route(&address, nodes[1].address).unwrap();
    for url in [format!("http://{}:{port}/", nodes[1].address), format!("http://{address}/")] {
        let seen = outside.requests(&url, 2);
        assert_eq!(seen["failed"], 2, "{url} by way of the node without: {seen}");
    }
}
