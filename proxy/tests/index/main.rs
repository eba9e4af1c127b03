//! Objects in, desired state out: the rules of Kubernetes, case by case.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod changes;
mod node;

use std::{fmt::Write as _, net::IpAddr};

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use podium_proxy::{
    index::{Change, Index, object::SliceObject, slice::Slice},
    model::{LocalNode, ObjectName, Reach},
};
use podium_proxy_ebpf::{Endpoint, FrontendKind};
use serde_json::Value;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn object(name: &str) -> ObjectName {
    ObjectName { namespace: "default".to_owned(), name: name.to_owned() }
}

/// `node-a` in zone `zone-a`.
fn node_a() -> LocalNode {
    let primary = ips(&["192.168.0.1", "fd00:1::1"]);
    LocalNode {
        zone: Some("zone-a".to_owned()),
        nodeport_ips: primary.iter().copied().collect(),
        host_ips: primary.iter().copied().chain(ips(&["10.0.0.254"])).collect(),
        ..LocalNode::default()
    }
}

fn index(yaml: &str) -> Index {
    let mut index = Index::default();
    index.set_local_node(node_a());
    apply(&mut index, yaml);
    index
}

fn apply(index: &mut Index, yaml: &str) {
    for document in yaml.split("---\n").filter(|document| !document.trim().is_empty()) {
        let mut value: Value = serde_saphyr::from_str(document).unwrap();
        value["metadata"]["namespace"] = "default".into();
        let name = object(value["metadata"]["name"].as_str().unwrap());
        index.apply(if value.get("addressType").is_some() {
            let slice: SliceObject = serde_json::from_value(value).unwrap();
            Change::Slice(name, Some(Box::new(Slice::from_object(&slice, Some("node-a")))))
        } else if value.get("subsets").is_some() {
            let endpoints: Endpoints = serde_json::from_value(value).unwrap();
            Change::Endpoints(name, Some(Slice::from_endpoints(&endpoints, Some("node-a"))))
        } else {
            let service: Service = serde_json::from_value(value).unwrap();
            Change::Service(name, Some(Box::new(service)))
        });
    }
}

fn list(endpoints: &[Endpoint]) -> String {
    let show = |endpoint: &Endpoint| {
        let place = match endpoint.place {
            Endpoint::ON_NODE => "@node",
            Endpoint::ON_HOST => "@host",
            _ => "",
        };
        format!("{}{place}", endpoint.at().socket_addr())
    };
    endpoints.iter().map(show).collect::<Vec<_>>().join(" ")
}

