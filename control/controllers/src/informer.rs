//! Shared informers: one watch a kind, one cache for all controllers, and the announcement of every
//! change. Writes of our own are put into the cache at once, so that a plan never misses what the
//! plan before it did (upstream's "expectations" are not needed). What to do about a change is left
//! to the controllers.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// The label that ties an EndpointSlice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// How many ends of objects each cache remembers.
const GONE_MAX: usize = 256;

/// Namespace and name; the namespace of cluster-wide objects is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace, or nothing.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of these two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self::new(
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        )
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return formatter.write_str(&self.name);
        }
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// An object came, changed or went.
#[derive(Debug)]
pub struct Change {
    /// Kind of the object.
    pub kind: &'static str,
    /// Its namespace and name.
    pub key: Key,
    /// Metadata before, if it was known.
    pub old: Option<ObjectMeta>,
    /// Metadata after, unless it is gone.
    pub new: Option<ObjectMeta>,
}

impl Change {
    /// The keys of the owners of this kind that control, or controlled, the object.
    pub fn owners(&self, kind: &str) -> Vec<Key> {
        let mut keys: Vec<Key> = [&self.old, &self.new]
            .into_iter()
            .flatten()
            .filter_map(|metadata| controller_of(metadata))
            .filter(|owner| owner.kind == kind)
            .map(|owner| Key::new(&self.key.namespace, &owner.name))
            .collect();
        keys.dedup();
        keys
    }
}

/// The owner that controls an object.
pub fn controller_of(
    metadata: &ObjectMeta,
) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// What a kind needs for being watched.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

impl<K> Watched for K where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

/// The objects of one kind.
#[derive(Debug)]
pub struct Store<K> {
    inner: RwLock<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// Names of those that are labelled as a Service's, by the key of the Service. A change of one
    /// slice among thousands must not look at all of them.
    by_service: BTreeMap<Key, BTreeSet<String>>,
    /// UIDs of objects we deleted and whose end the watch has not told yet.
    doomed: HashSet<String>,
    /// UIDs of objects that are gone: the late answer to a write must not bring one back.
    gone: VecDeque<String>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        let inner = Inner {
            objects: BTreeMap::new(),
            by_service: BTreeMap::new(),
            doomed: HashSet::new(),
            gone: VecDeque::new(),
        };
        Self { inner: RwLock::new(inner) }
    }
}

impl<K: Watched> Inner<K> {
    fn insert(&mut self, key: Key, object: K) -> Option<Arc<K>> {
        let service = service_of(&object);
        let old = self.objects.insert(key.clone(), Arc::new(object));
        let before = old.as_deref().and_then(service_of);
        if before != service {
            if let Some(before) = before {
                self.leave(&before, &key.name);
            }
            if let Some(service) = service {
                self.by_service.entry(service).or_default().insert(key.name);
            }
        }
        old
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        if let Some(service) = service_of(&*old) {
            self.leave(&service, &key.name);
        }
        Some(old)
    }

    fn leave(&mut self, service: &Key, name: &str) {
        if let Some(names) = self.by_service.get_mut(service) {
            names.remove(name);
            if names.is_empty() {
                self.by_service.remove(service);
            }
        }
    }
}

/// The Service that an object is labelled as belonging to.
fn service_of<K: Watched>(object: &K) -> Option<Key> {
    let name = object.meta().labels.as_ref()?.get(SERVICE_NAME)?;
    Some(Key::new(object.meta().namespace.clone().unwrap_or_default(), name))
}

