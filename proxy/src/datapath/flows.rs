//! The collector: removes what is remembered of flows and clients that are over, and counts the
//! rest. It runs beside everything else and holds no lock that a sync waits for.
//!
//! Without it the LRU maps would be full for good after a while, and which entry makes room for the
//! next one would be up to an approximation.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aya::maps::{HashMap, MapData, MapError, lpm_trie::LpmTrie};
use podium_proxy_ebpf::{
    AddressPort, AffinityEntry, AffinityKey, FlowEntry, FlowKey, FragmentKey, FragmentPorts, Hook,
    PeerKey, Protocol, ServiceEntry, ServiceKey, SourceRange, Span,
    choice::maglev_blocks,
    flow::{flags, timeout_secs},
    maps::{
        AFFINITY, FLOWS, FRAGMENTS, FRAGMENTS_LEN, MAGLEV, SERVICES, SOCKET_PEERS, SOURCE_RANGES,
    },
    socket::Holder,
};
use tokio::time::{self, MissedTickBehavior};

use super::{
    Error, batch,
    outcomes::{MapUse, Walked},
    pinned,
};
use crate::plan::held::Limits;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// No flow ends sooner after its last packet.
const LEAST_SECS: u64 = {
    let one = if timeout_secs::OPENING < timeout_secs::CLOSED {
        timeout_secs::OPENING
    } else {
        timeout_secs::CLOSED
    };
    if one < timeout_secs::DATAGRAMS { one } else { timeout_secs::DATAGRAMS }
};

/// How long an unconnected socket is remembered; the programs themselves stop believing it sooner.
const SOCKET_SECS: u64 = timeout_secs::DATAGRAMS;

/// An entry that shall go, as it was when that was decided.
type Doomed = (FlowKey, u64);

/// Walks the maps from time to time.
pub struct Collector {
    services: HashMap<MapData, ServiceKey, ServiceEntry>,
    flows: HashMap<MapData, FlowKey, FlowEntry>,
    affinity: HashMap<MapData, AffinityKey, AffinityEntry>,
    socket_peers: HashMap<MapData, PeerKey, AddressPort>,
    fragments: HashMap<MapData, FragmentKey, FragmentPorts>,
    source_ranges: LpmTrie<MapData, SourceRange, u8>,
    limits: Limits,
    walked: Arc<Mutex<Walked>>,
    removed: u64,
}

impl Collector {
    pub(super) fn open(
        set: &Path,
        limits: Limits,
        walked: Arc<Mutex<Walked>>,
    ) -> Result<Self, Error> {
        Ok(Self {
            services: pinned::hash(set, SERVICES)?,
            flows: pinned::hash(set, FLOWS)?,
            affinity: pinned::hash(set, AFFINITY)?,
            socket_peers: pinned::hash(set, SOCKET_PEERS)?,
            fragments: pinned::hash(set, FRAGMENTS)?,
            source_ranges: pinned::source_ranges(set)?,
            limits,
            walked,
            removed: 0,
        })
    }

