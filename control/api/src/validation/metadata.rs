//! ObjectMeta, labels and label selectors (`apimachinery/pkg/api/validation`).

use serde_json::Value;

use crate::field::{Cursor, Error};
use crate::resource::Resource;

use super::{complain, format, immutable, non_negative};

/// All keys and values of the annotations together, in bytes.
const ANNOTATIONS_SIZE_MAX: usize = 256 * 1024;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The metadata of a new object.
pub fn create(resource: &Resource, at: &Cursor<'_>) -> Vec<Error> {
    let mut errors = Vec::new();
    let generate_name = at.child("generateName");
    if !generate_name.is_empty() {
        let prefix = mask_trailing_dash(generate_name.text());
        complain(&generate_name, super::name(resource, &prefix), &mut errors);
    }
    let name = at.child("name");
    match name.is_empty() {
        true => errors.push(name.required("name or generateName is required")),
        false => complain(&name, super::name(resource, name.text()), &mut errors),
    }
    let namespace = at.child("namespace");
    match (resource.namespaced, namespace.is_empty()) {
        (true, true) => errors.push(namespace.required("")),
        (true, false) => complain(&namespace, format::dns1123_label(namespace.text()), &mut errors),
        (false, false) => errors.push(namespace.forbidden("not allowed on this type")),
        (false, true) => {}
    }
    non_negative(&at.child("generation"), &mut errors);
    common(at, &mut errors);
    finalizers(&at.child("finalizers"), &mut errors);
    errors
}

/// The metadata of an object that takes the place of an old one.
pub fn update(at: &Cursor<'_>, old: &Cursor<'_>) -> Vec<Error> {
    let mut errors = Vec::new();
    if old.child("deletionTimestamp").is_set() {
        no_new_finalizers(&at.child("finalizers"), &old.child("finalizers"), &mut errors);
    }
    let resource_version = at.child("resourceVersion");
    if resource_version.is_empty() {
        errors.push(Error::invalid(&resource_version.path, "", "must be specified for an update"));
    }
    let generation = at.child("generation");
    non_negative(&generation, &mut errors);
    if generation.int_or_zero() < old.child("generation").int_or_zero() {
        errors.push(generation.invalid("must not be decremented"));
    }
    for name in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        immutable(&at.child(name), &old.child(name), &mut errors);
    }
    common(at, &mut errors);
    errors
}

fn common(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    labels(&at.child("labels"), errors);
    annotations(&at.child("annotations"), errors);
    owner_references(&at.child("ownerReferences"), errors);
}

/// A generated name's last dash will be followed by more characters.
fn mask_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

/// Labels: the errors carry the path of the map, as upstream's do.
pub fn labels(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    for (key, value) in at.entries() {
        label_key(at, key, errors);
        let complaints = format::label_value(value.text());
        errors.extend(
            complaints
                .into_iter()
                .map(|complaint| Error::invalid(&at.path, value.text(), complaint)),
        );
    }
}

/// A label key that is not the value at the cursor.
fn label_key(at: &Cursor<'_>, key: &str, errors: &mut Vec<Error>) {
    let complaints = format::label_key(key);
    errors.extend(complaints.into_iter().map(|complaint| Error::invalid(&at.path, key, complaint)));
}

/// Annotations: keys like label keys, whatever their case; a limit on all of them together.
pub fn annotations(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let mut size = 0;
    for (key, value) in at.entries() {
        let complaints = format::label_key(&key.to_lowercase());
        errors.extend(
            complaints.into_iter().map(|complaint| Error::invalid(&at.path, key, complaint)),
        );
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS_SIZE_MAX {
        errors.push(Error::too_long(&at.path, ANNOTATIONS_SIZE_MAX));
    }
}

fn owner_references(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let mut first_controller: Option<String> = None;
    for reference in at.items() {
        let version = reference.child("apiVersion");
        if version.is_empty() {
            errors.push(version.required("must not be empty"));
        } else if version.text().split('/').count() > 2 || version.text().ends_with('/') {
            errors.push(version.invalid("must be <group>/<version> or <version>"));
        }
        for name in ["kind", "name", "uid"] {
            let field = reference.child(name);
            if field.is_empty() {
                errors.push(field.required("must not be empty"));
            }
        }
        if version.text() == "v1" && reference.child("kind").text() == "Event" {
            errors.push(reference.invalid("/v1, Kind=Event is disallowed from being an owner"));
        }
        if reference.child("controller").flag() {
            let controller =
                format!("{}/{}", reference.child("kind").text(), reference.child("name").text());
            match &first_controller {
                Some(first) => errors.push(at.invalid(format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {controller}"
                ))),
                None => first_controller = Some(controller),
            }
        }
    }
}

fn finalizers(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    for finalizer in at.items() {
        label_key(at, finalizer.text(), errors);
    }
    let has = |name: &str| at.items().any(|finalizer| finalizer.text() == name);
    if has(ORPHAN) && has(FOREGROUND) {
        errors.push(at.invalid(format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set")));
    }
}

fn no_new_finalizers(at: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    let known = |finalizer: &Cursor<'_>| old.items().any(|old| old.value == finalizer.value);
    let mut added: Vec<String> =
        at.items().filter(|item| !known(item)).map(|item| format!("{:?}", item.text())).collect();
    if !added.is_empty() {
        added.sort();
        let added = added.join(", ");
        errors.push(at.forbidden(format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{added}}}"
        )));
    }
}

/// A Namespace's own finalizers.
pub fn namespace(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let finalizers = at.descend(&["spec", "finalizers"]);
    for finalizer in finalizers.items() {
        label_key(&finalizers, finalizer.text(), errors);
        if !finalizer.text().contains('/') && finalizer.text() != "kubernetes" {
            errors.push(Error::invalid(
                &finalizers.path,
                finalizer.text(),
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
}

/// A `metav1.LabelSelector`.
pub fn label_selector(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    labels(&at.child("matchLabels"), errors);
    for requirement in at.child("matchExpressions").items() {
        let values = requirement.child("values");
        let operator = requirement.child("operator");
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                errors
                    .push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(values.forbidden(
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            text => {
                errors.push(Error::invalid(&operator.path, text, "not a valid selector operator"))
            }
        }
        let key = requirement.child("key");
        label_key(&key, key.text(), errors);
        values
            .items()
            .for_each(|value| complain(&value, format::label_value(value.text()), errors));
    }
}

/// Whether a `metav1.LabelSelector` selects these labels; `None` if it cannot be read.
pub fn selector_matches(selector: &Cursor<'_>, labels: &Cursor<'_>) -> Option<bool> {
    let label = |key: &str| labels.value.get(key).and_then(Value::as_str);
    let mut matched = selector
        .child("matchLabels")
        .entries()
        .all(|(key, value)| label(key) == Some(value.text()));
    for requirement in selector.child("matchExpressions").items() {
        let found = label(requirement.child("key").text());
        let listed = requirement.child("values").items().any(|value| found == Some(value.text()));
        matched &= match requirement.child("operator").text() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            _ => return None,
        };
    }
    Some(matched)
}
