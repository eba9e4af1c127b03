//! Services, pods and nodes in; slices and Endpoints as golden text out.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn pod(name: &str, ip: &str, more: &Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "a", "containers": [{"name": "c",
            "ports": [{"name": "http", "containerPort": more["port"].as_i64().unwrap_or(8080)}]}]},
        "status": {"phase": more["phase"].as_str().unwrap_or("Running"),
            "podIPs": [{"ip": ip}, {"ip": format!("fd00::{}", ip.rsplit('.').next().unwrap())}],
            "conditions": [{"type": "Ready", "status": more["ready"].as_str().unwrap_or("True")}]},
    });
    for (part, key) in [
        ("metadata", "deletionTimestamp"),
        ("spec", "nodeName"),
        ("spec", "hostname"),
        ("spec", "subdomain"),
    ] {
        if let Some(value) = more.get(key) {
            pod[part][key] = value.clone();
        }
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn check(spec: Value, pods: &[Arc<Pod>], expected: Expect) {
    let mut service = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u"},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"],
            "ports": [{"name": "web", "port": 80, "targetPort": "http"}]},
    });
    for (key, value) in spec.as_object().unwrap() {
        service["spec"][key] = value.clone();
    }
    let service = serde_json::from_value(service).unwrap();
    let node = json!({"metadata": {"name": "a", "labels": {pods::ZONE: "east"}}});
    let nodes = [Arc::new(serde_json::from_value(node).unwrap())];
    let plan = plan(&service, pods, &nodes, Vec::new());
    let mut text = String::new();
    for slice in &plan.slices.create {
        let ports = slice.ports.iter().flatten().map(|port| port.port.unwrap().to_string());
        let ports: Vec<_> = ports.collect();
        let headless = if slice.labels().contains_key(slices::HEADLESS) { " headless" } else { "" };
        writeln!(text, "{}{headless} ports {}", slice.address_type, ports.join(",")).unwrap();
        for one in slice.endpoints.iter().flatten() {
            let conditions = one.conditions.as_ref().unwrap();
            write!(text, "  {}", one.addresses[0]).unwrap();
            for (name, value) in [
                ("ready", conditions.ready),
                ("serving", conditions.serving),
                ("terminating", conditions.terminating),
            ] {
                write!(
                    text,
                    "{}",
                    if value == Some(true) { format!(" {name}") } else { String::new() }
                )
                .unwrap();
            }
            let hostname = one.hostname.clone().map(|name| format!(" hostname {name}"));
            write!(
                text,
                "{} {}",
                hostname.unwrap_or_default(),
                one.zone.clone().unwrap_or_default()
            )
            .unwrap();
            let hints = one.hints.as_ref();
            let zones = hints.and_then(|hints| hints.for_zones.as_ref()).into_iter().flatten();
            zones.for_each(|zone| write!(text, " for zone {}", zone.name).unwrap());
            let nodes = hints.and_then(|hints| hints.for_nodes.as_ref()).into_iter().flatten();
            nodes.for_each(|node| write!(text, " for node {}", node.name).unwrap());
            text.push('\n');
        }
    }
    for subset in plan.endpoints.subsets.iter().flatten() {
        let list = |list: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
            list.iter().flatten().map(|one| one.ip.clone()).collect::<Vec<_>>().join(",")
        };
        let ports: Vec<_> = subset.ports.iter().flatten().map(|port| port.port).collect();
        writeln!(
            text,
            "Endpoints ready [{}] not ready [{}] ports {ports:?}",
            list(&subset.addresses),
            list(&subset.not_ready_addresses)
        )
        .unwrap();
    }
    expected.assert_eq(&text);
}

fn mixed() -> Vec<Arc<Pod>> {
    vec![
        pod("one", "10.244.0.10", &json!({})),
        pod("two", "10.244.0.2", &json!({"ready": "False"})),
        pod("three", "10.244.0.3", &json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})),
        pod("four", "10.244.0.4", &json!({"port": 9090})),
        pod("five", "10.244.0.5", &json!({"nodeName": "gone"})),
        pod("six", "10.244.0.6", &json!({"phase": "Succeeded"})),
    ]
}

