//! Rows "ICMP" and "fragments": packets too large for the way.

use crate::{
    ask::{Protocol, Question, who},
    manifest::PORT,
    netns::Netns,
    world::{A, B, CLUSTER, FAMILIES, NODE_PORT, at, expect, node_ip, two_nodes, web},
};

/// Large enough for many packets, few enough to be quick.
const TRANSFER: usize = 3_000_000;

fn transfers(from: &Netns, to: &str) {
    let mut connection = from.run(|| Question::new(Protocol::Tcp, to).connect().unwrap());
    assert_eq!(connection.fetch(TRANSFER).unwrap(), "all", "{to}");
    assert_eq!(connection.send(TRANSFER).unwrap(), "all", "{to}");
}

#[test]
fn net_large_transfers_through_node_ports() {
    let mut island = two_nodes("transfer");
    island.manifest("web.yaml", &web().pods(&island.nodes[B]).text());
    island.start();
    for family in FAMILIES {
        for node in &island.nodes {
            transfers(&island.client, &at(node_ip(node, family), NODE_PORT));
        }
        transfers(&island.nodes[A].pods[0].netns, &at(CLUSTER[family], PORT));
    }
}

#[test]
fn net_path_mtu_towards_the_client_is_learned_by_endpoints() {
    let mut island = two_nodes("pmtuclient");
    // The client's own device takes large packets, so that it offers a large segment size.
    island.router.ip("link set client0 mtu 1400");
    island.manifest("web.yaml", &web().pods(&island.nodes[B]).text());
    island.start();
    for family in FAMILIES {
        for node in &island.nodes {
            transfers(&island.client, &at(node_ip(node, family), NODE_PORT));
        }
    }
    let pod = &island.nodes[B].pods[0].netns;
    for (family, command) in [(0, "-4 route show cache"), (1, "-6 route show cache")] {
        let cache = pod.show("ip", command);
        assert!(cache.contains("mtu 1400"), "family {family}, learned by the endpoint: {cache:?}");
    }
}

#[test]
fn net_path_mtu_of_a_link_to_the_pod_is_learned_by_clients() {
    let mut island = two_nodes("pmtupod");
    let pod = &island.nodes[A].pods[0];
    island.nodes[A].netns().ip(&format!(
        "route change {} dev veth1 mtu lock 1360\nroute change {} dev veth1 mtu 1360",
        pod.v4, pod.v6
    ));
    island.manifest("web.yaml", &web().pods(&island.nodes[A]).text());
    island.start();
    for (family, command) in [(0, "-4 route show cache"), (1, "-6 route show cache")] {
        for node in &island.nodes {
            let to = at(node_ip(node, family), NODE_PORT);
            transfers(&island.client, &to);
        }
        let cache = island.client.show("ip", command);
        assert_eq!(cache.matches("mtu 1360").count(), 2, "of both nodes' addresses: {cache:?}");
    }
}

#[test]
fn net_fragments_follow_the_first() {
    let mut island = two_nodes("fragments");
    island.manifest("web.yaml", &web().pods(&island.nodes[B]).text());
    island.start();
    for family in FAMILIES {
        for node in &island.nodes {
            let ip = node_ip(node, family);
            let question = Question::new(Protocol::Udp, &at(ip, NODE_PORT));
            for size in [8000, 1473, 20_000] {
                expect(&island.client, question.size(size), "pod-b1", ip);
            }
        }
        let pod = &island.nodes[A].pods[0];
        let question = Question::new(Protocol::Udp, &at(CLUSTER[family], PORT)).size(8000);
        assert_eq!(who(&pod.netns.run(|| question.ask())), "pod-b1", "{question:?}");
    }
}

#[test]
fn net_path_mtu_towards_the_endpoint_is_learned_by_clients() {
    let mut island = two_nodes("pmtunode");
    // Between the node that is asked and the endpoint.
    let routes = "route change 10.244.2.0/24 via 192.0.2.12 mtu lock 1380\n\
                  route change fd00:10:244:2::/64 via 2001:db8:a::12 mtu lock 1380";
    island.nodes[A].netns().ip(routes);
    island.manifest("web.yaml", &web().pods(&island.nodes[B]).text());
    island.start();
    for (family, command) in [(0, "-4 route show cache"), (1, "-6 route show cache")] {
        let to = at(node_ip(&island.nodes[A], family), NODE_PORT);
        let mut connection =
            island.client.run(|| Question::new(Protocol::Tcp, &to).connect().unwrap());
        assert_eq!(connection.send(3_000_000).unwrap(), "all", "{to}");
        let cache = island.client.show("ip", command);
        assert!(cache.contains("mtu 1380"), "family {family}, learned by the client: {cache:?}");
    }
}
