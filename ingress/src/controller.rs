//! The loop from changes to snapshots: gather, translate, swap, report.

use crate::metrics::Metrics;
use crate::objects::{Kind, ObjectKey, World};
use crate::options::config_map::ConfigMapOptions;
use crate::report::Reporter;
use crate::snapshot::Snapshot;
use crate::source::Change;
use crate::source::api::{ApiSource, WATCHED};
use crate::translate::{Policy, named_objects, translate};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How many waiting changes one snapshot takes in.
const BATCH_MAX: usize = 4096;
/// A Secret or ConfigMap just named gets this long to arrive before the rest goes ahead without it.
const NAMED_WAIT: Duration = Duration::from_secs(2);
/// Certificates expire without any object changing.
const RECHECK_INTERVAL: Duration = Duration::from_secs(3600);

/// Everything the loop owns.
pub struct Controller {
    /// Flags, and what the ConfigMap of options says over them.
    pub policy: Policy,
    /// That ConfigMap, if one is named.
    pub options: Option<ConfigMapOptions>,
    /// Where snapshots go.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Set once the first snapshot is in effect.
    pub ready: Arc<AtomicBool>,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// Whom to tell.
    pub reporter: Reporter,
    /// The cluster, if objects come from one.
    pub api: Option<ApiSource>,
    /// The Service whose addresses go into the status of Ingresses.
    pub publish_service: Option<ObjectKey>,
}

/// What has to arrive before a snapshot is worth building.
struct Pending {
    kinds: BTreeSet<Kind>,
    named: BTreeSet<(Kind, ObjectKey)>,
    named_deadline: Instant,
}

impl Pending {
    fn note(&mut self, change: &Change) {
        match change {
            Change::Replace(kind, Some(key), _) => {
                self.named.remove(&(*kind, key.clone()));
            }
            Change::Replace(kind, None, _) => drop(self.kinds.remove(kind)),
            Change::Everything(..) => self.kinds.clear(),
            _ => {}
        }
    }

    fn blocks(&self) -> bool {
        !self.kinds.is_empty() || (!self.named.is_empty() && Instant::now() < self.named_deadline)
    }
}

impl Controller {
    /// Runs until the source ends.
    pub async fn run(mut self, mut changes: mpsc::Receiver<Change>) {
        let kinds =
            if self.api.is_some() { WATCHED.into() } else { BTreeSet::from([Kind::Ingress]) };
        let mut pending = Pending { kinds, named: BTreeSet::new(), named_deadline: Instant::now() };
        let mut world = World::default();
        loop {
            let mut batch = Vec::new();
            let wait = if pending.named.is_empty() {
                RECHECK_INTERVAL
            } else {
                pending.named_deadline.saturating_duration_since(Instant::now())
            };
            match tokio::time::timeout(wait, changes.recv_many(&mut batch, BATCH_MAX)).await {
                Ok(0) => return,
                Ok(_) => {}
                // Overdue objects no longer hold anything up; their watches go on.
                Err(_) => pending.named.clear(),
            }
            for change in batch {
                pending.note(&change);
                change.apply_to(&mut world);
            }
            if !pending.kinds.is_empty() {
                continue;
            }
            if let Some(options) = &mut self.options {
                options.refresh(&world, &mut self.policy);
            }
            if let Some(api) = &mut self.api {
                let wanted = named_objects(&world, &self.policy);
                let is_named = |kind, key: &ObjectKey| wanted.contains(&(kind, key.clone()));
                world.secrets.retain(|key, _| is_named(Kind::Secret, key));
                world.config_maps.retain(|key, _| is_named(Kind::ConfigMap, key));
                let added = api.watch_named(&wanted);
                if !added.is_empty() {
                    pending.named.extend(added);
                    pending.named_deadline = Instant::now() + NAMED_WAIT;
                }
            }
            if !pending.blocks() {
                tokio::task::block_in_place(|| self.publish(&world));
            }
        }
    }

    fn publish(&mut self, world: &World) {
        let started = Instant::now();
        let now = Timestamp::now();
        let translation = translate(world, &self.policy, &self.snapshot.load(), now);
        let snapshot = Arc::new(translation.snapshot);
        self.snapshot.store(snapshot.clone());
        for change in &translation.endpoint_changes {
            change.backend.replace(&change.addresses);
        }
        let took = started.elapsed();
        if !self.ready.swap(true, Ordering::Relaxed) {
            tracing::info!(
                hosts = snapshot.hosts.len(),
                ingresses = translation.selected.len(),
                "ready"
            );
        }
        tracing::debug!(took_ms = took.as_secs_f64() * 1000.0, "new snapshot in effect");
        self.metrics.published(&snapshot, &translation.problems, took, now);
        let published = self.publish_service.as_ref().and_then(|key| world.services.get(key));
        self.reporter.report(
            world,
            &translation.problems,
            &translation.selected,
            published.map(|s| &**s),
        );
    }
}
