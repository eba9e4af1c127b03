//! Objects of a Kubernetes API: one watch for each kind, which survives the server's restarts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    pin::pin,
    time::Instant,
};

use futures::StreamExt as _;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    networking::v1::ServiceCIDR,
};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{Event, Source, channel, node, object_name};
use crate::{
    index::{Change, object::SliceObject, slice::Slice, translate::PROXY_NAME_LABEL},
    model::ObjectName,
};

/// Slices of headless Services carry this label; no proxy needs them.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Objects in one answer to a list. A slice may have a thousand endpoints: what is read at once stays
/// small, and is cut down before the next answer.
const PAGE_LEN: u32 = 100;

/// Starts to watch, as the node with this name. The tasks end when the receiver is dropped.
pub fn watch(client: Client, node_name: Option<&str>) -> Source {
    let (sender, events) = channel();
    let problems = Some(super::events::start(client.clone(), node_name));
    let services = watcher::Config::default().labels(&format!("!{PROXY_NAME_LABEL}"));
    tokio::spawn(follow::<Service>(
        Api::all(client.clone()),
        services,
        sender.clone(),
        |name, service| Change::Service(name, service.map(Box::new)),
    ));
    let slices =
        watcher::Config::default().labels(&format!("!{PROXY_NAME_LABEL},!{HEADLESS_LABEL}"));
    let seen_from = node_name.map(str::to_owned);
    tokio::spawn(follow::<SliceObject>(
        Api::all(client.clone()),
        slices,
        sender.clone(),
        move |name, slice| {
            let cut_down = |slice| Box::new(Slice::from_object(&slice, seen_from.as_deref()));
            Change::Slice(name, slice.map(cut_down))
        },
    ));
    tokio::spawn(follow_service_cidrs(Api::all(client.clone()), sender.clone()));
    let Some(node) = node_name else {
        return Source { events, streams: 2, problems };
    };
    let config = watcher::Config::default().fields(&format!("metadata.name={node}"));
    tokio::spawn(follow_node(Api::all(client), config, sender));
    Source { events, streams: 3, problems }
}

/// Passes one kind on. After a break the list is compared with what was known, so that objects
/// deleted meanwhile go too.
async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    sender: mpsc::Sender<Event>,
    change: impl Fn(ObjectName, Option<K>) -> Change,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let kind = K::kind(&());
    let mut known: BTreeSet<ObjectName> = BTreeSet::new();
    let mut listed: BTreeSet<ObjectName> = BTreeSet::new();
    let mut batch: Vec<Change> = Vec::new();
    let mut synced = false;
    let mut stream = pin!(watcher(api, config.page_size(PAGE_LEN)).default_backoff());
    while let Some(event) = stream.next().await {
        let arrived = Instant::now();
        let changes = match event {
            Ok(watcher::Event::Apply(object)) => {
                let name = object_name(object.meta());
                known.insert(name.clone());
                vec![change(name, Some(object))]
            }
            Ok(watcher::Event::Delete(object)) => {
                let name = object_name(object.meta());
                known.remove(&name);
                vec![change(name, None)]
            }
            Ok(watcher::Event::Init) => {
                listed.clear();
                batch.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                let name = object_name(object.meta());
                listed.insert(name.clone());
                batch.push(change(name, Some(object)));
                continue;
            }
            Ok(watcher::Event::InitDone) => {
                debug!(%kind, objects = listed.len(), "listed");
                batch.extend(known.difference(&listed).map(|name| change(name.clone(), None)));
                known = std::mem::take(&mut listed);
                std::mem::take(&mut batch)
            }
            Err(error) => {
                warn!(%kind, "cannot watch, the last state stays: {error}");
                continue;
            }
        };
        if sender.send(Event::Changes { changes, arrived }).await.is_err() {
            return;
        }
        if !synced && batch.is_empty() && listed.is_empty() {
            synced = true;
            if sender.send(Event::Synced).await.is_err() {
                return;
            }
        }
    }
}

/// Counts as complete when it was listed, but also when that failed: services must be balanced even
/// if the Node may not be read.
async fn follow_node(api: Api<Node>, config: watcher::Config, sender: mpsc::Sender<Event>) {
    let mut stream = pin!(watcher(api, config).default_backoff());
    let mut synced = false;
    while let Some(event) = stream.next().await {
        let (event, is_listed) = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                (Some(Event::Node(Some(node::own_node(&object)))), false)
            }
            Ok(watcher::Event::Delete(_)) => (Some(Event::Node(None)), false),
            Ok(watcher::Event::Init) => continue,
            Ok(watcher::Event::InitDone) => (None, true),
            Err(error) => {
                debug!("cannot watch the own Node: {error}");
                (None, true)
            }
        };
        let first = is_listed && !std::mem::replace(&mut synced, true);
        for event in event.into_iter().chain(first.then_some(Event::Synced)) {
            if sender.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// Servers before 1.33 have none, and no rule depends on them: said only to who debugs.
async fn follow_service_cidrs(api: Api<ServiceCIDR>, sender: mpsc::Sender<Event>) {
    let mut known = BTreeMap::new();
    let mut listed = BTreeMap::new();
    let mut stream = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = stream.next().await {
        let entry = |object: &ServiceCIDR| (object_name(&object.metadata), node::cidrs(object));
        match event {
            Ok(watcher::Event::Apply(object)) => known.extend([entry(&object)]),
            Ok(watcher::Event::Delete(object)) => {
                known.remove(&object_name(&object.metadata));
            }
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.extend([entry(&object)]);
                continue;
            }
            Ok(watcher::Event::InitDone) => known = std::mem::take(&mut listed),
            Err(error) => {
                debug!("cannot watch ServiceCIDRs: {error}");
                continue;
            }
        }
        let cidrs = known.values().flatten().copied().collect();
        if sender.send(Event::ServiceCidrs(cidrs)).await.is_err() {
            return;
        }
    }
}
