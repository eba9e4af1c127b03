//! Spreading: `topologySpreadConstraints`, and the default spreading of what belongs together.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use podium_controllers::informer::controller_of;
use podium_controllers::pod as pods;
use podium_controllers::selector;

use crate::affinity;
use crate::filter;
use crate::world::{NodeState, World};

/// Why a constraint refuses a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The node has no label with the topology key.
    MissingLabel,
    /// The node's domain would be too full.
    Skew,
}

/// Whether a `DoNotSchedule` constraint refuses the node.
pub fn refuses(pod: &Pod, node: &NodeState, world: &World) -> Option<Refusal> {
    let constraints = pod.spec.as_ref()?.topology_spread_constraints.as_ref()?;
    let hard = constraints.iter().filter(|c| c.when_unsatisfiable == "DoNotSchedule");
    hard.into_iter().find_map(|constraint| {
        let Some(domain) = node.label(&constraint.topology_key) else {
            return Some(Refusal::MissingLabel);
        };
        let counts = domains(constraint, pod, world);
        let least = counts.values().copied().min().unwrap_or(0);
        let wanted = constraint.min_domains.unwrap_or(1);
        let few = counts.len() < usize::try_from(wanted).unwrap_or(1);
        let least = if few { 0 } else { least };
        let own = i64::from(counted(constraint, pod, pod));
        let here = counts.get(domain).copied().unwrap_or(0) + own;
        (here - least > i64::from(constraint.max_skew)).then_some(Refusal::Skew)
    })
}

/// How full the node's domain would be by the `ScheduleAnyway` constraints, or, for a pod without
/// constraints, how many of the pods that belong with it the node has. Less is better.
pub fn crowd(pod: &Pod, node: &NodeState, world: &World) -> i64 {
    let constraints = pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_ref());
    let Some(constraints) = constraints.filter(|constraints| !constraints.is_empty()) else {
        let same = node.pods.iter().filter(|other| belong_together(pod, other, world)).count();
        return i64::try_from(same).unwrap_or(i64::MAX);
    };
    let soft = constraints.iter().filter(|c| c.when_unsatisfiable == "ScheduleAnyway");
    soft.map(|constraint| {
        let counts = domains(constraint, pod, world);
        let domain = node.label(&constraint.topology_key);
        // A node outside every domain is the last choice.
        domain.and_then(|domain| counts.get(domain).copied()).unwrap_or(i64::from(u32::MAX))
    })
    .sum()
}

/// Pods by domain, among the nodes the pod could use at all.
fn domains<'a>(
    constraint: &TopologySpreadConstraint,
    pod: &Pod,
    world: &'a World,
) -> BTreeMap<&'a str, i64> {
    let respects_affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let respects_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    let mut counts = BTreeMap::new();
    for node in &world.nodes {
        let Some(domain) = node.label(&constraint.topology_key) else { continue };
        let taints = node.node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        let is_tainted = taints
            .into_iter()
            .flatten()
            .any(|taint| taint.effect != "PreferNoSchedule" && !filter::tolerates(pod, taint));
        if (respects_affinity && !affinity::allows_node(pod, node))
            || (respects_taints && is_tainted)
        {
            continue;
        }
        let here = node.pods.iter().filter(|other| counted(constraint, pod, other)).count();
        *counts.entry(domain).or_insert(0) += i64::try_from(here).unwrap_or(i64::MAX);
    }
    counts
}

fn counted(constraint: &TopologySpreadConstraint, pod: &Pod, other: &Pod) -> bool {
    let same_namespace = pod.metadata.namespace == other.metadata.namespace;
    let selected = constraint
        .label_selector
        .as_ref()
        .is_some_and(|selector| selector::matches(selector, other.metadata.labels.as_ref()));
    same_namespace && selected && !pods::is_terminating(other)
}

/// Of one controller, or behind one Service.
fn belong_together(pod: &Pod, other: &Pod, world: &World) -> bool {
    if pod.metadata.namespace != other.metadata.namespace || pods::is_terminating(other) {
        return false;
    }
    let owner = |pod: &Pod| controller_of(&pod.metadata).map(|owner| owner.uid.clone());
    let same_owner = owner(pod).is_some_and(|uid| owner(other) == Some(uid));
    same_owner
        || world.services.iter().any(|service| {
            let pairs = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            service.metadata.namespace == pod.metadata.namespace
                && selector::matches_pairs(pairs, pod.metadata.labels.as_ref())
                && selector::matches_pairs(pairs, other.metadata.labels.as_ref())
        })
}
