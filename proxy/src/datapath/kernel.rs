//! The kernel's maps: operations carried out, state read back.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use aya::{
    maps::{
        Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues,
        lpm_trie::{Key, LpmTrie},
    },
    util::nr_cpus,
};
use podium_proxy_ebpf::{
    Config, Endpoint, Outcome, Protocol, ServiceCounters, ServiceEntry, ServiceKey, ServiceName,
    SourceRange, Span,
    maps::{
        CONFIG, COUNTERS, ENDPOINTS, GENERATIONS, MAGLEV, NAMES, OUTCOMES, SERVICES, SOURCE_RANGES,
    },
};

pub use super::programs::{Programs, load};
use super::{
    Datapath, Error, batch,
    config::{self, Forwarding},
    flows::Collector,
    mapping::{self, Element, MaglevBlock, Mapping},
    outcomes::{self, MapUse, Walked},
    pinned,
    pins::PinDir,
};
use crate::{
    model::LocalNode,
    plan::{
        Op,
        held::{Limits, Snapshot},
    },
};

/// `MEMBARRIER_CMD_GLOBAL` of `linux/membarrier.h`.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// How long readers get where the kernel offers no way to wait for them (nohz_full CPUs). They
/// run for microseconds.
const READERS_REST: Duration = Duration::from_secs(1);

/// Pinned maps, open.
pub struct KernelDatapath {
    services: HashMap<MapData, ServiceKey, ServiceEntry>,
    names: HashMap<MapData, u32, ServiceName>,
    generations: Array<MapData, u32>,
    counters: PerCpuArray<MapData, ServiceCounters>,
    outcomes: PerCpuArray<MapData, u64>,
    source_ranges: LpmTrie<MapData, SourceRange, u8>,
    config: Array<MapData, Config>,
    endpoints: Mapping<Endpoint>,
    maglev: Mapping<MaglevBlock>,
    set: PathBuf,
    limits: Limits,
    walked: Arc<Mutex<Walked>>,
}

impl KernelDatapath {
    /// Opens the maps the attached programs use.
    ///
    /// # Errors
    /// If nothing is pinned there or a map cannot be opened.
    pub fn open_current(pins: &PinDir) -> Result<Self, Error> {
        let (set, limits) = pins.current()?;
        Self::open(&set, limits)
    }

    pub(super) fn open(set: &Path, limits: Limits) -> Result<Self, Error> {
        Ok(Self {
            services: pinned::hash(set, SERVICES)?,
            names: pinned::hash(set, NAMES)?,
            generations: pinned::array(set, GENERATIONS)?,
            counters: pinned::per_cpu(set, COUNTERS)?,
            outcomes: pinned::per_cpu(set, OUTCOMES)?,
            source_ranges: pinned::source_ranges(set)?,
            config: pinned::array(set, CONFIG)?,
            endpoints: map_into_memory(set, ENDPOINTS, limits.endpoints)?,
            maglev: map_into_memory(set, MAGLEV, limits.maglev)?,
            set: set.to_owned(),
            limits,
            walked: Arc::default(),
        })
    }

