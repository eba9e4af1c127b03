//! New pods: a pending status with its quality of service, and what upstream's admission plugins
//! ServiceAccount, Priority and DefaultTolerationSeconds add.

use serde_json::{Value, json};

use crate::decode::Quantity;
use crate::object;

/// How long a pod stays on a node that is lost, in seconds, unless it says otherwise.
const NODE_LOST_TOLERATION_SECONDS: i32 = 300;

/// Prepares a new pod.
pub fn prepare_create(pod: &mut Value) {
    let qos_class = qos_class(&pod["spec"]);
    pod["status"] = json!({"phase": "Pending", "qosClass": qos_class});
    admit(pod);
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        pod["status"]["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
}

fn admit(pod: &mut Value) {
    let spec = object::child_mut(pod, "spec");
    let has_account = spec.get("serviceAccountName").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    if !has_account {
        spec.insert("serviceAccountName".to_owned(), Value::from("default"));
        spec.insert("serviceAccount".to_owned(), Value::from("default"));
    }
    spec.entry("priority").or_insert_with(|| Value::from(0));
    spec.entry("preemptionPolicy").or_insert_with(|| Value::from("PreemptLowerPriority"));
    let tolerations = spec.entry("tolerations").or_insert_with(|| Value::Array(Vec::new()));
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerates = |toleration: &Value| {
            let matches = |name: &str, wanted: &str| toleration[name].as_str().is_none_or(|text| text.is_empty() || text == wanted);
            matches("key", key) && matches("effect", "NoExecute")
        };
        if !tolerations.iter().any(tolerates) {
            tolerations.push(json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": NODE_LOST_TOLERATION_SECONDS,
            }));
        }
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
    let pairs = containers.iter().flat_map(|container| ["cpu", "memory"].map(|name| (container, name)));
    let (mut any, mut guaranteed) = (false, true);
    for (container, name) in pairs {
        let (request, limit) = (amount(container, "requests", name), amount(container, "limits", name));
        any |= request.is_some() || limit.is_some();
        guaranteed &= limit.is_some() && (request.is_none() || request == limit);
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
