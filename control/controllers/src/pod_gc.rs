//! Pod garbage: pods whose node does not exist, pods that were to go before they had a node, and the
//! oldest of too many finished ones.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Preconditions};
use tokio::time::Instant;

use crate::informer::{Change, Key};
use crate::queue::Controller;
use crate::write::{Context, failed};
use crate::{Error, node, pod};

/// One key for all pods: the excess is a matter of all of them.
const ALL: &str = "pods";
const PERIOD: Duration = Duration::from_secs(20);
const FINISHED_MAX: usize = 12_500;
/// A node that registers anew under its name keeps its pods.
const MISSING_NODE_GRACE: Duration = Duration::from_secs(40);

pub(crate) struct PodGarbage {
    context: Context,
    missing: Mutex<HashMap<String, Instant>>,
}

impl PodGarbage {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, missing: Mutex::default() }
    }

    /// The nodes that pods name and that have been missing for long enough.
    fn missing_for_long(&self, pods: &[Arc<Pod>], nodes: &[Arc<Node>]) -> HashSet<String> {
        let known: HashSet<&str> =
            nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
        let named = pods.iter().filter_map(|pod| pod::node_name(pod));
        let missing: HashSet<&str> = named.filter(|name| !known.contains(name)).collect();
        let now = Instant::now();
        let mut since = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|name, _| missing.contains(name.as_str()));
        for name in missing {
            since.entry(name.to_owned()).or_insert(now);
        }
        let long = since.iter().filter(|(_, at)| now.duration_since(**at) >= MISSING_NODE_GRACE);
        long.map(|(name, _)| name.clone()).collect()
    }

    async fn end(&self, pod: &Arc<Pod>, why: Why) -> Result<(), Error> {
        let store = &self.context.cache.pods;
        if !pod::is_finished(pod) && why == Why::NodeMissing {
            let mut new = (**pod).clone();
            node::disrupted(
                &mut new,
                "DeletionByPodGC",
                "PodGC: node no longer exists",
                Timestamp::now(),
            );
            new.status.get_or_insert_default().phase = Some("Failed".to_owned());
            self.context.update_status(store, &**pod, &new).await?;
        }
        let key = Key::of(&pod.metadata);
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let uid = pod.metadata.uid.clone();
        let parameters = DeleteParams::background()
            .grace_period(0)
            .preconditions(Preconditions { uid, resource_version: None });
        match api.delete(&key.name, &parameters).await {
            Ok(_) => {
                tracing::info!(pod = %key, ?why, "pod removed");
                Ok(())
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(source) => Err(failed::<Pod>("remove", key, source)),
        }
    }
}

impl Controller for PodGarbage {
    const NAME: &'static str = "pod-garbage";

    fn keys(&self, change: &Change) -> Vec<Key> {
        if change.kind == "Node" && change.new.is_none() { self.all() } else { Vec::new() }
    }

    fn all(&self) -> Vec<Key> {
        vec![Key::new("", ALL)]
    }

    async fn sync(&self, _: &Key) -> Result<Option<Duration>, Error> {
        let cache = &self.context.cache;
        let pods = cache.pods.list();
        let missing = self.missing_for_long(&pods, &cache.nodes.list());
        for (pod, why) in plan(&pods, &missing, FINISHED_MAX) {
            self.end(&pod, why).await?;
        }
        Ok(Some(PERIOD))
    }
}

/// Why a pod is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    NodeMissing,
    NeverScheduled,
    TooMany,
}

/// The pods to remove.
fn plan(
    pods: &[Arc<Pod>],
    missing_nodes: &HashSet<String>,
    finished_max: usize,
) -> Vec<(Arc<Pod>, Why)> {
    let mut ends = Vec::new();
    let mut finished = Vec::new();
    for pod in pods {
        match pod::node_name(pod) {
            Some(node) if missing_nodes.contains(node) => {
                ends.push((pod.clone(), Why::NodeMissing))
            }
            None if pod::is_terminating(pod) => ends.push((pod.clone(), Why::NeverScheduled)),
            _ if pod::is_finished(pod) && !pod::is_terminating(pod) => finished.push(pod.clone()),
            _ => {}
        }
    }
    let excess = finished.len().saturating_sub(finished_max);
    finished.sort_by_cached_key(|pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, Key::of(&pod.metadata))
    });
    ends.extend(finished.into_iter().take(excess).map(|pod| (pod, Why::TooMany)));
    ends
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_has_to_go() {
        let pod =
            |name: &str, node: Option<&str>, phase: &str, created_s: i64, terminating: bool| {
                let time = |second| Timestamp::from_second(second).unwrap().to_string();
                let pod: Pod = serde_json::from_value(json!({
                    "metadata": {
                        "name": name,
                        "namespace": "default",
                        "creationTimestamp": time(created_s),
                        "deletionTimestamp": terminating.then(|| time(9)),
                    },
                    "spec": { "nodeName": node, "containers": [] },
                    "status": { "phase": phase },
                }))
                .unwrap();
                Arc::new(pod)
            };
        let pods = [
            pod("runs", Some("here"), "Running", 1, false),
            pod("lost", Some("gone"), "Running", 1, false),
            pod("lost-and-leaving", Some("gone"), "Running", 1, true),
            pod("leaving", Some("here"), "Running", 1, true),
            pod("never", None, "Pending", 1, true),
            pod("waits", None, "Pending", 1, false),
            pod("young", Some("here"), "Succeeded", 3, false),
            pod("old", Some("here"), "Failed", 2, false),
        ];
        let ends = plan(&pods, &HashSet::from(["gone".to_owned()]), 1);
        let ends: Vec<_> =
            ends.iter().map(|(pod, why)| (pod.metadata.name.as_deref().unwrap(), *why)).collect();
        assert_eq!(
            ends,
            [
                ("lost", Why::NodeMissing),
                ("lost-and-leaving", Why::NodeMissing),
                ("never", Why::NeverScheduled),
                ("old", Why::TooMany),
            ]
        );
    }
}
