//! The loop from changes to snapshots: gather, translate, swap, report.

use crate::metrics::Metrics;
use crate::objects::{Kind, ObjectKey, World};
use crate::report::Reporter;
use crate::snapshot::Snapshot;
use crate::source::Change;
use crate::source::api::{ApiSource, WATCHED};
use crate::translate::{Policy, named_secrets, translate};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How many waiting changes one snapshot takes in.
const BATCH_MAX: usize = 4096;
/// A Secret just named gets this long to arrive before the rest goes ahead without it.
const SECRET_WAIT: Duration = Duration::from_secs(2);
/// Certificates expire without any object changing.
const RECHECK_INTERVAL: Duration = Duration::from_secs(3600);

/// Everything the loop owns.
pub struct Controller {
    /// Flags.
    pub policy: Policy,
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
    secrets: BTreeSet<ObjectKey>,
    secrets_deadline: Instant,
}

impl Pending {
    fn note(&mut self, change: &Change) {
        match change {
            Change::Replace(Kind::Secret, Some(key), _) => drop(self.secrets.remove(key)),
            Change::Replace(kind, None, _) => drop(self.kinds.remove(kind)),
            Change::Everything(..) => self.kinds.clear(),
            _ => {}
        }
    }

    fn blocks(&self) -> bool {
        !self.kinds.is_empty()
            || (!self.secrets.is_empty() && Instant::now() < self.secrets_deadline)
    }
}

impl Controller {
    /// Runs until the source ends.
    pub async fn run(mut self, mut changes: mpsc::Receiver<Change>) {
        let kinds =
            if self.api.is_some() { WATCHED.into() } else { BTreeSet::from([Kind::Ingress]) };
        let mut pending =
            Pending { kinds, secrets: BTreeSet::new(), secrets_deadline: Instant::now() };
        let mut world = World::default();
        loop {
            let mut batch = Vec::new();
            let wait = if pending.secrets.is_empty() {
                RECHECK_INTERVAL
            } else {
                pending.secrets_deadline.saturating_duration_since(Instant::now())
            };
            match tokio::time::timeout(wait, changes.recv_many(&mut batch, BATCH_MAX)).await {
                Ok(0) => return,
                Ok(_) => {}
                // Overdue Secrets no longer hold anything up; their watches go on.
                Err(_) => pending.secrets.clear(),
            }
            for change in batch {
                pending.note(&change);
                change.apply_to(&mut world);
            }
            if !pending.kinds.is_empty() {
                continue;
            }
            if let Some(api) = &mut self.api {
                let wanted = named_secrets(&world, &self.policy);
                world.secrets.retain(|key, _| wanted.contains(key));
                let added = api.watch_secrets(&wanted);
                if !added.is_empty() {
                    pending.secrets.extend(added);
                    pending.secrets_deadline = Instant::now() + SECRET_WAIT;
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
