//! Rows "UDP" and those on endpoints that go: flows follow, or stay, while the lists change.

use std::{collections::BTreeSet, thread, time::Duration};

use crate::{
    ask::{Flow, Protocol, Question, error_name, who},
    island::{CLIENT, Island},
    manifest::PORT,
    world::{A, B, CLUSTER, FAMILIES, NODE_PORT, applied, at, node_ip, two_nodes, web},
};

fn flow(island: &Island, family: usize, to: &str) -> Flow {
    let question = Question::new(Protocol::Udp, to).from(CLIENT[family].parse().unwrap(), 0);
    island.client.run(|| question.flow().unwrap())
}

/// Who answers on a flow, or the error.
fn asked(flow: &mut Flow) -> String {
    flow.who(0).map_or_else(|error| error_name(&error), |answer| who(&answer).to_owned())
}

fn switch(island: &Island, to: usize) {
    let node = &island.nodes[to];
    island.manifest("web.yaml", &web().pods(node).text());
    let pod = &node.pods[0].v6;
    applied(island, "the endpoint is this", |status| status.contains(pod));
}

#[test]
fn net_udp_flows_move_when_their_endpoint_goes() {
    let mut island = two_nodes("udpmove");
    island.manifest("web.yaml", &web().pods(&island.nodes[A]).text());
    island.start();
    let mut flows: Vec<Flow> = (0..2)
        .map(|family| flow(&island, family, &at(node_ip(&island.nodes[A], family), NODE_PORT)))
        .collect();
    // A pod's flows through its device.
    for family in FAMILIES {
        let question = Question::new(Protocol::Udp, &at(CLUSTER[family], PORT));
        flows.push(island.nodes[A].pods[0].netns.run(|| question.flow().unwrap()));
    }
    for target in [A, B, A, B] {
        switch(&island, target);
        for flow in &mut flows {
            assert_eq!(asked(flow), island.nodes[target].pods[0].name);
        }
    }
}

#[test]
fn net_udp_flows_move_when_there_was_no_endpoint_before() {
    let mut island = two_nodes("udpnone");
    island.manifest("web.yaml", &web().text());
    island.start();
    let mut flows: Vec<Flow> = (0..2)
        .map(|family| flow(&island, family, &at(node_ip(&island.nodes[A], family), NODE_PORT)))
        .collect();
    for flow in &mut flows {
        assert_eq!(asked(flow), "ConnectionRefused");
    }
    for target in [B, A] {
        switch(&island, target);
        for flow in &mut flows {
            assert_eq!(asked(flow), island.nodes[target].pods[0].name);
        }
    }
    let mut before = BTreeSet::new();
    island.manifest("web.yaml", &web().text());
    applied(&island, "no endpoint is left", |status| !status.contains("10.244."));
    for flow in &mut flows {
        before.insert(asked(flow));
    }
    assert_eq!(before, BTreeSet::from(["ConnectionRefused".to_owned()]));
}

#[test]
fn net_tcp_goes_on_when_its_endpoint_leaves_the_list() {
    let mut island = two_nodes("tcpstays");
    island.manifest("web.yaml", &web().pods(&island.nodes[B]).text());
    island.start();
    let mut connections = Vec::new();
    for family in FAMILIES {
        for node in &island.nodes {
            let question = Question::new(Protocol::Tcp, &at(node_ip(node, family), NODE_PORT));
            connections.push(island.client.run(|| question.connect().unwrap()));
        }
        let question = Question::new(Protocol::Tcp, &at(CLUSTER[family], PORT));
        connections.push(island.nodes[A].pods[0].netns.run(|| question.connect().unwrap()));
    }
    for connection in &mut connections {
        assert_eq!(who(&connection.who().unwrap()), "pod-b1");
    }
    switch(&island, A);
    for connection in &mut connections {
        assert_eq!(who(&connection.who().unwrap()), "pod-b1");
        assert_eq!(connection.fetch(100_000).unwrap(), "all");
    }
    island.manifest("web.yaml", &web().text());
    applied(&island, "no endpoint is left", |status| !status.contains("10.244."));
    for connection in &mut connections {
        assert_eq!(who(&connection.who().unwrap()), "pod-b1");
    }
    island.manifest("web.yaml", "");
    applied(&island, "the service is gone", |status| !status.contains(CLUSTER[0]));
    thread::sleep(Duration::from_millis(100));
    for connection in &mut connections {
        assert_eq!(who(&connection.who().unwrap()), "pod-b1");
    }
}
