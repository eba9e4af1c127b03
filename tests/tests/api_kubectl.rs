//! The API server under real kubectl, old and new: control plane only, no node.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test, with its words")]

use std::time::Duration;

use podium_tests::cluster::Cluster;
use podium_tests::kubectl::Kubectl;
use podium_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(20);
const RELEASES: [&str; 3] = ["1.20", "1.32", "1.36"];
const SERVING: &str = include_str!("../seeds/ml-model-serving.yaml");

fn refused(kubectl: &Kubectl, args: &[&str], manifest: &str) -> String {
    let output = kubectl.with_input(args, manifest).unwrap();
    assert!(!output.status.success(), "accepted: {manifest}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_kubectl_does_the_daily_verbs() {
    let cluster = Cluster::for_test("verbs").unwrap();
    for release in RELEASES {
        let kubectl = cluster.kubectl(release);
        let ran = |args: &[&str]| kubectl.run(args).unwrap_or_else(|e| panic!("{release}: {e:#}"));
        let applied = kubectl.apply(SERVING).unwrap_or_else(|e| panic!("{release}: {e:#}"));
        assert!(applied.contains("ml-model-serving created"), "{release}: {applied}");
        assert!(kubectl.apply(SERVING).unwrap().contains("unchanged"), "{release}");
        let table = ran(&["get", "deployments", "-l", "app=ml-model"]);
        assert!(table.contains("READY") && table.contains("/10"), "{release}: {table}");
        ran(&["get", "deployment", "ml-model-serving", "-o", "wide"]);
        let yaml = ran(&["get", "deployment", "ml-model-serving", "-o", "yaml"]);
        assert!(yaml.contains("apiVersion: apps/v1\n"), "{release}: {yaml}");
        let described = ran(&["describe", "deployment", "ml-model-serving"]);
        assert!(described.contains("ml-serving:1.0"), "{release}: {described}");
        ran(&["scale", "deployment", "ml-model-serving", "--replicas=3"]);
        ran(&["label", "deployment", "ml-model-serving", "tier=model"]);
        let count = ["get", "deployment", "ml-model-serving", "-o", "jsonpath={.spec.replicas}"];
        assert_eq!(ran(&count), "3", "{release}");
        wait_until("the ReplicaSet follows", LIMIT, || {
            let pods = kubectl.run(&["get", "pods", "-l", "app=ml-model", "-o", "name"]);
            let count = pods.map_err(|error| format!("{error:#}"))?.lines().count();
            if count == 3 { Ok(()) } else { Err(format!("{count} pods")) }
        })
        .unwrap_or_else(|error| panic!("{release}: {error:#}\n{}", cluster.last_words()));
        assert!(ran(&["api-resources"]).contains("ingresses"), "{release}");
        ran(&["delete", "deployment", "ml-model-serving"]);
        wait_until("its pods are collected", LIMIT, || {
            let pods = kubectl.run(&["get", "pods", "-l", "app=ml-model", "-o", "name"]);
            let pods = pods.map_err(|error| format!("{error:#}"))?;
            if pods.is_empty() { Ok(()) } else { Err(pods) }
        })
        .unwrap_or_else(|error| panic!("{release}: {error:#}\n{}", cluster.last_words()));
    }
    cluster.stop().unwrap();
}

#[test]
fn old_forms_are_served_as_v1() {
    let cluster = Cluster::for_test("versions").unwrap();
    let kubectl = cluster.kubectl("1.36");
    kubectl.apply(include_str!("../seeds/ml-product-ingress.yaml")).unwrap();
    let ingress =
        kubectl.json(&["get", "ingress.v1.networking.k8s.io", "ml-product-ingress"]).unwrap();
    let backend = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"];
    assert_eq!(backend["service"]["name"], "user-interface-svc", "{ingress}");
    assert_eq!(backend["service"]["port"]["number"], 80, "{ingress}");
    kubectl.apply(include_str!("../seeds/nginx-deployment.yaml")).unwrap();
    let deployment = kubectl.json(&["get", "deployment.v1.apps", "nginx-deployment"]).unwrap();
    assert_eq!(deployment["spec"]["selector"]["matchLabels"]["app"], "nginx", "{deployment}");
    cluster.stop().unwrap();
}

#[test]
fn what_is_wrong_is_named_and_harms_nothing_else() {
    let cluster = Cluster::for_test("hostile").unwrap();
    let kubectl = cluster.kubectl("1.36");
    let service = include_str!("../seeds/ml-model-svc.yaml");
    kubectl.apply(service).unwrap();
    let create: &[&str] = &["create", "-f", "-"];
    let unvalidated: &[&str] = &["create", "--validate=false", "-f", "-"];
    let raw: &[&str] = &["create", "--raw", "/api/v1/namespaces/default/services", "-f", "-"];
    for (args, manifest, words) in [
        (unvalidated, service.replace("name: ml-model-svc", "name: Not_A_Name"), "Not_A_Name"),
        (
            unvalidated,
            service.replace("name: ml-model-svc", "name: two").replace(
                "      port: 80\n",
                "      name: a\n      port: 80\n    - protocol: TCP\n      name: b\n      port: 80\n",
            ),
            "Duplicate value",
        ),
        (create, service.replace("name: ml-model-svc", "name: odd\n  frob: x"), "frob"),
        (create, service.to_owned(), "already exists"),
        (raw, "{\"kind\": ".to_owned(), "parse"),
        (raw, "[]".to_owned(), ""),
        (raw, service.replace("kind: Service", "kind: Frob"), ""),
        (unvalidated, service.replace("port: 80", "port: many"), "port"),
        (unvalidated, service.replace("port: 80", "port: 70000").replace("ml-model-svc", "high"), "spec.ports[0].port"),
        (unvalidated, service.replace("name: ml-model-svc", "name: big\n  namespace: nowhere"), "nowhere"),
        (
            unvalidated,
            service.replace("name: ml-model-svc", "name: taken").replace(
                "type: ClusterIP",
                "type: ClusterIP\n  clusterIP: 192.168.0.1",
            ),
            "spec.clusterIPs",
        ),
        (
            unvalidated,
            include_str!("../seeds/ml-model-serving.yaml").replace("app: ml-model\n  template", "app: other\n  template"),
            "spec.template.metadata.labels",
        ),
        (
            unvalidated,
            include_str!("../seeds/model-train-job.as-it-stands.yaml").to_owned(),
            "spec.template.spec.restartPolicy",
        ),
        (
            unvalidated,
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: big}}\ndata: {{a: {}}}\n",
                "x".repeat(4 << 20)
            ),
            "large",
        ),
    ] {
        let error = refused(&kubectl, args, &manifest);
        assert!(error.contains(words), "wanted {words:?}: {}", &error[..error.len().min(2000)]);
    }
    let kept = kubectl.json(&["get", "service", "ml-model-svc"]).unwrap();
    assert_eq!(kept["spec"]["ports"][0]["port"], 80);
    cluster.stop().unwrap();
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let mut cluster = Cluster::for_test("durable").unwrap();
    let kubectl = cluster.kubectl("1.36");
    let writer = kubectl.clone();
    let writing = std::thread::spawn(move || {
        let mut acknowledged = Vec::new();
        loop {
            let name = format!("kept-{}", acknowledged.len());
            let literal = format!("--from-literal=number={}", acknowledged.len());
            if writer.run(&["create", "configmap", &name, &literal]).is_err() {
                return acknowledged;
            }
            acknowledged.push(name);
        }
    });
    std::thread::sleep(Duration::from_secs(3));
    cluster.control.process.kill().unwrap();
    let acknowledged = writing.join().unwrap();
    assert!(!acknowledged.is_empty());
    let (workdir, binaries) = (cluster.workdir().clone(), cluster.binaries().clone());
    cluster.control.restart(&workdir, &binaries).unwrap();
    let kept = kubectl.run(&["get", "configmaps", "-o", "name"]).unwrap();
    for (number, name) in acknowledged.iter().enumerate() {
        assert!(
            kept.lines().any(|line| line == format!("configmap/{name}")),
            "{number} lost: {name}"
        );
    }
    cluster.stop().unwrap();
}
