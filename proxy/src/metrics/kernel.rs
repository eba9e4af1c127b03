//! What the kernel counts by itself, read when somebody asks for the metrics: how decisions ended,
//! how full the maps are, how many flows there are.

use std::sync::{Arc, Mutex, PoisonError};

use podium_proxy_ebpf::Outcome;
use prometheus::{
    GaugeVec, IntCounterVec, IntGaugeVec,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::own;
use crate::{datapath::SharedDatapath, model::protocol_text};

/// Outcomes, maps and flows.
#[derive(Clone)]
pub(super) struct KernelReadings {
    outcomes: IntCounterVec,
    flows: IntGaugeVec,
    /// Those of the maps that user space fills are set by each pass.
    pub(super) map_used: GaugeVec,
    pub(super) map_size: GaugeVec,
    datapath: Arc<Mutex<Option<SharedDatapath>>>,
}

impl std::fmt::Debug for KernelReadings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelReadings").finish_non_exhaustive()
    }
}

impl KernelReadings {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let map = ["map"];
        Ok(Self {
            outcomes: IntCounterVec::new(
                own("outcomes_total", "How decisions ended, since the maps were made."),
                &["outcome"],
            )?,
            flows: IntGaugeVec::new(
                own("flows", "Flows of packets that are remembered."),
                &["protocol"],
            )?,
            map_used: GaugeVec::new(own("map_used", "Entries or elements in use."), &map)?,
            map_size: GaugeVec::new(own("map_size", "Entries or elements there are."), &map)?,
            datapath: Arc::default(),
        })
    }

    pub(super) fn count_from(&self, datapath: SharedDatapath) {
        *self.datapath.lock().unwrap_or_else(PoisonError::into_inner) = Some(datapath);
    }

    pub(super) fn set_map(&self, map: &str, used: u32, size: u32) {
        // As the other labels are written; the kernel's names are upper case.
        let map = map.to_lowercase();
        self.map_used.with_label_values(&[&map]).set(f64::from(used));
        self.map_size.with_label_values(&[&map]).set(f64::from(size));
    }

    fn read(&self) {
        let datapath = self.datapath.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(datapath) = datapath else {
            return;
        };
        let datapath = datapath.lock().unwrap_or_else(PoisonError::into_inner);
        for map in datapath.map_use() {
            self.set_map(map.map, map.used, map.size);
        }
        for (protocol, count) in datapath.flows() {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.flows.with_label_values(&[protocol_text(protocol)]).set(count);
        }
        // A counter of the kernel's: what it was before is in it.
        if let Ok(outcomes) = datapath.outcomes() {
            self.outcomes.reset();
            for (outcome, count) in outcomes {
                self.outcomes.with_label_values(&[&label(outcome)]).inc_by(count);
            }
        }
    }
}

/// The outcome's name as a label is written: `flow_opened`.
fn label(outcome: Outcome) -> String {
    let mut label = String::new();
    for letter in format!("{outcome:?}").chars() {
        if letter.is_ascii_uppercase() && !label.is_empty() {
            label.push('_');
        }
        label.push(letter.to_ascii_lowercase());
    }
    label
}

impl Collector for KernelReadings {
    fn desc(&self) -> Vec<&Desc> {
        let mut all = self.outcomes.desc();
        all.extend(self.flows.desc());
        all.extend(self.map_used.desc());
        all.extend(self.map_size.desc());
        all
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        let mut all = self.outcomes.collect();
        all.extend(self.flows.collect());
        all.extend(self.map_used.collect());
        all.extend(self.map_size.collect());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_snake_case() {
        assert_eq!(label(Outcome::FlowOpened), "flow_opened");
        assert_eq!(label(Outcome::UnallocatedClusterIp), "unallocated_cluster_ip");
    }
}
