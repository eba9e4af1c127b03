//! Filters: which nodes a pod can run on, and why not on the others, in upstream's words. One
//! function a rule, in upstream's order; the first that refuses a node names its reason.

use k8s_openapi::api::core::v1::{ContainerPort, Pod, Taint, Toleration};

use crate::affinity;
use crate::resources;
use crate::spread;
use crate::world::{NodeState, World};

/// Why a node is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// Upstream's text.
    pub text: String,
    /// Whether removing pods from the node could help (`Unschedulable`), or nothing could
    /// (`UnschedulableAndUnresolvable`).
    pub is_resolvable: bool,
}

impl Reason {
    fn fixed(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_resolvable: false }
    }

    fn full(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_resolvable: true }
    }
}

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Whether the pod can run on the node; if not, every reason of the first rule that refuses it.
pub fn check(pod: &Pod, node: &NodeState, world: &World) -> Result<(), Vec<Reason>> {
    let one = |reason: Option<Reason>| reason.into_iter().collect::<Vec<_>>();
    let rules: [&dyn Fn() -> Vec<Reason>; 7] = [
        &|| one(unschedulable(pod, node)),
        &|| one(wanted_node(pod, node)),
        &|| one(taints(pod, node)),
        &|| one(node_affinity(pod, node)),
        &|| one(host_ports(pod, node)),
        &|| fit(pod, node),
        &|| one(neighbours(pod, node, world)),
    ];
    for rule in rules {
        let reasons = rule();
        if !reasons.is_empty() {
            return Err(reasons);
        }
    }
    Ok(())
}

fn unschedulable(pod: &Pod, node: &NodeState) -> Option<Reason> {
    let spec = node.node.spec.as_ref()?;
    let taint = Taint {
        key: UNSCHEDULABLE_TAINT.to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    (spec.unschedulable == Some(true) && !tolerates(pod, &taint))
        .then(|| Reason::fixed("node(s) were unschedulable"))
}

/// A pod that names its node never comes here; one that wants it by affinity does.
fn wanted_node(pod: &Pod, node: &NodeState) -> Option<Reason> {
    let wanted = pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())?;
    (wanted != node.name()).then(|| Reason::fixed("node(s) didn't match the requested node name"))
}

fn taints(pod: &Pod, node: &NodeState) -> Option<Reason> {
    let taints = node.node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    let taint = taints.into_iter().flatten().filter(hard).find(|taint| !tolerates(pod, taint))?;
    let value = taint.value.as_deref().unwrap_or_default();
    Some(Reason::fixed(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)))
}

/// How many of the node's `PreferNoSchedule` taints the pod does not tolerate.
pub fn soft_taints(pod: &Pod, node: &NodeState) -> usize {
    let taints = node.node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let soft = taints.into_iter().flatten().filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !tolerates(pod, taint)).count()
}

/// Whether one of the pod's tolerations covers the taint.
pub fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_ref());
    tolerations.into_iter().flatten().any(|toleration| covers(toleration, taint))
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let wanted = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let (key, effect) = (wanted(&toleration.key), wanted(&toleration.effect));
    if effect.is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    if key.as_ref().is_some_and(|key| *key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => {
            key.is_some()
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

fn node_affinity(pod: &Pod, node: &NodeState) -> Option<Reason> {
    (!affinity::allows_node(pod, node))
        .then(|| Reason::fixed("node(s) didn't match Pod's node affinity/selector"))
}

fn host_ports(pod: &Pod, node: &NodeState) -> Option<Reason> {
    let wanted: Vec<_> = ports(pod).collect();
    let taken = node.pods.iter().flat_map(|other| ports(other));
    let clash = |taken: &ContainerPort| wanted.iter().any(|wanted| same_port(wanted, taken));
    taken
        .into_iter()
        .any(clash)
        .then(|| Reason::full("node(s) didn't have free ports for the requested pod ports"))
}

fn ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.filter(|port| port.host_port.is_some_and(|port| port > 0))
}

fn same_port(a: &ContainerPort, b: &ContainerPort) -> bool {
    let protocol = |port: &ContainerPort| port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let address = |port: &ContainerPort| {
        port.host_ip.clone().filter(|ip| !ip.is_empty() && ip != "0.0.0.0" && ip != "::")
    };
    let overlap = match (address(a), address(b)) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    a.host_port == b.host_port && protocol(a) == protocol(b) && overlap
}

fn fit(pod: &Pod, node: &NodeState) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let thousandths_per_pod = 1000;
    let room_for = node.allocatable.get("pods").copied().unwrap_or(0);
    let with_this_one = i128::try_from(node.pods.len() + 1).unwrap_or(i128::MAX);
    if with_this_one.saturating_mul(thousandths_per_pod) > room_for {
        reasons.push(Reason::full("Too many pods"));
    }
    for (name, wanted) in resources::requests(pod) {
        let has = node.allocatable.get(&name).copied().unwrap_or(0);
        let used = node.requested.get(&name).copied().unwrap_or(0);
        if wanted > 0 && used + wanted > has {
            // What the empty node does not have, no eviction brings.
            let reason = if wanted > has { Reason::fixed } else { Reason::full };
            reasons.push(reason(format!("Insufficient {name}")));
        }
    }
    reasons
}

fn neighbours(pod: &Pod, node: &NodeState, world: &World) -> Option<Reason> {
    if let Some(refusal) = spread::refuses(pod, node, world) {
        return Some(match refusal {
            spread::Refusal::MissingLabel => Reason::fixed(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ),
            spread::Refusal::Skew => {
                Reason::full("node(s) didn't match pod topology spread constraints")
            }
        });
    }
    if !affinity::finds_friends(pod, node, world) {
        return Some(Reason::fixed("node(s) didn't match pod affinity rules"));
    }
    if affinity::finds_foes(pod, node, world) {
        return Some(Reason::full("node(s) didn't match pod anti-affinity rules"));
    }
    affinity::is_refused_by_neighbours(pod, node, world)
        .then(|| Reason::full("node(s) didn't satisfy existing pods anti-affinity rules"))
}
