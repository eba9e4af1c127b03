//! The island that each test is played on: a client, a router and nodes with pods, without a way
//! out.
//!
//! | what | IPv4 | IPv6 |
//! |---|---|---|
//! | client – router | 203.0.113.9, .10 – .1 | 2001:db8:c::9, ::10 – ::1 |
//! | nodes – router, one segment | 192.0.2.11, .12, … – .1 | 2001:db8:a::11, ::12, … – ::1 |
//! | pods of node N | 10.244.N.2, … – .1 | fd00:10:244:N::2, … – ::1 |
//! | addresses of load balancers, routed to nodes | 198.51.100.0/24 | 2001:db8:1b::/64 |
//!
//! The gateway of a node's pods is the node: one device a pod, or one bridge for all.

use std::{fs, net::IpAddr, path::Path};

use tempfile::TempDir;

use crate::{
    netns::{self, Netns},
    node::{Node, Style},
};

pub const CLIENT: [&str; 2] = ["203.0.113.9", "2001:db8:c::9"];
pub const OTHER_CLIENT: [&str; 2] = ["203.0.113.10", "2001:db8:c::10"];

pub struct Island {
    pub client: Netns,
    pub router: Netns,
    pub nodes: Vec<Node>,
    manifests: TempDir,
}

impl Island {
    /// Makes one with nodes of these styles.
    pub fn new(test: &str, styles: &[Style]) -> Self {
        let prefix = netns::prefix(test);
        let (client, router) =
            (Netns::new(&format!("{prefix}-client")), Netns::new(&format!("{prefix}-router")));
        let nodes: Vec<Node> =
            (1..).zip(styles).map(|(number, style)| Node::new(&prefix, number, *style)).collect();
        let manifests = tempfile::tempdir().expect("cannot make a folder");
        let island = Self { client, router, nodes, manifests };
        island.wire_client();
        island.wire_nodes();
        island
    }

    fn wire_client(&self) {
        let router = self.router.name();
        forward(&self.router);
        self.client.ip(&format!(
            "link add eth0 type veth peer name client0 netns {router}
             addr add 203.0.113.9/24 dev eth0
             addr add 203.0.113.10/24 dev eth0
             addr add 2001:db8:c::9/64 dev eth0 nodad
             addr add 2001:db8:c::10/64 dev eth0 nodad preferred_lft 0
             link set eth0 up"
        ));
        self.router.ip("link add nodes type bridge
             addr add 203.0.113.1/24 dev client0
             addr add 2001:db8:c::1/64 dev client0 nodad
             addr add 192.0.2.1/24 dev nodes
             addr add 2001:db8:a::1/64 dev nodes nodad
             link set client0 up
             link set nodes up");
        self.client.ip("route add default via 203.0.113.1
             route add default via 2001:db8:c::1");
    }

    fn wire_nodes(&self) {
        let router = self.router.name();
        for node in &self.nodes {
            node.wire(router);
            let device = format!("node{}", node.number());
            self.router.ip(&format!("link set {device} master nodes\nlink set {device} up"));
        }
        for node in &self.nodes {
            let routes = node.pod_routes();
            self.router.ip(&routes);
            for other in &self.nodes {
                if other.number() != node.number() {
                    other.netns().ip(&routes);
                }
            }
        }
    }

    /// Has the router send an address to a node; to several: flow by flow.
    pub fn route(&self, address: &str, nodes: &[usize]) {
        let ip: IpAddr = address.parse().unwrap();
        let hops: String =
            nodes.iter().map(|node| format!(" nexthop via {}", self.nodes[*node].ip(ip))).collect();
        self.router.ip(&format!("route replace {address}{hops}"));
    }

    /// Replaces one manifest file in one step, for all nodes.
    pub fn manifest(&self, file: &str, text: &str) {
        let hidden = self.manifests.path().join(format!("{file}.new"));
        fs::write(&hidden, text).unwrap();
        fs::rename(hidden, self.manifests.path().join(file)).unwrap();
    }

    pub fn manifests(&self) -> &Path {
        self.manifests.path()
    }

    /// Starts the agents of all nodes and waits until they are healthy.
    pub fn start(&mut self) {
        let manifests = self.manifests().to_owned();
        for node in &mut self.nodes {
            node.spawn(&manifests);
        }
        self.nodes.iter().for_each(Node::wait);
    }
}

/// Makes a router of a namespace.
pub fn forward(netns: &Netns) {
    netns.sysctl(&[
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/default/forwarding", "1"),
        ("ipv4/fib_multipath_hash_policy", "1"),
        ("ipv6/fib_multipath_hash_policy", "1"),
    ]);
}
