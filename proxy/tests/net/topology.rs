//! That the island works without any agent: else no other test means anything.

use std::net::IpAddr;

use crate::{
    ask::{PROTOCOLS, Protocol, Question, ask, seen, who},
    island::{CLIENT, Island},
    node::{POD_PORT, Style},
};

#[test]
fn net_topology_without_an_agent() {
    let mut island = Island::new("topology", &[Style::Routed, Style::Bridged]);
    for node in &mut island.nodes {
        node.pod();
        node.pod();
    }
    let island = island;
    for (family, client) in CLIENT.iter().enumerate() {
        let client: IpAddr = client.parse().unwrap();
        for node in &island.nodes {
            for pod in &node.pods {
                let to = if family == 0 { pod.v4.clone() } else { format!("[{}]", pod.v6) };
                let to = format!("{to}:{POD_PORT}");
                for protocol in PROTOCOLS {
                    let answer = island.client.run(|| ask(protocol, &to));
                    assert_eq!(who(&answer), pod.name, "{protocol} {to}");
                    assert_eq!(seen(&answer).ip(), client, "{protocol} {to}");
                    let answer = island.nodes[0].on_host(|| ask(protocol, &to));
                    assert_eq!(who(&answer), pod.name, "{protocol} {to} from node-a");
                    let answer = island.nodes[0].in_pod(0, || ask(protocol, &to));
                    assert_eq!(who(&answer), pod.name, "{protocol} {to} from pod-a1");
                }
                let large = Question::new(Protocol::Udp, &to).size(8000);
                assert_eq!(who(&island.client.run(|| large.ask())), pod.name, "fragments");
            }
        }
    }
    let closed = format!("{}:81", island.nodes[0].pods[0].v4);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        assert_eq!(island.client.run(|| ask(protocol, &closed)), "ConnectionRefused");
    }
    let nobody = Question::new(Protocol::Tcp, "198.51.100.1:80").in_vain();
    assert_eq!(island.client.run(|| nobody.ask()), "NetworkUnreachable", "no way out");
}
