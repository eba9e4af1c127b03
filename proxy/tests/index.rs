//! Objects in, desired state out: the rules of Kubernetes, case by case.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use podium_proxy::{
    index::{Change, Index},
    model::{ObjectName, Reach},
};
use serde_json::Value;

fn index(yaml: &str) -> Index {
    let mut index = Index::new(Some("node-a".to_owned()));
    for document in yaml.split("---\n").filter(|document| !document.trim().is_empty()) {
        let mut value: Value = serde_saphyr::from_str(document).unwrap();
        value["metadata"]["namespace"] = "default".into();
        let name = ObjectName {
            namespace: "default".to_owned(),
            name: value["metadata"]["name"].as_str().unwrap().to_owned(),
        };
        index.apply(if value.get("addressType").is_some() {
            let slice: EndpointSlice = serde_json::from_value(value).unwrap();
            Change::Slice(name, Some(Box::new(slice)))
        } else if value.get("subsets").is_some() {
            let endpoints: Endpoints = serde_json::from_value(value).unwrap();
            Change::Endpoints(name, Some(Box::new(endpoints)))
        } else {
            let service: Service = serde_json::from_value(value).unwrap();
            Change::Service(name, Some(Box::new(service)))
        });
    }
    index
}

fn shown(index: &mut Index) -> String {
    let (desired, problems) = index.desired();
    let mut text = String::new();
    for port in desired.ports.values() {
        let _ = write!(text, "{} {:?}", port.name, port.name.protocol);
        for (at, reach) in &port.addresses {
            let node = if *reach == Reach::Node { " (node)" } else { "" };
            let _ = write!(text, " {}{node}", at.socket_addr());
        }
        let list = |list: &[podium_proxy_ebpf::AddressPort]| {
            let list: Vec<_> = list.iter().map(|at| at.socket_addr().to_string()).collect();
            list.join(" ")
        };
        let _ = write!(text, " -> {}", list(&port.endpoints));
        if !port.local.is_empty() {
            let _ = write!(text, " | local {}", list(&port.local));
        }
        if port.affinity_secs > 0 {
            let _ = write!(text, " | affinity {}s", port.affinity_secs);
        }
        text.push('\n');
    }
    for problem in problems {
        let _ = writeln!(text, "! {problem}");
    }
    text
}

fn check(yaml: &str, expected: Expect) {
    expected.assert_eq(&shown(&mut index(yaml)));
}

const WEB: &str =
    "metadata: {name: web}\nspec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}\n---\n";

fn slice(name: &str, rest: &str) -> String {
    format!(
        "metadata: {{name: {name}, labels: {{kubernetes.io/service-name: web}}}}\n\
         addressType: IPv4\nports: [{{port: 8080}}]\nendpoints: {rest}\n---\n"
    )
}

