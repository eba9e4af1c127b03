//! Changes that have arrived, as metrics tell of them: how many, and how long the way of those with
//! a known beginning was.

use std::time::{Duration, Instant};

use crate::{index::Change, metrics::Metrics};

/// Those not yet in the kernel.
#[derive(Default)]
pub struct Arrivals {
    triggers: Vec<jiff::Timestamp>,
    /// When they arrived, batch by batch.
    arrived: Vec<Instant>,
    last: Option<Instant>,
}

impl Arrivals {
    /// A batch is about to be taken, which `arrived` then.
    pub fn begin(&mut self, arrived: Instant, is_old_news: bool) {
        self.last = Some(arrived);
        if !is_old_news {
            self.arrived.push(arrived);
        }
    }

    /// Everything there was to begin with has been taken.
    pub fn complete(&self, metrics: &Metrics) {
        let since = self.last.map_or(Duration::ZERO, |last| last.elapsed());
        let at = jiff::Timestamp::now().as_duration().as_secs_f64() - since.as_secs_f64();
        metrics.objects_complete_timestamp.set(at);
    }

    /// Counts one. What `is_old_news`, as all is before the first pass, would distort the figures
    /// of time.
    pub fn take(&mut self, change: &Change, is_old_news: bool, metrics: &Metrics) {
        if matches!(change, Change::Service(..)) {
            metrics.service_changes_total.inc();
            metrics.service_changes_pending.inc();
            return;
        }
        metrics.endpoint_changes_total.inc();
        metrics.endpoint_changes_pending.inc();
        if let Change::Slice(_, slice) = change
            && !is_old_news
        {
            self.triggers.extend(slice.as_ref().and_then(|slice| slice.triggered));
        }
    }

    /// All of them are in the kernel since `done`.
    pub fn done(&mut self, done: Instant, metrics: &Metrics) {
        for arrived in self.arrived.drain(..) {
            let waited = done.saturating_duration_since(arrived);
            metrics.change_duration.observe(waited.as_secs_f64());
        }
        let now = jiff::Timestamp::now();
        for trigger in self.triggers.drain(..) {
            let waited = now.duration_since(trigger).as_secs_f64();
            metrics.network_programming_duration.observe(waited.max(0.0));
        }
    }
}
