//! Whether an object, defaulted and in its storage version, may be stored: upstream's rules and words
//! (`pkg/apis/*/validation`), without the ones of features that are off by default and of cloud volumes.
//! Ranges the server allocates from (cluster addresses, node ports) are left to the server.

use serde_json::Value;

use crate::field::{Cursor, Error};
use crate::resource::Resource;

mod config;
mod container;
mod coordination;
mod endpoints;
mod format;
mod ingress;
mod job;
mod metadata;
mod node;
mod pod;
mod pod_update;
mod probe;
mod quantities;
mod scheduling;
mod security;
mod service;
mod service_cidr;
mod volume;
mod workload;

/// What is wrong with a new object.
pub fn create(resource: &Resource, object: &Value) -> Vec<Error> {
    let at = Cursor::root(object);
    let mut errors = metadata::create(resource, &at.child("metadata"));
    kind(resource, &at, &mut errors);
    if (resource.group, resource.kind) == ("networking.k8s.io", "Ingress") {
        ingress::class_annotation(&at, &mut errors);
    }
    errors
}

/// What is wrong with an object that is to take the place of `old`.
pub fn update(resource: &Resource, new: &Value, old: &Value) -> Vec<Error> {
    let (at, old) = (Cursor::root(new), Cursor::root(old));
    let mut errors = metadata::update(&at.child("metadata"), &old.child("metadata"));
    match (resource.group, resource.kind) {
        ("", "Pod") => pod_update::update(&at, &old, &mut errors),
        ("", "Service") => service::update(&at, &old, &mut errors),
        ("", "Node") => node::update(&at, &old, &mut errors),
        ("", "Secret") => config::secret_update(&at, &old, &mut errors),
        ("", "ConfigMap") => config::config_map_update(&at, &old, &mut errors),
        ("apps", "Deployment" | "ReplicaSet") => workload::update(&at, &old, &mut errors),
        ("batch", "Job") => job::update(&at, &old, &mut errors),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::slice_update(&at, &old, &mut errors),
        ("networking.k8s.io", "IngressClass") => ingress::class_update(&at, &old, &mut errors),
        ("networking.k8s.io", "ServiceCIDR") => service_cidr::update(&at, &old, &mut errors),
        _ => {}
    }
    kind(resource, &at, &mut errors);
    dedup(&mut errors);
    errors
}

/// What is wrong with a name for an object of this kind, one complaint each; none if it is valid.
pub fn name(resource: &Resource, name: &str) -> Vec<String> {
    match (resource.group, resource.kind) {
        ("", "Namespace") => format::dns1123_label(name),
        ("", "Service") => format::dns1035_label(name),
        _ => format::dns1123_subdomain(name),
    }
}

/// The rules that hold on creation and on update alike.
fn kind(resource: &Resource, at: &Cursor<'_>, errors: &mut Vec<Error>) {
    match (resource.group, resource.kind) {
        ("", "Namespace") => metadata::namespace(at, errors),
        ("", "Node") => node::node(at, errors),
        ("", "Pod") => pod::pod(at, errors),
        ("", "Service") => service::service(at, errors),
        ("", "Endpoints") => endpoints::endpoints(at, errors),
        ("", "ConfigMap") => config::config_map(at, errors),
        ("", "Secret") => config::secret(at, errors),
        ("" | "events.k8s.io", "Event") => coordination::event(at, errors),
        ("coordination.k8s.io", "Lease") => coordination::lease(at, errors),
        ("apps", "Deployment") => workload::deployment(at, errors),
        ("apps", "ReplicaSet") => workload::replica_set(at, errors),
        ("batch", "Job") => job::job(at, errors),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::slice(at, errors),
        ("networking.k8s.io", "Ingress") => ingress::ingress(at, errors),
        ("networking.k8s.io", "IngressClass") => ingress::class(at, errors),
        ("networking.k8s.io", "ServiceCIDR") => service_cidr::service_cidr(at, errors),
        _ => {}
    }
}

/// The value may not differ from the old one.
fn immutable(new: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    if !same(new.value, old.value) {
        errors.push(new.invalid("field is immutable"));
    }
}

/// Whether two values are equal, where an absent one equals an empty one.
pub(crate) fn same(left: &Value, right: &Value) -> bool {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let names = left.keys().chain(right.keys().filter(|name| !left.contains_key(*name)));
            let mut pairs = names.map(|name| {
                (left.get(name).unwrap_or(&Value::Null), right.get(name).unwrap_or(&Value::Null))
            });
            pairs.all(|(left, right)| same(left, right))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (left, right) => left == right || (empty(left) && empty(right)),
    }
}

/// Adds an error for each complaint about the value.
fn complain(at: &Cursor<'_>, complaints: Vec<String>, errors: &mut Vec<Error>) {
    errors.extend(complaints.into_iter().map(|complaint| at.invalid(complaint)));
}

/// A number, where there is one, may not be below zero.
fn non_negative(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    if at.int_or_zero() < 0 {
        errors.push(at.invalid("must be greater than or equal to 0"));
    }
}

/// A string must be one of the supported ones; an empty one is missing.
fn one_of(at: &Cursor<'_>, supported: &[&str], errors: &mut Vec<Error>) {
    if at.text().is_empty() {
        errors.push(at.required(""));
    } else {
        one_of_if_set(at, supported, errors);
    }
}

/// A string, where there is one, must be one of the supported ones.
fn one_of_if_set(at: &Cursor<'_>, supported: &[&str], errors: &mut Vec<Error>) {
    if at.is_set() && !supported.contains(&at.text()) {
        errors.push(at.not_supported(supported));
    }
}

/// A port number or, as a string, the name of a port.
fn port_number_or_name(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    match at.value {
        Value::String(name) => complain(at, format::port_name(name), errors),
        _ => {
            let port = at.int_or_zero();
            errors.extend(
                format::port_number(port)
                    .into_iter()
                    .map(|complaint| Error::invalid(&at.path, port, complaint)),
            );
        }
    }
}

/// Rules on update repeat rules that hold always; the user should read each once.
fn dedup(errors: &mut Vec<Error>) {
    let mut seen = Vec::new();
    errors.retain(|error| {
        let text = error.to_string();
        let fresh = !seen.contains(&text);
        seen.push(text);
        fresh
    });
}

#[cfg(test)]
mod tests;
