//! How often and how much at once clients may ask: nginx's leaky buckets and counters, by address.
//!
//! The state of an Ingress outlives snapshots and is shared by all threads. It is bounded as nginx's zones
//! are: of too many clients the ones not seen for longest are forgotten; of too many at the same time the
//! newest are refused. What the limits are is the settings' to say.

use crate::objects::ObjectKey;
use crate::recent::Recent;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

/// Threads that serve different clients rarely meet.
const SHARDS: usize = 16;
/// As many as fit into nginx's zone of 5 MB.
const CLIENTS_MAX: usize = 80_000;

/// A rate and what may come at once beyond it, in thousandths of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// A second.
    per_second: u64,
    burst: u64,
}

impl Rate {
    /// So many requests in so many seconds.
    pub fn new(requests: u32, seconds: u32, burst_multiplier: u32) -> Rate {
        Rate {
            per_second: u64::from(requests) * 1000 / u64::from(seconds.max(1)),
            burst: u64::from(requests) * u64::from(burst_multiplier) * 1000,
        }
    }
}

/// One client and one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    /// What came beyond the rate, in thousandths of a request.
    excess: u64,
    last_ms: u64,
}

impl Bucket {
    /// The bucket after one more request; `None` if that is one too many. To the letter of
    /// `ngx_http_limit_req_lookup`, rounding included.
    fn after_request(bucket: Option<Bucket>, rate: Rate, now_ms: u64) -> Option<Bucket> {
        let Some(Bucket { excess, last_ms }) = bucket else {
            return Some(Bucket { excess: 0, last_ms: now_ms });
        };
        let leaked = rate.per_second * now_ms.saturating_sub(last_ms) / 1000;
        let excess = (excess + 1000).saturating_sub(leaked);
        (excess <= rate.burst).then_some(Bucket { excess, last_ms: now_ms.max(last_ms) })
    }
}

/// The clients of one Ingress.
#[derive(Debug)]
pub struct Clients {
    started: Instant,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug)]
struct Shard {
    buckets: Recent<IpAddr, [Option<Bucket>; 2]>,
    in_progress: HashMap<IpAddr, u32>,
}

impl Clients {
    fn new() -> Clients {
        let shard =
            || Shard { buckets: Recent::new(CLIENTS_MAX / SHARDS), in_progress: HashMap::new() };
        Clients {
            started: Instant::now(),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
        }
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, Shard> {
        let at = usize::try_from(self.hasher.hash_one(client) % SHARDS as u64).unwrap_or_default();
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request against both rates, or against neither if it is one too many for one of them.
    pub fn count(&self, client: IpAddr, rates: [Option<Rate>; 2], now: Instant) -> bool {
        let now_ms = now.saturating_duration_since(self.started).as_millis();
        let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
        let mut shard = self.shard(client);
        let known = shard.buckets.get(&client);
        let mut next = known.as_deref().copied().unwrap_or_default();
        for (bucket, rate) in next.iter_mut().zip(rates) {
            if let Some(rate) = rate {
                let Some(after) = Bucket::after_request(*bucket, rate, now_ms) else {
                    return false;
                };
                *bucket = Some(after);
            }
        }
        match known {
            Some(known) => *known = next,
            None => shard.buckets.insert(client, next),
        }
        true
    }

    /// Counts a request in progress until the slot is dropped; `None` if it is one too many.
    pub fn enter(self: &Arc<Clients>, client: IpAddr, requests_max: u32) -> Option<Slot> {
        let mut shard = self.shard(client);
        let room = shard.in_progress.len() < CLIENTS_MAX / SHARDS;
        match shard.in_progress.get_mut(&client) {
            Some(count) if *count >= requests_max => return None,
            Some(count) => *count += 1,
            None if room => drop(shard.in_progress.insert(client, 1)),
            None => return None,
        }
        drop(shard);
        Some(Slot { clients: self.clone(), client })
    }
}

/// A request in progress.
#[derive(Debug)]
pub struct Slot {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut shard = self.clients.shard(self.client);
        match shard.in_progress.get_mut(&self.client) {
            Some(count @ 2..) => *count -= 1,
            _ => drop(shard.in_progress.remove(&self.client)),
        }
    }
}

/// The clients of all Ingresses that have limits, for as long as any snapshot uses them.
#[derive(Debug, Default)]
pub struct Zones {
    by_ingress: Mutex<HashMap<ObjectKey, Weak<Clients>>>,
}

impl Zones {
    /// The clients of an Ingress: those it has, or none yet.
    pub fn clients_of(&self, ingress: &ObjectKey) -> Arc<Clients> {
        let mut zones = self.by_ingress.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = zones.get(ingress).and_then(Weak::upgrade) {
            return known;
        }
        if zones.len() == zones.capacity() {
            zones.retain(|_, zone| zone.strong_count() > 0);
        }
        let clients = Arc::new(Clients::new());
        zones.insert(ingress.clone(), Arc::downgrade(&clients));
        clients
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// Sends requests at these milliseconds; tells which are let through.
    fn run(rates: [Option<Rate>; 2], at_ms: &[u64]) -> String {
        let clients = Clients::new();
        let admit =
            |ms: &u64| clients.count(CLIENT, rates, clients.started + Duration::from_millis(*ms));
        at_ms.iter().map(|ms| if admit(ms) { 'y' } else { 'n' }).collect()
    }

    /// Computed by hand from nginx's formula: excess = max(0, excess - rate * ms / 1000 + 1000), refused
    /// beyond burst, and a refused request changes nothing.
    #[test]
    fn buckets_leak_as_in_nginx() {
        let rps = |requests, multiplier| [Some(Rate::new(requests, 1, multiplier)), None];
        let rpm = |requests, multiplier| [None, Some(Rate::new(requests, 60, multiplier))];
        for (rates, at_ms, admitted) in [
            // One at once, and five more.
            (rps(1, 5), &[0, 0, 0, 0, 0, 0, 0, 0][..], "yyyyyynn"),
            // Half a second leaks half a request: not enough; a whole one is.
            (rps(1, 1), &[0, 0, 500, 1000, 1000], "yynyn"),
            // 999 ms leak 0.999 of a request, refused; the next ms makes it one.
            (rps(1, 1), &[0, 0, 999, 1000], "yyny"),
            (rps(10, 1), &[0; 12], "yyyyyyyyyyyn"),
            (rps(10, 1), &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 100, 199, 200], "yyyyyyyyyyyynny"),
            // 30 a minute are 500 thousandths a second: two seconds for one.
            (
                rpm(30, 1),
                &[&[0; 31][..], &[1999, 2000, 2000]].concat(),
                "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyynyn",
            ),
            // 1 a minute is 16 thousandths a second, not 16.67.
            (rpm(1, 1), &[0, 0, 60_000, 62_499, 62_500], "yynny"),
            // Refused by one, counted by neither.
            ([Some(Rate::new(1, 1, 1)), Some(Rate::new(60, 60, 1))], &[0, 0, 0, 1000], "yyny"),
            ([None, None], &[0, 0, 0], "yyy"),
        ] {
            assert_eq!(run(rates, at_ms), admitted, "{rates:?} {at_ms:?}");
        }
    }

