//! Keeps one worker for each pod of this node: those the API assigns to it, and those the runtime
//! still holds though the API no longer knows them. Also notices what changes in the runtime.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::event::pod_reference;
use crate::host::Host;
use crate::pod::PodExt;
use crate::pod::observed::{self, Fingerprint, Listed};
use crate::pod::worker::{Desired, Shared, Worker};
use crate::volumes;

/// How often the runtime is asked what it holds; a list is answered from its memory.
const RELIST_PERIOD: Duration = Duration::from_millis(200);

/// A pod as the HTTPS server sees it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) pod: Arc<Pod>,
    pub(crate) shared: Arc<Shared>,
}

/// The pods of this node, for readers outside of the supervisor. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    pods: Arc<RwLock<BTreeMap<String, Entry>>>,
}

impl Registry {
    pub(crate) fn list(&self) -> Vec<Entry> {
        self.pods.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Entry> {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = pods
            .values()
            .filter(|entry| entry.pod.namespace() == namespace && entry.pod.name() == name);
        let first = found.next().cloned();
        // Two of a name: one of them is still ending.
        found.find(|entry| entry.pod.metadata.deletion_timestamp.is_none()).cloned().or(first)
    }

    fn insert(&self, uid: &str, entry: Entry) {
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        pods.insert(uid.to_owned(), entry);
    }

    fn remove(&self, uid: &str) {
        self.pods.write().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

struct Handle {
    desired: watch::Sender<Desired>,
    shared: Arc<Shared>,
}

/// All workers of the node.
pub(crate) struct Supervisor {
    host: Arc<Host>,
    registry: Registry,
    workers: HashMap<String, Handle>,
    tasks: JoinSet<String>,
    /// The pods the API has; filled while a list is being received.
    listing: BTreeSet<String>,
    listed_once: bool,
    /// What the runtime held when it was asked last.
    held: Arc<BTreeMap<String, Listed>>,
}

impl Supervisor {
    pub(crate) fn new(host: Arc<Host>, registry: Registry) -> Self {
        Self {
            host,
            registry,
            workers: HashMap::new(),
            tasks: JoinSet::new(),
            listing: BTreeSet::new(),
            listed_once: false,
            held: Arc::default(),
        }
    }

    /// Runs until shutdown. Containers keep running after it.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let (held, mut held_changes) = mpsc::channel(1);
        let relist = tokio::spawn(relist(self.host.clone(), held));
        let resource = ApiResource::erase::<Pod>(&());
        let api: Api<DynamicObject> = Api::all_with(self.host.client.clone(), &resource);
        let selector = format!("spec.nodeName={}", self.host.config.node_name);
        let config = watcher::Config::default().fields(&selector);
        let mut events = pin!(watch_objects(api, config).default_backoff());
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                event = events.next() => match event {
                    Some(Ok(event)) => self.take_event(event),
                    Some(Err(error)) => tracing::warn!(%error, "watch of pods interrupted"),
                    None => break,
                },
                Some(held) = held_changes.recv() => self.take_held(held),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(uid) = ended {
                        self.workers.remove(&uid);
                        self.registry.remove(&uid);
                    }
                }
            }
        }
        relist.abort();
        self.tasks.abort_all();
    }

    fn take_event(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => {
                let uid = object.metadata.uid.clone().unwrap_or_default();
                self.listing.insert(uid);
                self.apply(object);
            }
            Event::InitDone => {
                let missing: Vec<String> = self
                    .workers
                    .keys()
                    .filter(|uid| !self.listing.contains(*uid))
                    .cloned()
                    .collect();
                missing.iter().for_each(|uid| self.gone(uid));
                self.listed_once = true;
                self.adopt_orphans();
                self.remove_leftovers();
            }
            Event::Apply(object) => self.apply(object),
            Event::Delete(object) => {
                self.gone(&object.metadata.uid.unwrap_or_default());
            }
        }
    }

    /// A pod that cannot be read is reported and left alone; the others go on.
    fn apply(&mut self, object: DynamicObject) {
        let metadata = object.metadata.clone();
        let parsed = serde_json::to_value(&object).and_then(serde_json::from_value::<Pod>);
        let pod = match parsed {
            Ok(pod) => Arc::new(pod),
            Err(error) => {
                let pod = Pod { metadata, ..Pod::default() };
                tracing::warn!(pod = pod.display(), %error, "pod not understood");
                let object = pod_reference(&pod, None);
                self.host.recorder.warning(object, "FailedValidation", error.to_string());
                return;
            }
        };
        let uid = pod.uid().to_owned();
        let desired = Desired { pod: pod.clone(), gone: false };
        match self.workers.get(&uid) {
            Some(handle) => {
                self.registry.insert(&uid, Entry { pod, shared: handle.shared.clone() });
                handle.desired.send_replace(desired);
            }
            None => self.employ(&uid, desired),
        }
    }

    fn employ(&mut self, uid: &str, desired: Desired) {
        let shared = Arc::new(Shared::new(&self.host));
        let entry = Entry { pod: desired.pod.clone(), shared: shared.clone() };
        self.registry.insert(uid, entry);
        let (sender, receiver) = watch::channel(desired);
        let worker = Worker::new(self.host.clone(), shared.clone(), receiver);
        let name = uid.to_owned();
        self.tasks.spawn(async move {
            worker.run().await;
            name
        });
        self.workers.insert(uid.to_owned(), Handle { desired: sender, shared });
    }

    fn gone(&self, uid: &str) {
        if let Some(handle) = self.workers.get(uid) {
            handle.desired.send_modify(|desired| desired.gone = true);
        }
    }

    fn take_held(&mut self, held: Arc<BTreeMap<String, Listed>>) {
        let empty = Fingerprint::new();
        let fingerprint = |of: &BTreeMap<String, Listed>, uid: &str| {
            of.get(uid).map_or_else(|| empty.clone(), |listed| listed.fingerprint.clone())
        };
        for (uid, handle) in &self.workers {
            if fingerprint(&self.held, uid) != fingerprint(&held, uid) {
                handle.shared.wake_for_runtime();
            }
        }
        self.held = held;
        self.adopt_orphans();
    }

    /// Pods of ours in the runtime that the API does not have are ended and removed.
    fn adopt_orphans(&mut self) {
        if !self.listed_once {
            return;
        }
        for (uid, listed) in self.held.clone().iter() {
            if self.workers.contains_key(uid) {
                continue;
            }
            tracing::info!(pod = format!("{}/{}", listed.namespace, listed.name), "orphan removed");
            let metadata = ObjectMeta {
                name: Some(listed.name.clone()),
                namespace: Some(listed.namespace.clone()),
                uid: Some(uid.clone()),
                ..ObjectMeta::default()
            };
            let pod = Arc::new(Pod { metadata, ..Pod::default() });
            self.employ(uid, Desired { pod, gone: true });
        }
    }

    /// Folders and cgroups of pods that neither the API nor the runtime knows.
    fn remove_leftovers(&self) {
        let config = &self.host.config;
        let folders = fs::read_dir(config.pods_dir()).into_iter().flatten().flatten();
        let mut uids: BTreeSet<String> =
            folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        uids.extend(self.host.hierarchies.pod_uids(&config.cgroup_root));
        uids.retain(|uid| !self.workers.contains_key(uid) && !self.held.contains_key(uid));
        for uid in uids {
            let removed = volumes::tear_down(&config.pod_dir(&uid))
                .and_then(|()| self.host.hierarchies.remove(&config.pod_cgroup(&uid)));
            match removed {
                Ok(()) => tracing::info!(uid, "leftovers of a pod removed"),
                Err(error) => tracing::warn!(uid, %error, "leftovers of a pod not removed"),
            }
        }
    }
}

/// Asks the runtime again and again, and passes on what differs.
async fn relist(host: Arc<Host>, changes: mpsc::Sender<Arc<BTreeMap<String, Listed>>>) {
    let mut last: Option<BTreeMap<String, Fingerprint>> = None;
    loop {
        match observed::list(&host.runtime, &host.config.node_name).await {
            Ok(held) => {
                let now: BTreeMap<String, Fingerprint> = held
                    .iter()
                    .map(|(uid, listed)| (uid.clone(), listed.fingerprint.clone()))
                    .collect();
                if last.as_ref() != Some(&now) {
                    if changes.send(held).await.is_err() {
                        return;
                    }
                    last = Some(now);
                }
            }
            Err(error) => tracing::warn!(%error, "container runtime not listed"),
        }
        tokio::time::sleep(RELIST_PERIOD).await;
    }
}
