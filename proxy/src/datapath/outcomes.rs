//! How full the maps are and how decisions ended, for the metrics.

use std::collections::BTreeMap;

use podium_proxy_ebpf::{Outcome, Protocol};

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapUse {
    /// Its name.
    pub map: &'static str,
    /// Elements in use, when the collector last looked.
    pub used: u32,
    /// Elements there may be.
    pub size: u32,
}

/// What the collector found when it last looked at the maps.
#[derive(Clone, Debug, Default)]
pub struct Walked {
    /// Every map it looked at.
    pub maps: Vec<MapUse>,
    /// Flows of packets, by protocol.
    pub flows: BTreeMap<Protocol, u64>,
    /// Entries it has removed, since the agent started.
    pub removed: u64,
}

/// The sums over all CPUs of an array by [`Outcome`].
pub fn by_outcome(sums: impl IntoIterator<Item = u64>) -> BTreeMap<Outcome, u64> {
    Outcome::ALL.into_iter().zip(sums).collect()
}