#[test]
fn readiness_termination_and_named_ports() {
    check(
        json!({}),
        &mixed(),
        expect![[r#"
        IPv4 ports 8080
          10.244.0.10 ready serving east
          10.244.0.2 east
          10.244.0.3 serving terminating east
        IPv4 ports 9090
          10.244.0.4 ready serving east
        Endpoints ready [10.244.0.5,10.244.0.10] not ready [10.244.0.2] ports [8080]
        Endpoints ready [10.244.0.4] not ready [] ports [9090]
    "#]],
    );
}

#[test]
fn published_before_they_are_ready() {
    check(
        json!({"publishNotReadyAddresses": true}),
        &mixed(),
        expect![[r#"
        IPv4 ports 8080
          10.244.0.10 ready serving east
          10.244.0.2 ready east
          10.244.0.3 ready serving terminating east
          10.244.0.5 ready serving 
        IPv4 ports 9090
          10.244.0.4 ready serving east
        Endpoints ready [10.244.0.2,10.244.0.3,10.244.0.5,10.244.0.10] not ready [] ports [8080]
        Endpoints ready [10.244.0.4] not ready [] ports [9090]
    "#]],
    );
}

#[test]
fn headless_with_hostnames_and_without_ports() {
    let pods = [
        pod("web-0", "10.244.0.1", &json!({"hostname": "web-0", "subdomain": "web"})),
        pod("web-1", "10.244.0.2", &json!({"hostname": "web-1", "subdomain": "other"})),
    ];
    check(
        json!({"clusterIP": "None", "ports": null}),
        &pods,
        expect![[r#"
        IPv4 headless ports 
          10.244.0.1 ready serving hostname web-0 east
          10.244.0.2 ready serving east
        Endpoints ready [10.244.0.1,10.244.0.2] not ready [] ports []
    "#]],
    );
}

#[test]
fn two_families() {
    let pods = [pod("one", "10.244.0.1", &json!({}))];
    check(
        json!({"ipFamilies": ["IPv6", "IPv4"]}),
        &pods,
        expect![[r#"
        IPv4 ports 8080
          10.244.0.1 ready serving east
        IPv6 ports 8080
          fd00::1 ready serving east
        Endpoints ready [fd00::1] not ready [] ports [8080]
    "#]],
    );
}

#[test]
fn no_pods() {
    check(
        json!({}),
        &[],
        expect![[r#"
        IPv4 ports 
    "#]],
    );
}

#[test]
fn traffic_distribution() {
    check(
        json!({"trafficDistribution": "PreferSameNode", "publishNotReadyAddresses": true}),
        &mixed(),
        expect![[r#"
            IPv4 ports 8080
              10.244.0.10 ready serving east for zone east for node a
              10.244.0.2 ready east for zone east for node a
              10.244.0.3 ready serving terminating east for zone east for node a
              10.244.0.5 ready serving  for node gone
            IPv4 ports 9090
              10.244.0.4 ready serving east for zone east for node a
            Endpoints ready [10.244.0.2,10.244.0.3,10.244.0.5,10.244.0.10] not ready [] ports [8080]
            Endpoints ready [10.244.0.4] not ready [] ports [9090]
        "#]],
    );
    check(
        json!({"trafficDistribution": "PreferClose"}),
        &mixed()[..3],
        expect![[r#"
        IPv4 ports 8080
          10.244.0.10 ready serving east for zone east
          10.244.0.2 east
          10.244.0.3 serving terminating east
        Endpoints ready [10.244.0.10] not ready [10.244.0.2] ports [8080]
    "#]],
    );
}

/// A slice that is known changes when the preference does, and the endpoint stays where it is.
#[test]
fn hints_come_and_go_with_the_preference() {
    let pods = [pod("one", "10.244.0.1", &json!({}))];
    let node = json!({"metadata": {"name": "a", "labels": {pods::ZONE: "east"}}});
    let nodes = [Arc::new(serde_json::from_value(node).unwrap())];
    let service = |distribution: Value| {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.9",
                "ports": [{"port": 80}], "trafficDistribution": distribution}}))
        .unwrap()
    };
    let mut slices = plan(&service(Value::Null), &pods, &nodes, Vec::new()).slices.create;
    slices[0].metadata.name = Some("web-1".to_owned());
    for (distribution, hints) in [
        (json!("PreferSameZone"), json!({"forZones": [{"name": "east"}]})),
        (Value::Null, Value::Null),
    ] {
        let changes = plan(&service(distribution), &pods, &nodes, slices).slices;
        assert_eq!((changes.create.len(), changes.delete.len()), (0, 0));
        slices = changes.update.into_iter().map(|(_, new)| new).collect();
        let endpoint = &slices[0].endpoints.as_ref().unwrap()[0];
        assert_eq!(serde_json::to_value(&endpoint.hints).unwrap(), hints);
    }
}
