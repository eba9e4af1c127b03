//! The state as readers see it: all objects in key order, and a ring of the latest events.
//!
//! A read at an older revision takes the present and undoes the events since; that costs only what
//! has changed, and no second copy of the state.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use tokio::sync::watch;

use crate::embedded::Retention;
use crate::embedded::disk::State;
use crate::{Error, Event, ListOptions, Listing, Object, Revision};

/// A watch reads at most so many events at once, so that no reader holds the lock for long.
const EVENTS_READ_MAX: usize = 1_000;

struct Content {
    objects: BTreeMap<String, Arc<Object>>,
    events: VecDeque<(Instant, Event)>,
    revision: Revision,
    /// The newest revision whose event is gone; reads at and watches after it still work.
    compacted: Revision,
}

/// The shared, readable state.
pub(super) struct Memory {
    content: RwLock<Content>,
    retention: Retention,
    changes: watch::Sender<Revision>,
}

impl Memory {
    pub(super) fn new(state: State, retention: Retention) -> Self {
        let (changes, _) = watch::channel(state.revision);
        let content = Content {
            objects: state.objects,
            events: VecDeque::new(),
            compacted: state.revision,
            revision: state.revision,
        };
        Self { content: RwLock::new(content), retention, changes }
    }

    // No code runs under the lock that could leave the content half changed, so a poisoned lock
    // (a panicking reader) is still a sound one.
    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Revision> {
        self.changes.subscribe()
    }

    pub(super) fn revision(&self) -> Revision {
        self.read().revision
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.read().objects.get(key).cloned()
    }

    pub(super) fn check_kept(&self, revision: Revision) -> Result<(), Error> {
        self.read().check_kept(revision)
    }

    /// Makes committed writes visible, all at once, and wakes the watches.
    pub(super) fn apply(&self, events: Vec<Event>) {
        let Some(revision) = events.last().map(|event| event.revision) else { return };
        let now = Instant::now();
        {
            let mut content = self.write();
            for event in events {
                if event.deleted {
                    content.objects.remove(&event.object.key);
                } else {
                    content.objects.insert(event.object.key.clone(), event.object.clone());
                }
                content.events.push_back((now, event));
            }
            content.revision = revision;
            content.trim(&self.retention, now);
        }
        self.changes.send_replace(revision);
    }

    pub(super) fn compact(&self, revision: Revision) -> Result<(), Error> {
        let mut content = self.write();
        content.check_kept(revision)?;
        while content.events.front().is_some_and(|(_, event)| event.revision <= revision) {
            content.events.pop_front();
        }
        content.compacted = revision;
        Ok(())
    }

    pub(super) fn events(
        &self,
        prefix: &str,
        position: Revision,
    ) -> Result<(Vec<Event>, Revision), Error> {
        let content = self.read();
        content.check_kept(position)?;
        let start = content.events.partition_point(|(_, event)| event.revision <= position);
        let mut found = Vec::new();
        for (_, event) in content.events.range(start..) {
            if event.object.key.starts_with(prefix) {
                found.push(event.clone());
                if found.len() == EVENTS_READ_MAX {
                    return Ok((found, event.revision));
                }
            }
        }
        Ok((found, content.revision))
    }

    pub(super) fn list(&self, prefix: &str, options: &ListOptions) -> Result<Listing, Error> {
        let content = self.read();
        let revision = options.revision.unwrap_or(content.revision);
        content.check_kept(revision)?;
        let undone = content.undone_since(revision, prefix);
        let start = match &options.after_key {
            Some(key) => Bound::Excluded(key.as_str()),
            None => Bound::Included(prefix),
        };
        let present = content
            .objects
            .range::<str, _>((start, Bound::Unbounded))
            .skip_while(|(key, _)| key.as_str() < prefix)
            .take_while(|(key, _)| key.starts_with(prefix));
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        let mut objects = Vec::new();
        let mut remaining = 0;
        let mut take = |object: &Arc<Object>| {
            if objects.len() < limit {
                objects.push(object.clone());
            } else {
                remaining += 1;
            }
        };
        if undone.is_empty() {
            present.for_each(|(_, object)| take(object));
        } else {
            let mut merged: BTreeMap<&str, &Arc<Object>> =
                present.map(|(key, object)| (key.as_str(), object)).collect();
            for (key, before) in undone {
                let listed = options.after_key.as_deref().is_none_or(|after| key > after);
                match before {
                    Some(object) if listed => merged.insert(key, object),
                    _ => merged.remove(key),
                };
            }
            merged.into_values().for_each(take);
        }
        Ok(Listing { objects, revision, remaining })
    }
}

impl Content {
    fn check_kept(&self, revision: Revision) -> Result<(), Error> {
        if revision < self.compacted {
            return Err(Error::Compacted { revision, oldest: self.compacted });
        }
        if revision > self.revision {
            return Err(Error::Future { revision, current: self.revision });
        }
        Ok(())
    }

    /// For every key under the prefix written after `revision`: what it was then.
    fn undone_since(
        &self,
        revision: Revision,
        prefix: &str,
    ) -> BTreeMap<&str, Option<&Arc<Object>>> {
        let mut undone = BTreeMap::new();
        for (_, event) in self.events.iter().rev() {
            if event.revision <= revision {
                break;
            }
            if event.object.key.starts_with(prefix) {
                undone.insert(event.object.key.as_str(), event.previous.as_ref());
            }
        }
        undone
    }

    fn trim(&mut self, retention: &Retention, now: Instant) {
        while let Some((at, event)) = self.events.front() {
            let count = self.events.len();
            let old = now.duration_since(*at) >= retention.age_min;
            if count <= retention.events_min || (count <= retention.events_max && !old) {
                break;
            }
            self.compacted = event.revision;
            self.events.pop_front();
        }
    }
}
