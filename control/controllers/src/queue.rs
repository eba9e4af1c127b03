//! Work queue of one controller: every key is worked on by one task at a time, failed keys come back
//! later and later, and all keys come back on a timer. What the work is, is left to the controller.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::informer::{Change, Key};

const WORKERS_MAX: usize = 8;
const BACK_OFF_FIRST: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
const RESYNC_PERIOD: Duration = Duration::from_secs(300);

/// Brings the objects of one kind to what they ask for.
pub(crate) trait Controller: Send + Sync + 'static {
    /// Name, in logs.
    const NAME: &'static str;

    /// The keys a change concerns.
    fn keys(&self, change: &Change) -> Vec<Key>;

    /// All keys there are.
    fn all(&self) -> Vec<Key>;

    /// Works on one key; the answer says when it wants to be looked at again without any change.
    fn sync(&self, key: &Key) -> impl Future<Output = Result<Option<Duration>, Error>> + Send;
}

/// Runs a controller until shutdown.
pub(crate) async fn run<C: Controller>(
    controller: Arc<C>,
    mut changes: mpsc::UnboundedReceiver<Arc<Change>>,
    shutdown: CancellationToken,
) {
    let mut queue = Queue::default();
    let mut work: JoinSet<(Key, Result<Option<Duration>, Error>)> = JoinSet::new();
    let mut resync = tokio::time::interval(RESYNC_PERIOD);
    loop {
        for key in queue.take(Instant::now()) {
            let controller = controller.clone();
            work.spawn(async move {
                let result = controller.sync(&key).await;
                (key, result)
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = resync.tick() => queue.add_all(controller.all()),
            change = changes.recv() => {
                let Some(change) = change else { return };
                queue.add_all(controller.keys(&change));
            }
            Some(done) = work.join_next() => match done {
                Ok((key, result)) => {
                    if let Err(error) = &result {
                        tracing::debug!(controller = C::NAME, %key, %error, "trying again later");
                    }
                    queue.done(key, result.ok());
                }
                Err(error) => {
                    tracing::error!(controller = C::NAME, %error, "worker died");
                    queue.running.clear();
                }
            },
            () = tokio::time::sleep_until(queue.next()) => {}
        }
    }
}

#[derive(Default)]
struct Queue {
    due: HashMap<Key, Instant>,
    running: HashSet<Key>,
    failures: HashMap<Key, u32>,
}

impl Queue {
    fn add(&mut self, key: Key, at: Instant) {
        let due = self.due.entry(key).or_insert(at);
        *due = at.min(*due);
    }

    fn add_all(&mut self, keys: Vec<Key>) {
        let now = Instant::now();
        for key in keys {
            self.add(key, now);
        }
    }

    /// When something is to be done next, should nothing happen before.
    fn next(&self) -> Instant {
        let idle = self.due.iter().filter(|(key, _)| !self.running.contains(*key));
        let far = Instant::now() + RESYNC_PERIOD;
        match idle.map(|(_, at)| *at).min() {
            Some(at) if self.running.len() < WORKERS_MAX => at,
            _ => far,
        }
    }

    /// The keys to work on now.
    fn take(&mut self, now: Instant) -> Vec<Key> {
        let free = WORKERS_MAX.saturating_sub(self.running.len());
        let due = self.due.iter().filter(|(key, at)| **at <= now && !self.running.contains(*key));
        let keys: Vec<Key> = due.map(|(key, _)| key.clone()).take(free).collect();
        for key in &keys {
            self.due.remove(key);
            self.running.insert(key.clone());
        }
        keys
    }

    fn done(&mut self, key: Key, result: Option<Option<Duration>>) {
        self.running.remove(&key);
        let now = Instant::now();
        match result {
            Some(again) => {
                self.failures.remove(&key);
                if let Some(after) = again {
                    self.add(key, now + after);
                }
            }
            None => {
                let failures = self.failures.entry(key.clone()).or_default();
                let after = BACK_OFF_FIRST.saturating_mul(1 << (*failures).min(12));
                *failures += 1;
                self.add(key, now + after.min(BACK_OFF_MAX));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_a_key_and_longer_waits() {
        let key = Key::new("default", "web");
        let mut queue = Queue::default();
        queue.add_all(vec![key.clone(), key.clone()]);
        let now = Instant::now();
        assert_eq!(queue.take(now), [key.clone()]);
        queue.add(key.clone(), now);
        assert!(queue.take(now).is_empty(), "it is being worked on");
        queue.done(key.clone(), None);
        assert_eq!(queue.take(now), [key.clone()], "the change came while it was worked on");
        queue.done(key.clone(), None);
        assert!(queue.take(Instant::now()).is_empty(), "it failed twice");
        assert_eq!(queue.take(now + Duration::from_secs(1)), [key]);
    }
}