    proptest! {
        /// Whatever the times, no more pass than the rate and the burst allow.
        #[test]
        fn never_more_than_rate_and_burst(
            requests in 1u32..50,
            multiplier in 1u32..6,
            gaps in prop::collection::vec(0u64..400, 1..300),
        ) {
            let at_ms: Vec<u64> = gaps.iter().scan(0, |now, gap| { *now += gap; Some(*now) }).collect();
            let passed = run([Some(Rate::new(requests, 1, multiplier)), None], &at_ms);
            let passed = passed.bytes().filter(|b| *b == b'y').count() as u64;
            let span_ms = at_ms.last().unwrap() - at_ms[0];
            let most = 1 + u64::from(requests * multiplier) + u64::from(requests) * span_ms / 1000 + 1;
            prop_assert!(passed <= most, "{passed} of {most}");
        }
    }

    #[test]
    fn requests_in_progress_are_counted_until_they_end() {
        let zones = Zones::default();
        let clients = zones.clients_of(&ObjectKey::new("shop", "web"));
        let slots: Vec<_> = (0..3).map(|_| clients.enter(CLIENT, 3).unwrap()).collect();
        assert!(clients.enter(CLIENT, 3).is_none());
        assert!(clients.enter("::1".parse().unwrap(), 3).is_some(), "others are not concerned");
        drop(slots);
        assert!(clients.enter(CLIENT, 1).is_some());
        assert!(clients.shards.iter().all(|shard| shard.lock().unwrap().in_progress.is_empty()));
    }

    #[test]
    fn state_outlives_a_snapshot_and_ends_with_the_last() {
        let zones = Zones::default();
        let key = ObjectKey::new("shop", "web");
        let clients = zones.clients_of(&key);
        let again = zones.clients_of(&key);
        assert!(Arc::ptr_eq(&clients, &again));
        let before = Arc::downgrade(&clients);
        drop((clients, again));
        assert!(before.upgrade().is_none(), "nobody uses it any more");
        zones.clients_of(&key);
    }

    #[test]
    fn memory_is_bounded() {
        let clients = Arc::new(Clients::new());
        let rates = [Some(Rate::new(1, 1, 1)), None];
        let mut slots = Vec::new();
        for bits in 0..u32::try_from(CLIENTS_MAX * 2).unwrap() {
            let client = IpAddr::V4(bits.into());
            assert!(clients.count(client, rates, clients.started), "a new client is let in");
            slots.extend(clients.enter(client, 1));
        }
        let buckets: usize = clients.shards.iter().map(|s| s.lock().unwrap().buckets.len()).sum();
        assert!(buckets <= CLIENTS_MAX && slots.len() <= CLIENTS_MAX, "{buckets} {}", slots.len());
    }
}
