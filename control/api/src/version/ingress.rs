//! `networking.k8s.io/v1beta1` Ingress: backends are `serviceName` and `servicePort`, the default
//! backend is `backend`, and a path needs no type.

use serde_json::{Map, Value, json};

use super::{Direction, rename};
use crate::object;

/// The type of a path that names none.
const PATH_TYPE_DEFAULT: &str = "ImplementationSpecific";

pub(super) fn v1beta1(ingress: &mut Value, direction: Direction) {
    let spec = object::child_mut(ingress, "spec");
    rename(spec, "defaultBackend", "backend", direction);
    let default = match direction {
        Direction::ToStorage => "defaultBackend",
        Direction::FromStorage => "backend",
    };
    if let Some(default) = spec.get_mut(default).and_then(Value::as_object_mut) {
        backend(default, direction);
    }
    let rules = spec.get_mut("rules").and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        let paths = rule.pointer_mut("/http/paths").and_then(Value::as_array_mut);
        for path in paths.into_iter().flatten().filter_map(Value::as_object_mut) {
            path_type(path, direction);
            if let Some(target) = path.get_mut("backend").and_then(Value::as_object_mut) {
                backend(target, direction);
            }
        }
    }
}

/// What v1 must say and v1beta1 need not. It is taken out again on the way back, so that `kubectl
/// apply` of an unchanged manifest finds nothing to change: lists of paths are compared whole.
fn path_type(path: &mut Map<String, Value>, direction: Direction) {
    match direction {
        Direction::ToStorage => {
            path.entry("pathType").or_insert_with(|| json!(PATH_TYPE_DEFAULT));
        }
        Direction::FromStorage => {
            if path.get("pathType").is_some_and(|found| found == PATH_TYPE_DEFAULT) {
                path.remove("pathType");
            }
        }
    }
}

fn backend(backend: &mut Map<String, Value>, direction: Direction) {
    match direction {
        Direction::ToStorage => {
            let (name, port) = (backend.remove("serviceName"), backend.remove("servicePort"));
            if name.is_none() && port.is_none() {
                return;
            }
            let port = match port {
                Some(Value::String(name)) => json!({"name": name}),
                Some(number) => json!({"number": number}),
                None => json!({}),
            };
            backend.insert("service".to_owned(), json!({"name": name, "port": port}));
        }
        Direction::FromStorage => {
            let Some(service) = backend.remove("service") else { return };
            if let Some(name) = service.get("name") {
                backend.insert("serviceName".to_owned(), name.clone());
            }
            let port = service.get("port").and_then(|port| {
                let name = port.get("name").filter(|name| name.as_str() != Some(""));
                name.or_else(|| port.get("number"))
            });
            if let Some(port) = port {
                backend.insert("servicePort".to_owned(), port.clone());
            }
        }
    }
}
