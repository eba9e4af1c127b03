//! Garbage collector: objects whose owners are all gone go too; owners deleted in the foreground go
//! after their dependents, those deleted with `orphan` leave them behind. It watches the metadata of
//! every kind the API serves and knows none of them by name.

mod graph;
mod plan;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::informer::{Change, Key};
use crate::queue::{self, Controller};
use crate::served::{self, Metadata, Served};
use graph::{Graph, Object};
use plan::{Action, FOREGROUND, Owner};

const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);
const DISCOVERY_RETRY: Duration = Duration::from_secs(1);

/// Works on objects by their UIDs: the names of its keys.
struct Garbage {
    client: Client,
    graph: Mutex<Graph>,
    kinds: Mutex<Vec<Arc<Served>>>,
    changes: mpsc::UnboundedSender<Arc<Change>>,
}

/// Collects garbage until shutdown.
pub(crate) async fn run(client: Client, shutdown: CancellationToken) {
    let (changes, receiver) = mpsc::unbounded_channel();
    let garbage =
        Arc::new(Garbage { client, graph: Mutex::default(), kinds: Mutex::default(), changes });
    let mut queue = None;
    let mut receiver = Some(receiver);
    loop {
        let wait = match served::discover(&garbage.client).await {
            Ok(kinds) => {
                for mut synced in garbage.follow_new(kinds, &shutdown) {
                    // No decision before every kind is known: an owner may be of any.
                    tokio::select! {
                        _ = synced.wait_for(|synced| *synced) => {}
                        () = shutdown.cancelled() => return,
                    }
                }
                if let Some(receiver) = receiver.take() {
                    let work = queue::run(garbage.clone(), receiver, shutdown.clone());
                    queue = Some(tokio::spawn(work));
                }
                DISCOVERY_PERIOD
            }
            Err(error) => {
                tracing::warn!(%error, "garbage collector cannot see the kinds, trying again");
                DISCOVERY_RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => break,
        }
    }
    if let Some(queue) = queue {
        let _ = queue.await;
    }
}

impl Controller for Garbage {
    const NAME: &'static str = "garbage-collector";

    fn keys(&self, change: &Change) -> Vec<Key> {
        vec![change.key.clone()]
    }

    fn all(&self) -> Vec<Key> {
        self.graph().uids().into_iter().map(|uid| Key::new("", uid)).collect()
    }

    async fn sync(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let (object, dependents) = {
            let graph = self.graph();
            let Some(object) = graph.get(&key.name).cloned() else { return Ok(None) };
            (object, graph.dependents(&key.name))
        };
        let action = if object.is_terminating() {
            plan::of_terminating(&object, &dependents)
        } else {
            let owners = self.owners(&object).await?;
            plan::of_owned(&object, &owners, &dependents)
        };
        self.execute(&object, action).await?;
        Ok(None)
    }
}

impl Garbage {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, uids: Vec<String>) {
        for uid in uids {
            let key = Key::new("", uid);
            // The queue is gone at shutdown only.
            let _ = self.changes.send(Arc::new(Change { kind: "", key, old: None, new: None }));
        }
    }

    /// Starts a watch for every kind that has none yet.
    fn follow_new(
        self: &Arc<Self>,
        found: Vec<Served>,
        shutdown: &CancellationToken,
    ) -> Vec<watch::Receiver<bool>> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let mut receivers = Vec::new();
        for served in found {
            if served::is_event(&served) || kinds.iter().any(|known| **known == served) {
                continue;
            }
            let served = Arc::new(served);
            kinds.push(served.clone());
            let (synced, receiver) = watch::channel(false);
            receivers.push(receiver);
            let (garbage, shutdown) = (self.clone(), shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = garbage.follow(&served, &synced) => {}
                    () = shutdown.cancelled() => {}
                }
            });
        }
        receivers
    }

    async fn follow(&self, served: &Arc<Served>, synced: &watch::Sender<bool>) {
        let api = served.metadata(&self.client, "");
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut listed = HashSet::new();
        loop {
            match events.try_next().await {
                Ok(Some(event)) => self.take(served, event, &mut listed, synced),
                Ok(None) => return,
                Err(error) => {
                    let kind = served.name();
                    tracing::warn!(kind, %error, "metadata watch failed, starting anew");
                }
            }
        }
    }

    fn take(
        &self,
        served: &Arc<Served>,
        event: watcher::Event<Metadata>,
        listed: &mut HashSet<String>,
        synced: &watch::Sender<bool>,
    ) {
        let concerned = match event {
            watcher::Event::Init => {
                listed.clear();
                return;
            }
            watcher::Event::InitApply(object) => {
                listed.extend(object.metadata.uid.clone());
                self.put(served, object)
            }
            watcher::Event::Apply(object) => self.put(served, object),
            watcher::Event::Delete(object) => {
                self.graph().remove(object.metadata.uid.as_deref().unwrap_or_default())
            }
            watcher::Event::InitDone => {
                let mut graph = self.graph();
                let gone = graph.of(served).into_iter().filter(|uid| !listed.contains(uid));
                let gone: Vec<String> = gone.collect();
                let concerned = gone.iter().flat_map(|uid| graph.remove(uid)).collect();
                synced.send_replace(true);
                concerned
            }
        };
        self.announce(concerned);
    }

    fn put(&self, served: &Arc<Served>, object: Metadata) -> Vec<String> {
        let mut metadata = object.metadata;
        metadata.managed_fields = None;
        metadata.annotations = None;
        self.graph().put(Object { served: served.clone(), metadata: Arc::new(metadata) })
    }

    /// What became of each owner of an object. Watches of different kinds are not in step, so an
    /// owner that is not known is asked for before it counts as absent.
    async fn owners(&self, object: &Object) -> Result<Vec<Owner>, Error> {
        let mut states = Vec::new();
        let mut asked: HashMap<&str, Owner> = HashMap::new();
        for owner in object.owners() {
            let known = self.graph().get(&owner.uid).cloned();
            let here = known.filter(|known| reachable(object, known) && names(owner, known));
            let state = match (here, asked.get(owner.uid.as_str())) {
                (Some(known), _) if known.is_terminating() && known.has_finalizer(FOREGROUND) => {
                    Owner::Waiting
                }
                (Some(_), _) => Owner::Solid,
                (None, Some(state)) => *state,
                (None, None) => self.ask(object, owner).await?,
            };
            asked.insert(&owner.uid, state);
            states.push(state);
        }
        Ok(states)
    }

    async fn ask(&self, object: &Object, owner: &OwnerReference) -> Result<Owner, Error> {
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let served = {
            let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            let mut kinds = kinds.iter();
            kinds
                .find(|kind| kind.resource.group == group && kind.resource.kind == owner.kind)
                .cloned()
        };
        // Nobody can tell whether an owner of an unknown kind is there, and a cluster-wide object
        // cannot say in which namespace its owner lives: such objects stay.
        let Some(served) = served else { return Ok(Owner::Solid) };
        let key = object.key();
        if served.namespaced && key.namespace.is_empty() {
            return Ok(Owner::Solid);
        }
        let namespace = if served.namespaced { key.namespace.as_str() } else { "" };
        let found = served.metadata(&self.client, namespace).get_opt(&owner.name).await;
        let found = found.map_err(|source| {
            served.failed("get owner", Key::new(namespace, &owner.name), source)
        })?;
        let Some(found) = found.filter(|found| found.metadata.uid.as_deref() == Some(&*owner.uid))
        else {
            return Ok(Owner::Absent);
        };
        let found = Object { served, metadata: Arc::new(found.metadata) };
        let waits = found.is_terminating() && found.has_finalizer(FOREGROUND);
        Ok(if waits { Owner::Waiting } else { Owner::Solid })
    }

    async fn execute(&self, object: &Object, action: Action) -> Result<(), Error> {
        match action {
            Action::Nothing => Ok(()),
            Action::Wait(uids) => {
                self.announce(uids);
                Ok(())
            }
            Action::Finish(finalizer) => self.finish(object, finalizer).await,
            Action::Orphan(dependents) => {
                for uid in dependents {
                    let Some(dependent) = self.graph().get(&uid).cloned() else { continue };
                    let owners = dependent.owners().iter();
                    let kept: Vec<OwnerReference> =
                        owners.filter(|owner| owner.uid != object.uid()).cloned().collect();
                    let kept = some(kept);
                    self.patch(&dependent, "orphan", json!({ "ownerReferences": kept })).await?;
                }
                self.finish(object, plan::ORPHAN).await
            }
            Action::Keep(owners) => {
                let fields = json!({ "ownerReferences": owners });
                self.patch(object, "remove absent owners of", fields).await
            }
            Action::Delete { propagation, unblock } => {
                if unblock {
                    let mut owners = object.owners().to_vec();
                    for owner in &mut owners {
                        owner.block_owner_deletion = Some(false);
                    }
                    let fields = json!({ "ownerReferences": owners });
                    self.patch(object, "let go of the owners of", fields).await?;
                }
                self.delete(object, propagation).await
            }
        }
    }

    async fn finish(&self, object: &Object, finalizer: &str) -> Result<(), Error> {
        let finalizers = object.metadata.finalizers.iter().flatten();
        let kept: Vec<&String> = finalizers.filter(|known| *known != finalizer).collect();
        self.patch(object, "finish", json!({ "finalizers": some(kept) })).await
    }

    /// Changes metadata, unless the object is another one or a newer one by now.
    async fn patch(
        &self,
        object: &Object,
        operation: &'static str,
        mut fields: Value,
    ) -> Result<(), Error> {
        fields["uid"] = json!(object.metadata.uid);
        fields["resourceVersion"] = json!(object.metadata.resource_version);
        let key = object.key();
        let api = object.served.objects(&self.client, &key.namespace);
        let patch = Patch::Merge(json!({ "metadata": fields }));
        match api.patch(&key.name, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(object.served.failed(operation, key, source)),
        }
    }

    async fn delete(&self, object: &Object, propagation: PropagationPolicy) -> Result<(), Error> {
        let key = object.key();
        let preconditions =
            Preconditions { uid: object.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams {
            propagation_policy: Some(propagation),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let api = object.served.objects(&self.client, &key.namespace);
        match api.delete(&key.name, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(source) => Err(object.served.failed("collect", key, source)),
        }
    }
}

/// An empty list is left out of an object.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

/// Owners are cluster-wide or in the namespace of their dependents.
fn reachable(object: &Object, owner: &Object) -> bool {
    let (object, owner) = (object.key(), owner.key());
    owner.namespace.is_empty() || owner.namespace == object.namespace
}

/// Whether a reference names the object that has its UID.
fn names(reference: &OwnerReference, owner: &Object) -> bool {
    owner.metadata.name.as_deref() == Some(&*reference.name)
        && owner.served.resource.kind == reference.kind
}
