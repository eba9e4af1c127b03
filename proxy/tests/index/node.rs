//! What of a node matters to its Services: addresses for node ports, its zone, blocks of ClusterIPs.

use std::{collections::BTreeSet, net::IpAddr};

use expect_test::expect;
use k8s_openapi::api::core::v1::Node;
use podium_proxy::{
    index::local_node::{HostAddress, NodePortAddresses, NodeSettings, OwnNode, local_node},
    source::node,
};

use crate::ips;

fn settings(nodeport_addresses: &str, node_ips: &[&str]) -> NodeSettings {
    NodeSettings {
        nodeport_addresses: nodeport_addresses.parse().unwrap(),
        node_ips: ips(node_ips),
        service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
    }
}

fn host() -> Vec<HostAddress> {
    let address =
        |ip: &str, has_default_route| HostAddress { ip: ip.parse().unwrap(), has_default_route };
    vec![
        address("10.244.0.1", false),
        address("fd00:244::1", false),
        address("fe80::1", true),
        address("192.168.0.1", true),
        address("192.168.0.9", true),
    ]
}

#[test]
fn nodeport_addresses_primary() {
    let of = |settings: &NodeSettings, node: Option<&OwnNode>, host: &[HostAddress]| {
        let (node, problems) = local_node(settings, node, host, &[]);
        let texts: BTreeSet<_> = node.nodeport_ips.iter().map(ToString::to_string).collect();
        let primary: BTreeSet<_> = (node.primary_v4.map(IpAddr::V4).into_iter())
            .chain(node.primary_v6.map(IpAddr::V6))
            .collect();
        assert_eq!(node.nodeport_ips, primary);
        assert_eq!(problems.is_empty(), !texts.is_empty(), "{problems:?}");
        texts.into_iter().collect::<Vec<_>>().join(" ")
    };
    let primary = settings("primary", &[]);
    assert_eq!(of(&primary, None, &host()), "192.168.0.1 fd00:244::1", "as the host has them");
    assert_eq!(of(&primary, None, &[]), "");
    let with_flags = settings("primary", &["192.168.0.9"]);
    assert_eq!(of(&with_flags, None, &host()), "192.168.0.9", "as the flag says");
    let node = OwnNode { ips: ips(&["192.168.0.5", "192.168.0.6"]), ..OwnNode::default() };
    assert_eq!(of(&with_flags, Some(&node), &host()), "192.168.0.5", "as the Node says");
    let silent = OwnNode::default();
    assert_eq!(of(&with_flags, Some(&silent), &host()), "192.168.0.9", "the Node says nothing");
}

#[test]
fn nodeport_addresses_within_blocks() {
    let of = |blocks: &str| {
        let (node, problems) = local_node(&settings(blocks, &[]), None, &host(), &[]);
        let texts: Vec<_> = node.nodeport_ips.iter().map(ToString::to_string).collect();
        (texts.join(" "), problems.len(), node.primary_v4.unwrap().to_string())
    };
    let primary = "192.168.0.1".to_owned();
    assert_eq!(of("192.168.0.0/24"), ("192.168.0.1 192.168.0.9".to_owned(), 0, primary.clone()));
    let (all, ..) = of("0.0.0.0/0, fd00::/8");
    assert_eq!(all, "10.244.0.1 192.168.0.1 192.168.0.9 fd00:244::1");
    assert_eq!(of("203.0.113.0/24"), (String::new(), 1, primary));
    let error = |text: &str| text.parse::<NodePortAddresses>().unwrap_err();
    expect![[r#"
        "192.168.0.1" is no block of addresses (like 192.0.2.0/24), nor the word primary
        the word primary stands alone, without blocks of addresses
    "#]]
    .assert_eq(&format!("{}\n{}\n", error("192.168.0.1"), error("primary,10.0.0.0/8")));
}

#[test]
fn service_cidrs_are_announced_or_given() {
    let settings = settings("primary", &[]);
    let (node, _) = local_node(&settings, None, &host(), &[]);
    assert_eq!(node.service_cidrs, settings.service_cidrs);
    let announced: Vec<ipnet::IpNet> =
        (0..6).map(|number| format!("10.{number}.0.0/16").parse().unwrap()).collect();
    let (node, problems) = local_node(&settings, None, &host(), &announced);
    assert_eq!(node.service_cidrs, announced[..4]);
    let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
    expect!["ServiceCIDRs: there are more than 4 blocks; traffic to addresses of 10.4.0.0/16, 10.5.0.0/16 that no Service has is not dropped"].assert_eq(&texts.join("\n"));
}

#[test]
fn what_counts_of_a_node_object() {
    let of = |yaml: &str| {
        let node: Node = serde_saphyr::from_str(yaml).unwrap();
        node::own_node(&node)
    };
    let node = of("metadata: {name: node-a, labels: {topology.kubernetes.io/zone: zone-a}}
status: {addresses: [{type: Hostname, address: node-a}, {type: ExternalIP, address: 203.0.113.1}, {type: InternalIP, address: 192.168.0.1}, {type: InternalIP, address: 'fd00::1'}]}
");
    let ips = ips(&["192.168.0.1", "fd00::1", "203.0.113.1"]);
    assert_eq!(node, OwnNode { is_eligible: true, zone: Some("zone-a".to_owned()), ips });
    let tainted = "metadata: {name: node-a}
spec: {taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]}
";
    assert!(!of(tainted).is_eligible);
    assert!(!of("metadata: {name: a, deletionTimestamp: '2026-01-01T00:00:00Z'}").is_eligible);
}
