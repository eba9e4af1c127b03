//! Metrics under the names ingress-nginx gives them, so that its dashboards and alerts go on working.
//!
//! What is counted for each request is in `series`, what for the process in `traffic`; here is the rest.

mod certificates;
mod histogram;
pub mod series;
mod striped;
pub mod traffic;

use crate::annotations;
use crate::objects::{Kind, ObjectKey};
use crate::options::table;
use crate::problem::Problem;
use crate::snapshot::Route;
use crate::translate::Update;
use certificates::CertificateMetrics;
use jiff::Timestamp;
use prometheus::{
    Encoder, Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use series::{Finished, RouteSeries, SeriesKey};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Who counts: labels of every metric, as ingress-nginx has them.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The IngressClass controller.
    pub class: String,
    /// The namespace of the pod.
    pub namespace: String,
    /// The pod.
    pub pod: String,
}

impl Identity {
    fn labels(&self) -> HashMap<String, String> {
        let labels = [
            ("controller_class", &self.class),
            ("controller_namespace", &self.namespace),
            ("controller_pod", &self.pod),
        ];
        labels.map(|(name, value)| (name.to_string(), value.clone())).into()
    }
}

fn build_info(
    opts: Opts,
    mut labels: HashMap<String, String>,
) -> Result<IntGauge, prometheus::Error> {
    let about = [
        ("release", env!("CARGO_PKG_VERSION")),
        ("build", "podium-ingress"),
        ("repository", env!("CARGO_PKG_REPOSITORY")),
    ];
    labels.extend(about.map(|(name, value)| (name.to_string(), value.to_string())));
    let build = IntGauge::with_opts(opts.const_labels(labels))?;
    build.set(1);
    Ok(build)
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    /// Labels in the exposition format.
    constant: String,
    unmatched: Arc<RouteSeries>,
    certificates: CertificateMetrics,
    problems: IntGaugeVec,
    not_honoured: IntGaugeVec,
    leader: IntGaugeVec,
    reload_ok: IntGauge,
    reload_time: Gauge,
    reloads: IntCounter,
    successes: IntCounter,
    failures: IntCounter,
    reload_duration: Gauge,
    passthrough: IntCounterVec,
    handshakes_failed: IntCounter,
}

impl Metrics {
    /// Registers everything.
    pub fn new(identity: &Identity) -> Result<Metrics, prometheus::Error> {
        let constant = identity.labels();
        let name = |name: &str| format!("nginx_ingress_controller_{name}");
        let opts = |name: String, help: &str| Opts::new(name, help).const_labels(constant.clone());
        let unmatched = SeriesKey {
            host: "_".into(),
            path: "".into(),
            ingress: Arc::new(ObjectKey::new("", "")),
            service: "".into(),
        };
        let metrics = Metrics {
            registry: Registry::new(),
            constant: constant_labels(identity),
            unmatched: RouteSeries::of(unmatched),
            certificates: CertificateMetrics::new(&identity.class)?,
            problems: IntGaugeVec::new(
                Opts::new("podium_ingress_problems", "Open problems in objects"),
                &["kind", "severity"],
            )?,
            not_honoured: IntGaugeVec::new(
                Opts::new(
                    "podium_ingress_not_honoured",
                    "Uses of annotations and options that have no effect or a wrong value",
                ),
                &["kind", "name"],
            )?,
            leader: IntGaugeVec::new(
                opts(name("leader_election_status"), "1: the leader, 0: not"),
                &["name"],
            )?,
            reload_ok: IntGauge::with_opts(opts(
                name("config_last_reload_successful"),
                "1: the last change is in effect",
            ))?,
            reload_time: Gauge::with_opts(opts(
                name("config_last_reload_successful_timestamp_seconds"),
                "Unix time of the last change in effect",
            ))?,
            reloads: IntCounter::new("podium_ingress_translations_total", "Snapshots built")?,
            successes: IntCounter::with_opts(opts(name("success"), "Snapshots put into effect"))?,
            failures: IntCounter::with_opts(opts(
                name("errors"),
                "Snapshots that could not be put into effect: there are none, a bad object harms only itself",
            ))?,
            reload_duration: Gauge::new(
                "podium_ingress_translation_duration_seconds",
                "Time the last snapshot took to build",
            )?,
            passthrough: IntCounterVec::new(
                Opts::new(
                    "podium_ingress_passthrough_connections_total",
                    "TLS connections passed through to endpoints as they are",
                ),
                &["upstream"],
            )?,
            handshakes_failed: IntCounter::new(
                "podium_ingress_tls_handshakes_failed_total",
                "Connections that ended before TLS was negotiated",
            )?,
        };
        for collector in metrics.collectors() {
            metrics.registry.register(collector)?;
        }
        let build =
            build_info(opts(name("build_info"), "1, with information about the build"), constant)?;
        metrics.registry.register(Box::new(build))?;
        Ok(metrics)
    }

