//! Events and Leases.

use crate::field::{Cursor, Error};

/// An Event lies in the namespace of what it is about; Events of cluster-wide objects in `default`.
pub fn event(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    // core/v1 and events.k8s.io/v1 name the object differently.
    let (involved, regarding) = (at.child("involvedObject"), at.child("regarding"));
    let about = if regarding.is_set() { regarding } else { involved };
    let namespace = at.descend(&["metadata", "namespace"]).text();
    let about_namespace = about.child("namespace");
    let expected_default =
        about_namespace.is_empty() && !["", "default", "kube-system"].contains(&namespace);
    if expected_default || (!about_namespace.is_empty() && about_namespace.text() != namespace) {
        errors.push(Error::invalid(
            &about_namespace.path,
            about_namespace.text(),
            "does not match event.namespace",
        ));
    }
}

/// A Lease.
pub fn lease(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let spec = at.child("spec");
    let duration = spec.child("leaseDurationSeconds");
    if duration.int().is_some_and(|seconds| seconds <= 0) {
        errors.push(duration.invalid("must be greater than 0"));
    }
    let transitions = spec.child("leaseTransitions");
    if transitions.int().is_some_and(|count| count < 0) {
        errors.push(transitions.invalid("must be greater than or equal to 0"));
    }
}
