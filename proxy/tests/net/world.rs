//! The usual set-up of a test: two nodes with a pod each, one routed, one bridged; and the
//! addresses that services have in all tests.

use std::net::IpAddr;

use crate::{
    ask::{PROTOCOLS, Protocol, Question, seen, who},
    island::{CLIENT, Island},
    manifest::Service,
    netns::Netns,
    node::{Node, Style, eventually},
};

/// Index of a node.
pub const A: usize = 0;
pub const B: usize = 1;

/// The families, as indexes of pairs of addresses.
pub const FAMILIES: [usize; 2] = [0, 1];

pub const CLUSTER: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
pub const BALANCED: [&str; 2] = ["198.51.100.1", "2001:db8:1b::1"];
pub const EXTERNAL: [&str; 2] = ["198.51.100.7", "2001:db8:1b::7"];
pub const NODE_PORT: u16 = 30_080;

/// Two nodes with a pod each.
pub fn two_nodes(test: &str) -> Island {
    let mut island = Island::new(test, &[Style::Routed, Style::Bridged]);
    for node in &mut island.nodes {
        node.pod();
    }
    island
}

/// A service of all kinds of addresses, without endpoints as yet.
pub fn web() -> Service {
    Service::new("web", CLUSTER)
        .node_port(NODE_PORT)
        .load_balancer(&BALANCED)
        .spec(serde_json::json!({"externalIPs": EXTERNAL}))
}

/// An address and port in one text.
pub fn at(ip: impl ToString, port: u16) -> String {
    let ip: IpAddr = ip.to_string().parse().unwrap();
    std::net::SocketAddr::new(ip, port).to_string()
}

/// Both families, by their index in pairs of addresses, with each protocol.
pub fn cases() -> impl Iterator<Item = (usize, Protocol)> {
    FAMILIES.into_iter().flat_map(|family| PROTOCOLS.map(|protocol| (family, protocol)))
}

/// An address of a node, by family.
pub fn node_ip(node: &Node, family: usize) -> IpAddr {
    node.ip(CLIENT[family].parse().unwrap())
}

/// That a question gets its answer from this server, which sees this source.
#[track_caller]
pub fn expect(from: &Netns, question: Question, server: &str, source: impl ToString) {
    let answer = from.run(|| question.ask());
    assert_eq!(who(&answer), server, "{question:?}");
    assert_eq!(seen(&answer).ip().to_string(), source.to_string(), "{question:?}");
}

/// That a question comes to nothing in this way.
#[track_caller]
pub fn expect_error(from: &Netns, question: Question, error: &str) {
    let answer = from.run(|| question.ask());
    assert_eq!(answer, error, "{question:?}");
}

/// Waits until what each node's kernel holds is so.
pub fn applied(island: &Island, what: &str, is_so: impl Fn(&str) -> bool) {
    for node in &island.nodes {
        eventually(what, || is_so(&node.shown(&["status"])));
    }
}
