//! Writing to the API: every write goes through here, lands in the cache at once, and is left out
//! when it would change nothing.

use std::sync::Arc;

use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::event::Recorder;
use crate::informer::{Cache, Key, Store, Watched};
use crate::{Config, Error};

/// What every controller holds.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) cache: Arc<Cache>,
    pub(crate) events: Recorder,
    pub(crate) config: Arc<Config>,
}

impl Context {
    pub(crate) fn new(client: Client, cache: Arc<Cache>, config: Config) -> Self {
        let events = Recorder::start(client.clone());
        Self { client, cache, events, config: Arc::new(config) }
    }

    /// Creates an object in a namespace.
    pub(crate) async fn create<K>(&self, store: &Store<K>, object: &K) -> Result<K, Error>
    where
        K: Watched + Serialize + Resource<Scope = NamespaceResourceScope>,
    {
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let made = api.create(&PostParams::default(), object).await;
        let made = made.map_err(|source| failed::<K>("create", Key::of(object.meta()), source))?;
        store.put(made.clone());
        Ok(made)
    }

    /// Deletes an object; one that is gone, or another of its name, is no error.
    pub(crate) async fn delete<K>(&self, store: &Store<K>, object: &K) -> Result<(), Error>
    where
        K: Watched + Resource<Scope = NamespaceResourceScope>,
    {
        let key = Key::of(object.meta());
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        let uid = object.meta().uid.clone();
        let preconditions = Preconditions { uid: uid.clone(), resource_version: None };
        let parameters = DeleteParams::background().preconditions(preconditions);
        match api.delete(&key.name, &parameters).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(source) => return Err(failed::<K>("delete", key, source)),
        }
        store.doom(&key, uid.as_deref().unwrap_or_default());
        Ok(())
    }

    /// Writes the difference of two forms of an object, status left out; refused by the server
    /// when the object has changed meanwhile.
    pub(crate) async fn update<K>(&self, store: &Store<K>, old: &K, new: &K) -> Result<(), Error>
    where
        K: Watched + Serialize,
    {
        let (mut before, mut after) = (encode(old)?, encode(new)?);
        for value in [&mut before, &mut after] {
            if let Some(fields) = value.as_object_mut() {
                fields.remove("status");
            }
        }
        let Some(mut patch) = difference(&before, &after) else { return Ok(()) };
        if let Some(fields) = patch.as_object_mut() {
            let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
            metadata["resourceVersion"] = json!(old.meta().resource_version);
        }
        self.patch(store, old, "update", &patch, None).await
    }

    /// Writes the difference of two forms of an object's status and annotations, which leaves the
    /// generation alone.
    pub(crate) async fn update_status<K>(
        &self,
        store: &Store<K>,
        old: &K,
        new: &K,
    ) -> Result<(), Error>
    where
        K: Watched + Serialize,
    {
        let written = |object: Value| {
            json!({
                "metadata": { "annotations": object["metadata"]["annotations"] },
                "status": object["status"],
            })
        };
        let (before, after) = (written(encode(old)?), written(encode(new)?));
        let Some(mut patch) = difference(&before, &after) else { return Ok(()) };
        // The difference may be in the status alone, without metadata to put it into.
        if patch.get("metadata").is_none() {
            patch["metadata"] = json!({});
        }
        patch["metadata"]["resourceVersion"] = json!(old.meta().resource_version);
        self.patch(store, old, "update status of", &patch, Some("status")).await
    }

    async fn patch<K: Watched>(
        &self,
        store: &Store<K>,
        object: &K,
        operation: &'static str,
        patch: &Value,
        subresource: Option<&str>,
    ) -> Result<(), Error> {
        let key = Key::of(object.meta());
        let url = K::url_path(&(), object.meta().namespace.as_deref());
        let request = kube::core::Request::new(url);
        let parameters = PatchParams::default();
        let request = match subresource {
            Some(name) => {
                request.patch_subresource(name, &key.name, &parameters, &Patch::Merge(patch))
            }
            None => request.patch(&key.name, &parameters, &Patch::Merge(patch)),
        };
        let request = request.map_err(|source| {
            failed::<K>(operation, key.clone(), kube::Error::BuildRequest(source))
        })?;
        let answer = self.client.request::<K>(request).await;
        store.put(answer.map_err(|source| failed::<K>(operation, key, source))?);
        Ok(())
    }
}

/// An error of a request.
pub(crate) fn failed<K: Resource<DynamicType = ()>>(
    operation: &'static str,
    key: Key,
    source: kube::Error,
) -> Error {
    Error::Api { operation, kind: K::kind(&()).into_owned(), key, source: Box::new(source) }
}

fn encode<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Result<Value, Error> {
    serde_json::to_value(object)
        .map_err(|source| Error::Encode { kind: K::kind(&()).into_owned(), source })
}

/// The JSON merge patch (RFC 7386) that turns one value into the other; none when they are equal.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Some(before), Some(after)) = (old.as_object(), new.as_object()) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        if let Some(change) = difference(before.get(key).unwrap_or(&Value::Null), value) {
            patch.insert(key.clone(), change);
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences() {
        let cases = [
            (json!({"a": 1}), json!({"a": 1}), None),
            (json!({"a": 1}), json!({"b": 2}), Some(json!({"a": null, "b": 2}))),
            (
                json!({"a": {"b": 1, "c": 2}}),
                json!({"a": {"b": 1}}),
                Some(json!({"a": {"c": null}})),
            ),
            (Value::Null, json!({"a": 1}), Some(json!({"a": 1}))),
        ];
        for (old, new, patch) in cases {
            assert_eq!(difference(&old, &new), patch, "{old} {new}");
        }
    }
}