impl<K: Watched> Store<K> {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner<K>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner<K>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read().objects.get(key).cloned()
    }

    /// All objects, in the order of their keys.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    /// The objects of a namespace, in the order of their names.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let first = Key::new(namespace, "");
        let inner = self.read();
        let within = inner.objects.range(first..).take_while(|(key, _)| key.namespace == namespace);
        within.map(|(_, object)| object.clone()).collect()
    }

    /// The objects that are labelled as a Service's, in the order of their names.
    pub fn list_of_service(&self, service: &Key) -> Vec<Arc<K>> {
        let inner = self.read();
        let names = inner.by_service.get(service).into_iter().flatten();
        names
            .filter_map(|name| inner.objects.get(&Key::new(&service.namespace, name)).cloned())
            .collect()
    }

    /// Keys of all objects.
    pub fn keys(&self) -> Vec<Key> {
        self.read().objects.keys().cloned().collect()
    }

    /// Takes an object over unless a newer one is known; says what was there before.
    pub fn put(&self, mut object: K) -> Option<Option<Arc<K>>> {
        object.meta_mut().managed_fields = None;
        let key = Key::of(object.meta());
        let mut inner = self.write();
        if object.uid().is_some_and(|uid| inner.gone.contains(&uid)) {
            return None;
        }
        if object.uid().is_some_and(|uid| inner.doomed.contains(&uid)) {
            object.meta_mut().deletion_timestamp.get_or_insert(Time(Timestamp::now()));
        }
        let known = inner.objects.get(&key);
        if known.is_some_and(|known| revision(known.meta()) >= revision(object.meta())) {
            return None;
        }
        Some(inner.insert(key, object))
    }

    /// Marks an object as being deleted until the watch says that it is gone.
    pub fn doom(&self, key: &Key, uid: &str) {
        let mut inner = self.write();
        let Some(object) = inner.objects.get_mut(key) else { return };
        if object.uid().as_deref() != Some(uid) {
            return;
        }
        let object = Arc::make_mut(object);
        object.meta_mut().deletion_timestamp.get_or_insert(Time(Timestamp::now()));
        inner.doomed.insert(uid.to_owned());
    }

    fn remove(&self, key: &Key, uid: Option<&str>) -> Option<Arc<K>> {
        let mut inner = self.write();
        if let Some(uid) = uid {
            inner.doomed.remove(uid);
            if inner.gone.len() >= GONE_MAX {
                inner.gone.pop_front();
            }
            inner.gone.push_back(uid.to_owned());
        }
        let same = inner.objects.get(key).is_some_and(|known| known.meta().uid.as_deref() == uid);
        same.then(|| inner.remove(key)).flatten()
    }
}

fn revision(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

type Subscribers = Arc<Mutex<Vec<mpsc::UnboundedSender<Arc<Change>>>>>;

/// The caches of all kinds, and the subscription to their changes.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each field is the cache of the kind it names")]
pub struct Cache {
    pub config_maps: Store<ConfigMap>,
    pub deployments: Store<Deployment>,
    pub endpoints: Store<Endpoints>,
    pub endpoint_slices: Store<EndpointSlice>,
    pub jobs: Store<Job>,
    pub leases: Store<Lease>,
    pub namespaces: Store<Namespace>,
    pub nodes: Store<Node>,
    pub pods: Store<Pod>,
    pub replica_sets: Store<ReplicaSet>,
    pub service_accounts: Store<ServiceAccount>,
    pub services: Store<Service>,
    subscribers: Subscribers,
}

impl Cache {
    /// Everything that changes from now on.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Arc<Change>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    fn announce(&self, change: Change) {
        let change = Arc::new(change);
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| subscriber.send(change.clone()).is_ok());
    }

    /// Watches pods, nodes and services only: what a scheduler needs.
    pub async fn start_for_scheduling(
        self: &Arc<Self>,
        client: &Client,
        shutdown: &CancellationToken,
    ) {
        let everything = watcher::Config::default();
        let synced = [
            self.follow(client, everything.clone(), |cache| &cache.pods, shutdown),
            self.follow(client, everything.clone(), |cache| &cache.nodes, shutdown),
            self.follow(client, everything, |cache| &cache.services, shutdown),
        ];
        wait(synced, shutdown).await;
    }

    /// Watches every kind and returns when all caches are filled.
    pub async fn start(self: &Arc<Self>, client: &Client, shutdown: &CancellationToken) {
        let all = watcher::Config::default;
        let root_ca = all().fields("metadata.name=kube-root-ca.crt");
        let synced = [
            self.follow(client, root_ca, |cache| &cache.config_maps, shutdown),
            self.follow(client, all(), |cache| &cache.deployments, shutdown),
            self.follow(client, all(), |cache| &cache.endpoints, shutdown),
            self.follow(client, all(), |cache| &cache.endpoint_slices, shutdown),
            self.follow(client, all(), |cache| &cache.jobs, shutdown),
            self.follow(client, all(), |cache| &cache.leases, shutdown),
            self.follow(client, all(), |cache| &cache.namespaces, shutdown),
            self.follow(client, all(), |cache| &cache.nodes, shutdown),
            self.follow(client, all(), |cache| &cache.pods, shutdown),
            self.follow(client, all(), |cache| &cache.replica_sets, shutdown),
            self.follow(client, all(), |cache| &cache.service_accounts, shutdown),
            self.follow(client, all(), |cache| &cache.services, shutdown),
        ];
        wait(synced, shutdown).await;
    }

    fn follow<K: Watched>(
        self: &Arc<Self>,
        client: &Client,
        config: watcher::Config,
        store: fn(&Self) -> &Store<K>,
        shutdown: &CancellationToken,
    ) -> watch::Receiver<bool> {
        let (synced, receiver) = watch::channel(false);
        let (cache, shutdown) = (self.clone(), shutdown.clone());
        let mut events = watcher(Api::<K>::all(client.clone()), config).default_backoff().boxed();
        tokio::spawn(async move {
            let mut listed = HashSet::new();
            loop {
                let event = tokio::select! {
                    event = events.try_next() => event,
                    () = shutdown.cancelled() => return,
                };
                match event {
                    Ok(Some(event)) => cache.take(store(&cache), event, &mut listed, &synced),
                    Ok(None) => return,
                    Err(error) => {
                        tracing::warn!(kind = %K::kind(&()), %error, "watch failed, starting anew");
                    }
                }
            }
        });
        receiver
    }

    fn take<K: Watched>(
        &self,
        store: &Store<K>,
        event: watcher::Event<K>,
        listed: &mut HashSet<Key>,
        synced: &watch::Sender<bool>,
    ) {
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(object) => {
                listed.insert(Key::of(object.meta()));
                self.put(store, object);
            }
            watcher::Event::Apply(object) => self.put(store, object),
            watcher::Event::Delete(object) => self.forget(store, &object),
            watcher::Event::InitDone => {
                for object in store.list() {
                    if !listed.contains(&Key::of(object.meta())) {
                        self.forget(store, &object);
                    }
                }
                synced.send_replace(true);
            }
        }
    }

    fn put<K: Watched>(&self, store: &Store<K>, object: K) {
        let (key, new) = (Key::of(object.meta()), object.meta().clone());
        let old = store.put(object).flatten().map(|old| old.meta().clone());
        // Announced even if it is our own write come back: a plan that was waiting for it looks again.
        self.announce(Change { kind: kind_of::<K>(), key, old, new: Some(new) });
    }

    fn forget<K: Watched>(&self, store: &Store<K>, object: &K) {
        let (key, old) = (Key::of(object.meta()), object.meta().clone());
        store.remove(&key, old.uid.as_deref());
        self.announce(Change { kind: kind_of::<K>(), key, old: Some(old), new: None });
    }
}

