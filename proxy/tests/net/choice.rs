//! The consistent choice, and the ports that sources are rewritten to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    ask::{PROTOCOLS, Protocol, Question, seen, who},
    island::{CLIENT, Island},
    manifest::PORT,
    node::Style,
    world::{A, B, BALANCED, FAMILIES, NODE_PORT, at, node_ip, two_nodes, web},
};

#[test]
fn net_consistent_choice_over_nodes() {
    let mut island = Island::new("choice", &[Style::Routed, Style::Bridged]);
    for node in &mut island.nodes {
        for _ in 0..3 {
            node.pod();
        }
    }
    BALANCED.iter().for_each(|ip| island.route(ip, &[A, B]));
    island.manifest("web.yaml", &web().pods(&island.nodes[A]).pods(&island.nodes[B]).text());
    island.start();
    for family in FAMILIES {
        let client: IpAddr = CLIENT[family].parse().unwrap();
        for protocol in PROTOCOLS {
            let mut pods = BTreeSet::new();
            for port in 20_000..20_020 {
                let targets = [
                    at(node_ip(&island.nodes[A], family), NODE_PORT),
                    at(node_ip(&island.nodes[B], family), NODE_PORT),
                    at(BALANCED[family], PORT),
                ];
                let answers = island.client.run(|| {
                    let ask = |to: &String| Question::new(protocol, to).from(client, port).ask();
                    targets.each_ref().map(|to| who(&ask(to)).to_owned())
                });
                let same = answers.iter().all(|answer| *answer == answers[0]);
                assert!(same, "{protocol} from port {port}: {answers:?}");
                pods.insert(answers[0].clone());
            }
            assert!(pods.len() > 2, "they spread: {pods:?}");
            assert!(pods.iter().all(|pod| pod.starts_with("pod-")), "{pods:?}");
        }
    }
}

#[test]
fn net_rewritten_ports_are_no_node_ports_and_no_sockets() {
    let mut island = two_nodes("ports");
    island.manifest("web.yaml", &web().pods(&island.nodes[B]).text());
    island.start();
    let node = &island.nodes[A];
    let range = node.netns().run(|| {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let mut numbers = text.split_whitespace().map(|number| number.parse::<u16>().unwrap());
        numbers.next().unwrap()..=numbers.next().unwrap()
    });
    for family in FAMILIES {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let question = Question::new(protocol, &at(node_ip(node, family), NODE_PORT));
            let mut used = BTreeMap::<u16, u32>::new();
            for port in 0..60 {
                let from = question.from(CLIENT[family].parse().unwrap(), 25_000 + port);
                let answer = island.client.run(|| from.ask());
                assert_eq!(who(&answer), "pod-b1");
                *used.entry(seen(&answer).port()).or_default() += 1;
            }
            for port in used.keys() {
                assert!(!(30_000..=32_767).contains(port), "{port} is a node port");
                assert!(!range.contains(port), "{port} is one that sockets get: {range:?}");
                assert!(*port >= 1024, "{port} is for servers");
            }
            assert!(used.len() > 1 || protocol == Protocol::Tcp, "{used:?}");
        }
    }
}

#[test]
fn net_two_clients_with_one_port_are_told_apart() {
    let mut island = two_nodes("collide");
    island.manifest("web.yaml", &web().pods(&island.nodes[B]).text());
    island.start();
    let node = &island.nodes[A];
    for family in FAMILIES {
        let to = at(node_ip(node, family), NODE_PORT);
        let question = Question::new(Protocol::Tcp, &to);
        let mut connections: Vec<_> = [CLIENT[family], crate::island::OTHER_CLIENT[family]]
            .map(|client| question.from(client.parse().unwrap(), 26_000))
            .into_iter()
            .map(|question| island.client.run(|| question.connect().unwrap()))
            .collect();
        let peers: BTreeSet<_> =
            connections.iter_mut().map(|connection| seen(&connection.who().unwrap())).collect();
        assert_eq!(peers.len(), 2, "{peers:?}");
        for connection in &mut connections {
            assert_eq!(connection.fetch(10_000).unwrap(), "all");
        }
    }
}

#[test]
fn net_same_client_port_to_two_addresses_of_a_service() {
    for policy in ["Cluster", "Local"] {
        let mut island = two_nodes("sameport");
        BALANCED.iter().for_each(|ip| island.route(ip, &[B]));
        let spec = serde_json::json!({"externalTrafficPolicy": policy});
        island.manifest("web.yaml", &web().spec(spec).pods(&island.nodes[B]).text());
        island.start();
        for family in FAMILIES {
            let client = CLIENT[family].parse().unwrap();
            let targets =
                [at(node_ip(&island.nodes[B], family), NODE_PORT), at(BALANCED[family], PORT)];
            let questions =
                targets.each_ref().map(|to| Question::new(Protocol::Tcp, to).from(client, 26_001));
            let mut connections =
                questions.map(|question| island.client.run(|| question.connect().unwrap()));
            for _ in 0..3 {
                for connection in &mut connections {
                    let answer = connection.who().unwrap();
                    assert_eq!(who(&answer), "pod-b1");
                    if policy == "Local" {
                        assert_eq!(seen(&answer).ip(), client);
                    }
                    assert_eq!(connection.fetch(10_000).unwrap(), "all");
                }
            }
        }
    }
}
