//! Metrics, under kube-proxy's names where they mean the same.

mod kernel;
mod services;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use podium_proxy_ebpf::FrontendKind;
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

use crate::{
    datapath::SharedDatapath,
    model::{Frontend, PortName, Reach},
    plan::held::Held,
};
use kernel::KernelReadings;
use services::ServiceTraffic;

/// Every metric of the agent.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// From the change of an EndpointSlice (its trigger time) to the kernel.
    pub network_programming_duration: Histogram,
    /// From the arrival of changes at this agent to the kernel.
    pub change_duration: Histogram,
    /// When all objects were here for the first time.
    pub objects_complete_timestamp: Gauge,
    /// Map operations carried out.
    pub operations_total: IntCounter,
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
    /// Objects and network devices that are skipped in whole or in part.
    pub problems: IntGauge,
    lacking: Arc<Mutex<Lacking>>,
    traffic: ServiceTraffic,
    kernel: KernelReadings,
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
            change_duration: Histogram::with_opts(
                HistogramOpts::from(own(
                    "change_duration_seconds",
                    "From the arrival of changes at this agent to the kernel.",
                ))
                .buckets(prometheus::exponential_buckets(0.000_1, 2.0, 15)?),
            )?,
            objects_complete_timestamp: Gauge::with_opts(own(
                "objects_complete_timestamp_seconds",
                "When the last of the objects that there were at the start had arrived.",
            ))?,
            operations_total: IntCounter::with_opts(own(
                "operations_total",
                "Operations on maps carried out.",
            ))?,
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
            problems: IntGauge::with_opts(own(
                "problems",
                "Objects and network devices not served in whole or in part.",
            ))?,
            lacking: Arc::default(),
            traffic: ServiceTraffic::new()?,
            kernel: KernelReadings::new()?,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let all: [Box<dyn Collector>; 16] = [
            Box::new(self.objects_complete_timestamp.clone()),
            Box::new(self.change_duration.clone()),
            Box::new(self.operations_total.clone()),
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
            Box::new(self.kernel.clone()),
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
        self.traffic.count_from(Arc::clone(&datapath));
        self.kernel.count_from(datapath);
    }

    /// What a pass led to; `changed` are the ports it was about, `None` if about everything.
    pub fn synced(&self, held: &Held, changed: Option<&BTreeSet<PortName>>, took: Duration) {
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
            ("maglev", held.maglev_used(), held.limits.maglev),
            ("source_ranges", held.source_ranges, held.limits.source_ranges),
        ] {
            self.kernel.set_map(map, used, size);
        }
        let mut lacking = self.lacking.lock().unwrap_or_else(PoisonError::into_inner);
        match changed {
            Some(changed) => {
                self.traffic.rename(held, changed);
                changed.iter().for_each(|name| lacking.judge(name, held));
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use podium_proxy_ebpf::{Family, Outcome, Protocol, ServiceCounters};

    use super::*;
    use crate::{
        datapath::{Datapath, Error, outcomes::MapUse},
        model::{Desired, ObjectName, ServicePort},
        plan::{
            self, Op,
            held::{Limits, Snapshot},
        },
    };

    /// Counts the same for every service.
    struct Counting;

    impl Datapath for Counting {
        fn snapshot(&self) -> Result<Snapshot, Error> {
            Ok(Snapshot::default())
        }

        fn execute(&mut self, _: &Op) -> Result<(), Error> {
            Ok(())
        }

        fn counters(&self, ids: &[u32]) -> Result<BTreeMap<u32, ServiceCounters>, Error> {
            let counters = ServiceCounters { connections: 1, packets: 2, bytes: 3 };
            Ok(ids.iter().map(|id| (*id, counters)).collect())
        }

        fn outcomes(&self) -> Result<BTreeMap<Outcome, u64>, Error> {
            Ok(BTreeMap::from([(Outcome::NoLocalEndpoints, 4)]))
        }

        fn map_use(&self) -> Vec<MapUse> {
            vec![MapUse { map: "FLOWS", used: 5, size: 6 }]
        }
    }

    fn port() -> ServicePort {
        let at = "10.96.0.1:80".parse::<std::net::SocketAddr>().expect("an address");
        let frontend = Frontend {
            kind: FrontendKind::ExternalIp,
            internal: Reach::Cluster,
            external: Reach::Node,
            restricted: false,
        };
        let service = ObjectName { namespace: "default".to_owned(), name: "web".to_owned() };
        let name = PortName {
            service,
            port: "http".to_owned(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        };
        ServicePort {
            name,
            addresses: BTreeMap::from([(at.into(), frontend)]),
            endpoints: vec![podium_proxy_ebpf::Endpoint::new(&at.into(), 0)],
            local: Vec::new(),
            affinity_secs: 0,
            source_ranges: BTreeSet::new(),
        }
    }

    #[test]
    fn metrics_have_the_names_of_kube_proxy_and_the_counts_of_the_kernel() {
        let metrics = Metrics::new().expect("no name twice");
        metrics.count_from(Arc::new(Mutex::new(Counting)));
        let mut held = Held::empty(Limits::default());
        let mut desired = Desired::default();
        let port = port();
        desired.ports.insert(port.name.clone(), Arc::new(port));
        plan::plan(&mut held, &desired);
        metrics.synced(&held, None, Duration::from_millis(1));
        metrics.network_programming_duration.observe(0.1);
        metrics.healthz_total.with_label_values(&["200"]).inc();
        metrics.livez_total.with_label_values(&["200"]).inc();
        let text = String::from_utf8(metrics.encode().expect("values")).expect("text");
        let labels =
            r#"{family="ipv4",namespace="default",port="http",protocol="TCP",service="web"}"#;
        for line in [
            "kubeproxy_network_programming_duration_seconds_count 1",
            "kubeproxy_sync_proxy_rules_duration_seconds_count 1",
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds ",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 0",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
            "kubeproxy_sync_proxy_rules_service_changes_total 0",
            "kubeproxy_sync_proxy_rules_service_changes_pending 0",
            r#"kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="internal"} 0"#,
            r#"kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="external"} 1"#,
            r#"kubeproxy_proxy_healthz_total{code="200"} 1"#,
            r#"kubeproxy_proxy_livez_total{code="200"} 1"#,
            r#"podium_proxy_outcomes_total{outcome="no_local_endpoints"} 4"#,
            r#"podium_proxy_map_used{map="flows"} 5"#,
            r#"podium_proxy_map_size{map="flows"} 6"#,
            r#"podium_proxy_map_used{map="services"} 1"#,
            &format!("podium_proxy_service_connections_total{labels} 1"),
            &format!("podium_proxy_service_packets_total{labels} 2"),
            &format!("podium_proxy_service_bytes_total{labels} 3"),
        ] {
            assert!(text.lines().any(|shown| shown.starts_with(line)), "{line} in\n{text}");
        }
    }
}
