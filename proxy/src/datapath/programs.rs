//! The kernel programs: loaded with their maps, put in their places.

use std::{
    fs::{self, File},
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier, Xdp},
};
use nix::fcntl::Flock;
use podium_proxy_ebpf::maps::{
    AFFINITY, COUNTERS, ENDPOINTS, FLOWS, GENERATIONS, MAGLEV, NAMES, SERVICES, SOCKET_PEERS,
    SOURCE_RANGES, STREAM_PEERS,
};

use super::{
    Error,
    carry::{self, Round},
    kernel::KernelDatapath,
    links::{self, Attached, HOOKS},
    pins::PinDir,
};
use crate::{devices, plan::held::Limits};

/// The kernel programs, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb"));

/// The programs that see packets.
pub const PACKET_PROGRAMS: [&str; 4] = ["uplink_ingress", "pod_ingress", "egress", "uplink_xdp"];

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
        .map_max_entries(GENERATIONS, limits.services)
        .map_max_entries(COUNTERS, limits.services)
        .map_max_entries(ENDPOINTS, limits.endpoints)
        .map_max_entries(MAGLEV, limits.maglev)
        .map_max_entries(SOURCE_RANGES, limits.source_ranges)
        .map_max_entries(AFFINITY, limits.affinity)
        .map_max_entries(SOCKET_PEERS, limits.socket_peers)
        .map_max_entries(STREAM_PEERS, limits.socket_peers)
        .map_max_entries(FLOWS, limits.flows)
        .load(OBJECT)
        .map_err(Error::Load)?;
    for name in names() {
        let program = ebpf.program_mut(name).ok_or(Error::NoProgram { program: name })?;
        load_one(program).map_err(|source| Error::Program { program: name, source })?;
    }
    let mut datapath = KernelDatapath::open(&set, limits)?;
    datapath.set_sizes()?;
    Ok((Programs { ebpf, pins: pins.clone(), set, _only_agent: only_agent }, datapath))
}

fn load_one(program: &mut Program) -> Result<(), ProgramError> {
    if let Ok(program) = <&mut SchedClassifier>::try_from(&mut *program) {
        return program.load();
    }
    if let Ok(program) = <&mut Xdp>::try_from(&mut *program) {
        return program.load();
    }
    <&mut CgroupSockAddr>::try_from(program)?.load()
}

fn names() -> impl Iterator<Item = &'static str> {
    HOOKS.into_iter().map(|hook| hook.name).chain(PACKET_PROGRAMS)
}

impl Programs {
    /// A program, to be attached somewhere.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn fd(&self, name: &'static str) -> Result<BorrowedFd<'_>, Error> {
        let program = self.ebpf.program(name).ok_or(Error::NoProgram { program: name })?;
        let fd = program.fd().map_err(|source| Error::Program { program: name, source })?;
        Ok(fd.as_fd())
    }

    /// The programs for devices, in descriptors of their own: who attaches them may outlive this
    /// value.
    ///
    /// # Errors
    /// If one is missing, or there are too many open files.
    pub fn for_devices(&self) -> Result<devices::Programs, Error> {
        let own = |name: &'static str| {
            self.fd(name)?.try_clone_to_owned().map_err(Error::io("duplicate program", name))
        };
        Ok(devices::Programs {
            uplink_ingress: own("uplink_ingress")?,
            pod_ingress: own("pod_ingress")?,
            egress: own("egress")?,
            xdp: own("uplink_xdp")?,
        })
    }

    /// Where links are pinned.
    pub fn links(&self) -> PathBuf {
        self.pins.links()
    }

    /// Puts the programs for sockets in their places; see [`Programs::attach_with`].
    ///
    /// # Errors
    /// If the kernel refuses; programs attached until then stay.
    pub fn attach(&self, cgroup: &Path) -> Result<Vec<(&'static str, Attached)>, Error> {
        self.attach_with::<Error>(cgroup, || Ok(()))
    }

    /// Puts every program in its place: those for sockets on the cgroup, then, by `devices`, those
    /// for packets. Where earlier programs use another set of maps, what these remember is taken
    /// over before, and once more afterwards; then earlier sets are dropped, which none uses any
    /// more.
    ///
    /// # Errors
    /// If the kernel refuses; programs attached until then stay.
    pub fn attach_with<E: From<Error>>(
        &self,
        cgroup: &Path,
        devices: impl FnOnce() -> Result<(), E>,
    ) -> Result<Vec<(&'static str, Attached)>, E> {
        let in_use = self.pins.sets_in_use()?;
        // Some programs already use this set: an earlier agent was interrupted while they went over.
        // What it did not come to take over lies in a set that may be used no more.
        let (first, sources) = if in_use.contains(&self.set) {
            (Round::BeforeTheRest, self.pins.sets()?)
        } else {
            (Round::Before, in_use)
        };
        self.take_over(&sources, first);
        let mut done = Vec::new();
        for hook in HOOKS {
            let fd = self.fd(hook.name)?;
            done.push((hook.name, links::attach(hook, fd, cgroup, &self.pins.links())?));
        }
        devices()?;
        self.take_over(&sources, Round::After);
        self.pins.drop_other_sets(&self.set)?;
        Ok(done)
    }

    /// Takes over from other sets. If that fails, flows may break, but without the programs all
    /// would: it is said and gone on.
    fn take_over(&self, sources: &[PathBuf], round: Round) {
        for old in sources.iter().filter(|set| **set != self.set) {
            match carry::carry(old, &self.set, round) {
                Ok(carried) => tracing::info!(
                    ?round,
                    entries = ?carried.entries,
                    "took over from {}",
                    old.display()
                ),
                Err(error) => tracing::warn!(
                    "some flows may break: cannot take over from {}: {error}: {}",
                    old.display(),
                    std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
                ),
            }
        }
    }

    /// How many instructions the verifier went through for each program.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn verified_instructions(&self) -> Result<Vec<(&'static str, u32)>, Error> {
        let mut counts = Vec::new();
        for name in names() {
            let program = self.ebpf.program(name).ok_or(Error::NoProgram { program: name })?;
            let info = program.info().map_err(|source| Error::Program { program: name, source })?;
            counts.push((name, info.verified_instruction_count().unwrap_or(0)));
        }
        Ok(counts)
    }
}
