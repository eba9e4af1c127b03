//! Versions of a kind: objects are stored in one and served in several. A conversion keeps whatever
//! it does not know, and what one version cannot say goes into an annotation, as upstream does it.

use serde_json::{Map, Value, json};

use crate::object;
use crate::resource::Resource;
use crate::status::Status;

mod deployment;
mod event;
mod ingress;

/// Turns an object as it was sent in `from` into the stored form.
///
/// # Errors
/// 400 BadRequest when `apiVersion` or `kind` say something else than the path asked for.
pub fn to_storage(
    resource: &'static Resource,
    from: &str,
    mut sent: Value,
) -> Result<Value, Status> {
    check_kind(resource, from, &mut sent)?;
    convert(resource, from, &mut sent, Direction::ToStorage);
    let stored = resource.stored_as();
    stamp(&mut sent, &stored.api_version(stored.storage_version), stored.kind);
    Ok(sent)
}

/// The form of a stored object in version `to`.
pub fn from_storage(resource: &'static Resource, to: &str, stored: &Value) -> Value {
    let mut object = stored.clone();
    convert(resource, to, &mut object, Direction::FromStorage);
    stamp(&mut object, &resource.api_version(to), resource.kind);
    object
}

/// Whether [`from_storage`] would change nothing, so that the stored object can be sent as it is.
pub fn is_stored_form(resource: &'static Resource, version: &str) -> bool {
    version == resource.storage_version && resource.stored_as() == resource
}

/// What to tell users of an old version, as upstream's deprecation warnings do.
pub fn deprecation_warning(resource: &Resource, version: &str) -> Option<String> {
    let removed_in = match (resource.group, version, resource.kind) {
        ("", "v1", "Endpoints") => {
            return Some(
                "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
                    .to_owned(),
            );
        }
        ("apps", "v1beta1", "Deployment") => ("v1.8+", "v1.16+"),
        ("networking.k8s.io", "v1beta1", "Ingress") => ("v1.19+", "v1.22+"),
        _ => return None,
    };
    let (deprecated, unavailable) = removed_in;
    let kind = resource.kind;
    Some(format!(
        "{old} {kind} is deprecated in {deprecated}, unavailable in {unavailable}; use {new} {kind}",
        old = resource.api_version(version),
        new = resource.api_version(resource.storage_version),
    ))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToStorage,
    FromStorage,
}

fn convert(resource: &Resource, version: &str, object: &mut Value, direction: Direction) {
    match (resource.group, version, resource.kind) {
        ("apps", "v1beta1", "Deployment") => deployment::v1beta1(object, direction),
        ("networking.k8s.io", "v1beta1", "Ingress") => ingress::v1beta1(object, direction),
        ("events.k8s.io", "v1", "Event") => event::v1(object, direction),
        _ => {}
    }
}

/// A body may leave out what the path says already; it may not contradict it.
fn check_kind(resource: &Resource, version: &str, sent: &mut Value) -> Result<(), Status> {
    let expected = resource.api_version(version);
    let (api_version, kind) = (object::api_version(sent), object::kind(sent));
    if !api_version.is_empty() && api_version != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version \
             ({expected})"
        )));
    }
    if !kind.is_empty() && kind != resource.kind {
        return Err(Status::bad_request(format!(
            "{kind} in version {expected:?} cannot be handled as a {}: the kind in the data does \
             not match the kind of the path",
            resource.kind
        )));
    }
    if !sent.is_object() {
        return Err(Status::bad_request(format!("a {} must be a JSON object", resource.kind)));
    }
    Ok(())
}

fn stamp(object: &mut Value, api_version: &str, kind: &str) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), json!(api_version));
        map.insert("kind".to_owned(), json!(kind));
    }
}

/// Moves a field to another name, in either direction.
fn rename(map: &mut Map<String, Value>, stored: &str, other: &str, direction: Direction) {
    let (from, to) = match direction {
        Direction::ToStorage => (other, stored),
        Direction::FromStorage => (stored, other),
    };
    if let Some(value) = map.remove(from) {
        map.insert(to.to_owned(), value);
    }
}

#[cfg(test)]
mod tests;
