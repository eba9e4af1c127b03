//! New pods: a pending status with the pod's quality of service.

use serde_json::{Value, json};

use crate::decode::Quantity;

/// Prepares a new pod.
pub fn prepare_create(pod: &mut Value) {
    let qos_class = qos_class(&pod["spec"]);
    pod["status"] = json!({"phase": "Pending", "qosClass": qos_class});
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        pod["status"]["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
}

/// Guaranteed: limits for CPU and memory on every container, equal to its requests. `BestEffort`: neither.
fn qos_class(spec: &Value) -> &'static str {
    let lists = ["containers", "initContainers"].iter().filter_map(|list| spec[list].as_array());
    let containers: Vec<&Value> = lists.flatten().collect();
    let amount = |container: &Value, kind: &str, name: &str| -> Option<Quantity> {
        let quantity: Quantity = container["resources"][kind][name].as_str()?.parse().ok()?;
        (!quantity.is_zero()).then_some(quantity)
    };
    let pairs =
        containers.iter().flat_map(|container| ["cpu", "memory"].map(|name| (container, name)));
    let (mut any, mut guaranteed) = (false, true);
    for (container, name) in pairs {
        let (request, limit) =
            (amount(container, "requests", name), amount(container, "limits", name));
        any |= request.is_some() || limit.is_some();
        guaranteed &= limit.is_some() && (request.is_none() || request == limit);
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
