//! The decision: the best node for a pod, or upstream's sentence about why there is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::filter::{self, Reason};
use crate::score;
use crate::world::World;

impl World {
    /// The name of the best node. Of several equally good ones the first by name is taken.
    ///
    /// # Errors
    /// The message of the `FailedScheduling` event.
    pub fn choose(&self, pod: &Pod) -> Result<String, String> {
        let (mut feasible, mut refusals) = (Vec::new(), Vec::new());
        for node in &self.nodes {
            match filter::check(pod, node, self) {
                Ok(()) => feasible.push(node),
                Err(reasons) => refusals.push(reasons),
            }
        }
        let scores = score::scores(pod, &feasible, self);
        let best = feasible.iter().zip(scores).rev().max_by_key(|(_, score)| *score);
        match best {
            Some((node, _)) => Ok(node.name().to_owned()),
            None => Err(explain(pod, &refusals)),
        }
    }

    /// Counts a pod as running on a node from now on.
    pub fn assume(&mut self, pod: &Arc<Pod>, node: &str) {
        if let Some(node) = self.nodes.iter_mut().find(|state| state.name() == node) {
            node.add(pod.clone());
        }
    }
}

/// `0/2 nodes are available: 1 Insufficient cpu, …. preemption: …`
fn explain(pod: &Pod, refusals: &[Vec<Reason>]) -> String {
    if refusals.is_empty() {
        return "no nodes available to schedule pods".to_owned();
    }
    let nodes = refusals.len();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in refusals.iter().flatten() {
        *counts.entry(&reason.text).or_default() += 1;
    }
    format!("0/{nodes} nodes are available: {}. {}", listed(&counts), preemption(pod, refusals))
}

/// What upstream says of preemption where there is none: whether it could have helped.
fn preemption(pod: &Pod, refusals: &[Vec<Reason>]) -> String {
    let policy = pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref());
    if policy == Some("Never") {
        return "preemption: not eligible due to preemptionPolicy=Never.".to_owned();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reasons in refusals {
        let could_help = reasons.iter().all(|reason| reason.is_resolvable);
        let text = if could_help {
            "No preemption victims found for incoming pod"
        } else {
            "Preemption is not helpful for scheduling"
        };
        *counts.entry(text).or_default() += 1;
    }
    format!("preemption: 0/{} nodes are available: {}.", refusals.len(), listed(&counts))
}

fn listed(counts: &BTreeMap<&str, usize>) -> String {
    let mut texts: Vec<String> =
        counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.sort();
    texts.join(", ")
}

#[cfg(test)]
mod tests;