/// One line for a port: its addresses with what is not Cluster for everybody, and its endpoints.
fn shown(index: &mut Index) -> String {
    index.update();
    let desired = index.desired();
    let mut text = String::new();
    for port in desired.ports.values() {
        let _ = write!(text, "{} {:?}", port.name, port.name.protocol);
        for (at, frontend) in &port.addresses {
            let _ = write!(text, " {}", at.socket_addr());
            let kind = match frontend.kind {
                FrontendKind::ClusterIp => None,
                FrontendKind::ExternalIp => Some("external"),
                FrontendKind::LoadBalancer => Some("balancer"),
                FrontendKind::NodePort => Some("node port"),
                FrontendKind::LoopbackNodePort => Some("loopback"),
            };
            let notes: Vec<&str> = (kind.into_iter())
                .chain((frontend.internal == Reach::Node).then_some("internal local"))
                .chain((frontend.external == Reach::Node).then_some("external local"))
                .chain(frontend.restricted.then_some("restricted"))
                .collect();
            if !notes.is_empty() {
                let _ = write!(text, " ({})", notes.join(", "));
            }
        }
        let _ = write!(text, " -> {}", list(&port.endpoints));
        if !port.local.is_empty() {
            let _ = write!(text, " | local {}", list(&port.local));
        }
        if port.affinity_secs > 0 {
            let _ = write!(text, " | affinity {}s", port.affinity_secs);
        }
        if !port.source_ranges.is_empty() {
            let ranges: Vec<_> = port.source_ranges.iter().map(ToString::to_string).collect();
            let _ = write!(text, " | from {}", ranges.join(" "));
        }
        text.push('\n');
    }
    for (port, check) in &desired.health_checks {
        let _ = writeln!(text, "health {port}: {} has {}", check.service, check.local_endpoints);
    }
    for problem in index.problems() {
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
fn endpoint_choice_falls_back_to_serving_terminating() {
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
fn internal_traffic_policy_local_uses_local_endpoints() {
    let service = "metadata: {name: web}\nspec:\n  clusterIP: 10.96.0.10\n  \
                   internalTrafficPolicy: Local\n  externalIPs: [192.0.2.1]\n  ports: [{port: 80}]\n---\n";
    let going = "{addresses: [10.0.0.3], nodeName: node-a, conditions: {ready: false, serving: true, terminating: true}}";
    let far = "{addresses: [10.0.0.1], nodeName: node-b}";
    check(
        &(service.to_owned() + &slice("a", &format!("[{going}, {far}]"))),
        expect![[r#"
            default/web Tcp 10.96.0.10:80 (internal local, external local) 192.0.2.1:80 (external) -> 10.0.0.1:8080 | local 10.0.0.3:8080@node
        "#]],
    );
}

#[test]
fn dual_stack_and_protocols_of_one_service() {
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
fn skipped_headless_external_name_and_other_proxies() {
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
fn load_balancer_ip_mode_proxy_has_no_rule() {
    check(
        "metadata: {name: web}
spec: {type: LoadBalancer, clusterIP: 10.96.0.10, ports: [{port: 80}]}
status: {loadBalancer: {ingress: [{ip: 192.0.2.1}, {ip: 192.0.2.2, ipMode: Proxy}, {hostname: a}]}}
",
        expect![[r#"
            default/web Tcp 10.96.0.10:80 192.0.2.1:80 (balancer) -> 
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
spec: {clusterIP: 10.96.0.4, ports: [{port: 0}, {port: 80}, {port: 80}, {name: s, port: 9, protocol: DCCP}]}
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
            ! Service default/a: spec.clusterIP: "10.96.0.300" is no address; not served at it
            ! Service default/b: spec.clusterIP: is not set and this source allocates none: give an address; not served at one
            ! Service default/c: spec.ports[0].port: 0 is not between 1 and 65535; port ignored
            ! Service default/c: spec.ports[2]: 80/Tcp is there twice; the first one counts
            ! Service default/c: spec.ports[3].protocol: "DCCP" is none of TCP, UDP, SCTP; port ignored
            ! Service default/d: spec: 10.96.0.4:80 already belongs to Service default/c; not served here
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
    apply(&mut index, &slice("a", "[{addresses: [10.0.0.1]}]"));
    expect![[r#"
        default/web Tcp 10.96.0.10:80 -> 10.0.0.1:8080
    "#]]
    .assert_eq(&shown(&mut index));
    index.apply(Change::Slice(object("a"), None));
    assert!(shown(&mut index).contains("10.0.0.9"));
    index.apply(Change::Service(object("web"), None));
    assert_eq!(shown(&mut index), "");
}

#[test]
fn endpoint_choice_is_separate_for_cluster_and_node() {
    let service = "metadata: {name: web}
spec: {clusterIP: 10.96.0.10, internalTrafficPolicy: Local, externalIPs: [192.0.2.1], ports: [{port: 80}]}
---
";
    let going = "conditions: {ready: false, serving: true, terminating: true}";
    let endpoints = format!(
        "[{{addresses: [10.0.0.3], nodeName: node-a, {going}}}, \
         {{addresses: [10.0.0.4], nodeName: node-b, {going}}}, \
         {{addresses: [10.0.0.1], nodeName: node-b}}]"
    );
    check(
        &(service.to_owned() + &slice("a", &endpoints)),
        expect![[r#"
        default/web Tcp 10.96.0.10:80 (internal local, external local) 192.0.2.1:80 (external) -> 10.0.0.1:8080 | local 10.0.0.3:8080@node
    "#]],
    );
}

#[test]
fn publish_not_ready_addresses_is_up_to_the_slice() {
    // The controller says ready; `serving` and `terminating` then change nothing.
    let ready = "conditions: {ready: true, serving: false, terminating: true}";
    let starting = "conditions: {ready: false, serving: false, terminating: false}";
    let endpoints =
        format!("[{{addresses: [10.0.0.1], {ready}}}, {{addresses: [10.0.0.2], {starting}}}]");
    let service = "metadata: {name: web}
spec: {clusterIP: 10.96.0.10, publishNotReadyAddresses: true, ports: [{port: 80}]}
---
";
    check(
        &(service.to_owned() + &slice("a", &endpoints)),
        expect![[r#"
        default/web Tcp 10.96.0.10:80 -> 10.0.0.1:8080
    "#]],
    );
}

fn hinted(ip: &str, node: Option<&str>, zone: Option<&str>, rest: &str) -> String {
    let mut hints = Vec::new();
    hints.extend(node.map(|name| format!("forNodes: [{{name: {name}}}]")));
    hints.extend(zone.map(|name| format!("forZones: [{{name: {name}}}]")));
    format!("{{addresses: [{ip}], hints: {{{}}}{rest}}}", hints.join(", "))
}

/// The endpoints `web` gets on node-a.
fn endpoints_of(endpoints: &[String], node: LocalNode) -> String {
    let mut index = index(&(WEB.to_owned() + &slice("a", &format!("[{}]", endpoints.join(", ")))));
    index.set_local_node(node);
    index.update();
    list(&index.desired().ports.values().next().unwrap().endpoints)
}

#[test]
fn topology_prefers_node_then_zone_hints() {
    let a = hinted("10.0.0.1", Some("node-a"), Some("zone-a"), "");
    let b = hinted("10.0.0.2", Some("node-b"), Some("zone-a"), "");
    let c = hinted("10.0.0.3", Some("node-c"), Some("zone-c"), "");
    let of = |endpoints: &[&String]| {
        endpoints_of(&endpoints.iter().map(|one| (*one).clone()).collect::<Vec<_>>(), node_a())
    };
    assert_eq!(of(&[&a, &b, &c]), "10.0.0.1:8080", "hinted for this node");
    assert_eq!(of(&[&b, &c]), "10.0.0.2:8080", "none for this node, one for its zone");
    assert_eq!(of(&[&c]), "10.0.0.3:8080", "neither: all");
    let no_node = hinted("10.0.0.4", None, Some("zone-c"), "");
    assert_eq!(of(&[&a, &b, &no_node]), "10.0.0.1:8080 10.0.0.2:8080", "no node hint: zones count");
    let no_hint = "{addresses: [10.0.0.5]}".to_owned();
    assert_eq!(of(&[&a, &no_hint]), "10.0.0.1:8080 10.0.0.5:8080", "one without hints: all");
}

#[test]
fn topology_looks_at_ready_endpoints_only() {
    let a = hinted("10.0.0.1", None, Some("zone-a"), "");
    let b = hinted("10.0.0.2", None, Some("zone-b"), "");
    let starting = "{addresses: [10.0.0.3], conditions: {ready: false}}".to_owned();
    assert_eq!(endpoints_of(&[a, b.clone(), starting], node_a()), "10.0.0.1:8080");
    let going = ", conditions: {ready: false, serving: true, terminating: true}";
    let going = hinted("10.0.0.4", None, Some("zone-a"), going);
    assert_eq!(endpoints_of(&[b.clone(), going.clone()], node_a()), "10.0.0.2:8080");
    let other = ", conditions: {ready: false, serving: true, terminating: true}";
    let other = hinted("10.0.0.5", None, Some("zone-b"), other);
    assert_eq!(endpoints_of(&[going, other], node_a()), "10.0.0.4:8080 10.0.0.5:8080");
}

#[test]
fn topology_needs_the_zone_of_the_node_and_follows_it() {
    let a = hinted("10.0.0.1", None, Some("zone-a"), "");
    let b = hinted("10.0.0.2", None, Some("zone-b"), "");
    let both = [a, b];
    let unknown = LocalNode { zone: None, ..node_a() };
    assert_eq!(endpoints_of(&both, unknown), "10.0.0.1:8080 10.0.0.2:8080");
    let moved = LocalNode { zone: Some("zone-b".to_owned()), ..node_a() };
    assert_eq!(endpoints_of(&both, moved), "10.0.0.2:8080");
}

#[test]
fn external_traffic_policy_local_uses_local_endpoints() {
    let service = "metadata: {name: web}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.10
  externalTrafficPolicy: Local
  externalIPs: [192.0.2.1]
  ports: [{port: 80, nodePort: 30080}]
status: {loadBalancer: {ingress: [{ip: 192.0.2.2}]}}
---
";
    let endpoints =
        "[{addresses: [10.0.0.1], nodeName: node-a}, {addresses: [10.0.0.2], nodeName: node-b}]";
    check(
        &(service.to_owned() + &slice("a", endpoints)),
        expect![[r#"
        default/web Tcp 10.96.0.10:80 127.0.0.1:30080 (loopback) 192.0.2.1:80 (external, external local) 192.0.2.2:80 (balancer, external local) 192.168.0.1:30080 (node port, external local) -> 10.0.0.1:8080@node 10.0.0.2:8080 | local 10.0.0.1:8080@node
    "#]],
    );
}

#[test]
fn node_ports_at_the_addresses_of_the_node_and_on_loopback() {
    check(
        "metadata: {name: web}
spec:
  type: NodePort
  clusterIPs: [10.96.0.10, 'fd00::10']
  ports: [{name: a, port: 80, nodePort: 30080}, {name: b, port: 80, nodePort: 30080, protocol: UDP}, {name: c, port: 81}]
---
metadata: {name: inside}
spec: {type: ClusterIP, clusterIP: 10.96.0.11, ports: [{port: 80, nodePort: 30081}]}
---
metadata: {name: v6}
spec: {type: NodePort, clusterIP: 'fd00::12', ports: [{port: 80, nodePort: 30082}]}
",
        expect![[r#"
            default/inside Tcp 10.96.0.11:80 -> 
            default/v6 Tcp [::1]:30082 (loopback) [fd00::12]:80 [fd00:1::1]:30082 (node port) -> 
            default/web:a Tcp 10.96.0.10:80 127.0.0.1:30080 (loopback) 192.168.0.1:30080 (node port) -> 
            default/web:a Tcp [::1]:30080 (loopback) [fd00::10]:80 [fd00:1::1]:30080 (node port) -> 
            default/web:b Udp 10.96.0.10:80 127.0.0.1:30080 (loopback) 192.168.0.1:30080 (node port) -> 
            default/web:b Udp [::1]:30080 (loopback) [fd00::10]:80 [fd00:1::1]:30080 (node port) -> 
            default/web:c Tcp 10.96.0.10:81 -> 
            default/web:c Tcp [fd00::10]:81 -> 
        "#]],
    );
}

#[test]
fn node_ports_follow_the_addresses_of_the_node() {
    let mut index = index(
        "metadata: {name: web}
spec: {type: NodePort, clusterIP: 10.96.0.10, ports: [{port: 80, nodePort: 30080}]}
",
    );
    shown(&mut index);
    let nodeport_ips = ips(&["192.168.0.2", "192.168.0.3"]).into_iter().collect();
    index.set_local_node(LocalNode { nodeport_ips, ..node_a() });
    expect![[r#"
        default/web Tcp 10.96.0.10:80 127.0.0.1:30080 (loopback) 192.168.0.2:30080 (node port) 192.168.0.3:30080 (node port) -> 
    "#]].assert_eq(&shown(&mut index));
}

#[test]
fn load_balancer_source_ranges_restrict_balancer_addresses_only() {
    let service = |metadata: &str, ranges: &str| {
        format!(
            "metadata: {{name: web{metadata}}}
spec:
  type: LoadBalancer
  clusterIPs: [10.96.0.10, 'fd00::10']
  externalIPs: [192.0.2.1]
  {ranges}
  ports: [{{port: 80, nodePort: 30080}}]
status: {{loadBalancer: {{ingress: [{{ip: 192.0.2.2}}, {{ip: '2001:db8::2'}}]}}}}
"
        )
    };
    let ranges = "loadBalancerSourceRanges: [' 198.51.100.7/24 ', '2001:db8:1::/48']";
    check(
        &service("", ranges),
        expect![[r#"
        default/web Tcp 10.96.0.10:80 127.0.0.1:30080 (loopback) 192.0.2.1:80 (external) 192.0.2.2:80 (balancer, restricted) 192.168.0.1:30080 (node port) ->  | from 198.51.100.0/24
        default/web Tcp [::1]:30080 (loopback) [2001:db8::2]:80 (balancer, restricted) [fd00::10]:80 [fd00:1::1]:30080 (node port) ->  | from 2001:db8:1::/48
    "#]],
    );
    // Only of one family, or none at all that can be read: nobody else gets in.
    check(
        &service("", "loadBalancerSourceRanges: [198.51.100.0/24]"),
        expect![[r#"
        default/web Tcp 10.96.0.10:80 127.0.0.1:30080 (loopback) 192.0.2.1:80 (external) 192.0.2.2:80 (balancer, restricted) 192.168.0.1:30080 (node port) ->  | from 198.51.100.0/24
        default/web Tcp [::1]:30080 (loopback) [2001:db8::2]:80 (balancer, restricted) [fd00::10]:80 [fd00:1::1]:30080 (node port) -> 
    "#]],
    );
    check(
        &service("", "loadBalancerSourceRanges: [198.51.100.1, nonsense]"),
        expect![[r#"
        default/web Tcp 10.96.0.10:80 127.0.0.1:30080 (loopback) 192.0.2.1:80 (external) 192.0.2.2:80 (balancer, restricted) 192.168.0.1:30080 (node port) -> 
        default/web Tcp [::1]:30080 (loopback) [2001:db8::2]:80 (balancer, restricted) [fd00::10]:80 [fd00:1::1]:30080 (node port) -> 
        ! Service default/web: spec.loadBalancerSourceRanges[0]: "198.51.100.1" is no range of addresses; it lets nobody in
        ! Service default/web: spec.loadBalancerSourceRanges[1]: "nonsense" is no range of addresses; it lets nobody in
    "#]],
    );
    check(
        &service("", "loadBalancerSourceRanges: [198.51.100.0/24, 0.0.0.0/0]"),
        expect![[r#"
        default/web Tcp 10.96.0.10:80 127.0.0.1:30080 (loopback) 192.0.2.1:80 (external) 192.0.2.2:80 (balancer) 192.168.0.1:30080 (node port) -> 
        default/web Tcp [::1]:30080 (loopback) [2001:db8::2]:80 (balancer) [fd00::10]:80 [fd00:1::1]:30080 (node port) -> 
    "#]],
    );
    let annotation = ", annotations: {service.beta.kubernetes.io/load-balancer-source-ranges: '198.51.100.0/24, 203.0.113.0/24'}";
    check(
        &service(annotation, ""),
        expect![[r#"
        default/web Tcp 10.96.0.10:80 127.0.0.1:30080 (loopback) 192.0.2.1:80 (external) 192.0.2.2:80 (balancer, restricted) 192.168.0.1:30080 (node port) ->  | from 198.51.100.0/24 203.0.113.0/24
        default/web Tcp [::1]:30080 (loopback) [2001:db8::2]:80 (balancer, restricted) [fd00::10]:80 [fd00:1::1]:30080 (node port) -> 
    "#]],
    );
    check(
        &service(annotation, "loadBalancerSourceRanges: [192.0.2.0/28]"),
        expect![[r#"
        default/web Tcp 10.96.0.10:80 127.0.0.1:30080 (loopback) 192.0.2.1:80 (external) 192.0.2.2:80 (balancer, restricted) 192.168.0.1:30080 (node port) ->  | from 192.0.2.0/28
        default/web Tcp [::1]:30080 (loopback) [2001:db8::2]:80 (balancer, restricted) [fd00::10]:80 [fd00:1::1]:30080 (node port) -> 
    "#]],
    );
}

#[test]
fn external_ips_are_like_a_vip() {
    check(
        "metadata: {name: web}
spec: {clusterIP: 10.96.0.10, externalTrafficPolicy: Local, externalIPs: [192.0.2.1, '127.0.0.1', '2001:db8::1'], ports: [{port: 80}]}
",
        expect![[r#"
            default/web Tcp 10.96.0.10:80 192.0.2.1:80 (external, external local) -> 
            ! Service default/web: spec.externalIPs: 127.0.0.1 is no address a Service can have; not served at it
        "#]],
    );
}

#[test]
fn sctp_is_a_protocol_like_the_others() {
    check(
        "metadata: {name: web}
spec: {clusterIP: 10.96.0.10, ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}, {name: s, port: 80, protocol: SCTP}]}
---
metadata: {name: a, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: t, port: 1}, {name: u, port: 2, protocol: UDP}, {name: s, port: 3, protocol: SCTP}]
endpoints: [{addresses: [10.0.0.1]}]
",
        expect![[r#"
            default/web:s Sctp 10.96.0.10:80 -> 10.0.0.1:3
            default/web:t Tcp 10.96.0.10:80 -> 10.0.0.1:1
            default/web:u Udp 10.96.0.10:80 -> 10.0.0.1:2
        "#]],
    );
}

#[test]
fn endpoints_in_the_network_of_the_host_are_known_as_such() {
    let endpoints = "[{addresses: [10.0.0.254], nodeName: node-a}, {addresses: [10.0.0.1], nodeName: node-a}, {addresses: [10.0.0.2]}]";
    let mut index = index(&(WEB.to_owned() + &slice("a", endpoints)));
    expect![[r#"
        default/web Tcp 10.96.0.10:80 -> 10.0.0.1:8080@node 10.0.0.2:8080 10.0.0.254:8080@host
    "#]]
    .assert_eq(&shown(&mut index));
    let host_ips = ips(&["10.0.0.2"]).into_iter().collect();
    index.set_local_node(LocalNode { host_ips, ..node_a() });
    expect![[r#"
        default/web Tcp 10.96.0.10:80 -> 10.0.0.1:8080@node 10.0.0.2:8080@host 10.0.0.254:8080@node
    "#]]
    .assert_eq(&shown(&mut index));
}

const HEALTH_CHECKED: &str = "metadata: {name: web}
spec:
  type: LoadBalancer
  clusterIPs: [10.96.0.10, 'fd00::10']
  externalTrafficPolicy: Local
  healthCheckNodePort: 32000
  ports: [{name: a, port: 80}, {name: b, port: 81}]
---
";

#[test]
fn health_check_node_port_counts_local_ready_endpoints() {
    let going = "conditions: {ready: false, serving: true, terminating: true}";
    let slices = format!(
        "metadata: {{name: v4, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: a, port: 8080}}, {{name: b, port: 8081}}]
endpoints: [{{addresses: [10.0.0.1], nodeName: node-a}}, {{addresses: [10.0.0.2], nodeName: node-a}}, \
{{addresses: [10.0.0.3], nodeName: node-a, {going}}}, {{addresses: [10.0.0.4], nodeName: node-b}}]
---
metadata: {{name: v6, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv6
ports: [{{name: a, port: 8080}}]
endpoints: [{{addresses: ['fd00::1:1'], nodeName: node-a}}]
---
"
    );
    let mut index = index(&(HEALTH_CHECKED.to_owned() + &slices));
    let health = |index: &mut Index| {
        let text = shown(index);
        text.lines().find(|line| line.starts_with("health")).map(str::to_owned)
    };
    assert_eq!(health(&mut index).unwrap(), "health 32000: default/web has 2");
    index.apply(Change::Slice(object("v4"), None));
    assert_eq!(health(&mut index).unwrap(), "health 32000: default/web has 1");
    apply(&mut index, &HEALTH_CHECKED.replace("Policy: Local", "Policy: Cluster"));
    assert_eq!(health(&mut index), None);
}

#[test]
fn health_check_node_port_belongs_to_one_service() {
    let other = HEALTH_CHECKED
        .replace("name: web", "name: other")
        .replace("10.96.0.10, 'fd00::10'", "10.96.0.11");
    let mut index = index(&(HEALTH_CHECKED.to_owned() + &other));
    let text = shown(&mut index);
    assert!(text.contains("health 32000: default/other has 0"), "{text}");
    assert!(
        text.contains("! Service default/web: spec.healthCheckNodePort: port 32000 already belongs to Service default/other"),
        "{text}"
    );
    index.apply(Change::Service(object("other"), None));
    let text = shown(&mut index);
    assert!(text.contains("health 32000: default/web has 0") && !text.contains('!'), "{text}");
}

#[test]
fn who_wants_an_address_gets_it_when_its_owner_leaves() {
    let at = |name: &str, created: u8, ip: &str| {
        format!(
            "metadata: {{name: {name}, creationTimestamp: '2026-01-0{created}T00:00:00Z'}}
spec: {{clusterIP: 10.96.0.{created}, externalIPs: [{ip}], ports: [{{port: 80}}]}}
---
"
        )
    };
    let mut index = index(&(at("young", 2, "192.0.2.1") + &at("old", 1, "192.0.2.1")));
    expect![[r#"
        default/old Tcp 10.96.0.1:80 192.0.2.1:80 (external) -> 
        default/young Tcp 10.96.0.2:80 -> 
        ! Service default/young: spec: 192.0.2.1:80 already belongs to Service default/old; not served here
    "#]].assert_eq(&shown(&mut index));
    apply(&mut index, &at("old", 1, "10.96.0.2"));
    expect![[r#"
        default/old Tcp 10.96.0.1:80 -> 
        default/young Tcp 10.96.0.2:80 192.0.2.1:80 (external) -> 
        ! Service default/old: spec: 10.96.0.2:80 already belongs to Service default/young; not served here
    "#]].assert_eq(&shown(&mut index));
    index.apply(Change::Service(object("young"), None));
    expect![[r#"
        default/old Tcp 10.96.0.1:80 10.96.0.2:80 (external) -> 
    "#]]
    .assert_eq(&shown(&mut index));
}
