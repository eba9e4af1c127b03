//! The cluster as the decision sees it: nodes with the pods on them, at one moment. Filled from the
//! caches and from what was bound and is not in them yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use podium_controllers::pod as pods;

use crate::resources::{self, Amounts};

/// A node and what runs, or is about to run, on it.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// The Node.
    pub node: Arc<Node>,
    /// Its pods that are not finished.
    pub pods: Vec<Arc<Pod>>,
    /// What it has for pods.
    pub allocatable: Amounts,
    /// What its pods ask for.
    pub requested: Amounts,
    /// The same, with assumptions for those that do not say.
    pub assumed: Amounts,
}

impl NodeState {
    /// An empty node.
    pub fn new(node: Arc<Node>) -> Self {
        let allocatable = resources::allocatable(&node);
        let nothing = Amounts::new;
        Self { node, pods: Vec::new(), allocatable, requested: nothing(), assumed: nothing() }
    }

    /// Puts a pod on it.
    pub fn add(&mut self, pod: Arc<Pod>) {
        resources::add(&mut self.requested, &resources::requests(&pod));
        resources::add(&mut self.assumed, &resources::assumed_requests(&pod));
        self.pods.push(pod);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// A label of the node.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }
}

/// All nodes, by name, and the Services.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The nodes in the order of their names.
    pub nodes: Vec<NodeState>,
    /// The Services, for spreading.
    pub services: Vec<Arc<Service>>,
}

impl World {
    /// Puts every pod that has a node, and is not finished, on it.
    pub fn new(
        nodes: impl IntoIterator<Item = Arc<Node>>,
        pods: impl IntoIterator<Item = Arc<Pod>>,
        services: Vec<Arc<Service>>,
    ) -> Self {
        let named = |node: Arc<Node>| {
            (node.metadata.name.clone().unwrap_or_default(), NodeState::new(node))
        };
        let mut nodes: BTreeMap<String, NodeState> = nodes.into_iter().map(named).collect();
        for pod in pods {
            let node = pods::node_name(&pod).and_then(|name| nodes.get_mut(name));
            if let (Some(node), false) = (node, pods::is_finished(&pod)) {
                node.add(pod);
            }
        }
        Self { nodes: nodes.into_values().collect(), services }
    }

    /// Every pod on every node.
    pub fn pods(&self) -> impl Iterator<Item = (&NodeState, &Arc<Pod>)> {
        self.nodes.iter().flat_map(|node| node.pods.iter().map(move |pod| (node, pod)))
    }
}
