//! Gives every Node its part of the pod ranges (`spec.podCIDR`, `spec.podCIDRs`).

use std::collections::HashSet;
use std::time::Duration;

use ipnet::IpNet;

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
        if change.kind == "Node" && change.old.is_none() { self.all() } else { Vec::new() }
    }

    fn all(&self) -> Vec<Key> {
        vec![Key::new("", ALL)]
    }

    async fn sync(&self, _: &Key) -> Result<Option<Duration>, Error> {
        let (store, config) = (&self.0.cache.nodes, &self.0.config);
        let nodes = store.list();
        let ranges = nodes.iter().filter_map(|node| node.spec.as_ref());
        let mut taken: HashSet<String> =
            ranges.flat_map(|spec| spec.pod_cidrs.clone().unwrap_or_default()).collect();
        for node in &nodes {
            let known = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref());
            if known.is_some() || node.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let mask = |range: &IpNet| match range {
                IpNet::V4(_) => config.node_cidr_mask_size_ipv4,
                IpNet::V6(_) => config.node_cidr_mask_size_ipv6,
            };
            let chosen: Option<Vec<String>> =
                config.cluster_cidrs.iter().map(|range| part(range, mask(range), &taken)).collect();
            let Some(chosen) = chosen else {
                let message = "Node status is now: CIDRNotAvailable";
                self.0.events.normal("cidrAllocator", &**node, "CIDRNotAvailable", message);
                continue;
            };
            taken.extend(chosen.iter().cloned());
            let mut new = (**node).clone();
            let spec = new.spec.get_or_insert_default();
            spec.pod_cidr = chosen.first().cloned();
            spec.pod_cidrs = Some(chosen).filter(|all| !all.is_empty());
            self.0.update(store, &**node, &new).await?;
        }
        Ok(None)
    }
}

/// The first free part of a range.
fn part(range: &IpNet, mask: u8, taken: &HashSet<String>) -> Option<String> {
    let mask = mask.max(range.prefix_len());
    range.subnets(mask).ok()?.map(|part| part.to_string()).find(|part| !taken.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let range = "10.244.0.0/23".parse().unwrap();
        let taken = |all: &[&str]| all.iter().map(ToString::to_string).collect();
        assert_eq!(part(&range, 24, &taken(&[])).as_deref(), Some("10.244.0.0/24"));
        assert_eq!(part(&range, 24, &taken(&["10.244.0.0/24"])).as_deref(), Some("10.244.1.0/24"));
        assert_eq!(part(&range, 24, &taken(&["10.244.0.0/24", "10.244.1.0/24"])), None);
    }
}
