//! What users get wrong, kind by kind, and the exact text they are told. Each case changes a valid
//! object in one place.

use serde_json::{Value, json};

use super::{create, update};
use crate::defaulting;
use crate::resource::{Resource, find_kind};
use crate::strategy;

mod networking;
mod objects;
mod pods;
mod seeds;
mod workloads;

fn resource(group: &str, kind: &str) -> &'static Resource {
    find_kind(group, kind).expect("a served kind")
}

/// A valid object of the kind, defaulted and prepared as the server does before validating.
fn valid(group: &str, kind: &str) -> Value {
    let (pod, labels) =
        (json!({"containers": [{"name": "a", "image": "nginx"}]}), json!({"app": "a"}));
    let template = json!({"metadata": {"labels": labels}, "spec": pod});
    let mut object = match kind {
        "Pod" => json!({"spec": pod}),
        "Deployment" | "ReplicaSet" => {
            json!({"spec": {"selector": {"matchLabels": labels}, "template": template}})
        }
        "Job" => {
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": pod["containers"]}}}})
        }
        "Service" => json!({"spec": {"selector": labels, "ports": [{"port": 80}]}}),
        "Ingress" => json!({"spec": {"rules": [{"http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "a", "port": {"number": 80}}}}]}}]}}),
        "IngressClass" => json!({"spec": {"controller": "k8s.io/ingress-nginx"}}),
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.96.0.0/16"]}}),
        "EndpointSlice" => {
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]})
        }
        "Endpoints" => {
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]})
        }
        "Event" => json!({"involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"}}),
        _ => json!({}),
    };
    let resource = resource(group, kind);
    object["metadata"] = json!({"name": "a", "uid": "u"});
    if resource.namespaced {
        object["metadata"]["namespace"] = json!("default");
    }
    defaulting::apply(resource, &mut object);
    strategy::prepare_create(resource, &mut object);
    object
}

/// Sets the value at a JSON pointer, making the structs on the way; `null` removes it.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for name in pointer.trim_start_matches('/').split('/') {
        at = match name.parse::<usize>() {
            Ok(index) if at.is_array() => &mut at[index],
            _ => &mut at[name],
        };
    }
    *at = value;
}

/// What is wrong with the valid object after one change.
fn wrong(group: &str, kind: &str, pointer: &str, value: Value) -> Vec<String> {
    let mut object = valid(group, kind);
    set(&mut object, pointer, value);
    create(resource(group, kind), &object).iter().map(ToString::to_string).collect()
}

/// What is wrong with changing a valid, stored object in one place.
fn wrong_update(group: &str, kind: &str, pointer: &str, value: Value) -> Vec<String> {
    let mut old = valid(group, kind);
    set(&mut old, "/metadata/resourceVersion", json!("1"));
    wrong_update_of(group, kind, &old, pointer, value)
}

fn wrong_update_of(
    group: &str,
    kind: &str,
    old: &Value,
    pointer: &str,
    value: Value,
) -> Vec<String> {
    let mut new = old.clone();
    set(&mut new, pointer, value);
    update(resource(group, kind), &new, old).iter().map(ToString::to_string).collect()
}

/// Checks many one-change cases of a kind.
fn check(group: &str, kind: &str, cases: Vec<(&str, Value, &[&str])>) {
    assert_eq!(wrong(group, kind, "/metadata/labels", json!({})), [""; 0], "the valid {kind}");
    for (pointer, value, errors) in cases {
        let told = format!("{kind} {pointer} = {value}");
        assert_eq!(wrong(group, kind, pointer, value), errors, "{told}");
    }
}
