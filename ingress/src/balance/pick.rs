//! The choice of an endpoint for one attempt. Time and randomness are arguments.
//!
//! Whatever the policy proposes goes if it is fit; only else others are looked at, and not more of them
//! than a few, so that the number of endpoints costs nothing. Where none is fit, one that is not takes
//! the request: no guess about health leaves a request without an endpoint.

use super::{Endpoint, EndpointSet, Moment, ring};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How many endpoints are looked at before one that is not fit is taken.
const LOOKS_MAX: usize = 64;
/// How many of them are looked at here and there, before the rest in a row.
const THROWS: usize = 8;
/// How many keys are thrown for a new session, as ingress-nginx does it.
const KEYS_MAX: usize = 20;

/// How to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// One after the other.
    InTurn,
    /// The faster of two.
    LeastLatency,
    /// The same for the same number, as long as it is there.
    Hash(u64),
    /// One of the same group of so many for the same number.
    Subset(u64, usize),
}

/// What a choice depends on beside the endpoints.
pub struct Ask<'a, R> {
    /// Endpoints that failed this request.
    pub tried: &'a [SocketAddr],
    /// When.
    pub now: Moment,
    /// Any number, a new one each time.
    pub random: R,
}

impl<R: FnMut() -> u64> Ask<'_, R> {
    fn below(&mut self, limit: usize) -> usize {
        // The bias of the remainder is far below anything to be noticed.
        usize::try_from((self.random)() % limit.max(1) as u64).unwrap_or(0)
    }

    fn was_tried(&self, endpoint: &Endpoint) -> bool {
        self.tried.contains(&endpoint.address)
    }

    /// Whether an endpoint may take the request, whatever its share.
    fn allows(&self, endpoint: &Endpoint) -> bool {
        endpoint.probed.is_healthy()
            && !endpoint.passive.rests(self.now)
            && !self.was_tried(endpoint)
    }

    /// Whether an endpoint takes the request, those that start slowly only now and then.
    fn accepts(&mut self, endpoint: &Endpoint) -> bool {
        if !self.allows(endpoint) {
            return false;
        }
        let share = endpoint.share(self.now);
        share >= 1.0 || self.fraction() < share
    }

    fn fraction(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
        let fraction = (self.random)() as f64 / u64::MAX as f64;
        fraction
    }
}

impl EndpointSet {
    /// An endpoint for an attempt; `None` only if there are none.
    pub fn pick<R: FnMut() -> u64>(
        &self,
        policy: Policy,
        mut ask: Ask<'_, R>,
    ) -> Option<Arc<Endpoint>> {
        if self.is_empty() {
            return None;
        }
        let chosen = match policy {
            Policy::InTurn => self.in_turn(&mut ask),
            Policy::LeastLatency => self.least_latency(&mut ask),
            Policy::Hash(hash) => self.hashed(hash, &ask),
            Policy::Subset(hash, size) => self.of_subset(hash, size, &mut ask),
        };
        Some(self.all[chosen].clone())
    }

    /// An endpoint for a request of our own.
    pub fn any(&self, tried: &[SocketAddr]) -> Option<Arc<Endpoint>> {
        let ask = Ask { tried, now: Moment::now(), random: rand::random::<u64> };
        self.pick(Policy::InTurn, ask)
    }

    fn in_turn<R: FnMut() -> u64>(&self, ask: &mut Ask<'_, R>) -> usize {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.all.len();
        if ask.accepts(&self.all[turn]) {
            return turn;
        }
        // Not simply the next one: it would do the work of two.
        self.somewhere(ask, Some(turn))
    }

