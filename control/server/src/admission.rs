//! What the admission plugins that upstream always runs do: NamespaceLifecycle, ServiceAccount,
//! Priority, DefaultTolerationSeconds. Pure.

pub(crate) mod service_account;

use podium_api::object;
use podium_api::resource::Resource;
use podium_api::status::{Cause, Status};
use rand::Rng;
use serde_json::{Value, json};

const IMMORTAL: &[&str] = &["default", "kube-public", "kube-system"];
const TOLERATION_SECONDS: i64 = 300;
const DEFAULTED_TAINTS: &[&str] =
    &["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SYSTEM_PRIORITIES: &[(&str, i64)] =
    &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// Changes a new object; `account` is the ServiceAccount of a Pod, if it exists.
pub(crate) fn create(
    resource: &Resource,
    new: &mut Value,
    account: Option<&Value>,
    random: &mut impl Rng,
) {
    if resource.kind == "Pod" {
        service_account::admit(new, account, random);
        priority(new);
        tolerations(new);
    }
}

/// Refuses to delete what a cluster cannot be without.
pub(crate) fn delete(resource: &Resource, name: &str) -> Result<(), Status> {
    if resource.kind == "Namespace" && IMMORTAL.contains(&name) {
        return Err(Status::forbidden(resource, name, "this namespace may not be deleted"));
    }
    Ok(())
}

/// The answer to a create in a Namespace that is being deleted.
pub(crate) fn namespace_terminating(resource: &Resource, name: &str, namespace: &str) -> Status {
    let why = format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    );
    let mut status = Status::forbidden(resource, name, why);
    status.details.causes.push(Cause {
        reason: "NamespaceTerminating".to_owned(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".to_owned(),
    });
    status
}

fn priority(pod: &mut Value) {
    let spec = object::child_mut(pod, "spec");
    let class = spec.get("priorityClassName").and_then(Value::as_str).unwrap_or_default();
    let value = SYSTEM_PRIORITIES.iter().find(|(name, _)| *name == class).map_or(0, |(_, v)| *v);
    spec.insert("priority".to_owned(), json!(value));
    spec.entry("preemptionPolicy").or_insert_with(|| json!("PreemptLowerPriority"));
}

/// A Pod stays on a failed node for a while, unless it says otherwise itself.
fn tolerations(pod: &mut Value) {
    let spec = object::child_mut(pod, "spec");
    let list = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else { return };
    for taint in DEFAULTED_TAINTS {
        let tolerated = list.iter().any(|toleration| {
            let key = toleration["key"].as_str().unwrap_or_default();
            let effect = toleration["effect"].as_str().unwrap_or_default();
            (key.is_empty() || key == *taint) && (effect.is_empty() || effect == "NoExecute")
        });
        if !tolerated {
            list.push(json!({
                "key": taint,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use podium_api::resource::find_kind;

    use super::*;

    #[test]
    fn pods_get_what_upstream_gives_them() {
        let mut pod = json!({ "spec": { "tolerations": [
            { "key": "node.kubernetes.io/not-ready", "operator": "Exists" },
        ] } });
        create(find_kind("", "Pod").unwrap(), &mut pod, None, &mut rand::rng());
        assert_eq!(pod["spec"]["serviceAccountName"], "default");
        assert_eq!(pod["spec"]["priority"], 0);
        let tolerations = pod["spec"]["tolerations"].as_array().unwrap();
        assert_eq!(tolerations.len(), 2);
        assert_eq!(tolerations[1]["key"], "node.kubernetes.io/unreachable");
        assert_eq!(tolerations[1]["tolerationSeconds"], 300);
    }

    #[test]
    fn some_namespaces_stay() {
        let namespace = find_kind("", "Namespace").unwrap();
        let refused = delete(namespace, "default").unwrap_err();
        assert_eq!(
            refused.message,
            "namespaces \"default\" is forbidden: this namespace may not be deleted"
        );
        assert!(delete(namespace, "mine").is_ok());
    }
}
