//! How much of a node a pod asks for, and how much of it is left.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Amounts by resource name, in thousandths of the unit: CPU is in millicores as everywhere.
pub type Amounts = BTreeMap<String, i128>;

/// CPU that spreading counts for a container without a request, as upstream does; thousandths.
const CPU_ASSUMED: i128 = 100;
/// Memory counted likewise: 200 MB; thousandths of a byte.
const MEMORY_ASSUMED: i128 = 200 * 1024 * 1024 * 1000;

/// What a pod asks for: the sum of its containers and sidecars, or the largest init container if
/// that is more, and the overhead of its runtime (KEP-753).
pub fn requests(pod: &Pod) -> Amounts {
    requests_with(pod, |container| of_container(container.resources.as_ref()))
}

/// The same, with an assumption in place of a missing CPU or memory request; for scores only.
pub fn assumed_requests(pod: &Pod) -> Amounts {
    requests_with(pod, |container| {
        let mut amounts = of_container(container.resources.as_ref());
        amounts.entry("cpu".to_owned()).or_insert(CPU_ASSUMED);
        amounts.entry("memory".to_owned()).or_insert(MEMORY_ASSUMED);
        amounts
    })
}

fn requests_with(pod: &Pod, of: impl Fn(&Container) -> Amounts) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let mut running = Amounts::new();
    for container in &spec.containers {
        add(&mut running, &of(container));
    }
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let amounts = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut running, &amounts);
            add(&mut sidecars, &amounts);
            raise(&mut starting, &sidecars);
        } else {
            let mut beside = sidecars.clone();
            add(&mut beside, &amounts);
            raise(&mut starting, &beside);
        }
    }
    raise(&mut running, &starting);
    for (name, quantity) in spec.overhead.iter().flatten() {
        *running.entry(name.clone()).or_default() += thousandths(quantity);
    }
    running
}

fn of_container(resources: Option<&ResourceRequirements>) -> Amounts {
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    requests.into_iter().flatten().map(|(name, q)| (name.clone(), thousandths(q))).collect()
}

/// What the node has for pods.
pub fn allocatable(node: &Node) -> Amounts {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    allocatable.into_iter().flatten().map(|(name, q)| (name.clone(), thousandths(q))).collect()
}

/// Adds amounts to others.
pub fn add(to: &mut Amounts, amounts: &Amounts) {
    for (name, amount) in amounts {
        *to.entry(name.clone()).or_default() += amount;
    }
}

fn raise(to: &mut Amounts, amounts: &Amounts) {
    for (name, amount) in amounts {
        let present = to.entry(name.clone()).or_default();
        *present = (*present).max(*amount);
    }
}

fn thousandths(quantity: &Quantity) -> i128 {
    // The API server lets no malformed quantity in; a node that reports one has nothing.
    quantity
        .0
        .parse::<podium_api::decode::Quantity>()
        .map_or(0, podium_api::decode::Quantity::millis)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    #[test]
    fn the_largest_phase_of_a_pod_counts() {
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        let cases = [
            (json!({"containers": [{"name": "a"}]}), 0),
            (
                json!({"containers": [
                    {"name": "a", "resources": cpu("100m")},
                    {"name": "b", "resources": cpu("1")},
                ]}),
                1100,
            ),
            (
                json!({
                    "initContainers": [{"name": "i", "resources": cpu("2")}],
                    "containers": [{"name": "a", "resources": cpu("500m")}],
                    "overhead": {"cpu": "10m"},
                }),
                2010,
            ),
            (
                json!({
                    "initContainers": [
                        {"name": "s", "restartPolicy": "Always", "resources": cpu("300m")},
                        {"name": "i", "resources": cpu("400m")},
                    ],
                    "containers": [{"name": "a", "resources": cpu("500m")}],
                }),
                800,
            ),
        ];
        for (spec, expected) in cases {
            let amounts = requests(&pod(spec.clone()));
            assert_eq!(amounts.get("cpu").copied().unwrap_or(0), expected, "{spec}");
        }
        assert_eq!(assumed_requests(&pod(json!({"containers": [{"name": "a"}]})))["cpu"], 100);
    }
}
