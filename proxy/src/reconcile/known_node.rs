//! What was said of this node so far: by its Node object, the ServiceCIDRs and the host itself.

use ipnet::IpNet;
use tracing::info;

use crate::{
    index::local_node::{self, HostAddress, NodeSettings, OwnNode},
    model::{LocalNode, Problem},
};

/// All of it, and what is wrong with it.
#[derive(Default)]
pub struct KnownNode {
    object: Option<OwnNode>,
    host: Vec<HostAddress>,
    service_cidrs: Vec<IpNet>,
    problems: Vec<Problem>,
}

impl KnownNode {
    /// The Node object, or that it is gone: the addresses of such a node are still its own.
    pub fn set_object(&mut self, object: Option<OwnNode>) {
        self.object = object.or_else(|| self.object.take());
    }

    /// The addresses of the host.
    pub fn set_host(&mut self, addresses: Vec<HostAddress>) {
        self.host = addresses;
    }

    /// The blocks of the ServiceCIDRs.
    pub fn set_service_cidrs(&mut self, blocks: Vec<IpNet>) {
        self.service_cidrs = blocks;
    }

    /// What is wrong with all that.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// What follows from all that, if it is something else than `before`.
    pub fn settle(&mut self, settings: &NodeSettings, before: &LocalNode) -> Option<LocalNode> {
        let (node, problems) =
            local_node::local_node(settings, self.object.as_ref(), &self.host, &self.service_cidrs);
        if node == *before && problems == self.problems {
            return None;
        }
        info!(
            zone = node.zone.as_deref().unwrap_or(""),
            nodeport_ips = ?node.nodeport_ips,
            service_cidrs = ?node.service_cidrs,
            "this node"
        );
        self.problems = problems;
        Some(node)
    }
}
