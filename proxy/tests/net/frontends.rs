//! Rows "NodePort", "externalIPs", "source address", "protocols", "dual stack": the addresses that
//! other machines use.

use crate::{
    ask::{Protocol, Question},
    island::CLIENT,
    node::POD_PORT,
    world::{
        A, B, BALANCED, EXTERNAL, NODE_PORT, applied, at, cases, expect, node_ip, two_nodes, web,
    },
};

#[test]
fn net_nodeport_via_nodes_with_and_without_endpoints() {
    let mut island = two_nodes("nodeport");
    island.manifest("web.yaml", &web().pods(&island.nodes[B]).text());
    island.start();
    for (family, protocol) in cases() {
        for via in &island.nodes {
            let question = Question::new(protocol, &at(node_ip(via, family), NODE_PORT));
            expect(&island.client, question, "pod-b1", node_ip(via, family));
        }
    }
    let lost = island.client.counter("Tcp", "RetransSegs");
    assert_eq!(lost, 0, "no packet was lost, not even the first ones");
}

#[test]
fn net_loadbalancer_and_external_ips() {
    let mut island = two_nodes("addresses");
    for ip in BALANCED.iter().chain(&EXTERNAL) {
        island.route(ip, &[A]);
    }
    for pod in [A, B] {
        island.manifest("web.yaml", &web().pods(&island.nodes[pod]).text());
        if pod == A {
            island.start();
        } else {
            let pod = at(&island.nodes[B].pods[0].v6, POD_PORT);
            applied(&island, "the endpoint is another", |status| status.contains(&pod));
        }
        let name = &island.nodes[pod].pods[0].name;
        for (family, protocol) in cases() {
            for ips in [BALANCED, EXTERNAL] {
                let question = Question::new(protocol, &at(ips[family], 80));
                expect(&island.client, question, name, node_ip(&island.nodes[A], family));
            }
        }
    }
}

#[test]
fn net_pods_and_nodes_are_reached_as_ever() {
    let mut island = two_nodes("plain");
    island.manifest("web.yaml", &web().pods(&island.nodes[B]).text());
    island.start();
    for (family, protocol) in cases() {
        for node in &island.nodes {
            let pod = &node.pods[0];
            let ip = pod.ip(CLIENT[family].parse().unwrap());
            let question = Question::new(protocol, &at(ip, POD_PORT));
            expect(&island.client, question, &pod.name, CLIENT[family]);
            if protocol == Protocol::Udp {
                expect(&island.client, question.size(8000), &pod.name, CLIENT[family]);
            }
        }
    }
}