    fn collectors(&self) -> Vec<Box<dyn prometheus::core::Collector>> {
        let mut all: Vec<Box<dyn prometheus::core::Collector>> = vec![
            Box::new(self.problems.clone()),
            Box::new(self.not_honoured.clone()),
            Box::new(self.leader.clone()),
            Box::new(self.reload_ok.clone()),
            Box::new(self.reload_time.clone()),
            Box::new(self.reloads.clone()),
            Box::new(self.successes.clone()),
            Box::new(self.failures.clone()),
            Box::new(self.reload_duration.clone()),
            Box::new(self.passthrough.clone()),
            Box::new(self.handshakes_failed.clone()),
        ];
        all.extend(self.certificates.collectors());
        all
    }

    /// Counts one request.
    pub fn observe(&self, route: Option<&Route>, request: &Finished<'_>) {
        route.map_or(&self.unmatched, |route| &route.series).observe(request);
    }

    /// Counts a connection passed through to a backend.
    pub fn passthrough(&self, upstream: &str) {
        self.passthrough.with_label_values(&[upstream]).inc();
    }

    /// Counts a connection that ended before TLS was negotiated.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    /// Notes who leads.
    pub fn leading(&self, election: &str, leads: bool) {
        self.leader.with_label_values(&[election]).set(leads.into());
    }

    /// Notes that changes are in effect, and what they changed of problems and certificates.
    pub fn published(&self, update: &Update, took: Duration, now: Timestamp) {
        self.certificates.published(&update.certificates);
        let count = |problem: &Problem, by: i64| {
            let kind = problem.kind.as_str();
            self.problems.with_label_values(&[kind, problem.severity.as_str()]).add(by);
            if let Some(name) = not_honoured(problem) {
                self.not_honoured.with_label_values(&[kind, name]).add(by);
            }
        };
        update.problems.new.iter().for_each(|problem| count(problem, 1));
        update.problems.gone.iter().for_each(|problem| count(problem, -1));
        self.reload_ok.set(1);
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double exactly")]
        self.reload_time.set(now.as_second() as f64);
        self.reload_duration.set(took.as_secs_f64());
        self.reloads.inc();
        self.successes.inc();
    }

    /// The exposition text, piece by piece: of thousands of routes it is longer than all else in memory.
    pub fn pieces(&self) -> impl Iterator<Item = Vec<u8>> {
        let of_process = || {
            let mut text = String::new();
            traffic::render(&mut text, &self.constant);
            let mut bytes = text.into_bytes();
            if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut bytes) {
                tracing::error!("rendering metrics: {error}");
            }
            bytes
        };
        let of_routes = series::pieces(&self.constant).map(String::into_bytes);
        of_routes.chain(std::iter::once_with(of_process))
    }
}

fn constant_labels(identity: &Identity) -> String {
    let mut text = String::new();
    for (name, value) in [
        ("controller_class", &identity.class),
        ("controller_namespace", &identity.namespace),
        ("controller_pod", &identity.pod),
    ] {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{name}=\"");
        series::escape(&mut text, value);
        text.push('"');
    }
    text
}

/// The annotation or option a problem is about. Names nobody knows share one: anybody may invent them.
fn not_honoured(problem: &Problem) -> Option<&str> {
    let field = problem.field.strip_suffix(']')?;
    let (name, known) = match problem.kind {
        Kind::Ingress => {
            let name = field.strip_prefix("metadata.annotations[")?;
            let name = name.strip_prefix(annotations::PREFIX).unwrap_or(name);
            (name, annotations::support(name).is_some())
        }
        Kind::ConfigMap => {
            let name = field.strip_prefix("data[")?;
            (name, table::row(name).is_some())
        }
        _ => return None,
    };
    Some(if known { name } else { "unknown" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::ObjectKey;

    #[test]
    fn problems_name_annotations_and_options() {
        let identity = Identity { class: "c".into(), namespace: "n".into(), pod: "p".into() };
        let metrics = Metrics::new(&identity).unwrap();
        let key = ObjectKey::new("shop", "web");
        let annotation =
            |name: &str| format!("metadata.annotations[{}{name}]", annotations::PREFIX);
        let problems = [
            Problem::error(Kind::Ingress, &key, annotation("server-snippet"), "refused"),
            Problem::warning(Kind::Ingress, &key, annotation("unicorn-1"), "unknown"),
            Problem::warning(Kind::Ingress, &key, annotation("unicorn-2"), "unknown"),
            Problem::error(Kind::ConfigMap, &key, "data[use-gzip]", "refused"),
            Problem::error(Kind::Ingress, &key, "spec.rules[0]", "wrong"),
        ];
        let mut update = Update::default();
        update.problems.new = problems.to_vec();
        metrics.published(&update, Duration::ZERO, Timestamp::UNIX_EPOCH);
        let text = String::from_utf8(metrics.pieces().flatten().collect()).unwrap();
        for line in [
            "podium_ingress_not_honoured{kind=\"Ingress\",name=\"server-snippet\"} 1",
            "podium_ingress_not_honoured{kind=\"Ingress\",name=\"unknown\"} 2",
            "podium_ingress_not_honoured{kind=\"ConfigMap\",name=\"use-gzip\"} 1",
            "podium_ingress_problems{kind=\"Ingress\",severity=\"error\"} 2",
            "nginx_ingress_controller_config_last_reload_successful{controller_class=\"c\",controller_namespace=\"n\",controller_pod=\"p\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
