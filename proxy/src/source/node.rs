//! What matters of this node's Node object, and of ServiceCIDRs.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::{core::v1::Node, networking::v1::ServiceCIDR};

use crate::index::local_node::OwnNode;

/// Put on a Node that is about to be removed: load balancers should look elsewhere (KEP-3458).
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// Where the node is, for topology.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// From the object.
pub fn own_node(node: &Node) -> OwnNode {
    let labels = node.metadata.labels.as_ref();
    let zone = labels.and_then(|labels| labels.get(ZONE_LABEL)).cloned();
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref());
    let of_type = |wanted: &'static str| {
        (addresses.unwrap_or(&[]).iter())
            .filter(move |address| address.type_ == wanted)
            .filter_map(|address| address.address.parse::<IpAddr>().ok())
            .map(|ip| ip.to_canonical())
            .filter(|ip| !ip.is_unspecified())
    };
    let ips = of_type("InternalIP").chain(of_type("ExternalIP")).collect();
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or(&[]);
    let is_eligible = node.metadata.deletion_timestamp.is_none()
        && !taints.iter().any(|taint| taint.key == TO_BE_DELETED_TAINT);
    OwnNode { is_eligible, zone: zone.filter(|zone| !zone.is_empty()), ips }
}

/// The blocks of a ServiceCIDR.
pub fn cidrs(object: &ServiceCIDR) -> Vec<IpNet> {
    let texts = object.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or(&[]);
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
