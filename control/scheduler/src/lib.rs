//! The scheduler: binds pods without a node to the best node that fits. Which node that is, is
//! decided by [`world::World::choose`], which is pure; this file watches, binds and reports.

mod affinity;
mod decision;
mod filter;
mod resources;
mod score;
mod spread;
pub mod world;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use podium_controllers::event::Recorder;
use podium_controllers::informer::Cache;
use podium_controllers::pod;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::world::World;

const COMPONENT: &str = "default-scheduler";
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_secs(300);

/// What the scheduler needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pods with this `spec.schedulerName` are ours.
    pub scheduler_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { scheduler_name: "default-scheduler".to_owned() }
    }
}

/// Why the scheduler ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caches are gone, though nobody asked for the end.
    #[error("watching pods and nodes: the watches ended")]
    WatchesEnded,
}

/// Schedules until shutdown.
///
/// # Errors
/// The watches ended by themselves.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let cache = Arc::new(Cache::default());
    let mut changes = cache.subscribe();
    cache.start_for_scheduling(&client, &shutdown).await;
    let events = Recorder::start(client.clone());
    let mut scheduler = Scheduler {
        client,
        config,
        cache,
        events,
        assumed: HashMap::new(),
        waiting: HashMap::new(),
    };
    loop {
        // One pass takes all changes that have come in.
        let mut wakes = false;
        while let Ok(change) = changes.try_recv() {
            wakes |= change.kind == "Node" || change.new.is_none();
        }
        let next = scheduler.pass(wakes).await;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = changes.recv() => match change {
                Some(change) if change.kind == "Node" || change.new.is_none() => scheduler.wake(),
                Some(_) => {}
                None => return Err(Error::WatchesEnded),
            },
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

struct Waiting {
    until: Instant,
    back_off_until: Instant,
    attempts: u32,
}

struct Scheduler {
    client: Client,
    config: Config,
    cache: Arc<Cache>,
    events: Recorder,
    /// Pods bound by us that the watch has not shown bound yet, by UID.
    assumed: HashMap<String, String>,
    /// Pods that fitted nowhere, by UID.
    waiting: HashMap<String, Waiting>,
}

impl Scheduler {
    /// Something changed that may make room: pods wait for their back-off only.
    fn wake(&mut self) {
        for waiting in self.waiting.values_mut() {
            waiting.until = waiting.back_off_until;
        }
    }

    /// Tries every pod that is due; says when the next one is.
    async fn pass(&mut self, wakes: bool) -> Instant {
        if wakes {
            self.wake();
        }
        let pods = self.cache.pods.list();
        self.assumed.retain(|uid, _| {
            pods.iter().any(|pod| pod.uid().as_ref() == Some(uid) && pod::node_name(pod).is_none())
        });
        self.waiting.retain(|uid, _| pods.iter().any(|pod| pod.uid().as_ref() == Some(uid)));
        let now = Instant::now();
        let mut due: Vec<&Arc<Pod>> = pods.iter().filter(|pod| self.is_due(pod, now)).collect();
        due.sort_by_key(|pod| {
            let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
            (-priority, pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
        });
        if !due.is_empty() {
            let mut world = self.world(&pods);
            for pod in due {
                match world.choose(pod) {
                    Ok(node) => {
                        if self.bind(pod, &node).await {
                            world.assume(pod, &node);
                        }
                    }
                    Err(message) => self.report(pod, &message).await,
                }
            }
        }
        let next = self.waiting.values().map(|waiting| waiting.until).min();
        next.unwrap_or_else(|| Instant::now() + RETRY_PERIOD)
    }

    fn world(&self, pods: &[Arc<Pod>]) -> World {
        let (nodes, services) = (self.cache.nodes.list(), self.cache.services.list());
        let mut world = World::new(nodes, pods.iter().cloned(), services);
        for pod in pods.iter().filter(|pod| pod::is_active(pod)) {
            if let Some(node) = pod.uid().and_then(|uid| self.assumed.get(&uid)) {
                world.assume(pod, node);
            }
        }
        world
    }

    fn is_due(&self, pod: &Pod, now: Instant) -> bool {
        let uid = pod.uid().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let scheduler = spec.and_then(|spec| spec.scheduler_name.as_deref());
        let gated =
            spec.and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|g| !g.is_empty());
        pod::node_name(pod).is_none()
            && pod::is_active(pod)
            && !gated
            && scheduler.is_none_or(|name| name == self.config.scheduler_name)
            && !self.assumed.contains_key(&uid)
            && self.waiting.get(&uid).is_none_or(|waiting| waiting.until <= now)
    }

    async fn bind(&mut self, pod: &Pod, node: &str) -> bool {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let namespace = pod.namespace().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": { "name": name, "namespace": namespace, "uid": uid },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        let answer: kube::Result<serde_json::Value> =
            api.create_subresource("binding", &name, &PostParams::default(), &binding).await;
        if let Err(error) = answer {
            tracing::warn!(pod = %format!("{namespace}/{name}"), node, %error, "binding failed");
            self.postpone(uid, false);
            return false;
        }
        self.waiting.remove(&uid);
        self.assumed.insert(uid, node.to_owned());
        let message = format!("Successfully assigned {namespace}/{name} to {node}");
        self.events.normal(COMPONENT, pod, "Scheduled", message);
        true
    }

    fn postpone(&mut self, uid: String, until_woken: bool) {
        let now = Instant::now();
        let waiting = self.waiting.entry(uid).or_insert(Waiting {
            until: now,
            back_off_until: now,
            attempts: 0,
        });
        let wait = BACK_OFF_FIRST.saturating_mul(1 << waiting.attempts.min(4)).min(BACK_OFF_MAX);
        waiting.attempts += 1;
        waiting.back_off_until = now + wait;
        waiting.until = now + if until_woken { RETRY_PERIOD } else { wait };
    }

    async fn report(&mut self, pod: &Pod, message: &str) {
        self.postpone(pod.uid().unwrap_or_default(), true);
        self.events.warning(COMPONENT, pod, "FailedScheduling", message);
        let known = pod::condition(pod, "PodScheduled");
        if known.is_some_and(|known| known.message.as_deref() == Some(message)) {
            return;
        }
        let since = known.filter(|known| known.status == "False");
        let since = since.and_then(|known| known.last_transition_time.as_ref()).map(|time| time.0);
        let patch = json!({"status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": message, "lastTransitionTime": podium_api::object::time(since.unwrap_or_else(Timestamp::now)),
        }]}});
        let namespace = pod.namespace().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let name = pod.name_any();
        let patched =
            api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        if let Err(error) = patched {
            tracing::warn!(pod = %format!("{namespace}/{name}"), %error, "condition not written");
        }
    }
}
