//! Upstream's defaults for every served kind (`pkg/apis/*/v1/defaults.go`), applied to objects in
//! their storage version. Fields that depend on other objects or on time are left to
//! [`crate::strategy`] and to the server (addresses, ports).

use serde_json::{Map, Value, json};

use crate::resource::Resource;

mod pod;
mod service;
mod workload;

/// Fills in what the user left out.
pub fn apply(resource: &Resource, object: &mut Value) {
    match (resource.group, resource.kind) {
        ("", "Namespace") => namespace(object),
        ("", "Node") => node(object),
        ("", "Pod") => pod::pod(object),
        ("", "Service") => service::service(object),
        ("", "Endpoints") => service::endpoints(object),
        ("", "Secret") => set_if_empty(object, "type", "Opaque"),
        ("apps", "Deployment") => workload::deployment(object),
        ("apps", "ReplicaSet") => workload::replica_set(object),
        ("batch", "Job") => workload::job(object),
        ("discovery.k8s.io", "EndpointSlice") => service::endpoint_slice(object),
        ("networking.k8s.io", "IngressClass") => ingress_class(object),
        _ => {}
    }
}

fn namespace(object: &mut Value) {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if !name.is_empty() {
        let labels = ensure(ensure(object, "metadata"), "labels");
        set(labels, "kubernetes.io/metadata.name", name);
    }
    set_if_empty(ensure(object, "status"), "phase", "Active");
}

fn node(object: &mut Value) {
    let status = ensure(object, "status");
    if let Some(capacity) = status.get("capacity").cloned() {
        set_if_absent(status, "allocatable", capacity);
    }
}

fn ingress_class(object: &mut Value) {
    if let Some(parameters) = object.pointer_mut("/spec/parameters") {
        set_if_absent(parameters, "scope", "Cluster");
    }
}

/// The struct `name` inside `value`, made where it is missing: Go's nested structs are never absent.
pub(crate) fn ensure<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let field = &mut value[name];
    if field.is_null() {
        *field = json!({});
    }
    field
}

/// Sets a field.
pub(crate) fn set(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value.into());
    }
}

/// Sets a field that is not there: the rule for pointers.
pub(crate) fn set_if_absent(object: &mut Value, name: &str, value: impl Into<Value>) {
    if object.get(name).is_none_or(Value::is_null) {
        set(object, name, value);
    }
}

/// Sets a field that is not there, empty or 0: the rule for plain strings and numbers.
pub(crate) fn set_if_empty(object: &mut Value, name: &str, value: impl Into<Value>) {
    let empty = match object.get(name) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(_) => false,
    };
    if empty {
        set(object, name, value);
    }
}

/// The items of a list field, to change; none where there is no list.
pub(crate) fn items_mut<'a>(
    object: &'a mut Value,
    name: &str,
) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    object.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

#[cfg(test)]
mod tests;
