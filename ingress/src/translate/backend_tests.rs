//! Services in all their forms, and the addresses they lead to.

use super::backends::Backends;
use crate::balance::{BackendKey, Care};
use crate::objects::{Object, ObjectKey, World};
use crate::source::Change;
use serde_json::{Value, json};

fn world(objects: &[Value]) -> World {
    let objects = objects.iter().map(|value| Object::parse(value.clone()).unwrap().unwrap());
    let mut world = World::default();
    Change::Everything(objects.collect(), Vec::new()).apply_to(&mut world);
    world
}

fn service(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "n"}, "spec": spec})
}

fn slice(name: &str, ports: Value, endpoints: Value) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "n", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": ports, "endpoints": endpoints})
}

/// The addresses for a port of the Service, or what is wrong with it.
fn resolve(objects: &[Value], port: &str, by_cluster_ip: bool) -> String {
    let world = world(objects);
    let mut backends = Backends::default();
    let (service, care) = (ObjectKey::new("n", "web"), Care::default());
    let key = BackendKey { service, port: port.into(), by_cluster_ip, care };
    let backend = backends.get(&world, key.clone());
    match backends.fault(&backend) {
        Some(fault) => fault.to_string(),
        None => format!("{:?}", backends.addresses()[&key]),
    }
}

#[test]
fn external_names_are_left_to_be_resolved() {
    for (name, ports, port, expected) in [
        ("else.example.", json!([]), "80", r#"[Name("else.example", 80)]"#),
        (
            "else.example",
            json!([{"port": 80, "targetPort": 8080}]),
            "80",
            r#"[Name("else.example", 8080)]"#,
        ),
        ("else.example", json!([{"name": "h", "port": 81}]), "h", r#"[Name("else.example", 81)]"#),
        ("192.0.2.1", json!([]), "80", "[Ip(192.0.2.1:80)]"),
        ("else.example", json!([]), "h", r#"Service n/web has no port "h""#),
        ("localhost", json!([]), "80", "is not a DNS name of another host"),
        ("127.0.0.1", json!([]), "80", "is not a DNS name of another host"),
        ("no name", json!([]), "80", "is not a DNS name of another host"),
    ] {
        let spec = json!({"type": "ExternalName", "externalName": name, "ports": ports});
        let found = resolve(&[service(spec)], port, false);
        assert!(found.contains(expected), "{name} {port}: {found}");
    }
}

#[test]
fn ports_go_by_number_target_and_name() {
    let web = service(json!({"clusterIP": "None", "ports": [
        {"name": "http", "port": 80, "targetPort": 8080}, {"name": "web", "port": 81, "targetPort": "named"}]}));
    let endpoints = json!([{"addresses": ["10.0.0.1"]}]);
    let named = slice(
        "a",
        json!([{"name": "http", "port": 8080}, {"name": "web", "port": 9090}]),
        endpoints.clone(),
    );
    for (port, expected) in [
        ("80", "[Ip(10.0.0.1:8080)]"),
        ("8080", "[Ip(10.0.0.1:8080)]"),
        ("http", "[Ip(10.0.0.1:8080)]"),
        ("81", "[Ip(10.0.0.1:9090)]"),
        ("named", "[Ip(10.0.0.1:9090)]"),
        ("", "[Ip(10.0.0.1:8080)]"),
        ("82", r#"Service n/web has no port "82""#),
    ] {
        assert_eq!(resolve(&[web.clone(), named.clone()], port, false), expected, "{port}");
    }
    // Slices written by hand often leave the name out.
    for ports in [json!([{"port": 8080}]), json!([])] {
        let by_hand = slice("a", ports, endpoints.clone());
        assert_eq!(resolve(&[web.clone(), by_hand], "80", false), "[Ip(10.0.0.1:8080)]");
    }
    let udp = slice("a", json!([{"name": "http", "port": 8080, "protocol": "UDP"}]), endpoints);
    assert_eq!(resolve(&[web.clone(), udp], "80", false), "[]");
    assert_eq!(resolve(&[service(json!({"ports": []}))], "", false), "Service n/web has no ports");
}

#[test]
fn endpoints_of_all_slices_and_families_by_readiness() {
    let web = service(json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}));
    let port = json!([{"port": 8080}]);
    let one = slice(
        "a",
        port.clone(),
        json!([
            {"addresses": ["10.0.0.1", "10.0.0.9"]},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            // publishNotReadyAddresses: ready in any state.
            {"addresses": ["10.0.0.4"], "conditions": {"ready": true, "serving": false, "terminating": true}},
        ]),
    );
    let mut other = slice(
        "b",
        port.clone(),
        json!([{"addresses": ["2001:db8::1"]}, {"addresses": ["10.0.0.1"]}]),
    );
    other["addressType"] = json!("IPv6");
    assert_eq!(
        resolve(&[web.clone(), one.clone(), other], "80", false),
        "[Ip(10.0.0.1:8080), Ip(10.0.0.4:8080), Ip([2001:db8::1]:8080)]"
    );
    let going = slice(
        "a",
        port,
        json!([
        {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}}]),
    );
    assert_eq!(resolve(&[web.clone(), going], "80", false), "[Ip(10.0.0.3:8080)]");
    assert_eq!(resolve(&[web, one.clone()], "80", true), "[Ip(10.96.0.1:80)]");
    let headless = service(json!({"clusterIP": "None", "ports": [{"port": 80}]}));
    assert!(
        resolve(&[headless, one], "80", true).contains("10.0.0.1:8080"),
        "it has no cluster IP"
    );
    assert_eq!(resolve(&[], "80", false), "Service n/web does not exist");
}
