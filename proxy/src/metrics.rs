//! Metrics, under kube-proxy's names where they mean the same.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{datapath::SharedDatapath, model::protocol_text, plan::held::Held};

/// Every metric of the agent.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// From the change of an EndpointSlice (its trigger time) to the kernel.
    pub network_programming_duration: Histogram,
    /// One pass of index, plan and operations.
    pub sync_duration: Histogram,
    /// When the last one ended well.
    pub sync_last_timestamp: Gauge,
    /// Changes of EndpointSlices and Endpoints, taken in so far.
    pub endpoint_changes_total: IntCounter,
    /// Those not yet in the kernel.
    pub endpoint_changes_pending: IntGauge,
    /// Changes of Services, taken in so far.
    pub service_changes_total: IntCounter,
    /// Those not yet in the kernel.
    pub service_changes_pending: IntGauge,
    /// Service ports that want an endpoint of this node and have none.
    pub no_local_endpoints: IntGaugeVec,
    /// Answers of healthz, by status code.
    pub healthz_total: IntCounterVec,
    /// Answers of livez, by status code.
    pub livez_total: IntCounterVec,
    /// Objects that are skipped in whole or in part.
    pub problems: IntGauge,
    /// Entries or elements in use, by map.
    pub map_used: GaugeVec,
    /// Entries or elements there are, by map.
    pub map_size: GaugeVec,
    hits: ServiceHits,
}

/// Buckets of kube-proxy's network programming histogram, in seconds.
fn programming_buckets() -> Vec<f64> {
    let mut buckets: Vec<f64> = vec![0.001, 0.005, 0.01, 0.05, 0.25, 0.5];
    buckets.extend((1..60).map(f64::from));
    buckets.extend((60..=300).step_by(30).map(f64::from));
    buckets
}

/// A metric kube-proxy has too.
fn kube(name: &str, help: &str) -> Opts {
    Opts::new(format!("kubeproxy_{name}"), help)
}

/// A metric of ours.
fn own(name: &str, help: &str) -> Opts {
    Opts::new(format!("podium_proxy_{name}"), help)
}

fn histogram(name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram, prometheus::Error> {
    Histogram::with_opts(HistogramOpts::from(kube(name, help)).buckets(buckets))
}

fn by_code(name: &str, help: &str) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(kube(name, help), &["code"])
}

