//! Metrics, under kube-proxy's names where they mean the same.

mod services;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use podium_proxy_ebpf::FrontendKind;
use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

use crate::{
    datapath::SharedDatapath,
    index::settle::Changed,
    model::{Frontend, PortName, Reach},
    plan::held::Held,
};
use services::ServiceTraffic;

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
    /// Service ports that want an endpoint of this node and have none, by traffic policy.
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
    lacking: Arc<Mutex<Lacking>>,
    traffic: ServiceTraffic,
}

/// Service ports with endpoints, but without one of this node that a policy asks for.
#[derive(Debug, Default)]
struct Lacking {
    internal: BTreeSet<PortName>,
    external: BTreeSet<PortName>,
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
            lacking: Arc::default(),
            traffic: ServiceTraffic::new()?,
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
            Box::new(self.traffic.clone()),
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
        self.traffic.count_from(datapath);
    }

    /// What a pass led to; `changed` is what it was about, `None` if about everything.
    pub fn synced(&self, held: &Held, changed: Option<&Changed>, took: Duration) {
        self.sync_duration.observe(took.as_secs_f64());
        let now = jiff::Timestamp::now().as_duration();
        self.sync_last_timestamp.set(now.as_secs_f64());
        self.endpoint_changes_pending.set(0);
        self.service_changes_pending.set(0);
        let services = u32::try_from(held.entries.len()).unwrap_or(u32::MAX);
        let names = u32::try_from(held.ports.len()).unwrap_or(u32::MAX);
        for (map, used, size) in [
            ("services", services, held.limits.services),
            ("names", names, held.limits.services),
            ("endpoints", held.endpoints_used(), held.limits.endpoints),
        ] {
            self.map_used.with_label_values(&[map]).set(f64::from(used));
            self.map_size.with_label_values(&[map]).set(f64::from(size));
        }
        let mut lacking = self.lacking.lock().unwrap_or_else(PoisonError::into_inner);
        match changed {
            Some(changed) => {
                self.traffic.rename(held, &changed.ports);
                changed.ports.iter().for_each(|name| lacking.judge(name, held));
            }
            None => {
                self.traffic.rename_all(held);
                *lacking = Lacking::default();
                held.ports.keys().for_each(|name| lacking.judge(name, held));
            }
        }
        for (policy, ports) in [("internal", &lacking.internal), ("external", &lacking.external)] {
            let count = i64::try_from(ports.len()).unwrap_or(i64::MAX);
            self.no_local_endpoints.with_label_values(&[policy]).set(count);
        }
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

impl Lacking {
    fn judge(&mut self, name: &PortName, held: &Held) {
        let content = held.ports.get(name).map(|port| &port.content);
        let lacks = |reach: fn(&Frontend) -> Reach| {
            content.is_some_and(|port| {
                port.local.is_empty()
                    && !port.endpoints.is_empty()
                    && port.addresses.values().any(|frontend| reach(frontend) == Reach::Node)
            })
        };
        let policies = [
            (&mut self.internal, lacks(|frontend| frontend.internal)),
            (
                &mut self.external,
                lacks(|frontend| match frontend.kind {
                    // There the internal policy counts for everybody.
                    FrontendKind::ClusterIp => Reach::Cluster,
                    _ => frontend.external,
                }),
            ),
        ];
        for (set, lacks) in policies {
            if lacks {
                set.insert(name.clone());
            } else {
                set.remove(name);
            }
        }
    }
}
