//! Active health: what a row of answers to probes says of an endpoint. Who asks is `probes`.

use super::Moment;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How many answers in a row change an opinion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Good ones until an endpoint is healthy.
    pub healthy: u32,
    /// Bad ones until it is not.
    pub unhealthy: u32,
}

/// The opinion on an endpoint, and how many answers in a row spoke against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Opinion {
    healthy: bool,
    against: u32,
}

impl Opinion {
    fn after(self, good: bool, thresholds: Thresholds) -> Opinion {
        if good == self.healthy {
            return Opinion { against: 0, ..self };
        }
        let against = self.against.saturating_add(1);
        let needed = if good { thresholds.healthy } else { thresholds.unhealthy };
        if against < needed {
            return Opinion { against, ..self };
        }
        Opinion { healthy: good, against: 0 }
    }

    fn pack(self) -> u32 {
        self.against << 1 | u32::from(!self.healthy)
    }

    fn unpack(bits: u32) -> Opinion {
        Opinion { healthy: bits & 1 == 0, against: bits >> 1 }
    }
}

/// Active health of an endpoint: healthy until found otherwise.
#[derive(Debug, Default)]
pub struct Probed {
    opinion: AtomicU32,
    /// When to ask again; whoever was never asked is asked at once.
    due: AtomicU64,
}

impl Probed {
    /// Whether probes say so, or there are none.
    pub fn is_healthy(&self) -> bool {
        self.opinion.load(Ordering::Relaxed) & 1 == 0
    }

    /// Whether to ask now. The next time comes after `interval`.
    pub fn comes_due(&self, now: Moment, interval: Duration) -> bool {
        if self.due.load(Ordering::Relaxed) > now.0 {
            return false;
        }
        self.due.store(now.plus(interval).0, Ordering::Relaxed);
        true
    }

    /// Takes an answer. Says so if the opinion changed.
    pub fn note(&self, good: bool, thresholds: Thresholds) -> bool {
        let before = Opinion::unpack(self.opinion.load(Ordering::Relaxed));
        let after = before.after(good, thresholds);
        self.opinion.store(after.pack(), Ordering::Relaxed);
        before.healthy != after.healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_a_row_change_the_opinion() {
        let thresholds = Thresholds { healthy: 2, unhealthy: 3 };
        for (answers, healthy) in [
            ("", true),
            ("--", true),
            ("---", false),
            ("--+--", true),
            ("---+", false),
            ("---+-+", false),
            ("---++", true),
            ("---++--", true),
        ] {
            let probed = Probed::default();
            for answer in answers.chars() {
                probed.note(answer == '+', thresholds);
            }
            assert_eq!(probed.is_healthy(), healthy, "{answers}");
        }
    }
}
