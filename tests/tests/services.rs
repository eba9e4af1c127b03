//! Services as pods see them: UDP, several and named ports, session affinity, no endpoints, no
//! selector. The clients are pods whose logs tell what they met.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test, with its words")]

use std::time::Duration;

use podium_tests::cluster::Cluster;
use podium_tests::kubectl::Kubectl;
use podium_tests::wait::wait_until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);

/// Pods that name their ports differently from the Services that lead to them.
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
        args: [serve, --port, "8080", --name, web, --drain-ms, "0"]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
      - name: admin
        image: testserver
        imagePullPolicy: IfNotPresent
        args: [serve, --port, "9090", --name, admin, --drain-ms, "0"]
        ports: [{name: admin, containerPort: 9090}]
        readinessProbe: {tcpSocket: {port: admin}, periodSeconds: 1}
      - name: echo
        image: testserver
        imagePullPolicy: IfNotPresent
        args: [udp, --port, "5300"]
        ports: [{name: echo, containerPort: 5300, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http}
  - {name: admin, port: 81, targetPort: admin}
  - {name: by-number, port: 82, targetPort: 9090}
  - {name: echo, port: 53, targetPort: echo, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec:
  selector: {app: web}
  sessionAffinity: ClientIP
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: near}
spec:
  selector: {app: web}
  trafficDistribution: PreferSameNode
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec:
  selector: {app: nobody}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: by-hand}
spec:
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"#;

fn client(name: &str, args: &[&str]) -> String {
    let args: Vec<String> = args.iter().map(|arg| format!("{arg:?}")).collect();
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  \
         containers:\n  - name: client\n    image: testserver\n    imagePullPolicy: IfNotPresent\n    \
         args: [{}]\n",
        args.join(", ")
    )
}

fn report(kubectl: &Kubectl, pod: &str) -> Value {
    let log = kubectl.log_of_ended(pod, LIMIT).unwrap();
    serde_json::from_str(&log).unwrap_or_else(|error| panic!("{pod}: {error}: {log}"))
}

fn pods_in(report: &Value) -> usize {
    report["pods"].as_object().map_or(0, serde_json::Map::len)
}

