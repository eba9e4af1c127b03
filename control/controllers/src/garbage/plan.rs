//! What is to be done about one object, by its owners and dependents: pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PropagationPolicy;

use super::graph::Object;

/// Held by owners that go after their dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Held by owners whose dependents stay.
pub(super) const ORPHAN: &str = "orphan";

/// What became of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// It is there.
    Solid,
    /// It is gone, or never was where the reference points.
    Absent,
    /// It is there and waits for its dependents to go.
    Waiting,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    Nothing,
    /// Look at these dependents: the object waits for them.
    Wait(Vec<String>),
    /// Take the finalizer away.
    Finish(&'static str),
    /// Take the reference out of these dependents, then the finalizer away.
    Orphan(Vec<String>),
    /// Keep these references only.
    Keep(Vec<OwnerReference>),
    /// Delete the object, after its references no longer hold their owners if so asked.
    Delete { propagation: PropagationPolicy, unblock: bool },
}

/// What an object that is being deleted wants for its dependents; nothing when its owners count.
pub(super) fn of_terminating(object: &Object, dependents: &[Object]) -> Action {
    if object.has_finalizer(ORPHAN) {
        return match uids(dependents) {
            none if none.is_empty() => Action::Finish(ORPHAN),
            some => Action::Orphan(some),
        };
    }
    if !object.has_finalizer(FOREGROUND) {
        return Action::Nothing;
    }
    let blocking: Vec<Object> =
        dependents.iter().filter(|dependent| blocks(dependent, object.uid())).cloned().collect();
    if blocking.is_empty() {
        return Action::Finish(FOREGROUND);
    }
    // Those that hold nothing back are deleted all the same.
    Action::Wait(uids(dependents))
}

/// What becomes of an object by the state of its owners, in the order of its references.
pub(super) fn of_owned(object: &Object, owners: &[Owner], dependents: &[Object]) -> Action {
    if owners.is_empty() {
        return Action::Nothing;
    }
    if owners.contains(&Owner::Solid) {
        let kept = object.owners().iter().zip(owners);
        let kept: Vec<OwnerReference> =
            kept.filter(|(_, state)| **state == Owner::Solid).map(|(owner, _)| owner.clone()).collect();
        return if kept.len() == owners.len() { Action::Nothing } else { Action::Keep(kept) };
    }
    if owners.contains(&Owner::Waiting) && !dependents.is_empty() {
        // A dependent that waits too may wait for the owner, in a ring: let go of the owner first.
        let unblock = dependents.iter().any(|dependent| {
            dependent.is_terminating() && dependent.has_finalizer(FOREGROUND)
        });
        return Action::Delete { propagation: PropagationPolicy::Foreground, unblock };
    }
    let propagation = if object.has_finalizer(ORPHAN) {
        PropagationPolicy::Orphan
    } else if object.has_finalizer(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    Action::Delete { propagation, unblock: false }
}

fn blocks(dependent: &Object, owner_uid: &str) -> bool {
    let mut owners = dependent.owners().iter();
    owners.any(|owner| owner.uid == owner_uid && owner.block_owner_deletion == Some(true))
}

fn uids(objects: &[Object]) -> Vec<String> {
    objects.iter().map(|object| object.uid().to_owned()).collect()
}
