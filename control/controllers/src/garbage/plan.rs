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
    Delete {
        propagation: PropagationPolicy,
        unblock: bool,
    },
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
        let kept: Vec<OwnerReference> = kept
            .filter(|(_, state)| **state == Owner::Solid)
            .map(|(owner, _)| owner.clone())
            .collect();
        return if kept.len() == owners.len() { Action::Nothing } else { Action::Keep(kept) };
    }
    if owners.contains(&Owner::Waiting) && !dependents.is_empty() {
        // A dependent that waits too may wait for the owner, in a ring: let go of the owner first.
        let unblock = dependents
            .iter()
            .any(|dependent| dependent.is_terminating() && dependent.has_finalizer(FOREGROUND));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::discovery::ApiResource;
    use serde_json::{Value, json};

    use super::*;
    use crate::served::Served;

    fn object(
        uid: &str,
        owners: &[(&str, bool)],
        finalizers: &[&str],
        terminating: bool,
    ) -> Object {
        let owners: Vec<Value> = owners
            .iter()
            .map(|(uid, blocks)| {
                json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "name": uid, "uid": uid,
                    "blockOwnerDeletion": blocks,
                })
            })
            .collect();
        let metadata = json!({
            "name": uid,
            "namespace": "default",
            "uid": uid,
            "ownerReferences": owners,
            "finalizers": finalizers,
            "deletionTimestamp": terminating.then_some("2026-01-01T00:00:00Z"),
        });
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::ConfigMap>(&());
        Object {
            served: Arc::new(Served { resource, namespaced: true }),
            metadata: Arc::new(serde_json::from_value(metadata).unwrap()),
        }
    }

    #[test]
    fn terminating_owners() {
        let blocking = object("blocking", &[("o", true)], &[], false);
        let free = object("free", &[("o", false)], &[], false);
        let both = vec!["blocking".to_owned(), "free".to_owned()];
        for (finalizers, dependents, want) in [
            (&[][..], vec![blocking.clone()], Action::Nothing),
            (&["other"], vec![blocking.clone()], Action::Nothing),
            (&[FOREGROUND], vec![], Action::Finish(FOREGROUND)),
            (&[FOREGROUND], vec![free.clone()], Action::Finish(FOREGROUND)),
            (&[FOREGROUND], vec![blocking.clone(), free.clone()], Action::Wait(both.clone())),
            (&[ORPHAN], vec![], Action::Finish(ORPHAN)),
            (&[ORPHAN], vec![blocking, free], Action::Orphan(both)),
        ] {
            let found = of_terminating(&object("o", &[], finalizers, true), &dependents);
            assert_eq!(found, want, "{finalizers:?}");
        }
    }

    #[test]
    fn owned_objects() {
        use Owner::{Absent, Solid, Waiting};
        use PropagationPolicy::{Background, Foreground, Orphan};

        let delete = |propagation, unblock| Action::Delete { propagation, unblock };
        let child = object("child", &[("d", true)], &[], false);
        let waiting_child = object("child", &[("d", true)], &[FOREGROUND], true);
        let owners: &[(&str, bool)] = &[("a", true), ("b", true)];
        let second = object("d", owners, &[], false).owners()[1..].to_vec();
        for (states, finalizers, dependents, want) in [
            (&[Solid, Solid], &[][..], vec![], Action::Nothing),
            (&[Absent, Solid], &[], vec![], Action::Keep(second.clone())),
            (&[Waiting, Solid], &[], vec![child.clone()], Action::Keep(second)),
            (&[Absent, Absent], &[], vec![child.clone()], delete(Background, false)),
            (&[Absent, Absent], &[ORPHAN], vec![], delete(Orphan, false)),
            (&[Absent, Absent], &[FOREGROUND], vec![], delete(Foreground, false)),
            (&[Waiting, Absent], &[], vec![], delete(Background, false)),
            (&[Waiting, Absent], &[], vec![child], delete(Foreground, false)),
            (&[Waiting, Waiting], &[], vec![waiting_child], delete(Foreground, true)),
        ] {
            let found = of_owned(&object("d", owners, finalizers, false), states, &dependents);
            assert_eq!(found, want, "{states:?} {finalizers:?}");
        }
        let free = object("d", &[], &[], false);
        assert_eq!(of_owned(&free, &[], &[]), Action::Nothing);
    }
}
