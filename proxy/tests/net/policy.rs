//! Rows "internalTrafficPolicy" and "externalTrafficPolicy", and "healthCheckNodePort".

use serde_json::json;

use crate::{
    ask::{PROTOCOLS, Question, ask, who},
    island::CLIENT,
    manifest::{PORT, Service},
    node::http,
    world::{
        A, B, BALANCED, CLUSTER, FAMILIES, NODE_PORT, at, cases, expect, expect_error, node_ip,
        two_nodes, web,
    },
};

const HEALTH_PORT: u16 = 30_999;

fn local_web() -> Service {
    web().spec(json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": HEALTH_PORT}))
}

#[test]
fn net_external_policy_local_keeps_the_client_address() {
    let mut island = two_nodes("local");
    BALANCED.iter().for_each(|ip| island.route(ip, &[B]));
    island.manifest("web.yaml", &local_web().pods(&island.nodes[B]).text());
    island.start();
    for (family, protocol) in cases() {
        for to in [at(node_ip(&island.nodes[B], family), NODE_PORT), at(BALANCED[family], PORT)] {
            expect(&island.client, Question::new(protocol, &to), "pod-b1", CLIENT[family]);
        }
    }
}

#[test]
fn net_external_policy_local_without_endpoints_is_dropped() {
    let mut island = two_nodes("nolocal");
    BALANCED.iter().for_each(|ip| island.route(ip, &[A]));
    island.manifest("web.yaml", &local_web().pods(&island.nodes[B]).text());
    island.start();
    let questions = cases().flat_map(|(family, protocol)| {
        let to = [at(node_ip(&island.nodes[A], family), NODE_PORT), at(BALANCED[family], PORT)];
        to.map(|to| Question::new(protocol, &to).in_vain())
    });
    std::thread::scope(|scope| {
        for question in questions {
            let client = &island.client;
            scope.spawn(move || expect_error(client, question, "TimedOut"));
        }
    });
}

#[test]
fn net_external_policy_local_health_check_port() {
    let mut island = two_nodes("health");
    island.manifest("web.yaml", &local_web().pods(&island.nodes[B]).text());
    island.start();
    for (node, status, endpoints) in [(A, "503", 0), (B, "200", 1)] {
        for family in FAMILIES {
            let to = at(node_ip(&island.nodes[node], family), HEALTH_PORT);
            let answer = island.client.run(|| http(&to, "/"));
            let (found, body) = answer.split_once(' ').unwrap();
            assert_eq!(found, status, "{to}: {answer}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["service"], json!({"namespace": "default", "name": "web"}));
            assert_eq!(body["localEndpoints"], json!(endpoints));
        }
    }
}

#[test]
fn net_external_policy_local_from_pods_and_nodes_is_cluster() {
    let mut island = two_nodes("inside");
    island.manifest("web.yaml", &local_web().pods(&island.nodes[B]).text());
    island.start();
    let node = &island.nodes[A];
    for (family, protocol) in cases() {
        let to = at(BALANCED[family], PORT);
        // The pod's own sockets, unknown to the programs of the cgroup, as those of a VM are.
        expect(
            &node.pods[0].netns,
            Question::new(protocol, &to),
            "pod-b1",
            node.pods[0].ip(CLIENT[family].parse().unwrap()),
        );
        if PROTOCOLS[..2].contains(&protocol) {
            assert_eq!(who(&node.in_pod(0, || ask(protocol, &to))), "pod-b1", "pod: {to}");
            assert_eq!(who(&node.on_host(|| ask(protocol, &to))), "pod-b1", "host: {to}");
        }
    }
}

#[test]
fn net_internal_policy_local() {
    let mut island = two_nodes("internal");
    let service = Service::new("web", CLUSTER).spec(json!({"internalTrafficPolicy": "Local"}));
    island.manifest("web.yaml", &service.pods(&island.nodes[B]).text());
    for node in &mut island.nodes {
        node.pod();
    }
    island.start();
    std::thread::scope(|scope| {
        for (family, protocol) in cases() {
            let question = Question::new(protocol, &at(CLUSTER[family], PORT));
            let (a, b) = (&island.nodes[A].pods[0], &island.nodes[B].pods[1]);
            scope.spawn(move || expect_error(&a.netns, question.in_vain(), "TimedOut"));
            let source = b.ip(CLIENT[family].parse().unwrap());
            expect(&b.netns, question, "pod-b1", source);
        }
    });
}
