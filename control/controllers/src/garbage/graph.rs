//! Who owns whom: the metadata of every object by its UID, and the way back from owners to their
//! dependents. What follows from it is left to the plan.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::informer::Key;
use crate::served::Served;

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) served: Arc<Served>,
    pub(super) metadata: Arc<ObjectMeta>,
}

impl Object {
    pub(super) fn key(&self) -> Key {
        Key::of(&self.metadata)
    }

    pub(super) fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    pub(super) fn owners(&self) -> &[OwnerReference] {
        self.metadata.owner_references.as_deref().unwrap_or_default()
    }

    pub(super) fn has_finalizer(&self, name: &str) -> bool {
        self.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == name)
    }

    pub(super) fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

/// All objects.
#[derive(Debug, Default)]
pub(super) struct Graph {
    objects: HashMap<String, Object>,
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Object> {
        self.objects.get(uid)
    }

    pub(super) fn uids(&self) -> Vec<String> {
        self.objects.keys().cloned().collect()
    }

    /// The objects that name this one as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Object> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.objects.get(uid)).cloned().collect()
    }

    /// Takes an object over; the answer names all objects that are to be looked at because of it.
    pub(super) fn put(&mut self, object: Object) -> Vec<String> {
        let uid = object.uid().to_owned();
        let mut concerned = self.unlink(&uid);
        for owner in object.owners() {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            concerned.push(owner.uid.clone());
        }
        self.objects.insert(uid.clone(), object);
        concerned.push(uid);
        concerned
    }

    /// Forgets an object; the answer names its owners, who may wait for it, and its dependents.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut concerned = self.unlink(uid);
        self.objects.remove(uid);
        concerned.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        concerned
    }

    /// The objects of a kind, for finding those that a new list no longer has.
    pub(super) fn of(&self, served: &Served) -> Vec<String> {
        let same = self.objects.iter().filter(|(_, object)| *object.served == *served);
        same.map(|(uid, _)| uid.clone()).collect()
    }

    fn unlink(&mut self, uid: &str) -> Vec<String> {
        let Some(old) = self.objects.get(uid) else { return Vec::new() };
        let owners: Vec<String> = old.owners().iter().map(|owner| owner.uid.clone()).collect();
        for owner in &owners {
            let Some(dependents) = self.dependents.get_mut(owner) else { continue };
            dependents.remove(uid);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
        owners
    }
}

#[cfg(test)]
mod tests {
    use kube::discovery::ApiResource;
    use serde_json::json;

    use super::*;

    fn object(uid: &str, owners: &[&str]) -> Object {
        let reference =
            |uid: &&str| json!({ "apiVersion": "v1", "kind": "Pod", "name": uid, "uid": uid });
        let owners: Vec<_> = owners.iter().map(reference).collect();
        let metadata = json!({ "name": uid, "uid": uid, "ownerReferences": owners });
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        Object {
            served: Arc::new(Served { resource, namespaced: true }),
            metadata: Arc::new(serde_json::from_value(metadata).unwrap()),
        }
    }

    #[test]
    fn changes_concern_owners_before_and_after() {
        let mut graph = Graph::default();
        let dependents = |graph: &Graph, uid: &str| -> Vec<String> {
            graph.dependents(uid).iter().map(|object| object.uid().to_owned()).collect()
        };
        assert_eq!(graph.put(object("child", &["a"])), ["a", "child"], "before its owner");
        assert_eq!(graph.put(object("a", &[])), ["a"]);
        assert_eq!(dependents(&graph, "a"), ["child"]);
        assert_eq!(graph.put(object("child", &["b"])), ["a", "b", "child"]);
        assert!(dependents(&graph, "a").is_empty());
        assert_eq!(graph.remove("b"), ["child"], "an owner that was never seen");
        assert_eq!(graph.remove("child"), ["b"]);
        assert!(dependents(&graph, "b").is_empty());
        assert_eq!(graph.uids(), ["a"]);
    }
}
