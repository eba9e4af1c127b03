//! The other ways to attach the programs: clsact as before kernel 6.6, and XDP.

use crate::{
    ask::{Protocol, Question, who},
    island::{CLIENT, Island},
    manifest::{PORT, Service},
    veth,
    world::{
        A, B, BALANCED, CLUSTER, NODE_PORT, at, cases, expect, expect_error, node_ip, two_nodes,
        web,
    },
};

/// Starts agents with these flags, and tries one of each kind of path.
fn works(island: &mut Island, flags: &[&str]) {
    BALANCED.iter().for_each(|ip| island.route(ip, &[A]));
    let none = Service::new("none", ["10.96.0.11", "fd00:96::11"]).node_port(NODE_PORT + 1);
    let text = web().pods(&island.nodes[B]).text() + &none.text();
    island.manifest("web.yaml", &text);
    island.nodes.iter_mut().for_each(|node| node.flags(flags));
    island.start();
    for (family, protocol) in cases() {
        for node in &island.nodes {
            let ip = node_ip(node, family);
            expect(&island.client, Question::new(protocol, &at(ip, NODE_PORT)), "pod-b1", ip);
            let refused = Question::new(protocol, &at(ip, NODE_PORT + 1));
            expect_error(&island.client, refused, "ConnectionRefused");
        }
        let pod = &island.nodes[A].pods[0];
        let question = Question::new(protocol, &at(CLUSTER[family], PORT));
        expect(&pod.netns, question, "pod-b1", pod.ip(CLIENT[family].parse().unwrap()));
        let balanced = Question::new(protocol, &at(BALANCED[family], PORT));
        expect(&island.client, balanced, "pod-b1", node_ip(&island.nodes[A], family));
        if protocol == Protocol::Udp {
            let answer = island.client.run(|| balanced.size(8000).ask());
            assert_eq!(who(&answer), "pod-b1", "fragments");
        }
        if protocol == Protocol::Tcp {
            let mut connection = island.client.run(|| balanced.connect().unwrap());
            assert_eq!(connection.fetch(1_000_000).unwrap(), "all");
            assert_eq!(connection.send(1_000_000).unwrap(), "all");
        }
    }
}

#[test]
fn net_attached_by_clsact() {
    let mut island = two_nodes("clsact");
    works(&mut island, &["--tc-attach", "clsact"]);
    for node in &island.nodes {
        let filters = node.netns().show("tc", "filter show dev eth0 ingress");
        assert!(filters.contains("direct-action"), "{filters:?}");
    }
}

#[test]
fn net_attached_by_xdp_in_the_driver() {
    let mut island = two_nodes("xdp");
    veth::complete_checksums(&island.client, "eth0");
    let mut programs = Vec::new();
    for node in &island.nodes {
        programs.push(veth::pass_all(&island.router, &format!("node{}", node.number())));
        veth::complete_checksums(node.netns(), "eth0");
        for pod in &node.pods {
            veth::complete_checksums(&pod.netns, "eth0");
        }
    }
    works(&mut island, &["--xdp", "native"]);
    for node in &island.nodes {
        let link = node.netns().show("ip", "-d link show eth0");
        assert!(link.contains("prog/xdp"), "{link:?}");
    }
}
