//! Node lifecycle: a node whose Lease is not renewed becomes Unknown, its pods stop being ready, and
//! taints send them away when their tolerations end.

mod eviction;
mod health;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::Instant;

use crate::informer::{Change, Key};
use crate::queue::Controller;
use crate::write::Context;
use crate::{Error, pod};

const COMPONENT: &str = "node-controller";
const EVICTION_COMPONENT: &str = "taint-eviction-controller";
const LEASES: &str = "kube-node-lease";

pub(crate) struct Nodes {
    context: Context,
    heard: Mutex<HashMap<Key, Heard>>,
}

/// The last sign of life of a node, and when it came by our own clock: clocks of nodes may differ.
#[derive(Clone, PartialEq)]
struct Heard {
    renewed: Option<Timestamp>,
    heartbeat: Option<Timestamp>,
    at: Instant,
}

impl Nodes {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, heard: Mutex::default() }
    }
}

impl Controller for Nodes {
    const NAME: &'static str = "node-lifecycle";

    fn keys(&self, change: &Change) -> Vec<Key> {
        match change.kind {
            "Node" => vec![change.key.clone()],
            "Lease" if change.key.namespace == LEASES => vec![Key::new("", &change.key.name)],
            "Pod" => {
                let pod = self.context.cache.pods.get(&change.key);
                let node = pod.as_deref().and_then(pod::node_name).map(|name| Key::new("", name));
                node.into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn all(&self) -> Vec<Key> {
        self.context.cache.nodes.keys()
    }

    async fn sync(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let store = &self.context.cache.nodes;
        let Some(mut node) = store.get(key) else {
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            return Ok(None);
        };
        let now = Timestamp::now();
        let grace = self.context.config.node_monitor_grace;
        let silence = self.silence(key, &node);
        if silence >= grace {
            self.mark_unknown(&node, now).await?;
        }
        node = store.get(key).unwrap_or(node);
        self.taint(&node, now).await?;
        node = store.get(key).unwrap_or(node);
        let evictions = self.tend_pods(&node, now).await?;
        let silent_at = grace.checked_sub(silence).filter(|left| !left.is_zero());
        Ok([silent_at, evictions].into_iter().flatten().min())
    }
}

impl Nodes {
    /// How long nothing was heard of a node.
    fn silence(&self, key: &Key, node: &Node) -> Duration {
        let lease = self.context.cache.leases.get(&Key::new(LEASES, &key.name));
        let renewed = lease.as_deref().and_then(renewed);
        let heartbeat = health::condition(node, "Ready")
            .and_then(|ready| ready.last_heartbeat_time.as_ref())
            .map(|time| time.0);
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let last = heard.entry(key.clone()).or_insert(Heard { renewed, heartbeat, at: now });
        if last.renewed != renewed || last.heartbeat != heartbeat {
            *last = Heard { renewed, heartbeat, at: now };
        }
        now.duration_since(last.at)
    }

    async fn mark_unknown(&self, node: &Node, now: Timestamp) -> Result<(), Error> {
        let mut new = node.clone();
        new.status.get_or_insert_default().conditions = Some(health::silent(node, now));
        if new == *node {
            return Ok(());
        }
        self.context.update_status(&self.context.cache.nodes, node, &new).await?;
        let name = node.metadata.name.as_deref().unwrap_or_default();
        tracing::warn!(node = name, "node is silent, its conditions are Unknown");
        let message = format!("Node {name} status is now: NodeNotReady");
        self.context.events.normal(COMPONENT, node, "NodeNotReady", message);
        Ok(())
    }

    async fn taint(&self, node: &Node, now: Timestamp) -> Result<(), Error> {
        let taints = health::taints(node, now);
        let known = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        if taints == known {
            return Ok(());
        }
        let mut new = node.clone();
        new.spec.get_or_insert_default().taints = Some(taints).filter(|taints| !taints.is_empty());
        self.context.update(&self.context.cache.nodes, node, &new).await
    }

    /// Makes pods unready and evicts them as the node's state asks; says when the next has to go.
    async fn tend_pods(&self, node: &Node, now: Timestamp) -> Result<Option<Duration>, Error> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let lost = health::condition(node, "Ready").filter(|ready| ready.status != "True");
        let lost = lost.map(|ready| ready.last_transition_time.as_ref().map_or(now, |at| at.0));
        if lost.is_none() && taints.iter().all(|taint| taint.effect != "NoExecute") {
            return Ok(None);
        }
        let mut next: Option<Duration> = None;
        for pod in self.context.cache.pods.list() {
            if pod::node_name(&pod) != Some(name) || pod::is_finished(&pod) {
                continue;
            }
            if lost.is_some_and(|since| was_ready_before(&pod, since)) {
                self.mark_unready(&pod, now).await?;
            }
            if pod::is_terminating(&pod) {
                continue;
            }
            match eviction::evict_at(&pod, taints, now) {
                Some(at) if at <= now => self.evict(&pod, now).await?,
                Some(at) => {
                    let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                    next = Some(next.map_or(left, |next| next.min(left)));
                }
                None => {}
            }
        }
        Ok(next)
    }

    async fn mark_unready(&self, pod: &Arc<Pod>, now: Timestamp) -> Result<(), Error> {
        let mut new = (**pod).clone();
        let conditions = new.status.get_or_insert_default().conditions.get_or_insert_default();
        for condition in conditions.iter_mut().filter(|condition| condition.type_ == "Ready") {
            condition.status = "False".to_owned();
            condition.last_transition_time = Some(Time(now));
        }
        self.context.update_status(&self.context.cache.pods, &**pod, &new).await?;
        self.context.events.warning(COMPONENT, &**pod, "NodeNotReady", "Node is not ready");
        Ok(())
    }

    async fn evict(&self, pod: &Arc<Pod>, now: Timestamp) -> Result<(), Error> {
        let store = &self.context.cache.pods;
        let message = format!("Marking for deletion Pod {}", Key::of(&pod.metadata));
        self.context.events.normal(EVICTION_COMPONENT, &**pod, "TaintManagerEviction", message);
        let mut new = (**pod).clone();
        let why = "Taint manager: deleting due to NoExecute taint";
        disrupted(&mut new, "DeletionByTaintManager", why, now);
        self.context.update_status(store, &**pod, &new).await?;
        self.context.delete(store, &**pod).await
    }
}

/// Says in a pod's status why it is ended from outside.
pub(crate) fn disrupted(pod: &mut Pod, reason: &str, message: &str, now: Timestamp) {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
}

/// A pod that became ready after its node was lost was made so by the node: it is not contradicted.
fn was_ready_before(pod: &Pod, lost: Timestamp) -> bool {
    pod::condition(pod, "Ready").is_some_and(|ready| {
        ready.status == "True" && ready.last_transition_time.as_ref().is_none_or(|at| at.0 <= lost)
    })
}

fn renewed(lease: &Lease) -> Option<Timestamp> {
    Some(lease.spec.as_ref()?.renew_time.as_ref()?.0)
}