fn kind_of<K: Watched>() -> &'static str {
    match K::kind(&()) {
        std::borrow::Cow::Borrowed(kind) => kind,
        std::borrow::Cow::Owned(_) => "",
    }
}

async fn wait(
    synced: impl IntoIterator<Item = watch::Receiver<bool>>,
    shutdown: &CancellationToken,
) {
    for mut receiver in synced {
        tokio::select! {
            _ = receiver.wait_for(|synced| *synced) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, revision: u64) -> Pod {
        let metadata = json!({"name": "web", "namespace": "default", "uid": uid,
            "resourceVersion": revision.to_string()});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    #[test]
    fn late_answers_change_nothing() {
        let (store, key) = (Store::<Pod>::default(), Key::new("default", "web"));
        store.put(pod("a", 5));
        assert!(store.put(pod("a", 4)).is_none(), "an older form");
        store.doom(&key, "other");
        assert!(store.get(&key).unwrap().metadata.deletion_timestamp.is_none());
        store.doom(&key, "a");
        assert!(store.put(pod("a", 6)).is_some(), "a change seen before the end");
        assert!(store.get(&key).unwrap().metadata.deletion_timestamp.is_some());
        assert!(store.remove(&key, Some("a")).is_some());
        assert!(store.put(pod("a", 7)).is_none(), "the answer to a write, after the end");
        assert!(store.get(&key).is_none());
        assert!(store.put(pod("b", 8)).is_some(), "another object of that name");
    }

    #[test]
    fn slices_are_found_by_their_service() {
        let store = Store::<EndpointSlice>::default();
        let put = |name: &str, service: Option<&str>, revision: u64| {
            let labels = service.map(|service| json!({SERVICE_NAME: service}));
            let metadata = json!({"name": name, "namespace": "default", "uid": name,
                "resourceVersion": revision.to_string(), "labels": labels});
            store.put(serde_json::from_value(json!({"metadata": metadata})).unwrap());
        };
        let of = |service: &str| -> Vec<String> {
            let slices = store.list_of_service(&Key::new("default", service));
            slices.iter().map(|slice| slice.name_any()).collect()
        };
        put("b", Some("web"), 1);
        put("a", Some("web"), 2);
        put("c", None, 3);
        assert_eq!((of("web"), of("other")), (vec!["a".to_owned(), "b".to_owned()], vec![]));
        put("a", Some("other"), 4);
        put("b", Some("web"), 5);
        assert_eq!((of("web"), of("other")), (vec!["b".to_owned()], vec!["a".to_owned()]));
        store.remove(&Key::new("default", "b"), Some("b"));
        put("a", None, 6);
        assert!(of("web").is_empty() && of("other").is_empty());
        assert!(store.read().by_service.is_empty());
    }
}
