//! Which objects belong to a controller: orphans its selector takes are adopted, objects it takes no
//! longer are released.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt as _};
use serde::Serialize;

use crate::Error;
use crate::informer::{Key, Store, Watched, controller_of};
use crate::replica_set::owner;
use crate::write::{Context, failed};

#[derive(Debug, PartialEq, Eq)]
enum Claim {
    Keep,
    Adopt,
    Release,
    Leave,
}

/// What to do about an object the selector takes, or does not.
fn claim(owner: &ObjectMeta, object: &ObjectMeta, selected: bool) -> Claim {
    let ending = owner.deletion_timestamp.is_some();
    match controller_of(object) {
        Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => Claim::Leave,
        Some(_) if selected => Claim::Keep,
        Some(_) if ending => Claim::Leave,
        Some(_) => Claim::Release,
        None if selected && !ending && object.deletion_timestamp.is_none() => Claim::Adopt,
        None => Claim::Leave,
    }
}

impl Context {
    /// The objects that belong to an owner, after adopting and releasing.
    pub(crate) async fn claim<O, K>(
        &self,
        parent: &O,
        store: &Store<K>,
        objects: Vec<Arc<K>>,
        selects: impl Fn(&K) -> bool,
    ) -> Result<Vec<Arc<K>>, Error>
    where
        O: Watched + Resource<Scope = NamespaceResourceScope>,
        K: Watched + Serialize,
    {
        let mut claimed = Vec::new();
        let mut may_adopt = None;
        for object in objects {
            match claim(parent.meta(), object.meta(), selects(&object)) {
                Claim::Keep => claimed.push(object),
                Claim::Leave => {}
                Claim::Release => {
                    let mut released = (*object).clone();
                    let owners = released.owner_references_mut();
                    owners.retain(|owner| Some(&owner.uid) != parent.meta().uid.as_ref());
                    if owners.is_empty() {
                        released.meta_mut().owner_references = None;
                    }
                    self.update(store, &*object, &released).await?;
                }
                Claim::Adopt => {
                    let allowed = match may_adopt {
                        Some(allowed) => allowed,
                        None => self.is_alive(parent).await?,
                    };
                    may_adopt = Some(allowed);
                    if allowed {
                        let mut adopted = (*object).clone();
                        adopted.owner_references_mut().extend(owner(parent));
                        self.update(store, &*object, &adopted).await?;
                        claimed.extend(store.get(&Key::of(object.meta())));
                    }
                }
            }
        }
        Ok(claimed)
    }

    /// Asks the server, not the cache: an owner being deleted with its dependents orphaned must not
    /// take them back.
    pub(crate) async fn is_alive<O>(&self, parent: &O) -> Result<bool, Error>
    where
        O: Watched + Resource<Scope = NamespaceResourceScope>,
    {
        let key = Key::of(parent.meta());
        let api: Api<O> = Api::namespaced(self.client.clone(), &key.namespace);
        let live = api.get_opt(&key.name).await;
        let live = live.map_err(|source| failed::<O>("get", key, source))?;
        Ok(live.is_some_and(|live| {
            live.meta().uid == parent.meta().uid && live.meta().deletion_timestamp.is_none()
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims() {
        let owned_by = |uid: &str| {
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "name": "web", "uid": uid, "controller": true}])
        };
        let ending = "2026-01-01T00:00:00Z";
        for (owner, object, selected, expected) in [
            (json!({}), json!({}), true, Claim::Adopt),
            (json!({}), json!({}), false, Claim::Leave),
            (json!({"deletionTimestamp": ending}), json!({}), true, Claim::Leave),
            (json!({}), json!({"deletionTimestamp": ending}), true, Claim::Leave),
            (json!({}), json!({"ownerReferences": owned_by("u")}), true, Claim::Keep),
            (json!({}), json!({"ownerReferences": owned_by("u")}), false, Claim::Release),
            (json!({}), json!({"ownerReferences": owned_by("other")}), true, Claim::Leave),
            (
                json!({"deletionTimestamp": ending}),
                json!({"ownerReferences": owned_by("u")}),
                false,
                Claim::Leave,
            ),
        ] {
            let mut owner: ObjectMeta = serde_json::from_value(owner).unwrap();
            owner.uid = Some("u".to_owned());
            let object = serde_json::from_value(object).unwrap();
            assert_eq!(claim(&owner, &object, selected), expected, "{object:?} {selected}");
        }
    }
}
