//! A Deployment rolled forward, back and to another size under load: through its ClusterIP and
//! through the ingress, without a failed request.

use std::time::Duration;

use podium_tests::cluster::{Cluster, INGRESS_CLASS};
use podium_tests::process::Client;
use podium_tests::wait::wait_until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);

const SHOP: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
      - name: shop
        image: user-interface:1.0
        imagePullPolicy: IfNotPresent
        readinessProbe: {httpGet: {path: /healthz, port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  selector: {app: shop}
  ports: [{port: 80}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: nginx
  rules:
  - host: shop.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}]}
  - http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}]}
"#;

#[test]
fn a_rollout_under_load_fails_no_request() {
    let mut cluster = Cluster::for_test("rollout").unwrap();
    cluster.add_node().unwrap();
    let kubectl = cluster.kubectl("1.36");
    cluster.wait_nodes_ready(&kubectl).unwrap();
    cluster.start_ingress("nginx").unwrap();
    kubectl.apply(INGRESS_CLASS).unwrap();
    kubectl.apply(SHOP).unwrap();
    kubectl
        .wait_available("shop", LIMIT)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
    let service = kubectl.json(&["get", "service", "shop"]).unwrap();
    let urls = [
        format!("http://{}/", service["spec"]["clusterIP"].as_str().unwrap()),
        format!("http://{}/", cluster.nodes[0].address),
    ];
    let testserver = cluster.binaries().static_testserver();
    let load = |url: &str, bound: [&str; 2]| -> Client {
        let client = cluster.nodes[0].client(&testserver).unwrap();
        client.args(["load", "--pause-ms", "5", "--url", url]).args(bound).start_client().unwrap()
    };
    let finish =
        |client: Client| -> Value { serde_json::from_str(&client.finish().unwrap()).unwrap() };
    for url in &urls {
        wait_until(&format!("{url} answers"), LIMIT, || {
            let seen = finish(load(url, ["--count", "5"]));
            if seen["failed"] == 0 { Ok(()) } else { Err(seen.to_string()) }
        })
        .unwrap();
    }

    // Loads follow each other without a gap until all changes are done.
    let done = std::sync::atomic::AtomicBool::new(false);
    let reports = std::thread::scope(|scope| {
        let under_load: Vec<_> = urls
            .iter()
            .map(|url| {
                let (done, load, finish) = (&done, &load, &finish);
                scope.spawn(move || {
                    let mut reports = Vec::new();
                    while !done.load(std::sync::atomic::Ordering::SeqCst) {
                        reports.push(finish(load(url, ["--seconds", "2"])));
                    }
                    reports
                })
            })
            .collect();
        let changes = || -> anyhow::Result<()> {
            let rolled = ["rollout", "status", "deployment/shop", "--timeout=90s"];
            kubectl.run(&["set", "image", "deployment/shop", "shop=nginx:latest"])?;
            kubectl.run(&rolled)?;
            kubectl.run(&["scale", "deployment/shop", "--replicas=3"])?;
            kubectl.run(&rolled)?;
            kubectl.run(&["rollout", "undo", "deployment/shop"])?;
            kubectl.run(&rolled)?;
            kubectl.run(&["scale", "deployment/shop", "--replicas=1"])?;
            kubectl.run(&rolled).map(drop)
        };
        let changed = changes();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        changed.unwrap();
        under_load.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let requests: u64 = reports.iter().filter_map(|report| report["requests"].as_u64()).sum();
    assert!(requests > 100, "{requests} requests only");
    for report in &reports {
        assert_eq!(report["failed"], 0, "{report}");
    }
    let deployment = kubectl.json(&["get", "deployment", "shop"]).unwrap();
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "user-interface:1.0");
    let history = kubectl.run(&["rollout", "history", "deployment/shop"]).unwrap();
    assert!(history.lines().any(|line| line.starts_with('3')), "{history}");
    cluster.stop().unwrap();
}
