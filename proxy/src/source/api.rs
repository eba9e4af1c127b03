//! Objects of a Kubernetes API: one watch for each kind, which survives the server's restarts.

use std::{collections::BTreeSet, fmt::Debug, pin::pin};

use futures::StreamExt as _;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{Event, Source, channel, object_name};
use crate::{
    index::{Change, translate::PROXY_NAME_LABEL},
    model::ObjectName,
};

/// Put on a Node that is about to be removed: load balancers should look elsewhere (KEP-3458).
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// Slices of headless Services carry this label; no proxy needs them.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Starts to watch. The tasks end when the receiver is dropped.
pub fn watch(client: Client, node_name: Option<&str>) -> Source {
    let (sender, events) = channel();
    let services = watcher::Config::default().labels(&format!("!{PROXY_NAME_LABEL}"));
    tokio::spawn(follow::<Service>(
        Api::all(client.clone()),
        services,
        sender.clone(),
        Change::Service,
    ));
    let slices =
        watcher::Config::default().labels(&format!("!{PROXY_NAME_LABEL},!{HEADLESS_LABEL}"));
    tokio::spawn(follow::<EndpointSlice>(
        Api::all(client.clone()),
        slices,
        sender.clone(),
        Change::Slice,
    ));
    if let Some(node) = node_name {
        let config = watcher::Config::default().fields(&format!("metadata.name={node}"));
        tokio::spawn(follow_node(Api::all(client), config, sender));
    }
    Source { events, streams: 2 }
}

/// Passes one kind on. After a break the list is compared with what was known, so that objects
/// deleted meanwhile go too.
async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    sender: mpsc::Sender<Event>,
    change: fn(ObjectName, Option<Box<K>>) -> Change,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let kind = K::kind(&());
    let mut known: BTreeSet<ObjectName> = BTreeSet::new();
    let mut listed: BTreeSet<ObjectName> = BTreeSet::new();
    let mut batch: Vec<Change> = Vec::new();
    let mut synced = false;
    let mut stream = pin!(watcher(api, config).default_backoff());
    while let Some(event) = stream.next().await {
        let changes = match event {
            Ok(watcher::Event::Apply(object)) => {
                let name = object_name(object.meta());
                known.insert(name.clone());
                vec![change(name, Some(Box::new(object)))]
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
                batch.push(change(name, Some(Box::new(object))));
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
        if sender.send(Event::Changes(changes)).await.is_err() {
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

async fn follow_node(api: Api<Node>, config: watcher::Config, sender: mpsc::Sender<Event>) {
    let mut stream = pin!(watcher(api, config).default_backoff());
    while let Some(event) = stream.next().await {
        let eligible = match event {
            Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) => is_eligible(&node),
            Ok(watcher::Event::Delete(_)) => false,
            Ok(watcher::Event::Init | watcher::Event::InitDone) => continue,
            Err(error) => {
                debug!("cannot watch the own Node: {error}");
                continue;
            }
        };
        if sender.send(Event::NodeEligible(eligible)).await.is_err() {
            return;
        }
    }
}

fn is_eligible(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    node.metadata.deletion_timestamp.is_none()
        && !taints.into_iter().flatten().any(|taint| taint.key == TO_BE_DELETED_TAINT)
}
