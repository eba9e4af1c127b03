//! Affinity: of pods to nodes, and of pods to and from other pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinityTerm, WeightedPodAffinityTerm,
};
use podium_controllers::pod as pods;
use podium_controllers::selector;

use crate::world::{NodeState, World};

/// Whether `nodeSelector` and the required node affinity take the node.
pub fn allows_node(pod: &Pod, node: &NodeState) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let selected = spec.node_selector.iter().flatten();
    if selected.into_iter().any(|(key, value)| node.label(key) != Some(value)) {
        return false;
    }
    let required =
        spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()).and_then(
            |affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref(),
        );
    required.is_none_or(|required| {
        required.node_selector_terms.iter().any(|term| term_takes(term, node))
    })
}

/// The weights of the preferred node affinity terms that take the node.
pub fn preference(pod: &Pod, node: &NodeState) -> i64 {
    let preferred =
        pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref()).and_then(
            |affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref(),
        );
    let terms = preferred.into_iter().flatten();
    terms.filter(|term| term_takes(&term.preference, node)).map(|term| i64::from(term.weight)).sum()
}

/// A term without requirements takes nothing.
fn term_takes(term: &NodeSelectorTerm, node: &NodeState) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = |key: &str| (key == "metadata.name").then(|| node.name());
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|requirement| holds(requirement, node.label(&requirement.key)))
        && fields.iter().all(|requirement| holds(requirement, name(&requirement.key)))
}

fn holds(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |found: &str| values.iter().any(|value| value == found);
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = || number(values.first()?);
    match requirement.operator.as_str() {
        "In" => found.is_some_and(listed),
        "NotIn" => !found.is_some_and(listed),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => found.and_then(number).zip(bound()).is_some_and(|(found, bound)| found > bound),
        "Lt" => found.and_then(number).zip(bound()).is_some_and(|(found, bound)| found < bound),
        _ => false,
    }
}

/// Whether every required pod affinity term finds a pod in the node's domain. The first pod of a
/// group that wants to be together finds none, and may go anywhere: it matches its own terms.
pub fn finds_friends(pod: &Pod, node: &NodeState, world: &World) -> bool {
    let required = friends(pod);
    let anywhere = |term: &PodAffinityTerm| world.pods().any(|(_, other)| takes(term, pod, other));
    let is_first = !required.is_empty()
        && !required.iter().any(anywhere)
        && required.iter().all(|term| takes(term, pod, pod));
    required.iter().all(|term| {
        node.label(&term.topology_key).is_some() && (is_first || in_domain(term, pod, node, world))
    })
}

/// Whether a required anti-affinity term finds a pod in the node's domain.
pub fn finds_foes(pod: &Pod, node: &NodeState, world: &World) -> bool {
    foes(pod).iter().any(|term| in_domain(term, pod, node, world))
}

/// Whether a pod in the node's domain wants to be apart from this one.
pub fn is_refused_by_neighbours(pod: &Pod, node: &NodeState, world: &World) -> bool {
    world.pods().any(|(theirs, other)| {
        foes(other).iter().any(|term| {
            let domain = node.label(&term.topology_key);
            domain.is_some()
                && domain == theirs.label(&term.topology_key)
                && takes(term, other, pod)
        })
    })
}

/// The weights of the preferred terms, those against other pods negative, in the node's domain.
pub fn company(pod: &Pod, node: &NodeState, world: &World) -> i64 {
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else {
        return 0;
    };
    let weigh = |terms: Option<&Vec<WeightedPodAffinityTerm>>| -> i64 {
        let terms = terms.into_iter().flatten();
        let found = terms.filter(|term| in_domain(&term.pod_affinity_term, pod, node, world));
        found.map(|term| i64::from(term.weight)).sum()
    };
    let wanted = affinity.pod_affinity.as_ref().and_then(|affinity| {
        affinity.preferred_during_scheduling_ignored_during_execution.as_ref()
    });
    let unwanted = affinity.pod_anti_affinity.as_ref().and_then(|affinity| {
        affinity.preferred_during_scheduling_ignored_during_execution.as_ref()
    });
    weigh(wanted) - weigh(unwanted)
}

fn friends(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.pod_affinity.as_ref());
    affinity
        .and_then(|affinity| {
            affinity.required_during_scheduling_ignored_during_execution.as_deref()
        })
        .unwrap_or_default()
}

fn foes(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity =
        pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
    affinity
        .and_then(|affinity| {
            affinity.required_during_scheduling_ignored_during_execution.as_deref()
        })
        .unwrap_or_default()
}

fn in_domain(term: &PodAffinityTerm, pod: &Pod, node: &NodeState, world: &World) -> bool {
    let Some(domain) = node.label(&term.topology_key) else { return false };
    world.pods().any(|(theirs, other)| {
        theirs.label(&term.topology_key) == Some(domain) && takes(term, pod, other)
    })
}

/// Whether a term of `owner` takes `other`. Namespaces are those of the term, or the owner's own; a
/// namespace selector would need the namespaces' labels, and the empty one takes all.
fn takes(term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let theirs = other.metadata.namespace.as_deref().unwrap_or_default();
    let selects_all = term.namespace_selector.as_ref().is_some_and(|selector| {
        selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
            && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
    });
    let in_namespace = selects_all
        || listed.iter().any(|namespace| namespace == theirs)
        || (listed.is_empty()
            && term.namespace_selector.is_none()
            && owner.metadata.namespace.as_deref().unwrap_or_default() == theirs);
    let selected = term
        .label_selector
        .as_ref()
        .is_some_and(|selector| selector::matches(selector, other.metadata.labels.as_ref()));
    in_namespace && selected && !pods::is_terminating(other)
}