    /// Collects at once and then at this interval, for as long as it is polled. To be spawned on a
    /// runtime with several threads.
    pub async fn run(mut self, every: Duration) {
        let mut ticks = time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let started = time::Instant::now();
            match tokio::task::block_in_place(|| self.collect()) {
                Ok(()) => {
                    tracing::debug!(removed = self.removed, took = ?started.elapsed(), "collected");
                }
                Err(error) => {
                    let why = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!("{error}: {}", why.unwrap_or_default());
                }
            }
        }
    }

    /// One walk over all maps.
    ///
    /// # Errors
    /// If a map cannot be read or written.
    pub fn collect(&mut self) -> Result<(), Error> {
        let now_ns = monotonic_ns().map_err(Error::io("read", "CLOCK_MONOTONIC"))?;
        let (affinity_secs, maglev_used) = self.services()?;
        let (flows_used, flows) = self.collect_flows(now_ns)?;
        let affinity_used = self.collect_affinity(now_ns, &affinity_secs)?;
        let limits = self.limits;
        let maps = [
            (FLOWS, flows_used, limits.flows),
            (AFFINITY, affinity_used, limits.affinity),
            (SOCKET_PEERS, count(&self.socket_peers, SOCKET_PEERS)?, limits.socket_peers),
            (FRAGMENTS, count(&self.fragments, FRAGMENTS)?, FRAGMENTS_LEN),
            (SOURCE_RANGES, self.count_source_ranges(), limits.source_ranges),
            (MAGLEV, maglev_used, limits.maglev),
        ];
        *self.walked.lock().unwrap_or_else(PoisonError::into_inner) = Walked {
            maps: maps.map(|(map, used, size)| MapUse { map, used, size }).into(),
            flows,
            removed: self.removed,
        };
        Ok(())
    }

    /// How long each id keeps its clients, and how many blocks tables take.
    fn services(&self) -> Result<(BTreeMap<u32, u32>, u32), Error> {
        let mut affinity_secs = BTreeMap::new();
        let mut tables = BTreeMap::new();
        batch::walk(&self.services, |key, entry| {
            if !key.is_whole_address() {
                affinity_secs.insert(entry.id, entry.affinity_secs);
                let Span { start, len } = entry.maglev;
                tables.insert(start, maglev_blocks(len));
            }
        })
        .map_err(Error::map("read", SERVICES))?;
        Ok((affinity_secs, tables.values().sum()))
    }

    fn collect_flows(&mut self, now_ns: u64) -> Result<(u32, BTreeMap<Protocol, u64>), Error> {
        let mut used = 0_u32;
        // None of a protocol is a count too.
        let mut flows: BTreeMap<Protocol, u64> =
            [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| (protocol, 0)).into();
        let mut idle = Vec::new();
        batch::walk(&self.flows, |key: FlowKey, entry: FlowEntry| {
            used += 1;
            if entry.flags & flags::ORIGIN != 0
                && let Some(protocol) = Protocol::from_number(key.protocol)
            {
                *flows.entry(protocol).or_default() += 1;
            }
            if idle_ns(entry.used_at_ns, now_ns) > LEAST_SECS * NANOS_PER_SEC {
                idle.push((key, entry));
            }
        })
        .map_err(Error::map("read", FLOWS))?;
        for (key, entry) in idle {
            let doomed = over(&key, &entry, now_ns, |key| self.flows.get(key, 0).ok());
            let removed = self.remove_flow(&doomed)?;
            self.removed += u64::from(removed);
            used = used.saturating_sub(removed);
            if removed > 0
                && entry.flags & flags::ORIGIN != 0
                && let Some(protocol) = Protocol::from_number(key.protocol)
                && let Some(count) = flows.get_mut(&protocol)
            {
                *count = count.saturating_sub(1);
            }
        }
        Ok((used, flows))
    }

    /// Removes entries of one flow unless one of them was used since. Between the look and the
    /// removal a packet can still pass: it then opens a flow anew, as it would a moment later.
    fn remove_flow(&mut self, doomed: &[Doomed]) -> Result<u32, Error> {
        for (key, used_at_ns) in doomed {
            match self.flows.get(key, 0) {
                Ok(entry) if entry.used_at_ns != *used_at_ns => return Ok(0),
                Ok(_) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(Error::map("read", FLOWS)(error)),
            }
        }
        let mut removed = 0;
        for (key, _) in doomed {
            removed += u32::from(remove(&mut self.flows, key, FLOWS)?);
        }
        Ok(removed)
    }

    fn collect_affinity(
        &mut self,
        now_ns: u64,
        affinity_secs: &BTreeMap<u32, u32>,
    ) -> Result<u32, Error> {
        let mut used = 0_u32;
        let mut doomed = Vec::new();
        batch::walk(&self.affinity, |key: AffinityKey, entry: AffinityEntry| {
            used += 1;
            let kept_secs = affinity_kept_secs(&key, affinity_secs.get(&key.service_id).copied());
            if idle_ns(entry.used_at_ns, now_ns) > kept_secs * NANOS_PER_SEC {
                doomed.push((key, entry.used_at_ns));
            }
        })
        .map_err(Error::map("read", AFFINITY))?;
        for (key, used_at_ns) in doomed {
            match self.affinity.get(&key, 0) {
                Ok(entry) if entry.used_at_ns == used_at_ns => {}
                Ok(_) | Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(Error::map("read", AFFINITY)(error)),
            }
            let removed = remove(&mut self.affinity, &key, AFFINITY)?;
            self.removed += u64::from(removed);
            used = used.saturating_sub(u32::from(removed));
        }
        Ok(used)
    }

    /// A trie has no batches; a key that goes meanwhile starts the walk anew, which ends it here.
    fn count_source_ranges(&self) -> u32 {
        let keys = self.source_ranges.keys().take(self.limits.source_ranges as usize);
        u32::try_from(keys.filter(Result::is_ok).count()).unwrap_or(u32::MAX)
    }
}

