//! The kernel's maps and programs.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues},
    programs::CgroupSockAddr,
    util::nr_cpus,
};
use nix::fcntl::Flock;
use podium_proxy_ebpf::{
    ServiceCounters, ServiceEntry, ServiceKey, ServiceName, Span,
    maps::{COUNTERS, ENDPOINTS, NAMES, SERVICES},
};

use super::{
    Datapath, Error,
    endpoints::Endpoints,
    links::{self, Attached, HOOKS, Hook},
    pins::PinDir,
};
use crate::{
    model::LocalNode,
    plan::{
        Op,
        held::{Limits, Snapshot},
    },
};

/// The kernel programs, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb"));

/// `MEMBARRIER_CMD_GLOBAL` of `linux/membarrier.h`.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// How long readers get where the kernel offers no way to wait for them (nohz_full CPUs). They
/// run for microseconds.
const READERS_REST: Duration = Duration::from_secs(1);

/// Pinned maps, open.
pub struct KernelDatapath {
    services: HashMap<MapData, ServiceKey, ServiceEntry>,
    names: HashMap<MapData, u32, ServiceName>,
    counters: PerCpuArray<MapData, ServiceCounters>,
    endpoints: Endpoints,
    limits: Limits,
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

    fn open(set: &Path, limits: Limits) -> Result<Self, Error> {
        let endpoints =
            MapData::from_pin(set.join(ENDPOINTS)).map_err(Error::map("open", ENDPOINTS))?;
        let mapped = Endpoints::map(endpoints.fd().as_fd(), limits.endpoints)
            .map_err(Error::io("map into memory", set.join(ENDPOINTS)))?;
        Ok(Self {
            services: open_hash(set, SERVICES)?,
            names: open_hash(set, NAMES)?,
            counters: MapData::from_pin(set.join(COUNTERS))
                .and_then(Map::from_map_data)
                .and_then(PerCpuArray::try_from)
                .map_err(Error::map("open", COUNTERS))?,
            endpoints: mapped,
            limits,
        })
    }

    /// Sizes of the maps.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Tells the programs about their node.
    ///
    /// # Errors
    /// If the kernel does not take it.
    pub fn set_node(&mut self, _node: &LocalNode) -> Result<(), Error> {
        Ok(())
    }

    fn read_span(&self, span: Span) -> Option<(Span, Vec<podium_proxy_ebpf::Endpoint>)> {
        self.endpoints.read(span.start, span.len).map(|elements| (span, elements))
    }
}

fn open_hash<K: Pod, V: Pod>(
    set: &Path,
    map: &'static str,
) -> Result<HashMap<MapData, K, V>, Error> {
    MapData::from_pin(set.join(map))
        .and_then(Map::from_map_data)
        .and_then(HashMap::try_from)
        .map_err(Error::map("open", map))
}

impl Datapath for KernelDatapath {
    fn snapshot(&self) -> Result<Snapshot, Error> {
        let mut services = Vec::new();
        for item in self.services.iter() {
            services.push(item.map_err(Error::map("read", SERVICES))?);
        }
        let mut names = Vec::new();
        for item in self.names.iter() {
            names.push(item.map_err(Error::map("read", NAMES))?);
        }
        let spans = (services.iter())
            .flat_map(|(_, entry): &(_, ServiceEntry)| [entry.endpoints, entry.local])
            .filter_map(|span| self.read_span(span))
            .collect();
        Ok(Snapshot { services, names, source_ranges: Vec::new(), spans })
    }

    fn execute(&mut self, op: &Op) -> Result<(), Error> {
        match op {
            Op::WriteEndpoints { start, endpoints } => {
                if self.endpoints.write(*start, endpoints) {
                    return Ok(());
                }
                let size = self.endpoints.len();
                Err(Error::BeyondEndpoints { start: *start, len: endpoints.len(), size })
            }
            Op::WriteMaglev { .. }
            | Op::Renew { .. }
            | Op::AddSourceRange { .. }
            | Op::RemoveSourceRange { .. } => Ok(()),
            Op::SetName { id, name } => {
                self.names.insert(id, **name, 0).map_err(Error::map("write", NAMES))
            }
            Op::RemoveName { id } => {
                gone(self.names.remove(id)).map_err(Error::map("remove from", NAMES))
            }
            Op::ResetCounter { id } => {
                let cpus = nr_cpus().map_err(|(_, error)| Error::io("count", "CPUs")(error))?;
                let zeros = PerCpuValues::try_from(vec![ServiceCounters::default(); cpus])
                    .map_err(Error::io("clear", COUNTERS))?;
                self.counters.set(*id, zeros, 0).map_err(Error::map("write", COUNTERS))
            }
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

/// The programs, loaded and ready to be put in their places.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    pins: PinDir,
    set: PathBuf,
    _only_agent: Flock<File>,
}

/// Loads the programs, with the pinned maps of this version and these sizes if there are any, else
/// with new ones. Nothing is attached yet.
///
/// # Errors
/// If the kernel refuses a map or a program, or another agent holds them.
pub fn load(pins: &PinDir, limits: Limits) -> Result<(Programs, KernelDatapath), Error> {
    let only_agent = pins.lock()?;
    let set = pins.maps(limits);
    for folder in [set.clone(), pins.links()] {
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    }
    let mut ebpf = EbpfLoader::new()
        .default_map_pin_directory(&set)
        .map_max_entries(SERVICES, limits.services)
        .map_max_entries(NAMES, limits.services)
        .map_max_entries(COUNTERS, limits.services)
        .map_max_entries(ENDPOINTS, limits.endpoints)
        .load(OBJECT)
        .map_err(Error::Load)?;
    for Hook { name, .. } in HOOKS {
        let source = |source| Error::Program { program: name, source };
        let program: &mut CgroupSockAddr = ebpf
            .program_mut(name)
            .ok_or(Error::NoProgram { program: name })?
            .try_into()
            .map_err(source)?;
        program.load().map_err(source)?;
    }
    let datapath = KernelDatapath::open(&set, limits)?;
    Ok((Programs { ebpf, pins: pins.clone(), set, _only_agent: only_agent }, datapath))
}

impl Programs {
    /// Puts every program in its place and drops the maps of earlier sets, which none uses any more.
    ///
    /// # Errors
    /// If the kernel refuses; programs attached until then stay.
    pub fn attach(&self, cgroup: &Path) -> Result<Vec<(&'static str, Attached)>, Error> {
        let mut done = Vec::new();
        for hook in HOOKS {
            let name = hook.name;
            let source = |source| Error::Program { program: name, source };
            let program: &CgroupSockAddr = self
                .ebpf
                .program(name)
                .ok_or(Error::NoProgram { program: name })?
                .try_into()
                .map_err(source)?;
            let fd = program.fd().map_err(source)?;
            done.push((name, links::attach(hook, fd.as_fd(), cgroup, &self.pins.links())?));
        }
        self.pins.drop_other_sets(&self.set)?;
        Ok(done)
    }

    /// How many instructions the verifier went through for each program.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn verified_instructions(&self) -> Result<Vec<(&'static str, u32)>, Error> {
        let mut counts = Vec::new();
        for Hook { name, .. } in HOOKS {
            let program = self.ebpf.program(name).ok_or(Error::NoProgram { program: name })?;
            let info = program.info().map_err(|source| Error::Program { program: name, source })?;
            counts.push((name, info.verified_instruction_count().unwrap_or(0)));
        }
        Ok(counts)
    }
}
