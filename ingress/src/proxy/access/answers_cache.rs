//! Answers of authorities that are remembered (`auth-cache-key`), shared by all threads.
//!
//! The key holds what the annotation says and where it says it, nothing else, as in nginx. Of requests for
//! the same unknown key one asks and the others wait for it. What may be remembered at all is told by the
//! answer's own headers, as nginx's `proxy_cache` reads them.

use super::external::Said;
use crate::annotations::authentication::external::CacheDurations;
use crate::recent::Recent;
use crate::snapshot::Route;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ring::digest;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Answers that are remembered.
const ANSWERS_MAX: usize = 8192;
/// Threads that serve different keys rarely meet.
const SHARDS: usize = 16;
/// Larger ones are not: in all it may be 64 MB, half of what nginx allows.
const ANSWER_BYTES_MAX: usize = 8 << 10;
/// How long requests wait for the one that asks, as nginx's `proxy_cache_lock_timeout`.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What answers are remembered under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of a location and what the annotation's template became.
    pub fn new(route: &Route, url: &str, expanded: &[u8]) -> Key {
        let mut context = digest::Context::new(&digest::SHA256);
        let ingress = &route.ingress;
        let of_route: [&str; 5] =
            [&ingress.namespace, &ingress.name, &route.host, &route.path, url];
        for part in of_route.map(str::as_bytes).into_iter().chain([expanded]) {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        Key(key)
    }
}

/// The cache.
pub struct AnswersCache {
    shards: Box<[Mutex<State>]>,
}

impl fmt::Debug for AnswersCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswersCache")
    }
}

struct State {
    answers: Recent<Key, Entry>,
    /// Keys somebody is asking about; closed when that ended.
    asking: HashMap<Key, Arc<Semaphore>>,
}

/// Headers of a request and their values.
type Varies = [(HeaderName, Option<HeaderValue>)];

#[derive(Clone)]
struct Entry {
    said: Arc<Said>,
    until: Instant,
    /// `Vary`: the answer is for requests with the same values of these headers.
    varies: Arc<Varies>,
}

/// What is known under a key.
pub enum Found<'a> {
    /// The answer.
    Answer(Arc<Said>),
    /// Nothing: ask for others as well, who go on when this is dropped.
    Ask { _asking: Asking<'a> },
    /// Nothing, and whoever asked got nothing to remember: ask for yourself.
    AskAlone,
}

/// The right to ask for others as well; they go on when it is dropped.
pub struct Asking<'a> {
    cache: &'a AnswersCache,
    key: Key,
    ended: Arc<Semaphore>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.cache.state(self.key).asking.remove(&self.key);
        self.ended.close();
    }
}

impl AnswersCache {
    /// An empty one.
    pub fn new() -> AnswersCache {
        let shard = || State { answers: Recent::new(ANSWERS_MAX / SHARDS), asking: HashMap::new() };
        AnswersCache { shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect() }
    }

    fn state(&self, key: Key) -> MutexGuard<'_, State> {
        let shard = &self.shards[usize::from(key.0[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, after waiting for whoever asks.
    pub async fn find(&self, key: Key, request: &HeaderMap) -> Found<'_> {
        let ended = match self.look(key, request) {
            Ok(found) => return found,
            Err(ended) => ended,
        };
        // Closing it is the signal; nobody adds permits.
        drop(tokio::time::timeout(WAIT_MAX, ended.acquire()).await);
        match self.known(key, request) {
            Some(said) => Found::Answer(said),
            None => Found::AskAlone,
        }
    }

    fn known(&self, key: Key, request: &HeaderMap) -> Option<Arc<Said>> {
        self.state(key).known(key, request)
    }

    fn look(&self, key: Key, request: &HeaderMap) -> Result<Found<'_>, Arc<Semaphore>> {
        let mut state = self.state(key);
        if let Some(said) = state.known(key, request) {
            return Ok(Found::Answer(said));
        }
        if let Some(ended) = state.asking.get(&key) {
            return Err(ended.clone());
        }
        let ended = Arc::new(Semaphore::new(0));
        state.asking.insert(key, ended.clone());
        Ok(Found::Ask { _asking: Asking { cache: self, key, ended } })
    }

    /// Remembers an answer, if it may be.
    pub fn remember(
        &self,
        key: Key,
        said: &Arc<Said>,
        answer: &HeaderMap,
        request: &HeaderMap,
        durations: &CacheDurations,
    ) {
        let Some(lifetime) = lifetime(answer, durations.of(said.status)) else {
            return;
        };
        let Some(varies) = varies(answer, request) else {
            return;
        };
        if said.bytes() > ANSWER_BYTES_MAX {
            return;
        }
        let until = Instant::now() + lifetime;
        self.state(key).answers.insert(key, Entry { said: said.clone(), until, varies });
    }
}

impl State {
    fn known(&mut self, key: Key, request: &HeaderMap) -> Option<Arc<Said>> {
        let entry = self.answers.get(&key)?;
        if entry.until <= Instant::now() {
            self.answers.remove(&key);
            return None;
        }
        let same = entry.varies.iter().all(|(name, value)| request.get(name) == value.as_ref());
        same.then(|| entry.said.clone())
    }
}

/// How long an answer may be remembered: its own headers go before the configured time, and one that sets
/// a cookie is for one client only.
fn lifetime(answer: &HeaderMap, configured: Option<Duration>) -> Option<Duration> {
    if answer.contains_key(header::SET_COOKIE) {
        return None;
    }
    let number = |text: &str| text.trim().parse::<u64>().ok();
    if let Some(seconds) = answer.get("x-accel-expires").and_then(|value| value.to_str().ok()) {
        let seconds = number(seconds).filter(|seconds| *seconds > 0);
        return seconds.map(Duration::from_secs);
    }
    let mut lifetime = configured;
    let mut shared = None;
    for value in answer.get_all(header::CACHE_CONTROL) {
        for word in value.to_str().ok()?.split(',').map(|word| word.trim().to_ascii_lowercase()) {
            let word = word.as_str();
            if ["no-cache", "no-store", "private"].iter().any(|no| word.starts_with(no)) {
                return None;
            }
            if let Some(seconds) = word.strip_prefix("s-maxage=") {
                shared = Some(Duration::from_secs(number(seconds)?));
            } else if let Some(seconds) = word.strip_prefix("max-age=") {
                lifetime = Some(Duration::from_secs(number(seconds)?));
            }
        }
    }
    if lifetime == configured && shared.is_none() && answer.contains_key(header::EXPIRES) {
        // A date of the past means no; one of the future is no reason for more than was configured.
        let date = answer.get(header::EXPIRES)?.to_str().ok()?;
        let date = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
        let left = Duration::try_from(date.duration_since(jiff::Timestamp::now())).ok()?;
        lifetime = configured.map(|configured| configured.min(left));
    }
    shared.or(lifetime).filter(|lifetime| !lifetime.is_zero())
}

/// The headers an answer depends on, with the values the request has; `None` if on everything.
fn varies(answer: &HeaderMap, request: &HeaderMap) -> Option<Arc<Varies>> {
    let mut varies = Vec::new();
    for value in answer.get_all(header::VARY) {
        for name in value.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| name != "*")?;
            varies.push((name.clone(), request.get(&name).cloned()));
        }
    }
    Some(varies.into())
}

#[cfg(test)]
mod tests;