fn cluster_ip(kubectl: &Kubectl, service: &str) -> String {
    let service = kubectl.json(&["get", "service", service]).unwrap();
    service["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

/// An endpoint that a person wrote for the Service without a selector, one that is not theirs to
/// write, and one that is no address.
fn by_hand(address: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: by-hand-1\n  labels: \
         {{kubernetes.io/service-name: by-hand}}\naddressType: IPv4\nports: [{{name: \"\", port: 8080, \
         protocol: TCP}}]\nendpoints:\n- addresses: [{address:?}]\n  conditions: {{ready: true}}\n"
    )
}

fn clients(kubectl: &Kubectl) -> String {
    let web = cluster_ip(kubectl, "web");
    let url = |service: &str, port: u16| format!("http://{}:{port}/", cluster_ip(kubectl, service));
    let load = |name: &str, url: &str| client(name, &["load", "--url", url, "--count", "60"]);
    [
        load("ask-http", &url("web", 80)),
        load("ask-admin", &url("web", 81)),
        load("ask-by-number", &url("web", 82)),
        client("ask-udp", &["ask-udp", "--to", &format!("{web}:53"), "--count", "60"]),
        load("ask-sticky", &url("sticky", 80)),
        load("ask-nobody", &url("nobody", 80)),
        load("ask-other-port", &url("web", 83)),
        load("ask-by-hand", &url("by-hand", 80)),
    ]
    .concat()
}

/// `trafficDistribution`, from the Service over the hints in its slices to the kernel of a node.
fn endpoints_of_the_own_node_are_preferred(kubectl: &Kubectl, from_node: &dyn Fn(&str) -> Value) {
    let slices = ["get", "endpointslices", "-l", "kubernetes.io/service-name=near"];
    let slices = kubectl.json(&slices).unwrap();
    let slice = &slices["items"][0];
    let trigger = "endpoints.kubernetes.io/last-change-trigger-time";
    assert!(slice["metadata"]["annotations"][trigger].is_string(), "{slice}");
    for endpoint in slice["endpoints"].as_array().unwrap() {
        assert_eq!(endpoint["hints"]["forNodes"][0]["name"], endpoint["nodeName"], "{endpoint}");
    }
    let pods = kubectl.json(&["get", "pods", "-l", "app=web"]).unwrap();
    let on_node = pods["items"].as_array().unwrap().iter();
    let on_node = on_node.filter(|pod| pod["spec"]["nodeName"] == "node-1").count();
    assert!((1..3).contains(&on_node), "the pods are not on both nodes");
    let url = format!("http://{}/", cluster_ip(kubectl, "near"));
    wait_until("Service near answers from the own node alone", LIMIT, || {
        let seen = from_node(&url);
        let right = seen["failed"] == 0 && pods_in(&seen) == on_node;
        if right { Ok(()) } else { Err(seen.to_string()) }
    })
    .unwrap();
}

#[test]
fn pods_reach_services_of_every_form() {
    let mut cluster = Cluster::for_test("services").unwrap();
    cluster.add_node().unwrap();
    cluster.add_node().unwrap();
    let kubectl = cluster.kubectl("1.36");
    cluster.wait_nodes_ready(&kubectl).unwrap();
    kubectl.apply(SERVERS).unwrap();
    kubectl
        .wait_available("web", LIMIT)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
    assert_eq!(cluster_ip(&kubectl, "headless"), "None");

    let refused = kubectl.with_input(&["create", "-f", "-"], &by_hand("not-an-address")).unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("not-an-address"), "{words}");
    let pods = kubectl.json(&["get", "pods", "-l", "app=web"]).unwrap();
    let chosen = &pods["items"][0];
    kubectl.apply(&by_hand(chosen["status"]["podIP"].as_str().unwrap())).unwrap();

    // The kernel follows the API within moments: asked from the node until it has.
    let testserver = cluster.binaries().static_testserver();
    let from_node = |url: &str| -> Value {
        let client = cluster.nodes[0].client(&testserver).unwrap();
        let text = client.args(["load", "--count", "30", "--url", url]).output().unwrap();
        serde_json::from_str(&text).unwrap()
    };
    for (service, pods) in [("web", 3), ("sticky", 1), ("by-hand", 1)] {
        let url = format!("http://{}/", cluster_ip(&kubectl, service));
        wait_until(&format!("Service {service} answers"), LIMIT, || {
            let seen = from_node(&url);
            let right = seen["failed"] == 0 && pods_in(&seen) == pods;
            if right { Ok(()) } else { Err(seen.to_string()) }
        })
        .unwrap();
    }

    endpoints_of_the_own_node_are_preferred(&kubectl, &from_node);

    kubectl.apply(&clients(&kubectl)).unwrap();
    for (name, pods) in [
        ("ask-http", 3),
        ("ask-admin", 3),
        ("ask-by-number", 3),
        ("ask-udp", 3),
        ("ask-sticky", 1),
        ("ask-by-hand", 1),
    ] {
        let seen = report(&kubectl, name);
        assert_eq!((&seen["failed"], pods_in(&seen)), (&0.into(), pods), "{name}: {seen}");
    }
    let by_hand = report(&kubectl, "ask-by-hand");
    assert_eq!(by_hand["pods"][chosen["metadata"]["name"].as_str().unwrap()], 60, "{by_hand}");
    // No endpoints: refused, each time, and not a silence until a timeout.
    for name in ["ask-nobody", "ask-other-port"] {
        let seen = report(&kubectl, name);
        assert_eq!(seen["failed"], 60, "{name}: {seen}");
    }
    let nobody = report(&kubectl, "ask-nobody");
    let failures = nobody["failures"].as_array().unwrap();
    let refused = |failure: &Value| failure["why"].to_string().contains("refused");
    assert!(failures.iter().all(refused), "{nobody}");
    cluster.stop().unwrap();
}
