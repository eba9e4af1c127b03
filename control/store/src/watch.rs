//! The reader's side of a watch: a position in the history and a way to wait for more of it.
//!
//! A watch holds no queue of its own, so a slow reader costs nothing: it reads the shared history
//! from where it stands, and learns [`Error::Compacted`] if that part is gone.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Error, Object, Revision};

/// One write, as a watch sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The write's revision.
    pub revision: Revision,
    /// The state before; `None` when the key was created.
    pub previous: Option<Arc<Object>>,
    /// The state after; for a removal the last state, carrying the revision of the removal.
    pub object: Arc<Object>,
    /// Whether the key is gone.
    pub deleted: bool,
}

/// What a watch reads from; each store brings its own.
#[async_trait]
pub trait WatchSource: Send {
    /// The writes after `position` to keys with the prefix, oldest first, at most a batch of them,
    /// and the revision up to which the history has now been read. Waits until that revision is
    /// past `position`. Dropping the future loses nothing.
    async fn read(
        &mut self,
        prefix: &str,
        position: Revision,
    ) -> Result<(Vec<Event>, Revision), Error>;
}

/// Every write to the keys under a prefix, in order, none left out.
pub struct Watch {
    prefix: String,
    position: Revision,
    source: Box<dyn WatchSource>,
}

impl Watch {
    /// A watch of `prefix` that has seen everything up to `position`.
    pub fn new(prefix: &str, position: Revision, source: Box<dyn WatchSource>) -> Self {
        Self { prefix: prefix.to_owned(), position, source }
    }

    /// The next writes, oldest first. Empty when only other keys were written: [`Watch::position`]
    /// has moved all the same. Cancel safe.
    pub async fn next(&mut self) -> Result<Vec<Event>, Error> {
        let (events, position) = self.source.read(&self.prefix, self.position).await?;
        self.position = position;
        Ok(events)
    }

    /// The revision up to which this watch has reported everything: what a bookmark says.
    pub fn position(&self) -> Revision {
        self.position
    }
}
