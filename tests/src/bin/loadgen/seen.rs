//! What a client saw: how long answers took, and what failed.

use std::time::Duration;

use serde_json::{Value, json};

/// All of a run.
#[derive(Default)]
pub struct Seen {
    took_ns: Vec<u64>,
    failed: u64,
    last_failure: Option<String>,
}

impl Seen {
    /// Makes room for so many answers, so that none waits for it.
    pub fn expect(&mut self, count: usize) {
        self.took_ns.reserve(count);
    }

    /// An answer came.
    pub fn took(&mut self, took: Duration) {
        self.took_ns.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// None came, or a wrong one.
    pub fn fail(&mut self, why: String) {
        self.failed += 1;
        self.last_failure = Some(why);
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Takes in what another client saw.
    pub fn extend(&mut self, other: Seen) {
        self.took_ns.extend(other.took_ns);
        self.failed += other.failed;
        self.last_failure = self.last_failure.take().or(other.last_failure);
    }

    /// As one JSON object.
    pub fn report(&mut self, elapsed: Duration) -> Value {
        self.took_ns.sort_unstable();
        let last = self.took_ns.len().saturating_sub(1);
        let at = |per_mille: usize| {
            let rank = (self.took_ns.len() * per_mille).div_ceil(1000);
            self.took_ns.get(rank.saturating_sub(1).min(last))
        };
        json!({
            "count": self.took_ns.len(),
            "failed": self.failed,
            "lastFailure": self.last_failure,
            "seconds": elapsed.as_secs_f64(),
            "ns": {
                "p50": at(500), "p90": at(900), "p99": at(990), "p99.9": at(999),
                "max": self.took_ns.last(),
            },
        })
    }
}
