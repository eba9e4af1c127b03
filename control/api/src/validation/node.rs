//! Nodes.

use ipnet::IpNet;

use crate::field::{Cursor, Error};

use super::{complain, format, quantities, scheduling};

const POD_CIDR_CHANGE: &str = "node updates may not change podCIDR except from \"\" to valid";
const PROVIDER_ID_CHANGE: &str = "node updates may not change providerID except from \"\" to valid";

/// A Node.
pub fn node(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let spec = at.child("spec");
    // Upstream reports taints below metadata.
    scheduling::taints(&spec.child("taints").with_path("metadata.taints".into()), errors);
    for list in ["capacity", "allocatable"] {
        for (name, value) in at.descend(&["status", list]).entries() {
            let path = at.path.child("status").child(list).child(name);
            quantities::amount(name, &value.with_path(path), errors);
        }
    }
    pod_cidrs(&spec.child("podCIDRs"), errors);
}

/// What may not change about a Node.
pub fn update(at: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    let mut seen = Vec::new();
    for address in at.descend(&["status", "addresses"]).items() {
        if seen.contains(&address.value) {
            errors.push(address.duplicate());
        }
        seen.push(address.value);
    }
    let (cidrs, old_cidrs) =
        (at.descend(&["spec", "podCIDRs"]), old.descend(&["spec", "podCIDRs"]));
    if !old_cidrs.is_empty() && cidrs.value != old_cidrs.value {
        errors.push(cidrs.forbidden(POD_CIDR_CHANGE));
    }
    let (provider, old_provider) =
        (at.descend(&["spec", "providerID"]), old.descend(&["spec", "providerID"]));
    if !old_provider.is_empty() && provider.value != old_provider.value {
        errors.push(provider.forbidden(PROVIDER_ID_CHANGE));
    }
}

fn pod_cidrs(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let mut seen: Vec<&str> = Vec::new();
    let mut ranges = Vec::new();
    for cidr in at.items() {
        complain(&cidr, format::cidr(cidr.text()), errors);
        ranges.extend(cidr.text().parse::<IpNet>());
        if seen.contains(&cidr.text()) {
            errors.push(cidr.duplicate());
        }
        seen.push(cidr.text());
    }
    let v6_count = ranges.iter().filter(|range| range.addr().is_ipv6()).count();
    let dual_stack = v6_count > 0 && v6_count < ranges.len();
    if at.len() > 1 && (!dual_stack || at.len() > 2) {
        errors.push(at.invalid("may specify no more than one CIDR for each IP family"));
    }
}
