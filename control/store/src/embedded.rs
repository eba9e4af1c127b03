//! The embedded store: redb holds the state, memory serves it.
//!
//! A write is queued to one writer thread ([`writer`]), which checks it against the newest state,
//! gives it a revision and commits whatever has queued up meanwhile in one transaction, so with one
//! fsync. Only then is it visible in [`memory`] and acknowledged. History lives in memory alone:
//! after a restart, watches from before it are answered with [`Error::Compacted`] and clients list
//! again, as they do after an etcd compaction.

mod disk;
mod memory;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::embedded::disk::Disk;
use crate::embedded::memory::Memory;
use crate::embedded::writer::{Operation, Queue};
use crate::{Error, ListOptions, Listing, Object, Revision, Store, Watch, WatchSource};

/// How much history is kept for watches and for reads at older revisions.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// So many events are kept however old they are.
    pub events_min: usize,
    /// Beyond that, events younger than this are kept as well …
    pub age_min: Duration,
    /// … but never more than so many.
    pub events_max: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { events_min: 4_096, age_min: Duration::from_secs(90), events_max: 200_000 }
    }
}

/// Counters of the writer since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Transactions committed, so fsyncs waited for.
    pub commits: u64,
    /// Writes those held.
    pub writes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    writes: AtomicU64,
}

/// The embedded store. Dropping it finishes the writes queued and closes the file.
pub struct Embedded {
    memory: Arc<Memory>,
    queue: Option<Queue>,
    counters: Arc<Counters>,
    writer: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Opens or creates the database file and reads it into memory.
    pub fn open(path: &Path, retention: Retention) -> Result<Self, Error> {
        let (disk, state) = Disk::open(path)?;
        tracing::info!(
            objects = state.objects.len(),
            revision = state.revision,
            path = %path.display(),
            "store opened"
        );
        let memory = Arc::new(Memory::new(state, retention));
        let counters = Arc::new(Counters::default());
        let (queue, writer) = writer::spawn(disk, memory.clone(), counters.clone())?;
        Ok(Self { memory, queue: Some(queue), counters, writer: Some(writer) })
    }

    /// Counters of the writer.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            commits: self.counters.commits.load(Ordering::Relaxed),
            writes: self.counters.writes.load(Ordering::Relaxed),
        }
    }

    async fn write(&self, operation: Operation) -> Result<Arc<Object>, Error> {
        match &self.queue {
            Some(queue) => queue.submit(operation).await,
            None => Err(Error::Closed),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str) -> Result<Option<Arc<Object>>, Error> {
        Ok(self.memory.get(key))
    }

    async fn list(&self, prefix: &str, options: ListOptions) -> Result<Listing, Error> {
        self.memory.list(prefix, &options)
    }

    async fn create(&self, key: &str, value: Value) -> Result<Arc<Object>, Error> {
        self.write(Operation::create(key, value)).await
    }

    async fn update(
        &self,
        key: &str,
        expected: Revision,
        value: Value,
    ) -> Result<Arc<Object>, Error> {
        self.write(Operation::update(key, expected, value)).await
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Arc<Object>, Error> {
        self.write(Operation::delete(key, expected)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.memory.check_kept(after)?;
        let source = MemorySource { memory: self.memory.clone(), changes: self.memory.subscribe() };
        Ok(Watch::new(prefix, after, Box::new(source)))
    }

    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.memory.revision())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.memory.compact(revision)
    }
}

/// Reads the event ring and waits on its revision.
struct MemorySource {
    memory: Arc<Memory>,
    changes: tokio::sync::watch::Receiver<Revision>,
}

#[async_trait]
impl WatchSource for MemorySource {
    async fn read(
        &mut self,
        prefix: &str,
        position: Revision,
    ) -> Result<(Vec<crate::Event>, Revision), Error> {
        self.changes.wait_for(|revision| *revision > position).await.map_err(|_| Error::Closed)?;
        self.memory.events(prefix, position)
    }
}
