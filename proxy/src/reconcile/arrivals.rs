//! Changes that have arrived, as metrics tell of them: how many, and how long the way of those with
//! a known beginning was.

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::{index::Change, metrics::Metrics};

/// When an EndpointSlice's cause happened, as its controller notes it.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Those not yet in the kernel.
#[derive(Default)]
pub struct Arrivals {
    triggers: Vec<jiff::Timestamp>,
}

impl Arrivals {
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
            self.triggers.extend(slice.as_deref().and_then(trigger_time));
        }
    }

    /// All of them are in the kernel.
    pub fn done(&mut self, metrics: &Metrics) {
        let now = jiff::Timestamp::now();
        for trigger in self.triggers.drain(..) {
            let waited = now.duration_since(trigger).as_secs_f64();
            metrics.network_programming_duration.observe(waited.max(0.0));
        }
    }
}

fn trigger_time(slice: &EndpointSlice) -> Option<jiff::Timestamp> {
    slice.metadata.annotations.as_ref()?.get(TRIGGER_TIME)?.parse().ok()
}