    /// One at a random place that is fit, or at least was not tried before. `not` is one that should
    /// better not be it.
    fn somewhere<R: FnMut() -> u64>(&self, ask: &mut Ask<'_, R>, not: Option<usize>) -> usize {
        let count = self.all.len();
        let start = ask.below(count);
        let mut untried = not.filter(|at| !ask.was_tried(&self.all[*at]));
        for look in 0..THROWS + count.min(LOOKS_MAX) {
            // Throws of their own first: whoever follows several that rest would do their work.
            let at = match look.checked_sub(THROWS) {
                None => ask.below(count),
                Some(step) => (start + step) % count,
            };
            if Some(at) == not {
                continue;
            }
            if ask.accepts(&self.all[at]) {
                return at;
            }
            if untried.is_none() && !ask.was_tried(&self.all[at]) {
                untried = Some(at);
            }
        }
        untried.or(not).unwrap_or(start)
    }

    fn least_latency<R: FnMut() -> u64>(&self, ask: &mut Ask<'_, R>) -> usize {
        let one = self.somewhere(ask, None);
        let other = self.somewhere(ask, Some(one));
        if !ask.allows(&self.all[other]) {
            return one;
        }
        let score = |at: usize| self.all[at].latency.score(ask.now);
        if score(other) < score(one) { other } else { one }
    }

    fn hashed<R: FnMut() -> u64>(&self, hash: u64, ask: &Ask<'_, R>) -> usize {
        let ring = self.ring();
        let mut untried = None;
        // A place on the ring is one of many of its endpoint.
        let fit = ring.from(hash).take(4 * LOOKS_MAX).find(|at| {
            if untried.is_none() && !ask.was_tried(&self.all[*at]) {
                untried = Some(*at);
            }
            ask.allows(&self.all[*at])
        });
        fit.or(untried).unwrap_or_else(|| ring.find(hash))
    }

    /// Groups are cut in the order of the endpoints; the last one is filled up with the first ones.
    fn of_subset<R: FnMut() -> u64>(&self, hash: u64, size: usize, ask: &mut Ask<'_, R>) -> usize {
        let count = self.all.len();
        let size = size.clamp(1, count);
        let group = ring::jump(hash, count.div_ceil(size));
        let start = ask.below(size);
        let member = |step: usize| (group * size + (start + step) % size) % count;
        let mut order = (0..size.min(LOOKS_MAX)).map(member);
        order.find(|at| ask.allows(&self.all[*at])).unwrap_or_else(|| member(0))
    }

    /// The endpoint that the key of a balanced session stands for.
    pub fn of_key(&self, key: &[u8]) -> Option<Arc<Endpoint>> {
        (!self.is_empty()).then(|| self.all[self.ring().find(ring::hash(key))].clone())
    }

    /// An endpoint for a balanced session that begins, and the session's key.
    pub fn new_key<R: FnMut() -> u64>(
        &self,
        mut ask: Ask<'_, R>,
    ) -> Option<(Arc<Endpoint>, String)> {
        let mut found = None;
        for _ in 0..KEYS_MAX {
            let key = format!("{:016x}{:016x}", (ask.random)(), (ask.random)());
            let endpoint = self.of_key(key.as_bytes())?;
            let fit = ask.allows(&endpoint);
            found = Some((endpoint, key));
            if fit {
                break;
            }
        }
        found
    }

    /// The endpoint that the token of a persistent session stands for; `None` when it is gone, or as good
    /// as gone.
    pub fn of_token(&self, backend_name: &str, token: &[u8]) -> Option<Arc<Endpoint>> {
        let endpoint = &self.all[self.tokens(backend_name).find(token)?];
        endpoint.probed.is_healthy().then(|| endpoint.clone())
    }

    /// An endpoint for a persistent session that begins, and its token.
    pub fn new_token<R: FnMut() -> u64>(
        &self,
        backend_name: &str,
        mut ask: Ask<'_, R>,
    ) -> Option<(Arc<Endpoint>, String)> {
        if self.is_empty() {
            return None;
        }
        let at = self.somewhere(&mut ask, None);
        Some((self.all[at].clone(), self.tokens(backend_name).of(at).into()))
    }
}
