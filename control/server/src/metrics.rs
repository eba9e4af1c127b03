//! `/metrics`: requests by verb, resource and code, their latency, and how many are in flight.

use std::time::Duration;

use prometheus::{Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};
use prometheus::{Registry, TextEncoder};

/// Names and labels are upstream's, so that its dashboards work.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    latency_seconds: HistogramVec,
    in_flight: IntGaugeVec,
    watches: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new("apiserver_request_total", "Requests answered."),
                &["verb", "resource", "code"],
            )?,
            latency_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "apiserver_request_duration_seconds",
                    "Time to the answer, watches and logs apart.",
                ),
                &["verb", "resource"],
            )?,
            in_flight: IntGaugeVec::new(
                Opts::new("apiserver_current_inflight_requests", "Requests in flight."),
                &["request_kind"],
            )?,
            watches: IntGaugeVec::new(
                Opts::new("apiserver_longrunning_requests", "Open watches and logs."),
                &["resource"],
            )?,
        };
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.latency_seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.in_flight.clone()))?;
        metrics.registry.register(Box::new(metrics.watches.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn answered(&self, verb: &str, resource: &str, code: u16, took: Duration) {
        self.requests.with_label_values(&[verb, resource, &code.to_string()]).inc();
        if verb != "watch" {
            self.latency_seconds.with_label_values(&[verb, resource]).observe(took.as_secs_f64());
        }
    }

    /// Counts a request in flight for as long as the guard lives.
    pub(crate) fn in_flight(&self, request_kind: &str) -> Guard {
        Guard::new(self.in_flight.with_label_values(&[request_kind]))
    }

    /// Counts an open watch or log for as long as the guard lives.
    pub(crate) fn long_running(&self, resource: &str) -> Guard {
        Guard::new(self.watches.with_label_values(&[resource]))
    }

    pub(crate) fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// One more, until it is dropped.
pub(crate) struct Guard(prometheus::IntGauge);

impl Guard {
    fn new(gauge: prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