impl Metrics {
    /// Metrics at zero, in a registry of their own.
    ///
    /// # Errors
    /// If two of them had the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            network_programming_duration: histogram(
                "network_programming_duration_seconds",
                "From the change of an EndpointSlice to the kernel.",
                programming_buckets(),
            )?,
            sync_duration: histogram(
                "sync_proxy_rules_duration_seconds",
                "One pass from objects to the kernel.",
                prometheus::exponential_buckets(0.001, 2.0, 15)?,
            )?,
            sync_last_timestamp: Gauge::with_opts(kube(
                "sync_proxy_rules_last_timestamp_seconds",
                "When the last pass ended well.",
            ))?,
            endpoint_changes_total: IntCounter::with_opts(kube(
                "sync_proxy_rules_endpoint_changes_total",
                "Changes of endpoints taken in.",
            ))?,
            endpoint_changes_pending: IntGauge::with_opts(kube(
                "sync_proxy_rules_endpoint_changes_pending",
                "Changes of endpoints not yet in the kernel.",
            ))?,
            service_changes_total: IntCounter::with_opts(kube(
                "sync_proxy_rules_service_changes_total",
                "Changes of Services taken in.",
            ))?,
            service_changes_pending: IntGauge::with_opts(kube(
                "sync_proxy_rules_service_changes_pending",
                "Changes of Services not yet in the kernel.",
            ))?,
            no_local_endpoints: IntGaugeVec::new(
                kube(
                    "sync_proxy_rules_no_local_endpoints_total",
                    "Service ports that want an endpoint of this node and have none.",
                ),
                &["traffic_policy"],
            )?,
            healthz_total: by_code("proxy_healthz_total", "Answers of healthz.")?,
            livez_total: by_code("proxy_livez_total", "Answers of livez.")?,
            problems: IntGauge::with_opts(own("problems", "Objects skipped in whole or in part."))?,
            map_used: GaugeVec::new(own("map_used", "Entries in use."), &["map"])?,
            map_size: GaugeVec::new(own("map_size", "Entries there are."), &["map"])?,
            hits: ServiceHits::new()?,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let all: [Box<dyn Collector>; 14] = [
            Box::new(self.network_programming_duration.clone()),
            Box::new(self.sync_duration.clone()),
            Box::new(self.sync_last_timestamp.clone()),
            Box::new(self.endpoint_changes_total.clone()),
            Box::new(self.endpoint_changes_pending.clone()),
            Box::new(self.service_changes_total.clone()),
            Box::new(self.service_changes_pending.clone()),
            Box::new(self.no_local_endpoints.clone()),
            Box::new(self.healthz_total.clone()),
            Box::new(self.livez_total.clone()),
            Box::new(self.problems.clone()),
            Box::new(self.map_used.clone()),
            Box::new(self.map_size.clone()),
            Box::new(self.hits.clone()),
        ];
        all.into_iter().try_for_each(|collector| self.registry.register(collector))
    }

    /// Shows a metric that another module counts.
    ///
    /// # Errors
    /// If there is one of its name already.
    pub fn show(&self, collector: impl Collector + 'static) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(collector))
    }

    /// Where the counts of services are read when somebody asks for the metrics.
    pub fn count_from(&self, datapath: SharedDatapath) {
        *self.hits.datapath.lock().unwrap_or_else(PoisonError::into_inner) = Some(datapath);
    }

    /// What a pass led to.
    pub fn synced(&self, held: &Held, took: Duration) {
        self.sync_duration.observe(took.as_secs_f64());
        let now = jiff::Timestamp::now().as_duration();
        self.sync_last_timestamp.set(now.as_secs_f64());
        self.endpoint_changes_pending.set(0);
        self.service_changes_pending.set(0);
        let lacking = (held.ports.values())
            .filter(|port| {
                let content = &port.content;
                content
                    .addresses
                    .values()
                    .any(|frontend| frontend.internal == crate::model::Reach::Node)
                    && content.local.is_empty()
                    && !content.endpoints.is_empty()
            })
            .count();
        let lacking = i64::try_from(lacking).unwrap_or(i64::MAX);
        self.no_local_endpoints.with_label_values(&["internal"]).set(lacking);
        let services = u32::try_from(held.entries.len()).unwrap_or(u32::MAX);
        for (map, used, size) in [
            ("services", services, held.limits.services),
            ("endpoints", held.endpoints_used(), held.limits.endpoints),
        ] {
            self.map_used.with_label_values(&[map]).set(f64::from(used));
            self.map_size.with_label_values(&[map]).set(f64::from(size));
        }
        self.hits.set_names(held);
    }

    /// All metrics in the text format.
    ///
    /// # Errors
    /// If one has no value to show.
    pub fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Connections per service port, read from the kernel when asked for.
#[derive(Clone)]
struct ServiceHits {
    vector: IntCounterVec,
    names: Arc<Mutex<BTreeMap<u32, [String; 5]>>>,
    datapath: Arc<Mutex<Option<SharedDatapath>>>,
}

impl std::fmt::Debug for ServiceHits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceHits").finish_non_exhaustive()
    }
}

impl ServiceHits {
    fn new() -> Result<Self, prometheus::Error> {
        let opts = own(
            "service_hits_total",
            "Connections, and datagrams of unconnected sockets, sent to an endpoint of the \
             Service since it is known here.",
        );
        let labels = ["namespace", "service", "port", "protocol", "family"];
        Ok(Self {
            vector: IntCounterVec::new(opts, &labels)?,
            names: Arc::default(),
            datapath: Arc::default(),
        })
    }

    fn set_names(&self, held: &Held) {
        let names = (held.ports.iter())
            .map(|(name, port)| {
                let labels = [
                    name.service.namespace.clone(),
                    name.service.name.clone(),
                    name.port.clone(),
                    protocol_text(name.protocol).to_owned(),
                    format!("IP{:?}", name.family).to_lowercase(),
                ];
                (port.id, labels)
            })
            .collect();
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }
}

impl Collector for ServiceHits {
    fn desc(&self) -> Vec<&Desc> {
        self.vector.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ids: Vec<u32> = names.keys().copied().collect();
        let datapath = self.datapath.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(datapath) = datapath else {
            return Vec::new();
        };
        let hits = datapath.lock().unwrap_or_else(PoisonError::into_inner).counters(&ids);
        self.vector.reset();
        for (id, count) in hits.unwrap_or_default() {
            let Some(labels) = names.get(&id) else {
                continue;
            };
            self.vector.with_label_values(labels).inc_by(count.connections);
        }
        self.vector.collect()
    }
}
