//! Rows "hairpin", "source address", "martians" and traffic of pods that sockets cannot cover:
//! their processes are outside of the cgroup, as those in a VM are.

use std::net::{IpAddr, SocketAddr};

use crate::{
    ask::{PROTOCOLS, Protocol, Question, ask, seen, who},
    island::{CLIENT, Island},
    manifest::PORT,
    node::Node,
    server::Server,
    world::{
        A, B, BALANCED, CLUSTER, FAMILIES, NODE_PORT, applied, at, cases, expect, expect_error,
        node_ip, two_nodes, web,
    },
};

fn pod_ip(node: &Node, pod: usize, family: usize) -> IpAddr {
    node.pods[pod].ip(CLIENT[family].parse().unwrap()).parse().unwrap()
}

#[test]
fn net_vm_like_pod_to_cluster_ip_keeps_its_source() {
    let mut island = two_nodes("vm");
    for node in &mut island.nodes {
        node.pod();
    }
    let manifest = |island: &Island, endpoint: usize| {
        let node = &island.nodes[endpoint];
        island.manifest("web.yaml", &web().pod(node, &node.pods[0]).text());
    };
    manifest(&island, A);
    island.start();
    for endpoint in [A, B] {
        manifest(&island, endpoint);
        let pod = island.nodes[endpoint].pods[0].v6.clone();
        applied(&island, "the endpoint is this", |status| status.contains(&pod));
        let name = island.nodes[endpoint].pods[0].name.clone();
        for (family, protocol) in cases() {
            for node in &island.nodes {
                let question = Question::new(protocol, &at(CLUSTER[family], PORT));
                expect(&node.pods[1].netns, question, &name, pod_ip(node, 1, family));
            }
        }
    }
}

#[test]
fn net_hairpin() {
    let mut island = two_nodes("hairpin");
    for alone in [A, B] {
        island.manifest("web.yaml", &web().pods(&island.nodes[alone]).text());
        island.start();
        let node = &island.nodes[alone];
        let pod = &node.pods[0];
        for (family, protocol) in cases() {
            for ips in [CLUSTER, BALANCED] {
                let to = at(ips[family], PORT);
                let answer = pod.netns.run(|| ask(protocol, &to));
                assert_eq!(who(&answer), pod.name, "{protocol} {to} of {}", pod.name);
                if protocol != Protocol::Sctp {
                    let answer = node.in_pod(0, || ask(protocol, &to));
                    assert_eq!(who(&answer), pod.name, "{protocol} {to} by its socket");
                }
            }
        }
        island.nodes.iter_mut().for_each(Node::kill);
    }
}

#[test]
fn net_martians_node_port_on_loopback() {
    let mut island = two_nodes("martians");
    island.manifest("web.yaml", &web().pods(&island.nodes[B]).text());
    island.start();
    let node = &island.nodes[A];
    for family in FAMILIES {
        let to = at(["127.0.0.1", "::1"][family], NODE_PORT);
        for protocol in &PROTOCOLS[..2] {
            let answer = node.on_host(|| ask(*protocol, &to));
            assert_eq!(who(&answer), "pod-b1", "{protocol} {to} on the host");
            let answer = node.in_pod(0, || ask(*protocol, &to));
            assert_eq!(answer, "ConnectionRefused", "{protocol} {to} in a pod");
        }
    }
    // A neighbour that sends to the node's loopback address.
    island.client.sysctl(&[("ipv4/conf/all/route_localnet", "1")]);
    island.router.sysctl(&[("ipv4/conf/all/route_localnet", "1")]);
    for netns in [&island.client, &island.router] {
        netns.ip("rule add pref 10 lookup local\nrule del pref 0\nrule add pref 1 lookup 77");
    }
    island.client.ip("route add 127.0.0.1 via 203.0.113.1 table 77");
    island.router.ip("route add 127.0.0.1 via 192.0.2.11 table 77");
    let before = node.netns().device_counter("eth0", "rx_packets");
    for protocol in PROTOCOLS {
        let question = Question::new(protocol, &at("127.0.0.1", NODE_PORT));
        let question = question.from(CLIENT[0].parse().unwrap(), 0).in_vain();
        expect_error(&island.client, question, "TimedOut");
    }
    let after = node.netns().device_counter("eth0", "rx_packets");
    assert!(after - before >= 3, "the packets did come: {before} {after}");
    assert_eq!(island.nodes[B].pods[0].server.as_ref().unwrap().asked(), 4, "only the host's");
}

#[test]
fn net_host_network_endpoints() {
    let mut island = two_nodes("hostnet");
    let servers: Vec<Server> = (island.nodes.iter())
        .flat_map(|node| {
            [0, 1].map(|family| {
                let at = SocketAddr::new(node_ip(node, family), 9090);
                Server::start_at(node.netns().name(), &node.name(), at)
            })
        })
        .collect();
    for endpoint in [A, B] {
        let node = &island.nodes[endpoint];
        let ips = [node_ip(node, 0).to_string(), node_ip(node, 1).to_string()];
        let service = web().target_port(9090).endpoint(
            [&ips[0], &ips[1]],
            &node.name(),
            &serde_json::json!({"ready": true}),
        );
        island.manifest("web.yaml", &service.text());
        island.start();
        for (family, protocol) in cases() {
            let via = node_ip(&island.nodes[A], family);
            let source = if endpoint == A { CLIENT[family].parse().unwrap() } else { via };
            let question = Question::new(protocol, &at(via, NODE_PORT));
            expect(&island.client, question, &island.nodes[endpoint].name(), source);
            let node = &island.nodes[A];
            let question = Question::new(protocol, &at(CLUSTER[family], PORT));
            let source = pod_ip(node, 0, family);
            expect(&node.pods[0].netns, question, &island.nodes[endpoint].name(), source);
        }
        island.nodes.iter_mut().for_each(Node::kill);
    }
    drop(servers);
}

#[test]
fn net_node_ports_of_pods_and_hosts() {
    let mut island = two_nodes("podnodeport");
    island.manifest("web.yaml", &web().pods(&island.nodes[B]).text());
    island.start();
    for (family, protocol) in cases() {
        for via in &island.nodes {
            let to = at(node_ip(via, family), NODE_PORT);
            let pod = &island.nodes[A].pods[0];
            let answer = pod.netns.run(|| ask(protocol, &to));
            assert_eq!(who(&answer), "pod-b1", "{protocol} {to} from a pod");
            let ip = seen(&answer).ip();
            let own = via.number() == 1;
            let expected =
                if own { pod_ip(&island.nodes[A], 0, family) } else { node_ip(via, family) };
            assert_eq!(ip, expected, "{protocol} {to}");
            if protocol != Protocol::Sctp {
                let answer = island.nodes[A].on_host(|| ask(protocol, &to));
                assert_eq!(who(&answer), "pod-b1", "{protocol} {to} from the host");
            }
        }
    }
}
