//! What happens to an object on its way into the store, besides defaulting: the status a client may
//! not write, generations, the fields one kind or type gains and another releases (upstream's
//! `pkg/registry/*/strategy.go`). Admission is left to the server.

use serde_json::Value;

use crate::defaulting::set;
use crate::object;
use crate::resource::Resource;
use crate::validation;

mod job;
mod pod;
mod service;

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The object itself: everything but its status.
    Main,
    /// The `status` subresource.
    Status,
    /// The `scale` subresource: `spec.replicas`.
    Scale,
}

/// Prepares a new object; its name and uid are set, it is defaulted but not yet validated.
pub fn prepare_create(resource: &Resource, object: &mut Value) {
    let had_status = object.get("status").is_some();
    match (resource.group, resource.kind) {
        ("", "Namespace") => {
            object["status"] = serde_json::json!({"phase": "Active"});
            namespace_finalizer(object);
        }
        ("", "Pod") => pod::prepare_create(object),
        ("", "Service") => service::prepare_create(object),
        ("", "Secret") => string_data(object),
        ("apps", "Deployment" | "ReplicaSet") => object["status"] = serde_json::json!({}),
        ("batch", "Job") => job::prepare_create(object),
        ("networking.k8s.io", "Ingress") => {
            object["status"] = serde_json::json!({"loadBalancer": {}})
        }
        // Nodes register with their status.
        ("", "Node") => {}
        _ if had_status => remove(object, "status"),
        _ => {}
    }
    if counts_generations(resource) {
        object::metadata_mut(object).insert("generation".to_owned(), Value::from(1));
    }
}

/// Prepares an object to take the place of `old`, where the write is about `scope`.
pub fn prepare_update(resource: &Resource, scope: Scope, new: &mut Value, old: &Value) {
    if scope == Scope::Status {
        keep_all_but_status(new, old);
        return;
    }
    if has_status(resource) {
        keep(new, old, "status");
    }
    match (resource.group, resource.kind) {
        ("", "Service") => service::prepare_update(new, old),
        ("", "Secret") => string_data(new),
        // A Namespace's finalizers change through `finalize` only.
        ("", "Namespace") => keep(new, old, "spec"),
        _ => {}
    }
    let generation = object::generation(old);
    let metadata = object::metadata_mut(new);
    if counts_generations(resource) {
        metadata.insert("generation".to_owned(), Value::from(generation));
        if !same_spec(resource, new, old) {
            object::metadata_mut(new).insert("generation".to_owned(), Value::from(generation + 1));
        }
    } else if generation == 0 {
        metadata.remove("generation");
    }
}

/// Whether a PUT to a name that is not taken creates the object (upstream's `AllowCreateOnUpdate`).
pub fn creates_on_update(resource: &Resource) -> bool {
    matches!(
        (resource.group, resource.kind),
        ("", "Endpoints" | "Event" | "Service") | ("coordination.k8s.io", "Lease")
    )
}

/// Whether clients may not write the status along with the object.
fn has_status(resource: &Resource) -> bool {
    resource.has(crate::resource::Subresource::Status)
}

/// Whether `metadata.generation` counts the changes of the spec.
fn counts_generations(resource: &Resource) -> bool {
    matches!(
        (resource.group, resource.kind),
        ("", "Pod")
            | ("apps", "Deployment" | "ReplicaSet")
            | ("batch", "Job")
            | ("networking.k8s.io", "Ingress" | "IngressClass")
            | ("discovery.k8s.io", "EndpointSlice")
    )
}

fn same_spec(resource: &Resource, new: &Value, old: &Value) -> bool {
    let pointers: &[&str] = match resource.kind {
        // An EndpointSlice is all spec.
        "EndpointSlice" => &["/endpoints", "/ports", "/addressType", "/metadata/labels"],
        // A Deployment's annotations are copied to its ReplicaSets.
        "Deployment" => &["/spec", "/metadata/annotations"],
        _ => &["/spec"],
    };
    let at = |object: &Value, pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
    pointers.iter().all(|pointer| validation::same(&at(new, pointer), &at(old, pointer)))
}

/// A write to `status`: everything else stays, but for what managed fields and finalizers do.
fn keep_all_but_status(new: &mut Value, old: &Value) {
    let status = new.get("status").cloned();
    let (resource_version, managed_fields) =
        (new["metadata"]["resourceVersion"].clone(), new["metadata"]["managedFields"].clone());
    // Labels and annotations may be written along with the status, as upstream lets agents do.
    let (labels, annotations) =
        (new["metadata"]["labels"].clone(), new["metadata"]["annotations"].clone());
    *new = old.clone();
    let metadata = object::metadata_mut(new);
    let carried = [
        ("resourceVersion", resource_version),
        ("managedFields", managed_fields),
        ("labels", labels),
        ("annotations", annotations),
    ];
    for (name, value) in carried {
        if value.is_null() {
            metadata.remove(name);
        } else {
            metadata.insert(name.to_owned(), value);
        }
    }
    match status {
        Some(status) => set(new, "status", status),
        None => remove(new, "status"),
    }
}

/// Gives a field the value it had.
fn keep(new: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => set(new, field, value.clone()),
        None => remove(new, field),
    }
}

/// Removes a field.
fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

/// A Namespace is finalized by the server itself, once it is empty.
fn namespace_finalizer(object: &mut Value) {
    let spec = object::child_mut(object, "spec");
    let finalizers = spec.entry("finalizers").or_insert_with(|| Value::Array(Vec::new()));
    if let Some(finalizers) = finalizers.as_array_mut()
        && !finalizers.contains(&Value::from("kubernetes"))
    {
        finalizers.push(Value::from("kubernetes"));
    }
}

/// `stringData` is written only: its entries become entries of `data`.
fn string_data(object: &mut Value) {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    let Some(strings) = object.get("stringData").and_then(Value::as_object).cloned() else {
        return;
    };
    remove(object, "stringData");
    let data = object::child_mut(object, "data");
    for (key, value) in strings {
        let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
        data.insert(key, Value::from(encoded));
    }
}

#[cfg(test)]
mod tests;
