//! Which Node gets which part of the pod ranges. Pure.

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use crate::Config;

/// Ranges for the Nodes without one; none for a Node when a range is used up.
pub(super) fn plan(nodes: &[Arc<Node>], config: &Config) -> Vec<(Arc<Node>, Option<Vec<IpNet>>)> {
    if config.cluster_cidrs.is_empty() {
        return Vec::new();
    }
    let mut taken: Vec<IpNet> = nodes.iter().flat_map(|node| ranges(node)).collect();
    let mut plan = Vec::new();
    for node in nodes {
        if node.metadata.deletion_timestamp.is_some() || !ranges(node).is_empty() {
            continue;
        }
        let mask = |range: &IpNet| match range {
            IpNet::V4(_) => config.node_cidr_mask_size_ipv4,
            IpNet::V6(_) => config.node_cidr_mask_size_ipv6,
        };
        let chosen: Option<Vec<IpNet>> =
            config.cluster_cidrs.iter().map(|range| part(range, mask(range), &taken)).collect();
        taken.extend(chosen.iter().flatten());
        plan.push((node.clone(), chosen));
    }
    plan
}

fn ranges(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.as_ref();
    let all = spec.and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten();
    let all = all.chain(spec.and_then(|spec| spec.pod_cidr.as_ref()));
    all.filter_map(|text| text.parse().ok()).collect()
}

/// The first part of a range that shares no address with a taken one.
fn part(range: &IpNet, mask: u8, taken: &[IpNet]) -> Option<IpNet> {
    let mask = mask.max(range.prefix_len());
    let free = |part: &IpNet| !taken.iter().any(|one| one.contains(part) || part.contains(one));
    range.subnets(mask).ok()?.find(free)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts() {
        let node = |cidr: Option<&str>| {
            Arc::new(serde_json::from_value(json!({"spec": {"podCIDR": cidr}})).unwrap())
        };
        let config = |ranges: &[&str]| Config {
            cluster_cidrs: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            ..Config::default()
        };
        let one = ["10.244.0.0/22"];
        for (ranges, nodes, expected) in [
            (&one[..], vec![None, None], vec!["10.244.0.0/24", "10.244.1.0/24"]),
            (&one[..], vec![Some("10.244.0.0/24"), None], vec!["10.244.1.0/24"]),
            (&one[..], vec![None, Some("10.244.0.0/23")], vec!["10.244.2.0/24"]),
            (&one[..], vec![Some("10.244.0.0/22"), None], vec!["none"]),
            (&["10.244.0.0/16", "fd00::/48"], vec![None], vec!["10.244.0.0/24 fd00::/64"]),
            (&[], vec![None], vec![]),
        ] {
            let nodes: Vec<_> = nodes.into_iter().map(node).collect();
            let text = |chosen: Option<Vec<IpNet>>| match chosen {
                Some(all) => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                None => "none".to_owned(),
            };
            let seen: Vec<_> =
                plan(&nodes, &config(ranges)).into_iter().map(|(_, chosen)| text(chosen)).collect();
            assert_eq!(seen, expected);
        }
    }
}
