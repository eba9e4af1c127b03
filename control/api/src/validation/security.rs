//! Security contexts of pods and containers.

use crate::field::{Cursor, Error};

use super::{format, one_of_if_set};

const SECCOMP_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const ID_MAX: i64 = i32::MAX as i64;

/// A pod's security context.
pub fn pod(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    ids(at, &["fsGroup", "runAsUser", "runAsGroup"], errors);
    for group in at.child("supplementalGroups").items() {
        id(&group, errors);
    }
    one_of_if_set(&at.child("fsGroupChangePolicy"), &["Always", "OnRootMismatch"], errors);
    one_of_if_set(&at.child("supplementalGroupsPolicy"), &["Merge", "Strict"], errors);
    seccomp(&at.child("seccompProfile"), errors);
    sysctls(&at.child("sysctls"), errors);
}

/// A container's security context.
pub fn container(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    ids(at, &["runAsUser", "runAsGroup"], errors);
    seccomp(&at.child("seccompProfile"), errors);
    one_of_if_set(&at.child("procMount"), &["Default", "Unmasked"], errors);
    let escalation = at.child("allowPrivilegeEscalation");
    if escalation.is_set() && !escalation.flag() {
        if at.child("privileged").flag() {
            errors.push(at.invalid(
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ));
        }
        let added = at.descend(&["capabilities", "add"]);
        if added.items().any(|capability| capability.text() == "CAP_SYS_ADMIN") {
            errors.push(at.invalid("cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"));
        }
    }
}

fn ids(at: &Cursor<'_>, names: &[&str], errors: &mut Vec<Error>) {
    names.iter().for_each(|name| id(&at.child(name), errors));
}

fn id(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    if at.int().is_some_and(|id| !(0..=ID_MAX).contains(&id)) {
        errors.push(at.invalid(format::between(0, ID_MAX)));
    }
}

fn seccomp(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    if !at.is_set() {
        return;
    }
    let (kind, profile) = (at.child("type"), at.child("localhostProfile"));
    match kind.text() {
        "Localhost" if profile.is_empty() => {
            errors.push(profile.required("must be set when seccomp type is Localhost"));
        }
        "" => errors.push(kind.required("type is required when seccompProfile is set")),
        "RuntimeDefault" | "Unconfined" if profile.is_set() => {
            errors.push(profile.invalid("can only be set when seccomp type is Localhost"));
        }
        text if SECCOMP_TYPES.contains(&text) => {}
        _ => errors.push(kind.not_supported(&SECCOMP_TYPES)),
    }
}

fn sysctls(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let mut seen = Vec::new();
    for sysctl in at.items() {
        let name = sysctl.child("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else if seen.contains(&name.text()) {
            errors.push(name.duplicate());
        }
        seen.push(name.text());
    }
}