    /// What the programs are told about their node.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn config(&self) -> Result<Config, Error> {
        self.config.get(&0, 0).map_err(Error::map("read", CONFIG))
    }

    /// Sizes of the maps.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// The collector of these maps. What it finds is what [`Datapath::map_use`] tells.
    ///
    /// # Errors
    /// If a map cannot be opened.
    pub fn collector(&self) -> Result<Collector, Error> {
        Collector::open(&self.set, self.limits, Arc::clone(&self.walked))
    }

    /// Tells the programs how to forward, and what the kernel says of this network namespace; what
    /// only the API knows stays as it is.
    ///
    /// # Errors
    /// If the kernel does not tell, or does not take it.
    pub fn set_forwarding(&mut self, forwarding: &Forwarding) -> Result<(), Error> {
        let fresh = forwarding.config()?;
        self.change_config(|config| {
            config.host_netns_cookie = fresh.host_netns_cookie;
            config.nat_ports = fresh.nat_ports;
            config.flags = fresh.flags;
        })
    }

    /// Tells the programs how large the maps are whose places they compute themselves.
    pub(super) fn set_sizes(&mut self) -> Result<(), Error> {
        let stream_peers = self.limits.socket_peers;
        self.change_config(|config| config.stream_peers = stream_peers)
    }

    /// Tells the programs what the API says of this node; the rest stays as it is.
    ///
    /// # Errors
    /// If the kernel does not take it.
    pub fn set_node(&mut self, node: &LocalNode) -> Result<(), Error> {
        self.change_config(|config| config::fill(config, node))
    }

    /// Writes only if something changed. A program may meet half of an element that is being
    /// written; every field means something by itself.
    fn change_config(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), Error> {
        let old = self.config.get(&0, 0).map_err(Error::map("read", CONFIG))?;
        let mut new = old;
        change(&mut new);
        if new == old {
            return Ok(());
        }
        self.config.set(0, new, 0).map_err(Error::map("write", CONFIG))
    }

    fn read_span(&self, span: Span) -> Option<(Span, Vec<Endpoint>)> {
        self.endpoints.read(span.start, span.len).map(|elements| (span, elements))
    }

    fn write_endpoints(&mut self, start: u32, endpoints: &[Endpoint]) -> Result<(), Error> {
        if self.endpoints.write(start, endpoints) {
            return Ok(());
        }
        let size = self.endpoints.len();
        Err(Error::BeyondArray { map: ENDPOINTS, start, len: endpoints.len(), size })
    }

    fn write_maglev(&mut self, start: u32, slots: &[u16]) -> Result<(), Error> {
        let blocks = mapping::blocks(slots);
        if self.maglev.write(start, &blocks) {
            return Ok(());
        }
        let size = self.maglev.len();
        Err(Error::BeyondArray { map: MAGLEV, start, len: blocks.len(), size })
    }

    /// One writer only: between the read and the write nobody else changes it.
    fn renew(&mut self, id: u32) -> Result<(), Error> {
        let old = self.generations.get(&id, 0).map_err(Error::map("read", GENERATIONS))?;
        self.generations.set(id, old.wrapping_add(1), 0).map_err(Error::map("write", GENERATIONS))
    }

    fn reset_counter(&mut self, id: u32) -> Result<(), Error> {
        let cpus = nr_cpus().map_err(|(_, error)| Error::io("count", "CPUs")(error))?;
        let zeros = PerCpuValues::try_from(vec![ServiceCounters::default(); cpus])
            .map_err(Error::io("clear", COUNTERS))?;
        self.counters.set(id, zeros, 0).map_err(Error::map("write", COUNTERS))
    }

    fn walked<T>(&self, read: impl FnOnce(&Walked) -> T) -> T {
        read(&self.walked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) fn map_into_memory<T: Element>(
    set: &Path,
    map: &'static str,
    len: u32,
) -> Result<Mapping<T>, Error> {
    let path = set.join(map);
    let data = MapData::from_pin(&path).map_err(Error::map("open", map))?;
    Mapping::map(data.fd().as_fd(), len).map_err(Error::io("map into memory", path))
}

fn trie_key(range: &SourceRange, prefix_len: u32) -> Key<SourceRange> {
    Key::new(SourceRange::PREFIX_LEN + prefix_len, *range)
}

impl Datapath for KernelDatapath {
    fn snapshot(&self) -> Result<Snapshot, Error> {
        let mut services = Vec::new();
        batch::walk(&self.services, |key, entry| services.push((key, entry)))
            .map_err(Error::map("read", SERVICES))?;
        let mut names = Vec::new();
        batch::walk(&self.names, |id, name| names.push((id, name)))
            .map_err(Error::map("read", NAMES))?;
        let mut source_ranges = Vec::new();
        for key in self.source_ranges.keys() {
            let key = key.map_err(Error::map("read", SOURCE_RANGES))?;
            let prefix_len = key.prefix_len().saturating_sub(SourceRange::PREFIX_LEN);
            source_ranges.push((key.data(), prefix_len));
        }
        let spans = (services.iter())
            .flat_map(|(_, entry): &(_, ServiceEntry)| [entry.endpoints, entry.local])
            .filter_map(|span| self.read_span(span))
            .collect();
        Ok(Snapshot { services, names, source_ranges, spans })
    }

    fn execute(&mut self, op: &Op) -> Result<(), Error> {
        match op {
            Op::WriteEndpoints { start, endpoints } => self.write_endpoints(*start, endpoints),
            Op::WriteMaglev { start, slots } => self.write_maglev(*start, slots),
            Op::Renew { id } => self.renew(*id),
            Op::AddSourceRange { range, prefix_len } => (self.source_ranges)
                .insert(&trie_key(range, *prefix_len), 1, 0)
                .map_err(Error::map("write", SOURCE_RANGES)),
            Op::RemoveSourceRange { range, prefix_len } => {
                gone(self.source_ranges.remove(&trie_key(range, *prefix_len)))
                    .map_err(Error::map("remove from", SOURCE_RANGES))
            }
            Op::SetName { id, name } => {
                self.names.insert(id, **name, 0).map_err(Error::map("write", NAMES))
            }
            Op::RemoveName { id } => {
                gone(self.names.remove(id)).map_err(Error::map("remove from", NAMES))
            }
            Op::ResetCounter { id } => self.reset_counter(*id),
            Op::SetService { key, entry } => {
                self.services.insert(key, entry, 0).map_err(Error::map("write", SERVICES))
            }
            Op::RemoveService { key } => {
                gone(self.services.remove(key)).map_err(Error::map("remove from", SERVICES))
            }
            Op::WaitForReaders => {
                wait_for_readers();
                Ok(())
            }
        }
    }

    fn counters(&self, ids: &[u32]) -> Result<BTreeMap<u32, ServiceCounters>, Error> {
        let mut sums = BTreeMap::new();
        for id in ids {
            let values = self.counters.get(id, 0).map_err(Error::map("read", COUNTERS))?;
            let sum = values.iter().fold(ServiceCounters::default(), |sum, one| ServiceCounters {
                connections: sum.connections + one.connections,
                packets: sum.packets + one.packets,
                bytes: sum.bytes + one.bytes,
            });
            sums.insert(*id, sum);
        }
        Ok(sums)
    }

    fn outcomes(&self) -> Result<BTreeMap<Outcome, u64>, Error> {
        let mut sums = Vec::new();
        for index in 0..Outcome::COUNT {
            let values = self.outcomes.get(&index, 0).map_err(Error::map("read", OUTCOMES))?;
            sums.push(values.iter().sum());
        }
        Ok(outcomes::by_outcome(sums))
    }

    fn map_use(&self) -> Vec<MapUse> {
        self.walked(|walked| walked.maps.clone())
    }

    fn flows(&self) -> BTreeMap<Protocol, u64> {
        self.walked(|walked| walked.flows.clone())
    }
}

/// Removing what is not there is no error: the aim is reached.
fn gone(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}

/// Programs run inside an RCU read section, and this call of membarrier(2) returns after a grace
/// period.
pub(crate) fn wait_for_readers() {
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        thread::sleep(READERS_REST);
    }
}
