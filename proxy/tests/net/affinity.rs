//! Row "session affinity", for clients outside.

use std::{collections::BTreeSet, net::IpAddr, thread, time::Duration};

use serde_json::json;

use crate::{
    ask::{Protocol, Question, who},
    island::{CLIENT, Island, OTHER_CLIENT},
    manifest::{PORT, Service},
    node::eventually,
    world::{A, BALANCED, EXTERNAL, NODE_PORT, applied, at, cases, node_ip, two_nodes, web},
};

fn sticky(secs: u32) -> Service {
    web().spec(json!({
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": secs}},
    }))
}

fn six_pods(test: &str) -> Island {
    let mut island = two_nodes(test);
    for node in &mut island.nodes {
        node.pod();
        node.pod();
    }
    BALANCED.iter().chain(&EXTERNAL).for_each(|ip| island.route(ip, &[A]));
    island
}

/// Who answers a client that asks a few times, each from another port.
fn answers(island: &Island, client: &str, protocol: Protocol, to: &str) -> BTreeSet<String> {
    let client: IpAddr = client.parse().unwrap();
    let ask = || who(&Question::new(protocol, to).from(client, 0).ask()).to_owned();
    island.client.run(|| (0..6).map(|_| ask()).collect())
}

#[test]
fn net_session_affinity_of_clients_outside() {
    let mut island = six_pods("sticky");
    let service = sticky(600).pods(&island.nodes[0]).pods(&island.nodes[1]);
    island.manifest("web.yaml", &service.text());
    island.start();
    for (family, protocol) in cases() {
        let node = &island.nodes[A];
        let addresses = [
            at(node_ip(node, family), NODE_PORT),
            at(BALANCED[family], PORT),
            at(EXTERNAL[family], PORT),
        ];
        let seen = |client: &str| -> BTreeSet<String> {
            addresses.iter().flat_map(|to| answers(&island, client, protocol, to)).collect()
        };
        let pods = [seen(CLIENT[family]), seen(OTHER_CLIENT[family])];
        for (pods, client) in pods.iter().zip([CLIENT[family], OTHER_CLIENT[family]]) {
            assert_eq!(pods.len(), 1, "{client} {protocol}: whichever address, one pod: {pods:?}");
            assert!(pods.iter().all(|pod| pod.starts_with("pod-")), "{pods:?}");
        }
    }
}

#[test]
fn net_session_affinity_timeout_is_refreshed_by_use() {
    let mut island = six_pods("refresh");
    let all = sticky(2).pods(&island.nodes[0]).pods(&island.nodes[1]).text();
    island.manifest("web.yaml", &all);
    island.start();
    let asked = || {
        let to = at(BALANCED[0], PORT);
        let answer = island.client.run(|| Question::new(Protocol::Udp, &to).ask());
        who(&answer).to_owned()
    };
    let first = asked();
    // Away from what is chosen freely, as that is the same each time.
    let node = &island.nodes[A];
    let other = node.pods.iter().find(|pod| pod.name != first).unwrap();
    island.manifest("web.yaml", &sticky(2).pod(node, other).text());
    eventually("all are sent to the only pod", || asked() == other.name);
    island.manifest("web.yaml", &all);
    applied(&island, "all pods are back", |status| status.contains(&island.nodes[1].pods[0].v6));
    for _ in 0..4 {
        assert_eq!(asked(), other.name, "used again before 2 s were over");
        thread::sleep(Duration::from_secs(1));
    }
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(asked(), first, "a free choice after the timeout");
}
