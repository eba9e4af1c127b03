//! Row "loadBalancerSourceRanges".

use serde_json::json;

use crate::{
    ask::{Protocol, Question, ask, who},
    island::{CLIENT, OTHER_CLIENT},
    manifest::PORT,
    world::{
        A, B, BALANCED, CLUSTER, EXTERNAL, NODE_PORT, at, cases, expect, expect_error, node_ip,
        two_nodes, web,
    },
};

#[test]
fn net_source_ranges_restrict_load_balancer_addresses_only() {
    let mut island = two_nodes("ranges");
    BALANCED.iter().chain(&EXTERNAL).for_each(|ip| island.route(ip, &[A]));
    let pod = [island.nodes[A].pods[0].v4.clone(), island.nodes[A].pods[0].v6.clone()];
    let ranges = json!([
        " 203.0.113.9/32 ",
        format!("{}/32", pod[0]),
        "2001:db8:c::9/128",
        format!("{}/128", pod[1])
    ]);
    for node in &mut island.nodes {
        node.pod();
    }
    let service = web().spec(json!({"loadBalancerSourceRanges": ranges}));
    island.manifest("web.yaml", &service.pod(&island.nodes[B], &island.nodes[B].pods[0]).text());
    island.start();
    let node = &island.nodes[A];
    std::thread::scope(|scope| {
        for (family, protocol) in cases() {
            let other = OTHER_CLIENT[family].parse().unwrap();
            let masked = node_ip(node, family);
            let balanced = Question::new(protocol, &at(BALANCED[family], PORT));
            let refused = balanced.from(other, 0).in_vain();
            let client = &island.client;
            scope.spawn(move || expect_error(client, refused, "TimedOut"));
            let pod_refused = balanced.in_vain();
            scope.spawn(move || expect_error(&node.pods[1].netns, pod_refused, "TimedOut"));
            expect(client, balanced, "pod-b1", masked);
            expect(&node.pods[0].netns, balanced, "pod-b1", &pod[family]);
            let free = [at(masked, NODE_PORT), at(EXTERNAL[family], PORT)];
            for to in free {
                expect(client, Question::new(protocol, &to).from(other, 0), "pod-b1", masked);
            }
            let inside = Question::new(protocol, &at(CLUSTER[family], PORT));
            let source = node.pods[1].ip(CLIENT[family].parse().unwrap());
            expect(&node.pods[1].netns, inside, "pod-b1", source);
        }
    });
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let to = at(BALANCED[0], PORT);
        assert_eq!(who(&node.in_pod(0, || ask(protocol, &to))), "pod-b1", "{protocol}");
        let in_vain = || Question::new(protocol, &to).in_vain().ask();
        assert_eq!(node.in_pod(1, in_vain), "TimedOut", "{protocol}: not this pod");
    }
}
