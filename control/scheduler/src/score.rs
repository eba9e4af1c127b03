//! Scores: which of the nodes a pod can run on is best. Each rule gives every node 0 to 100, and
//! counts with upstream's weight.

use k8s_openapi::api::core::v1::Pod;

use crate::affinity;
use crate::filter;
use crate::resources;
use crate::spread;
use crate::world::{NodeState, World};

const SCORE_MAX: i64 = 100;

/// What a rule finds on one node, before it is brought to 0 to 100.
type Rule = fn(&Pod, &NodeState, &World) -> i64;

/// How a rule's findings on all nodes become scores.
#[derive(Clone, Copy)]
enum Scale {
    /// They are scores already.
    AsIs,
    /// The most found is 100, nothing is 0.
    MoreIsBetter,
    /// The least found is 100, the most is 0.
    LessIsBetter,
}

const RULES: [(Rule, Scale, i64); 6] = [
    (least_allocated, Scale::AsIs, 1),
    (balanced, Scale::AsIs, 1),
    (|pod, node, world| spread::crowd(pod, node, world), Scale::LessIsBetter, 2),
    (|pod, node, _| affinity::preference(pod, node), Scale::MoreIsBetter, 2),
    (|pod, node, world| affinity::company(pod, node, world), Scale::MoreIsBetter, 2),
    (soft_taints, Scale::LessIsBetter, 3),
];

/// The scores of these nodes, in their order.
pub fn scores(pod: &Pod, nodes: &[&NodeState], world: &World) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    for (rule, scale, weight) in RULES {
        let found: Vec<i64> = nodes.iter().map(|node| rule(pod, node, world)).collect();
        for (total, score) in totals.iter_mut().zip(scaled(&found, scale)) {
            *total += score * weight;
        }
    }
    totals
}

fn scaled(found: &[i64], scale: Scale) -> Vec<i64> {
    let most = found.iter().copied().max().unwrap_or(0);
    let least = found.iter().copied().min().unwrap_or(0);
    let range = (most - least).max(1);
    let score = |value: i64| match scale {
        Scale::AsIs => value,
        // All alike: nobody is better, and no rule decides by rounding.
        _ if most == least => 0,
        Scale::MoreIsBetter => (value - least) * SCORE_MAX / range,
        Scale::LessIsBetter => (most - value) * SCORE_MAX / range,
    };
    found.iter().copied().map(score).collect()
}

fn soft_taints(pod: &Pod, node: &NodeState, _: &World) -> i64 {
    i64::try_from(filter::soft_taints(pod, node)).unwrap_or(i64::MAX)
}

/// The share of CPU and memory that would stay free.
fn least_allocated(pod: &Pod, node: &NodeState, _: &World) -> i64 {
    let [cpu, memory] = shares_used(pod, node);
    SCORE_MAX - i64::midpoint(cpu, memory)
}

/// How alike the shares of CPU and memory in use would be.
fn balanced(pod: &Pod, node: &NodeState, _: &World) -> i64 {
    let [cpu, memory] = shares_used(pod, node);
    SCORE_MAX - (cpu - memory).abs()
}

/// Percent of CPU and of memory in use once the pod is there.
fn shares_used(pod: &Pod, node: &NodeState) -> [i64; 2] {
    let wanted = resources::assumed_requests(pod);
    ["cpu", "memory"].map(|name| {
        let has = node.allocatable.get(name).copied().unwrap_or(0);
        let used =
            node.assumed.get(name).copied().unwrap_or(0) + wanted.get(name).copied().unwrap_or(0);
        if has <= 0 {
            return SCORE_MAX;
        }
        i64::try_from(used * 100 / has).unwrap_or(SCORE_MAX).min(SCORE_MAX)
    })
}
