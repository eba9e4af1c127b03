//! Row "no endpoints", for packets: what is refused, and what is dropped.

use serde_json::json;

use crate::{
    ask::{Protocol, Question},
    manifest::PORT,
    world::{
        A, BALANCED, CLUSTER, EXTERNAL, NODE_PORT, at, cases, expect_error, node_ip, two_nodes, web,
    },
};

#[test]
fn net_no_endpoints_refused_at_once() {
    let mut island = two_nodes("refused");
    BALANCED.iter().chain(&EXTERNAL).for_each(|ip| island.route(ip, &[A]));
    let local = json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"});
    for spec in [json!({}), local] {
        island.manifest("web.yaml", &web().spec(spec).text());
        island.start();
        for (family, protocol) in cases() {
            let node = node_ip(&island.nodes[A], family);
            let outside =
                [at(node, NODE_PORT), at(BALANCED[family], PORT), at(EXTERNAL[family], PORT)];
            for to in outside {
                expect_error(&island.client, Question::new(protocol, &to), "ConnectionRefused");
            }
            let to = at(CLUSTER[family], PORT);
            let pod = &island.nodes[A].pods[0].netns;
            expect_error(pod, Question::new(protocol, &to), "ConnectionRefused");
        }
        island.nodes.iter_mut().for_each(crate::node::Node::kill);
    }
}

#[test]
fn net_cluster_ip_unknown_port_refused_unallocated_dropped() {
    let mut island = two_nodes("unknown");
    island.manifest("web.yaml", &web().pods(&island.nodes[A]).text());
    island.start();
    for (family, protocol) in cases() {
        let pod = &island.nodes[A].pods[0].netns;
        let question = Question::new(protocol, &at(CLUSTER[family], 81));
        expect_error(pod, question, "ConnectionRefused");
    }
    std::thread::scope(|scope| {
        for (family, protocol) in cases() {
            let ip = ["10.96.77.77", "fd00:96::7777"][family];
            let question = Question::new(protocol, &at(ip, PORT)).in_vain();
            let island = &island;
            scope.spawn(move || {
                expect_error(&island.nodes[A].pods[0].netns, question, "TimedOut");
            });
        }
        let question = Question::new(Protocol::Tcp, "10.96.77.77:80").in_vain();
        let host = island.nodes[A].netns();
        scope.spawn(move || expect_error(host, question, "TimedOut"));
    });
}
