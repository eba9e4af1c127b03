//! Allocation, as the Services show it.

use serde_json::{Value, json};

use super::*;

fn allocators(cidrs: &[&str]) -> Allocators {
    let cidrs: Vec<IpNet> = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
    Allocators::new(&cidrs, &(30_000..=32_767))
}

fn service(spec: Value) -> Value {
    json!({ "metadata": { "name": "s" }, "spec": spec })
}

fn first_error(result: Result<Claim, Vec<field::Error>>) -> String {
    result.err().map(|errors| errors[0].to_string()).unwrap_or_default()
}

#[test]
fn addresses_come_from_above_the_static_band() {
    let allocators = allocators(&["10.96.0.0/16"]);
    for _ in 0..50 {
        let mut new = service(json!({ "type": "ClusterIP" }));
        allocators.create(&mut new).unwrap().keep();
        let address: std::net::Ipv4Addr =
            new["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
        assert!(address > std::net::Ipv4Addr::new(10, 96, 1, 0), "{address}");
        assert_eq!(new["spec"]["clusterIPs"][0], new["spec"]["clusterIP"]);
        assert_eq!(new["spec"]["ipFamilies"], json!(["IPv4"]));
        assert_eq!(new["spec"]["ipFamilyPolicy"], "SingleStack");
    }
}

#[test]
fn a_claim_that_is_not_kept_is_given_back() {
    let allocators = allocators(&["10.96.0.0/30"]);
    let asked = || service(json!({ "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"] }));
    drop(allocators.create(&mut asked()).unwrap());
    allocators.create(&mut asked()).unwrap().keep();
    assert_eq!(
        first_error(allocators.create(&mut asked())),
        "spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: failed to allocate IP 10.96.0.1: \
         provided IP is already allocated"
    );
    allocators.create(&mut service(json!({}))).unwrap().keep();
    assert!(first_error(allocators.create(&mut service(json!({})))).contains("range is full"));
    allocators.release(&asked());
    allocators.create(&mut service(json!({}))).unwrap().keep();
}

#[test]
fn dual_stack_gives_one_address_a_family() {
    let allocators = allocators(&["10.96.0.0/16", "fd00::/108"]);
    let mut new = service(json!({ "ipFamilyPolicy": "PreferDualStack" }));
    allocators.create(&mut new).unwrap().keep();
    assert_eq!(new["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(new["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
    let mut new = service(json!({ "ipFamilies": ["IPv6"] }));
    allocators.create(&mut new).unwrap().keep();
    assert!(new["spec"]["clusterIP"].as_str().unwrap().starts_with("fd00::"));
}

#[test]
fn node_ports_follow_the_type() {
    let allocators = allocators(&["10.96.0.0/16"]);
    let ports = json!([
        { "name": "dns", "port": 53, "protocol": "UDP" },
        { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
        { "name": "fixed", "port": 80, "protocol": "TCP", "nodePort": 30_001 },
    ]);
    let mut old = service(json!({ "type": "NodePort", "ports": ports }));
    allocators.create(&mut old).unwrap().keep();
    let node_ports = &old["spec"]["ports"];
    assert_eq!(node_ports[0]["nodePort"], node_ports[1]["nodePort"]);
    assert!(node_ports[0]["nodePort"].as_u64().unwrap() >= 30_086);

    let taken = json!([{ "port": 1, "nodePort": 30_001 }]);
    let mut other = service(json!({ "type": "NodePort", "ports": taken }));
    assert_eq!(
        first_error(allocators.create(&mut other)),
        "spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"
    );
    let mut new = old.clone();
    new["spec"]["type"] = json!("ClusterIP");
    for port in new["spec"]["ports"].as_array_mut().unwrap() {
        port.as_object_mut().unwrap().remove("nodePort");
    }
    allocators.update(&mut new, &old).unwrap().keep();
    assert_eq!(new["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    allocators.create(&mut other).unwrap().keep();

    let outside = json!([{ "port": 1, "nodePort": 80 }]);
    let mut other = service(json!({ "type": "NodePort", "ports": outside }));
    assert_eq!(
        first_error(allocators.create(&mut other)),
        "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The \
         range of valid ports is 30000-32767"
    );
}

#[test]
fn what_is_stored_is_taken_after_a_start() {
    let allocators = allocators(&["10.96.0.0/16"]);
    let stored = service(json!({ "clusterIP": "10.96.5.5", "clusterIPs": ["10.96.5.5"] }));
    assert!(allocators.restore(&stored).is_empty());
    assert_eq!(allocators.restore(&stored).len(), 1);
    let mut new = service(json!({ "clusterIP": "10.96.5.5" }));
    assert!(first_error(allocators.create(&mut new)).contains("already allocated"));
}
