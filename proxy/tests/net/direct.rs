//! Direct server return.

use serde_json::json;

use crate::{
    ask::{Protocol, Question, who},
    island::{CLIENT, Island},
    manifest::PORT,
    world::{A, B, BALANCED, FAMILIES, NODE_PORT, at, cases, expect, node_ip, two_nodes, web},
};

fn direct(test: &str) -> Island {
    let mut island = two_nodes(test);
    BALANCED.iter().for_each(|ip| island.route(ip, &[A]));
    for node in &mut island.nodes {
        node.flags(&["--forwarding-mode", "dsr"]);
    }
    island.manifest("web.yaml", &web().pods(&island.nodes[B]).text());
    island.start();
    island
}

#[test]
fn net_direct_return_keeps_the_client_address() {
    let island = direct("dsr");
    for (family, protocol) in cases() {
        let question = Question::new(protocol, &at(BALANCED[family], PORT));
        expect(&island.client, question, "pod-b1", CLIENT[family]);
    }
}

#[test]
fn net_direct_return_answers_do_not_pass_the_first_node() {
    let island = direct("dsrpath");
    let node = island.nodes[A].netns();
    for family in FAMILIES {
        let to = at(BALANCED[family], PORT);
        let mut connection =
            island.client.run(|| Question::new(Protocol::Tcp, &to).connect().unwrap());
        assert_eq!(who(&connection.who().unwrap()), "pod-b1");
        let before = node.device_counter("eth0", "tx_bytes");
        assert_eq!(connection.fetch(3_000_000).unwrap(), "all");
        let sent = node.device_counter("eth0", "tx_bytes") - before;
        assert!(sent < 1_000_000, "{to}: {sent} bytes left node-a, which saw no answers");
        assert_eq!(connection.send(1_000_000).unwrap(), "all");
    }
}

#[test]
fn net_direct_return_with_source_ranges_and_local_policy() {
    let mut island = direct("dsrlocal");
    for node in &mut island.nodes {
        node.kill();
    }
    let spec = json!({
        "externalTrafficPolicy": "Local", "loadBalancerSourceRanges": ["203.0.113.9/32", "2001:db8:c::9/128"],
    });
    BALANCED.iter().for_each(|ip| island.route(ip, &[B]));
    island.manifest("web.yaml", &web().spec(spec).pods(&island.nodes[B]).text());
    island.start();
    for (family, protocol) in cases() {
        let question = Question::new(protocol, &at(BALANCED[family], PORT));
        expect(&island.client, question, "pod-b1", CLIENT[family]);
    }
}

#[test]
fn net_direct_return_through_node_ports() {
    let island = direct("dsrnode");
    for (family, protocol) in cases() {
        let to = at(node_ip(&island.nodes[A], family), NODE_PORT);
        expect(&island.client, Question::new(protocol, &to), "pod-b1", CLIENT[family]);
    }
}
