//! Passive health: an endpoint that cannot be reached again and again rests for a while. What failed and
//! when are arguments.

use super::Moment;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When an endpoint rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestPolicy {
    /// Failures within `window` until it does; 0 is never.
    pub fails_max: u32,
    /// In which they have to happen, and how long the rest takes.
    pub window: Duration,
}

/// Failures that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fails {
    count: u32,
    since: Moment,
}

impl Fails {
    /// Enough for any policy, and for 34 years.
    const COUNT_BITS: u32 = 24;
    const COUNT_MAX: u32 = (1 << Fails::COUNT_BITS) - 1;

    fn pack(self) -> u64 {
        u64::from(self.count.min(Fails::COUNT_MAX)) | self.since.0 << Fails::COUNT_BITS
    }

    fn unpack(bits: u64) -> Fails {
        let count = u32::try_from(bits & u64::from(Fails::COUNT_MAX)).unwrap_or_default();
        Fails { count, since: Moment(bits >> Fails::COUNT_BITS) }
    }

    /// After a failure: what counts now, and until when the endpoint rests.
    fn after(self, now: Moment, policy: RestPolicy) -> (Fails, Option<Moment>) {
        let old = self.since.plus(policy.window) <= now;
        let since = if old || self.count == 0 { now } else { self.since };
        let count = if old { 1 } else { self.count.saturating_add(1) };
        if policy.fails_max == 0 || count < policy.fails_max {
            return (Fails { count, since }, None);
        }
        // One more failure after the rest begins the next one.
        let until = now.plus(policy.window);
        (Fails { count: policy.fails_max - 1, since: until }, Some(until))
    }
}

/// Passive health of an endpoint. While nothing fails, nothing is written.
#[derive(Debug, Default)]
pub struct Passive {
    rests_until: AtomicU64,
    /// [`Fails`]; 0 for none.
    fails: AtomicU64,
}

impl Passive {
    /// Whether to leave the endpoint alone.
    pub fn rests(&self, now: Moment) -> bool {
        let until = self.rests_until.load(Ordering::Relaxed);
        until != 0 && now.0 < until
    }

    /// It could not be reached.
    pub fn failed(&self, now: Moment, policy: RestPolicy) {
        let after = |bits| Fails::unpack(bits).after(now, policy);
        let next = |bits| Some(after(bits).0.pack());
        let before = self.fails.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        if let (_, Some(until)) = after(before.unwrap_or_else(|bits| bits)) {
            self.rests_until.store(until.0, Ordering::Relaxed);
        }
    }

    /// It was reached.
    pub fn worked(&self) {
        if self.fails.load(Ordering::Relaxed) != 0 {
            self.fails.store(0, Ordering::Relaxed);
            self.rests_until.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RestPolicy = RestPolicy { fails_max: 3, window: Duration::from_secs(10) };

    #[test]
    fn failures_close_together_begin_a_rest() {
        for (name, failures, asked, rests) in [
            ("two are not enough", &[1, 2][..], 3, false),
            ("three are", &[1, 2, 3], 4, true),
            ("for ten seconds", &[1, 2, 3], 12, true),
            ("not longer", &[1, 2, 3], 13, false),
            ("old ones do not count", &[1, 2, 12], 13, false),
            ("one more after the rest", &[1, 2, 3, 14], 15, true),
            ("long after the rest it takes three again", &[1, 2, 3, 40], 41, false),
        ] {
            let passive = Passive::default();
            for second in failures {
                passive.failed(Moment(second * 1000), POLICY);
            }
            assert_eq!(passive.rests(Moment(asked * 1000)), rests, "{name}");
        }
    }

    #[test]
    fn success_forgives_and_zero_is_off() {
        let passive = Passive::default();
        for second in [1000, 2000] {
            passive.failed(Moment(second), POLICY);
        }
        passive.worked();
        passive.failed(Moment(3000), POLICY);
        assert!(!passive.rests(Moment(3001)));
        let off = RestPolicy { fails_max: 0, ..POLICY };
        for _ in 0..9 {
            passive.failed(Moment(3000), off);
        }
        assert!(!passive.rests(Moment(3001)));
    }
}
