//! A revisioned, watchable store of JSON objects: the trait the API server is written against, and
//! the implementation shipped with Podium ([`Embedded`], on redb).
//!
//! The trait is what etcd offers and no more: one revision counter for all keys, compare on the
//! revision of a key, reads at a kept revision, watches from a kept revision, compaction. Keys are
//! `/registry/<group>/<plural>/<namespace>/<name>`; what they mean is the API server's business.
//! The one thing the store knows of an object is `metadata.resourceVersion`: it writes the revision
//! of the write there, so that readers share one value without a copy.

mod embedded;
mod object;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;

pub use embedded::{Embedded, Retention, Statistics};
pub use object::Object;
pub use watch::{Event, Watch, WatchSource};

/// Counts writes; every successful write has a revision of its own, greater than all before it.
pub type Revision = u64;

/// Why the store refused or failed. Every variant but the last two is an answer, not a fault.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A create found the key taken.
    #[error("key {key} exists already")]
    Exists {
        /// The key asked for.
        key: String,
    },
    /// An update or delete found no such key.
    #[error("key {key} does not exist")]
    Missing {
        /// The key asked for.
        key: String,
    },
    /// The key was written since the caller read it.
    #[error("key {key} is at revision {actual}, not at {expected}")]
    Conflict {
        /// The key asked for.
        key: String,
        /// What the caller had read.
        expected: Revision,
        /// What the store holds.
        actual: Revision,
    },
    /// The revision asked for is older than the history kept.
    #[error("revision {revision} has been compacted, the oldest kept is {oldest}")]
    Compacted {
        /// What the caller asked for.
        revision: Revision,
        /// The oldest revision that can be read or watched from.
        oldest: Revision,
    },
    /// The revision asked for has not been reached.
    #[error("revision {revision} is in the future, the current one is {current}")]
    Future {
        /// What the caller asked for.
        revision: Revision,
        /// The revision of the newest write.
        current: Revision,
    },
    /// The disk failed, or what it holds cannot be read.
    #[error("store {operation}: {reason}")]
    Disk {
        /// What the store was doing.
        operation: &'static str,
        /// What the disk or the database said.
        reason: String,
    },
    /// The store has been shut down.
    #[error("the store is closed")]
    Closed,
}

/// Which keys a list returns, and as of when.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// The state to read; `None` is the newest.
    pub revision: Option<Revision>,
    /// At most so many objects; 0 is no limit.
    pub limit: usize,
    /// Only keys after this one: where the list before ended.
    pub after_key: Option<String>,
}

/// What a list found.
#[derive(Debug, Clone)]
pub struct Listing {
    /// In the order of their keys.
    pub objects: Vec<Arc<Object>>,
    /// The revision the whole list is consistent with.
    pub revision: Revision,
    /// How many keys follow the last one returned.
    pub remaining: usize,
}

/// A revisioned, watchable store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest state of one key.
    async fn get(&self, key: &str) -> Result<Option<Arc<Object>>, Error>;

    /// All keys that start with `prefix`, in order.
    async fn list(&self, prefix: &str, options: ListOptions) -> Result<Listing, Error>;

    /// Writes a key that must not exist.
    async fn create(&self, key: &str, value: serde_json::Value) -> Result<Arc<Object>, Error>;

    /// Replaces a key whose last write must be `expected`.
    async fn update(
        &self,
        key: &str,
        expected: Revision,
        value: serde_json::Value,
    ) -> Result<Arc<Object>, Error>;

    /// Removes a key whose last write must be `expected`; returns its last state, carrying the
    /// revision of the removal.
    async fn delete(&self, key: &str, expected: Revision) -> Result<Arc<Object>, Error>;

    /// Every write to keys starting with `prefix` after the revision `after`.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error>;

    /// The revision of the newest write.
    async fn revision(&self) -> Result<Revision, Error>;

    /// Forgets history up to and including `revision`.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;
}
