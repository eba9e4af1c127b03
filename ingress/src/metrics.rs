//! Metrics under the names ingress-nginx gives them, so that its dashboards and alerts go on working.

use crate::problem::Problem;
use crate::snapshot::{Route, Snapshot};
use http::Method;
use jiff::Timestamp;
use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::time::Duration;

const LABELS: [&str; 7] = ["host", "path", "ingress", "namespace", "service", "status", "method"];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    sizes: HistogramVec,
    expiry: GaugeVec,
    problems: IntGaugeVec,
    reload_ok: IntGauge,
    reload_time: Gauge,
    reloads: IntCounter,
    reload_duration: Gauge,
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let name = |name: &str| format!("nginx_ingress_controller_{name}");
        let vec = |metric: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(metric, help), labels)
        };
        let durations = HistogramOpts::new(
            name("request_duration_seconds"),
            "Time from the request to the end of its answer",
        );
        let sizes = HistogramOpts::new(name("response_size"), "Bytes of response bodies")
            .buckets(prometheus::exponential_buckets(10.0, 10.0, 7)?);
        let metrics = Metrics {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new(name("requests"), "Requests answered"),
                &LABELS,
            )?,
            durations: HistogramVec::new(durations, &LABELS)?,
            sizes: HistogramVec::new(sizes, &LABELS)?,
            expiry: GaugeVec::new(
                Opts::new(
                    name("ssl_expire_time_seconds"),
                    "Unix time at which a certificate expires",
                ),
                &["namespace", "secret_name"],
            )?,
            problems: vec(
                "podium_ingress_problems",
                "Open problems in objects",
                &["kind", "severity"],
            )?,
            reload_ok: IntGauge::new(
                name("config_last_reload_successful"),
                "1: the last change is in effect",
            )?,
            reload_time: Gauge::new(
                name("config_last_reload_successful_timestamp_seconds"),
                "Unix time of the last change in effect",
            )?,
            reloads: IntCounter::new("podium_ingress_translations_total", "Snapshots built")?,
            reload_duration: Gauge::new(
                "podium_ingress_translation_duration_seconds",
                "Time the last snapshot took to build",
            )?,
        };
        for collector in metrics.collectors() {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    fn collectors(&self) -> Vec<Box<dyn prometheus::core::Collector>> {
        vec![
            Box::new(self.requests.clone()),
            Box::new(self.durations.clone()),
            Box::new(self.sizes.clone()),
            Box::new(self.expiry.clone()),
            Box::new(self.problems.clone()),
            Box::new(self.reload_ok.clone()),
            Box::new(self.reload_time.clone()),
            Box::new(self.reloads.clone()),
            Box::new(self.reload_duration.clone()),
        ]
    }

    /// Counts one request.
    pub fn observe(
        &self,
        route: Option<&Route>,
        method: &Method,
        status: u16,
        took: Duration,
        sent_bytes: usize,
    ) {
        let mut digits = [0u8; 5];
        let status = write_number(&mut digits, status);
        let labels = match route {
            Some(route) => [
                route.host.as_str(),
                route.path.as_str(),
                route.ingress.name.as_str(),
                route.ingress.namespace.as_str(),
                route.backend.key.service.name.as_str(),
                status,
                method_label(method),
            ],
            None => ["_", "", "", "", "", status, method_label(method)],
        };
        self.requests.with_label_values(&labels).inc();
        self.durations.with_label_values(&labels).observe(took.as_secs_f64());
        #[expect(
            clippy::cast_precision_loss,
            reason = "a histogram bucket needs no exact byte count"
        )]
        self.sizes.with_label_values(&labels).observe(sent_bytes as f64);
    }

    /// Notes a new snapshot and what is wrong with the objects behind it.
    pub fn published(
        &self,
        snapshot: &Snapshot,
        problems: &[Problem],
        took: Duration,
        now: Timestamp,
    ) {
        self.expiry.reset();
        for (secret, certificate) in &snapshot.certificates_by_secret {
            #[expect(
                clippy::cast_precision_loss,
                reason = "seconds since 1970 fit a double exactly"
            )]
            let expires = certificate.not_after.as_second() as f64;
            self.expiry
                .with_label_values(&[secret.namespace.as_str(), secret.name.as_str()])
                .set(expires);
        }
        self.problems.reset();
        for problem in problems {
            self.problems
                .with_label_values(&[problem.kind.as_str(), problem.severity.as_str()])
                .inc();
        }
        self.reload_ok.set(1);
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double exactly")]
        self.reload_time.set(now.as_second() as f64);
        self.reload_duration.set(took.as_secs_f64());
        self.reloads.inc();
    }

    /// The exposition text.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!("rendering metrics: {error}");
        }
        text
    }
}

fn write_number(digits: &mut [u8; 5], mut number: u16) -> &str {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            return std::str::from_utf8(&digits[at..]).unwrap_or_default();
        }
    }
}

/// Clients may invent methods; labels must not grow with them.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_those_of_ingress_nginx() {
        let metrics = Metrics::new().unwrap();
        metrics.observe(
            None,
            &Method::from_bytes(b"BREW").unwrap(),
            404,
            Duration::from_millis(3),
            146,
        );
        let text = String::from_utf8(metrics.render()).unwrap();
        let line = "nginx_ingress_controller_requests{host=\"_\",ingress=\"\",method=\"OTHER\",namespace=\"\",path=\"\",service=\"\",status=\"404\"} 1";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("nginx_ingress_controller_request_duration_seconds_bucket"));
        assert!(text.contains("nginx_ingress_controller_response_size_sum"));
    }
}
