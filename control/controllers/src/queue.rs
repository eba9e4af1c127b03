//! Work queue of one controller: every key is worked on by one task at a time, failed keys come back
//! later and later, and all keys come back on a timer. What the work is, is left to the controller.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{self, JoinSet};
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
    let mut work: JoinSet<Result<Option<Duration>, Error>> = JoinSet::new();
    let mut keys: HashMap<task::Id, Key> = HashMap::new();
    let mut resync = tokio::time::interval(RESYNC_PERIOD);
    loop {
        for key in queue.take(Instant::now()) {
            let controller = controller.clone();
            let worked_on = key.clone();
            let task = work.spawn(async move { controller.sync(&worked_on).await });
            keys.insert(task.id(), key);
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = resync.tick() => queue.add_all(controller.all()),
            change = changes.recv() => {
                let Some(change) = change else { return };
                queue.add_all(controller.keys(&change));
            }
            Some(done) = work.join_next_with_id() => {
                let (id, result) = match done {
                    Ok((id, result)) => (id, result),
                    Err(error) => (error.id(), Err(Error::Died(error))),
                };
                let Some(key) = keys.remove(&id) else { continue };
                if let Err(error) = &result {
                    report::<C>(&key, error);
                }
                queue.done(key, result.ok());
            }
            () = tokio::time::sleep_until(queue.next()) => {}
        }
    }
}

fn report<C: Controller>(key: &Key, error: &Error) {
    match error {
        Error::Died(_) => tracing::error!(controller = C::NAME, %key, %error, "worker died"),
        // Somebody else was faster, or the cache is behind.
        _ if matches!(error.code(), Some(404 | 409)) => {
            tracing::debug!(controller = C::NAME, %key, %error, "trying again");
        }
        _ => tracing::warn!(controller = C::NAME, %key, %error, "trying again later"),
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
        let mut due: Vec<(Instant, Key)> = due.map(|(key, at)| (*at, key.clone())).collect();
        due.sort();
        let keys: Vec<Key> = due.into_iter().map(|(_, key)| key).take(free).collect();
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
        assert_eq!(queue.take(now), std::slice::from_ref(&key));
        queue.add(key.clone(), now);
        assert!(queue.take(now).is_empty(), "it is being worked on");
        queue.done(key.clone(), None);
        assert_eq!(
            queue.take(now),
            std::slice::from_ref(&key),
            "the change came while it was worked on"
        );
        queue.done(key.clone(), None);
        assert!(queue.take(Instant::now()).is_empty(), "it failed twice");
        assert_eq!(queue.take(now + Duration::from_secs(1)), [key]);
    }

    struct Fragile {
        done: mpsc::UnboundedSender<String>,
    }

    impl Controller for Fragile {
        const NAME: &'static str = "fragile";

        fn keys(&self, _: &Change) -> Vec<Key> {
            Vec::new()
        }

        fn all(&self) -> Vec<Key> {
            vec![Key::new("", "broken"), Key::new("", "slow")]
        }

        async fn sync(&self, key: &Key) -> Result<Option<Duration>, Error> {
            let _ = self.done.send(format!("{key} starts"));
            assert!(key.name != "broken", "on purpose");
            tokio::time::sleep(Duration::from_millis(400)).await;
            let _ = self.done.send(format!("{key} ends"));
            Ok(Some(Duration::ZERO))
        }
    }

    #[tokio::test]
    async fn a_panic_concerns_its_own_key_only() {
        let (done, mut seen) = mpsc::unbounded_channel();
        let (_changes, changes) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(Arc::new(Fragile { done }), changes, shutdown.clone()));
        let (mut broken, mut slow) = (0, Vec::new());
        while slow.len() < 4 {
            let line = seen.recv().await.unwrap();
            if line == "broken starts" {
                broken += 1;
            } else {
                slow.push(line);
            }
        }
        shutdown.cancel();
        task.await.unwrap();
        assert_eq!(slow, ["slow starts", "slow ends", "slow starts", "slow ends"]);
        assert!(broken >= 3, "the broken key comes back: {broken}");
    }
}
