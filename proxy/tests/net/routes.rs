//! Answers that take another way than the requests came, and nodes that reach each other's pods
//! through an overlay.

use crate::{
    ask::Question,
    island::{CLIENT, Island},
    manifest::{PORT, Service},
    netns::Netns,
    node::Style,
    world::{A, B, CLUSTER, NODE_PORT, at, cases, expect, node_ip, two_nodes, web},
};

fn any_way_back(netns: &Netns, devices: &[&str]) {
    for device in ["all", "default"].iter().chain(devices) {
        netns.sysctl(&[(&format!("ipv4/conf/{device}/rp_filter"), "0")]);
    }
}

/// The node has a second device, which is no pod's and none of its uplinks, and the way back to
/// the client is there.
#[test]
fn net_answers_by_another_device_have_the_address_that_was_asked() {
    let mut island = Island::new("otherdevice", &[Style::Routed]);
    island.nodes[A].pod();
    let node = &island.nodes[A];
    island.router.ip(&format!(
        "link add hub type veth peer name spokes
         link set hub up
         link set spokes up
         link add link hub name back type macvlan mode bridge
         addr add 10.255.0.1/24 dev back
         addr add fd00:255::1/64 dev back nodad
         link set back up
         link add link hub name eth1 netns {} type macvlan mode bridge",
        node.netns().name()
    ));
    node.netns().ip("addr add 10.255.0.2/24 dev eth1
         addr add fd00:255::2/64 dev eth1 nodad
         link set eth1 up
         route add 203.0.113.0/24 via 10.255.0.1
         route add 2001:db8:c::/64 via fd00:255::1");
    any_way_back(node.netns(), &["eth0", "eth1"]);
    any_way_back(&island.router, &["back", "nodes"]);
    let kept = Service::new("kept", ["10.96.0.12", "fd00:96::12"])
        .node_port(NODE_PORT + 1)
        .spec(serde_json::json!({"externalTrafficPolicy": "Local"}));
    let text = web().pods(node).text() + &kept.pods(node).text();
    island.manifest("web.yaml", &text);
    island.start();
    let node = &island.nodes[A];
    let (asked, answered) = (
        node.netns().device_counter("eth1", "rx_packets"),
        node.netns().device_counter("eth1", "tx_packets"),
    );
    for (family, protocol) in cases() {
        let ip = node_ip(node, family);
        let rewritten = Question::new(protocol, &at(ip, NODE_PORT));
        expect(&island.client, rewritten, "pod-a1", ip);
        let kept = Question::new(protocol, &at(ip, NODE_PORT + 1));
        expect(&island.client, kept, "pod-a1", CLIENT[family]);
    }
    let received = node.netns().device_counter("eth1", "rx_packets") - asked;
    let sent = node.netns().device_counter("eth1", "tx_packets") - answered;
    assert!(sent >= 12, "only {sent} packets left by eth1");
    assert!(received < sent, "{received} packets came in by eth1, which answers neighbours only");
}

/// A node asks with its address in the overlay, as the routes have it, so pods' answers come in
/// there: nothing but its being an uplink has them go on to the client.
#[test]
fn net_endpoints_behind_an_overlay() {
    let mut island = two_nodes("overlay");
    for (this, other) in [(1, 2), (2, 1)] {
        let node = island.nodes[this - 1].netns();
        node.ip(&format!(
            "link add vx0 type vxlan id 7 dstport 4789 local 192.0.2.1{this} remote 192.0.2.1{other} dev eth0
             addr add 10.255.0.{this}/24 dev vx0
             addr add fd00:255::{this}/64 dev vx0 nodad
             link set vx0 up
             route replace 10.244.{other}.0/24 via 10.255.0.{other}
             route del fd00:10:244:{other}::/64
             route add fd00:10:244:{other}::/64 via fd00:255::{other}"
        ));
    }
    island.manifest("web.yaml", &web().pods(&island.nodes[B]).text());
    island.nodes.iter_mut().for_each(|node| node.flags(&["--uplinks", "vx0"]));
    island.start();
    let node = &island.nodes[A];
    let before = node.netns().device_counter("vx0", "rx_packets");
    for (family, protocol) in cases() {
        let ip = node_ip(node, family);
        let source = ["10.255.0.1", "fd00:255::1"][family];
        expect(&island.client, Question::new(protocol, &at(ip, NODE_PORT)), "pod-b1", source);
        let pod = &node.pods[0];
        let inside = Question::new(protocol, &at(CLUSTER[family], PORT));
        expect(&pod.netns, inside, "pod-b1", pod.ip(CLIENT[family].parse().unwrap()));
    }
    let answers = node.netns().device_counter("vx0", "rx_packets") - before;
    assert!(answers >= 6, "only {answers} packets came in through the overlay");
}
