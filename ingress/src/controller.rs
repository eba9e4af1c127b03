//! The loop from changes to snapshots: gather, update the index, swap, report.

use crate::metrics::Metrics;
use crate::objects::{Kind, ObjectKey};
use crate::options::config_map::ConfigMapOptions;
use crate::report::Reporter;
use crate::snapshot::Snapshot;
use crate::source::Change;
use crate::source::api::{ApiSource, WATCHED};
use crate::translate::Index;
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
/// A quiet moment after whole lists were read; memory is given back then.
const LISTS_READ_WAIT: Duration = Duration::from_secs(1);
/// Certificates expire without any object changing.
const RECHECK_INTERVAL: Duration = Duration::from_secs(3600);

/// Everything the loop owns.
pub struct Controller {
    /// All objects and what they come to.
    pub index: Index,
    /// The ConfigMap of options, if one is named.
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

/// What objects took while they were read lies scattered between what is kept; the allocator does not
/// give that back by itself.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    tokio::task::spawn_blocking(|| {
        // SAFETY: takes a number only, and may be called by any thread.
        unsafe { libc::malloc_trim(0) }
    });
}

impl Controller {
    /// Runs until the source ends.
    pub async fn run(mut self, mut changes: mpsc::Receiver<Change>) {
        let kinds =
            if self.api.is_some() { WATCHED.into() } else { BTreeSet::from([Kind::Ingress]) };
        let mut pending = Pending { kinds, named: BTreeSet::new(), named_deadline: Instant::now() };
        let mut read_lists = false;
        loop {
            let mut batch = Vec::new();
            let wait = if read_lists {
                LISTS_READ_WAIT
            } else if pending.named.is_empty() {
                RECHECK_INTERVAL
            } else {
                pending.named_deadline.saturating_duration_since(Instant::now())
            };
            match tokio::time::timeout(wait, changes.recv_many(&mut batch, BATCH_MAX)).await {
                Ok(0) => return,
                Ok(_) => read_lists |= batch.iter().any(Change::is_list),
                Err(_) if read_lists => {
                    read_lists = false;
                    give_memory_back();
                    continue;
                }
                // Overdue objects no longer hold anything up; their watches go on.
                Err(_) => pending.named.clear(),
            }
            batch.iter().for_each(|change| pending.note(change));
            tokio::task::block_in_place(|| self.index.apply(batch));
            if !pending.kinds.is_empty() {
                continue;
            }
            if let Some(options) = &mut self.options {
                self.index.refresh_policy(|world, policy| options.refresh(world, policy));
            }
            if let Some(api) = &mut self.api
                && let Some(wanted) = self.index.take_named()
            {
                let added = api.watch_named(&wanted);
                self.index.forget_unnamed();
                if !added.is_empty() {
                    pending.named.extend(added);
                    pending.named_deadline = Instant::now() + NAMED_WAIT;
                }
            }
            if !pending.blocks() {
                tokio::task::block_in_place(|| self.publish());
            }
        }
    }

    fn publish(&mut self) {
        let started = Instant::now();
        let now = Timestamp::now();
        let update = self.index.update(now);
        self.snapshot.store(Arc::new(update.snapshot.clone()));
        for change in &update.endpoint_changes {
            change.backend.replace(change.addresses.clone());
        }
        let took = started.elapsed();
        if !self.ready.swap(true, Ordering::Relaxed) {
            let hosts = update.snapshot.hosts.len();
            tracing::info!(hosts, ingresses = self.index.selected().count(), "ready");
        }
        tracing::debug!(took_ms = took.as_secs_f64() * 1000.0, "new snapshot in effect");
        self.metrics.published(&update, took, now);
        let services = &self.index.world().services;
        let published = self.publish_service.as_ref().and_then(|key| services.get(key));
        self.reporter.report(&self.index, &update, published.map(|service| &**service));
    }
}
