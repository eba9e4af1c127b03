//! The writer thread: checks, numbers, commits and publishes writes, a group at a time.
//!
//! While one group is on its way to the disk the next one gathers in the queue; so the number of
//! fsyncs is bound by the disk, not by the number of writers. A write that fails its comparison
//! costs the others of its group nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::embedded::Counters;
use crate::embedded::disk::{self, Disk, Row};
use crate::embedded::memory::Memory;
use crate::object::stamp;
use crate::{Error, Event, Object, Revision};

/// Bounds the memory and the latency of one transaction.
const GROUP_WRITES_MAX: usize = 1_024;

/// One write, prepared by the caller's thread.
pub(super) struct Operation {
    key: String,
    /// The revision the key must be at; `None` when it must not exist.
    expected: Option<Revision>,
    /// The new state and its JSON; `None` removes the key.
    content: Option<(Value, Vec<u8>)>,
}

impl Operation {
    pub(super) fn create(key: &str, value: Value) -> Self {
        Self { key: key.to_owned(), expected: None, content: Some(serialised(value)) }
    }

    pub(super) fn update(key: &str, expected: Revision, value: Value) -> Self {
        Self { key: key.to_owned(), expected: Some(expected), content: Some(serialised(value)) }
    }

    pub(super) fn delete(key: &str, expected: Revision) -> Self {
        Self { key: key.to_owned(), expected: Some(expected), content: None }
    }
}

fn serialised(mut value: Value) -> (Value, Vec<u8>) {
    stamp(&mut value, None);
    let json = value.to_string().into_bytes();
    (value, json)
}

type Reply = oneshot::Sender<Result<Arc<Object>, Error>>;

/// The way to the writer thread, which ends when the last queue is dropped.
pub(super) struct Queue {
    sender: mpsc::Sender<(Operation, Reply)>,
}

impl Queue {
    /// Hands a write over and waits until it is durable or refused.
    pub(super) async fn submit(&self, operation: Operation) -> Result<Arc<Object>, Error> {
        let (reply, answer) = oneshot::channel();
        self.sender.send((operation, reply)).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

/// Starts the writer thread.
pub(super) fn spawn(
    disk: Disk,
    memory: Arc<Memory>,
    counters: Arc<Counters>,
) -> Result<(Queue, JoinHandle<()>), Error> {
    let (sender, receiver) = mpsc::channel();
    let handle = std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || run(&disk, &memory, &counters, &receiver))
        .map_err(|error| Error::Disk { operation: "start writer", reason: error.to_string() })?;
    Ok((Queue { sender }, handle))
}

fn run(
    disk: &Disk,
    memory: &Memory,
    counters: &Counters,
    receiver: &mpsc::Receiver<(Operation, Reply)>,
) {
    while let Ok(first) = receiver.recv() {
        let rest = std::iter::from_fn(|| receiver.try_recv().ok()).take(GROUP_WRITES_MAX - 1);
        let mut group = Group::new(memory);
        for (operation, reply) in std::iter::once(first).chain(rest) {
            match group.add(operation) {
                Ok(object) => group.replies.push((reply, object)),
                // The caller may be gone; its refusal interests nobody else.
                Err(error) => drop(reply.send(Err(error))),
            }
        }
        group.finish(disk, memory, counters);
    }
}

/// The writes of one transaction, and the state as they leave it.
struct Group<'a> {
    memory: &'a Memory,
    revision: Revision,
    /// Keys written by this group: what they will be.
    latest: HashMap<String, Option<Arc<Object>>>,
    rows: Vec<Option<Vec<u8>>>,
    events: Vec<Event>,
    replies: Vec<(Reply, Arc<Object>)>,
}

impl<'a> Group<'a> {
    fn new(memory: &'a Memory) -> Self {
        Self {
            memory,
            revision: memory.revision(),
            latest: HashMap::new(),
            rows: Vec::new(),
            events: Vec::new(),
            replies: Vec::new(),
        }
    }

    fn add(&mut self, operation: Operation) -> Result<Arc<Object>, Error> {
        let Operation { key, expected, content } = operation;
        let previous = match self.latest.get(&key) {
            Some(latest) => latest.clone(),
            None => self.memory.get(&key),
        };
        match (&previous, expected) {
            (Some(_), None) => return Err(Error::Exists { key }),
            (None, Some(_)) => return Err(Error::Missing { key }),
            (Some(object), Some(expected)) if object.mod_revision != expected => {
                return Err(Error::Conflict { key, expected, actual: object.mod_revision });
            }
            _ => {}
        }
        self.revision += 1;
        let revision = self.revision;
        let create_revision = previous.as_ref().map_or(revision, |object| object.create_revision);
        let deleted = content.is_none();
        let (value, row) = match (content, &previous) {
            (Some((value, json)), _) => (value, Some(disk::row(create_revision, revision, &json))),
            (None, Some(object)) => (object.value.clone(), None),
            // A removal always expects a revision, so the match above has refused it.
            (None, None) => return Err(Error::Missing { key }),
        };
        let object = Arc::new(Object::stamped(key.clone(), value, create_revision, revision));
        self.latest.insert(key, (!deleted).then(|| object.clone()));
        self.rows.push(row);
        self.events.push(Event { revision, previous, object: object.clone(), deleted });
        Ok(object)
    }

    fn finish(self, disk: &Disk, memory: &Memory, counters: &Counters) {
        if self.events.is_empty() {
            return;
        }
        let rows: Vec<Row<'_>> = std::iter::zip(&self.events, self.rows)
            .map(|(event, content)| Row { key: &event.object.key, content })
            .collect();
        let committed = disk.commit(&rows, self.revision);
        drop(rows);
        if let Err(error) = &committed {
            tracing::error!(%error, writes = self.events.len(), "commit failed");
        } else {
            counters.commits.fetch_add(1, Ordering::Relaxed);
            counters.writes.fetch_add(self.events.len() as u64, Ordering::Relaxed);
            memory.apply(self.events);
        }
        for (reply, object) in self.replies {
            let answer = committed.clone().map(|()| object);
            // The caller may have gone; the write stands all the same.
            drop(reply.send(answer));
        }
    }
}
