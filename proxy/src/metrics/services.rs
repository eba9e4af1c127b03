//! Traffic per service port, read from the kernel when somebody asks for the metrics.
//!
//! Written as text at once: ten thousand ports would take tens of megabytes as a registry keeps them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::{self, Write as _},
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use podium_proxy_ebpf::{Family, ServiceCounters};

use crate::{
    datapath::SharedDatapath,
    model::{PortName, protocol_text},
    plan::held::Held,
};

/// Counters read before the datapath is let go of, so that no change waits for long.
const READ_AT_ONCE: usize = 64;

/// A metric: its name, its help, and which of the counts it is.
type Metric = (&'static str, &'static str, fn(&ServiceCounters) -> u64);

const METRICS: [Metric; 3] = [
    (
        "podium_proxy_service_connections_total",
        "Connections, and datagrams of unconnected sockets, sent to an endpoint of the Service since \
         it is known here.",
        |counters| counters.connections,
    ),
    (
        "podium_proxy_service_packets_total",
        "Packets translated for the Service, both directions; what sockets were sent to directly is \
         not seen.",
        |counters| counters.packets,
    ),
    (
        "podium_proxy_service_bytes_total",
        "Bytes of the packets translated for the Service, from the IP header on.",
        |counters| counters.bytes,
    ),
];

/// Counters of connections, packets and bytes.
#[derive(Clone, Default)]
pub(super) struct ServiceTraffic {
    ids: Arc<Mutex<HashMap<PortName, u32>>>,
    datapath: Arc<Mutex<Option<SharedDatapath>>>,
}

impl fmt::Debug for ServiceTraffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceTraffic").finish_non_exhaustive()
    }
}

impl ServiceTraffic {
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

    /// All of them in the text format.
    pub(super) fn write(&self, text: &mut Vec<u8>) {
        let all = self.read();
        if all.is_empty() {
            return;
        }
        for (metric, help, count) in METRICS {
            // Writing to memory does not fail.
            let _ = writeln!(text, "# HELP {metric} {help}\n# TYPE {metric} counter");
            for (name, counters) in &all {
                let _ = writeln!(text, "{metric}{{{}}} {}", Labels(name), count(counters));
            }
        }
    }
}

/// Whose counts these are.
struct Labels<'a>(&'a PortName);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortName { service, port, protocol, family } = self.0;
        let family = match family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        };
        let (namespace, protocol) = (Value(&service.namespace), protocol_text(*protocol));
        let (service, port) = (Value(&service.name), Value(port));
        write!(f, r#"family="{family}",namespace="{namespace}",port="{port}","#)?;
        write!(f, r#"protocol="{protocol}",service="{service}""#)
    }
}

/// The value of a label. No API has checked what a manifest calls its objects.
struct Value<'a>(&'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|one| match one {
            '\\' => f.write_str(r"\\"),
            '"' => f.write_str(r#"\""#),
            '\n' => f.write_str(r"\n"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(Value("a\"b\\c\nd").to_string(), r#"a\"b\\c\nd"#);
    }
}
