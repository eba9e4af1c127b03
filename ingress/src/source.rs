//! Where objects come from: a Kubernetes API or a folder of manifests. Both end in the same changes.

pub mod api;
pub mod files;

use crate::objects::{Kind, Object, ObjectKey, Read, World};
use crate::problem::Problem;
use serde_json::Value;
use std::collections::BTreeSet;

/// A change of the world.
#[derive(Debug)]
pub enum Change {
    /// An object is new or different.
    Apply(Kind, Value),
    /// An object is gone.
    Delete(Kind, ObjectKey),
    /// All objects of a kind (or the one of that key) as of now: whatever else was known is gone.
    Replace(Kind, Option<ObjectKey>, Vec<Read>),
    /// Everything, from files.
    Everything(Vec<Object>, Vec<Problem>),
}

impl Change {
    /// Whether it brings many objects at once.
    pub fn is_list(&self) -> bool {
        matches!(self, Change::Replace(_, None, _) | Change::Everything(..))
    }

    /// Makes the change.
    pub fn apply_to(self, world: &mut World) {
        match self {
            Change::Apply(kind, value) => world.apply_read(Read::of(kind, value)),
            Change::Delete(kind, key) => world.remove(kind, &key),
            Change::Replace(kind, only, all) => {
                let new: BTreeSet<ObjectKey> = all.iter().map(|read| read.key.clone()).collect();
                let many = only.is_none();
                let old = only.map_or_else(|| world.keys(kind), |key| vec![key]);
                for gone in old.iter().filter(|key| !new.contains(*key)) {
                    world.remove(kind, gone);
                }
                for read in all {
                    world.apply_read(read);
                }
                // A list of a kind, not one Secret.
                if many {
                    world.pack();
                }
            }
            Change::Everything(objects, problems) => {
                world.replace_all(objects, problems);
                world.pack();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str) -> Read {
        let meta = json!({"name": name, "namespace": "a"});
        Read::of(Kind::Service, json!({"apiVersion": "v1", "kind": "Service", "metadata": meta}))
    }

    #[test]
    fn a_new_list_replaces_what_is_not_in_it() {
        let mut world = World::default();
        Change::Replace(Kind::Service, None, vec![service("one"), service("two")])
            .apply_to(&mut world);
        Change::Replace(Kind::Service, None, vec![service("two"), service("three")])
            .apply_to(&mut world);
        let names: Vec<_> = world.services.keys().map(|key| &*key.name).collect();
        assert_eq!(names, ["three", "two"]);
        Change::Replace(Kind::Service, Some(ObjectKey::new("a", "two")), vec![])
            .apply_to(&mut world);
        assert_eq!(world.services.len(), 1);
        Change::Delete(Kind::Service, ObjectKey::new("a", "three")).apply_to(&mut world);
        assert!(world.services.is_empty());
    }
}