/// The entries that go with this one, itself included; none if it stays.
///
/// The client's entry ([`flags::ORIGIN`]) and that of the answers go together, when both directions
/// are idle. Any other entry stays while its flow has a client's entry, and is judged by itself
/// after that.
fn over(
    key: &FlowKey,
    entry: &FlowEntry,
    now_ns: u64,
    look_up: impl Fn(&FlowKey) -> Option<FlowEntry>,
) -> Vec<Doomed> {
    let is_idle = |entry: &FlowEntry, timeout_secs: u64| {
        idle_ns(entry.used_at_ns, now_ns) > timeout_secs * NANOS_PER_SEC
    };
    if entry.flags & flags::ORIGIN == 0 {
        let over =
            !has_origin(key, entry, look_up) && is_idle(entry, entry.timeout_secs(key.protocol, 0));
        return if over { vec![(*key, entry.used_at_ns)] } else { Vec::new() };
    }
    let answer = entry
        .answer_key(key.protocol)
        .and_then(|answer_key| look_up(&answer_key).map(|answer| (answer_key, answer)))
        // Another flow's client entry could be there, if a client is an endpoint too.
        .filter(|(_, answer)| answer.flags & flags::ORIGIN == 0);
    let answer_flags = answer.map_or(0, |(_, answer)| answer.flags);
    let timeout_secs = entry.timeout_secs(key.protocol, answer_flags);
    let entries = [Some((*key, *entry)), answer];
    if entries.iter().flatten().all(|(_, entry)| is_idle(entry, timeout_secs)) {
        entries.into_iter().flatten().map(|(key, entry)| (key, entry.used_at_ns)).collect()
    } else {
        Vec::new()
    }
}

/// Whether the client's entry of this entry's flow is there.
///
/// What an answer becomes, turned round, is the client's packet as it came in. What a client's
/// packet with a rewritten source becomes, turned round, is the answer as it comes in.
fn has_origin(
    key: &FlowKey,
    entry: &FlowEntry,
    look_up: impl Fn(&FlowKey) -> Option<FlowEntry>,
) -> bool {
    let turned = |entry: &FlowEntry| {
        look_up(&FlowKey::new(entry.to.reversed(), key.protocol, Hook::Ingress))
    };
    let leads_to = |origin: &FlowEntry, endpoint: AddressPort| {
        origin.flags & flags::ORIGIN != 0 && origin.to.to() == endpoint
    };
    let Some(before) = turned(entry) else {
        return false;
    };
    if leads_to(&before, key.tuple.from()) {
        return true;
    }
    turned(&before).is_some_and(|origin| leads_to(&origin, key.tuple.to()))
}

/// How long a client keeps its endpoint; `affinity_secs` is that of its service, if there is one.
fn affinity_kept_secs(key: &AffinityKey, affinity_secs: Option<u32>) -> u64 {
    if key.holder == Holder::Socket as u32 {
        SOCKET_SECS
    } else {
        // A service that came after its map was read is not one that is gone: its clients are new.
        affinity_secs.map_or(LEAST_SECS, u64::from)
    }
}

const fn idle_ns(used_at_ns: u64, now_ns: u64) -> u64 {
    now_ns.saturating_sub(used_at_ns)
}

fn remove<K: aya::Pod, V: aya::Pod>(
    map: &mut HashMap<MapData, K, V>,
    key: &K,
    name: &'static str,
) -> Result<bool, Error> {
    match map.remove(key) {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(false)
        }
        Err(error) => Err(Error::map("remove from", name)(error)),
    }
}

fn count<K: aya::Pod, V: aya::Pod>(
    map: &HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<u32, Error> {
    let mut count = 0;
    batch::walk(map, |_, _| count += 1).map_err(Error::map("read", name))?;
    Ok(count)
}

/// The clock of the programs.
pub(crate) fn monotonic_ns() -> io::Result<u64> {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is written to and outlives the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut at) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(at.tv_sec.unsigned_abs() * NANOS_PER_SEC + at.tv_nsec.unsigned_abs())
}

#[cfg(test)]
mod tests;