#[test]
fn slices_are_merged_and_deduplicated() {
    let one = slice("one", "[{addresses: [10.0.0.2]}, {addresses: [10.0.0.1]}]");
    let two = slice("two", "[{addresses: [10.0.0.2], conditions: {ready: false}}]");
    check(
        &(WEB.to_owned() + &one + &two),
        expect![[r#"
            default/web Tcp 10.96.0.10:80 -> 10.0.0.1:8080 10.0.0.2:8080
        "#]],
    );
}

#[test]
fn serving_terminating_endpoints_only_when_none_is_ready() {
    let going =
        "{addresses: [10.0.0.3], conditions: {ready: false, serving: true, terminating: true}}";
    let gone =
        "{addresses: [10.0.0.4], conditions: {ready: false, serving: false, terminating: true}}";
    let starting = "{addresses: [10.0.0.5], conditions: {ready: false}}";
    let without = slice("a", &format!("[{going}, {gone}, {starting}]"));
    check(
        &(WEB.to_owned() + &without),
        expect![[r#"
            default/web Tcp 10.96.0.10:80 -> 10.0.0.3:8080
        "#]],
    );
    let with = slice("a", &format!("[{going}, {{addresses: [10.0.0.1]}}]"));
    check(
        &(WEB.to_owned() + &with),
        expect![[r#"
            default/web Tcp 10.96.0.10:80 -> 10.0.0.1:8080
        "#]],
    );
}

#[test]
fn local_policy_chooses_on_its_own() {
    let service = "metadata: {name: web}\nspec:\n  clusterIP: 10.96.0.10\n  \
                   internalTrafficPolicy: Local\n  externalIPs: [192.0.2.1]\n  ports: [{port: 80}]\n---\n";
    let going = "{addresses: [10.0.0.3], nodeName: node-a, conditions: {ready: false, serving: true, terminating: true}}";
    let far = "{addresses: [10.0.0.1], nodeName: node-b}";
    check(
        &(service.to_owned() + &slice("a", &format!("[{going}, {far}]"))),
        expect![[r#"
            default/web Tcp 10.96.0.10:80 (node) 192.0.2.1:80 -> 10.0.0.1:8080 | local 10.0.0.3:8080
        "#]],
    );
}

#[test]
fn several_ports_families_and_protocols() {
    check(
        "metadata: {name: dns}
spec:
  clusterIPs: [10.96.0.2, 'fd00::2']
  sessionAffinity: ClientIP
  ports: [{name: udp, port: 53, protocol: UDP, targetPort: dns}, {name: tcp, port: 53}]
---
metadata: {name: v4, labels: {kubernetes.io/service-name: dns}}
addressType: IPv4
ports: [{name: udp, port: 5353, protocol: UDP}, {name: tcp, port: 5354, protocol: TCP}]
endpoints: [{addresses: [10.0.0.1]}]
---
metadata: {name: v6, labels: {kubernetes.io/service-name: dns}}
addressType: IPv6
ports: [{name: udp, port: 5353, protocol: UDP}]
endpoints: [{addresses: ['fd00::1:1']}]
",
        expect![[r#"
            default/dns:tcp Tcp 10.96.0.2:53 -> 10.0.0.1:5354 | affinity 10800s
            default/dns:tcp Tcp [fd00::2]:53 ->  | affinity 10800s
            default/dns:udp Udp 10.96.0.2:53 -> 10.0.0.1:5353 | affinity 10800s
            default/dns:udp Udp [fd00::2]:53 -> [fd00::1:1]:5353 | affinity 10800s
        "#]],
    );
}

#[test]
fn what_is_skipped() {
    check(
        "metadata: {name: headless}
spec: {clusterIP: None, ports: [{port: 80}]}
---
metadata: {name: elsewhere}
spec: {type: ExternalName, externalName: example.com}
---
metadata: {name: others, labels: {service.kubernetes.io/service-proxy-name: other}}
spec: {clusterIP: 10.96.0.3, ports: [{port: 80}]}
",
        expect![""],
    );
}

#[test]
fn load_balancer_addresses_but_not_of_mode_proxy() {
    check(
        "metadata: {name: web}
spec: {type: LoadBalancer, clusterIP: 10.96.0.10, ports: [{port: 80}]}
status: {loadBalancer: {ingress: [{ip: 192.0.2.1}, {ip: 192.0.2.2, ipMode: Proxy}, {hostname: a}]}}
",
        expect![[r#"
            default/web Tcp 10.96.0.10:80 192.0.2.1:80 -> 
        "#]],
    );
}

#[test]
fn problems_name_object_and_field_and_leave_the_rest() {
    check(
        "metadata: {name: a}
spec: {clusterIP: 10.96.0.300, ports: [{port: 80}]}
---
metadata: {name: b}
spec: {ports: [{port: 80}]}
---
metadata: {name: c}
spec: {clusterIP: 10.96.0.4, ports: [{port: 0}, {port: 80}, {port: 80}, {name: s, port: 9, protocol: SCTP}]}
---
metadata: {name: d, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {clusterIP: 10.96.0.5, externalIPs: [10.96.0.4], ports: [{port: 80}]}
---
metadata: {name: e-1, labels: {kubernetes.io/service-name: d}}
addressType: IPv4
ports: [{port: 70000}, {port: 8080}]
endpoints: [{addresses: ['::1']}, {addresses: [10.0.0.1]}]
",
        expect![[r#"
            default/c Tcp 10.96.0.4:80 -> 
            default/d Tcp 10.96.0.5:80 -> 10.0.0.1:8080
            ! Service default/d: spec: 10.96.0.4:80 already belongs to Service default/c; not served here
            ! Service default/a: spec.clusterIP: "10.96.0.300" is no address; not served at it
            ! Service default/b: spec.clusterIP: is not set and this source allocates none: give an address; not served at one
            ! Service default/c: spec.ports[0].port: 0 is not between 1 and 65535; port ignored
            ! Service default/c: spec.ports[2]: 80/Tcp is there twice; the first one counts
            ! Service default/c: spec.ports[3].protocol: "SCTP" is not balanced for sockets (TCP and UDP are); port ignored
            ! EndpointSlice default/e-1: ports[0].port: 70000 is not between 1 and 65535; port ignored
            ! EndpointSlice default/e-1: endpoints[0].addresses: "::1" is no V4 address; endpoint ignored
        "#]],
    );
}

#[test]
fn endpoints_objects_count_until_there_is_a_slice() {
    let old = "metadata: {name: web}
subsets: [{addresses: [{ip: 10.0.0.9}], notReadyAddresses: [{ip: 10.0.0.8}], ports: [{port: 8080}]}]
---
";
    let mut index = index(&(WEB.to_owned() + old));
    expect![[r#"
        default/web Tcp 10.96.0.10:80 -> 10.0.0.9:8080
    "#]]
    .assert_eq(&shown(&mut index));
    let mut value: Value =
        serde_saphyr::from_str(slice("a", "[{addresses: [10.0.0.1]}]").trim_end_matches("---\n"))
            .unwrap();
    value["metadata"]["namespace"] = "default".into();
    let name = ObjectName { namespace: "default".to_owned(), name: "a".to_owned() };
    let slice: EndpointSlice = serde_json::from_value(value).unwrap();
    index.apply(Change::Slice(name.clone(), Some(Box::new(slice))));
    expect![[r#"
        default/web Tcp 10.96.0.10:80 -> 10.0.0.1:8080
    "#]]
    .assert_eq(&shown(&mut index));
    index.apply(Change::Slice(name, None));
    assert!(shown(&mut index).contains("10.0.0.9"));
    let web = ObjectName { namespace: "default".to_owned(), name: "web".to_owned() };
    index.apply(Change::Service(web, None));
    assert_eq!(shown(&mut index), "");
}
