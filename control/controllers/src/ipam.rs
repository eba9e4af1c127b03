//! Gives every Node its part of the pod ranges (`spec.podCIDR`, `spec.podCIDRs`).

mod plan;

use std::time::Duration;

use crate::Error;
use crate::informer::{Change, Key};
use crate::queue::Controller;
use crate::write::Context;

/// One key for all: two nodes worked on at once could be given the same range.
const ALL: &str = "nodes";

pub(crate) struct NodeRanges(pub(crate) Context);

impl Controller for NodeRanges {
    const NAME: &'static str = "node-ipam";

    fn keys(&self, change: &Change) -> Vec<Key> {
        let came_or_went = change.old.is_none() || change.new.is_none();
        if change.kind == "Node" && came_or_went { self.all() } else { Vec::new() }
    }

    fn all(&self) -> Vec<Key> {
        vec![Key::new("", ALL)]
    }

    async fn sync(&self, _: &Key) -> Result<Option<Duration>, Error> {
        let (store, config) = (&self.0.cache.nodes, &self.0.config);
        let mut result = Ok(None);
        for (node, chosen) in plan::plan(&store.list(), config) {
            let Some(chosen) = chosen else {
                let message = format!(
                    "Node {} status is now: CIDRNotAvailable",
                    node.metadata.name.as_deref().unwrap_or_default()
                );
                self.0.events.normal("cidrAllocator", &*node, "CIDRNotAvailable", message);
                continue;
            };
            let mut new = (*node).clone();
            let spec = new.spec.get_or_insert_default();
            spec.pod_cidr = chosen.first().map(ToString::to_string);
            spec.pod_cidrs = Some(chosen.iter().map(ToString::to_string).collect());
            // The others must not wait for this one.
            if let Err(error) = self.0.update(store, &*node, &new).await {
                result = Err(error);
            }
        }
        result
    }
}
