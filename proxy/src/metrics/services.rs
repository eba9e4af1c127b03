//! Traffic per service port, read from the kernel when somebody asks for the metrics.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use podium_proxy_ebpf::ServiceCounters;
use prometheus::{
    IntCounterVec,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::own;
use crate::{
    datapath::SharedDatapath,
    model::{PortName, protocol_text},
    plan::held::Held,
};

/// Counters read before the datapath is let go of, so that no change waits for long.
const READ_AT_ONCE: usize = 64;

const LABELS: [&str; 5] = ["namespace", "service", "port", "protocol", "family"];

/// Counters of connections, packets and bytes.
#[derive(Clone)]
pub(super) struct ServiceTraffic {
    connections: IntCounterVec,
    packets: IntCounterVec,
    bytes: IntCounterVec,
    ids: Arc<Mutex<HashMap<PortName, u32>>>,
    datapath: Arc<Mutex<Option<SharedDatapath>>>,
}

impl std::fmt::Debug for ServiceTraffic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceTraffic").finish_non_exhaustive()
    }
}

impl ServiceTraffic {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let counter = |name, help| IntCounterVec::new(own(name, help), &LABELS);
        Ok(Self {
            connections: counter(
                "service_connections_total",
                "Connections, and datagrams of unconnected sockets, sent to an endpoint of the \
                 Service since it is known here.",
            )?,
            packets: counter(
                "service_packets_total",
                "Packets translated for the Service, both directions; what sockets were sent to \
                 directly is not seen.",
            )?,
            bytes: counter(
                "service_bytes_total",
                "Bytes of the packets translated for the Service, from the IP header on.",
            )?,
            ids: Arc::default(),
            datapath: Arc::default(),
        })
    }

    pub(super) fn count_from(&self, datapath: SharedDatapath) {
        *self.datapath.lock().unwrap_or_else(PoisonError::into_inner) = Some(datapath);
    }

    /// Looks up the ids of these ports again.
    pub(super) fn rename(&self, held: &Held, ports: &BTreeSet<PortName>) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        for name in ports {
            match held.ports.get(name) {
                Some(port) => ids.insert(name.clone(), port.id),
                None => ids.remove(name),
            };
        }
    }

    /// Looks up the ids of all ports again.
    pub(super) fn rename_all(&self, held: &Held) {
        *self.ids.lock().unwrap_or_else(PoisonError::into_inner) =
            held.ports.iter().map(|(name, port)| (name.clone(), port.id)).collect();
    }

    /// Sums by id, and whose they are.
    fn read(&self) -> Vec<(PortName, ServiceCounters)> {
        let names: BTreeMap<u32, PortName> = {
            let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            ids.iter().map(|(name, id)| (*id, name.clone())).collect()
        };
        let datapath = self.datapath.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(datapath) = datapath else {
            return Vec::new();
        };
        let ids: Vec<u32> = names.keys().copied().collect();
        let mut counters = BTreeMap::new();
        for ids in ids.chunks(READ_AT_ONCE) {
            let datapath = datapath.lock().unwrap_or_else(PoisonError::into_inner);
            counters.extend(datapath.counters(ids).unwrap_or_default());
        }
        (names.into_iter())
            .filter_map(|(id, name)| counters.remove(&id).map(|counters| (name, counters)))
            .collect()
    }
}

impl Collector for ServiceTraffic {
    fn desc(&self) -> Vec<&Desc> {
        [&self.connections, &self.packets, &self.bytes].iter().flat_map(|one| one.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let vectors = [&self.connections, &self.packets, &self.bytes];
        vectors.iter().for_each(|vector| vector.reset());
        for (name, counters) in self.read() {
            let family = format!("IP{:?}", name.family).to_lowercase();
            let labels = [
                name.service.namespace.as_str(),
                &name.service.name,
                &name.port,
                protocol_text(name.protocol),
                &family,
            ];
            let counts = [counters.connections, counters.packets, counters.bytes];
            for (vector, count) in vectors.iter().zip(counts) {
                vector.with_label_values(&labels).inc_by(count);
            }
        }
        vectors.iter().flat_map(|vector| vector.collect()).collect()
    }
}
