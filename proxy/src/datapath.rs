//! Carries operations out. The only part that touches the kernel, and a fake beside it that tests
//! run the same plans against.

pub(crate) mod batch;
mod bpf;
mod carry;
pub mod clsact;
pub mod config;
pub mod fake;
pub mod flows;
pub mod kernel;
pub mod links;
mod mapping;
pub mod outcomes;
pub(crate) mod pinned;
pub mod pins;
pub mod programs;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use outcomes::MapUse;
use podium_proxy_ebpf::{Outcome, Protocol, ServiceCounters};

use crate::plan::{
    Op,
    held::{Held, Limits, Snapshot},
};

/// Where operations go.
pub trait Datapath {
    /// Everything the maps contain.
    ///
    /// # Errors
    /// If a map cannot be read.
    fn snapshot(&self) -> Result<Snapshot, Error>;

    /// Carries one operation out.
    ///
    /// # Errors
    /// If the kernel refuses it. What the maps then contain must be read again.
    fn execute(&mut self, op: &Op) -> Result<(), Error>;

    /// What was counted, by service id, of the ids given.
    ///
    /// # Errors
    /// If the counters cannot be read.
    fn counters(&self, ids: &[u32]) -> Result<BTreeMap<u32, ServiceCounters>, Error>;

    /// How decisions ended, since the maps were made.
    ///
    /// # Errors
    /// If the counters cannot be read.
    fn outcomes(&self) -> Result<BTreeMap<Outcome, u64>, Error> {
        Ok(BTreeMap::new())
    }

    /// How full the maps are that the programs fill, and those that a plan does not count; as the
    /// collector found them, empty before its first walk.
    fn map_use(&self) -> Vec<MapUse> {
        Vec::new()
    }

    /// Flows of packets, by protocol, as the collector found them.
    fn flows(&self) -> BTreeMap<Protocol, u64> {
        BTreeMap::new()
    }
}

/// What another agent, or an operation that failed, left in the maps: from here on a plan can go on.
///
/// # Errors
/// If the kernel refuses something.
pub fn take_over(datapath: &mut impl Datapath, limits: Limits) -> Result<Held, Error> {
    // What was given up a moment ago looks free in the maps.
    datapath.execute(&Op::WaitForReaders)?;
    let held = Held::rebuild(&datapath.snapshot()?, limits);
    held.renewals().try_for_each(|op| datapath.execute(&op))?;
    Ok(held)
}

/// A datapath that the reconciler writes to and the metrics read from.
pub type SharedDatapath = Arc<Mutex<dyn Datapath + Send>>;

/// What went wrong between user space and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel did not take the object with the programs.
    #[error("cannot load the kernel programs")]
    Load(#[source] aya::EbpfError),
    /// The verifier did not take one program.
    #[error("cannot load kernel program {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: aya::programs::ProgramError,
    },
    /// The object has no such program: it was built from other sources.
    #[error("the object of kernel programs has no {program}")]
    NoProgram {
        /// Its name.
        program: &'static str,
    },
    /// A map could not be opened, read or written.
    #[error("cannot {action} map {map}")]
    Map {
        /// What was tried.
        action: &'static str,
        /// The map.
        map: &'static str,
        /// Why.
        #[source]
        source: aya::maps::MapError,
    },
    /// A span that is not within its array.
    #[error("elements {start}+{len} are beyond map {map} of {size}")]
    BeyondArray {
        /// The map.
        map: &'static str,
        /// First index.
        start: u32,
        /// Number of elements.
        len: usize,
        /// Size of the array.
        size: u32,
    },
    /// A system call on a file or a BPF object.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The programs for packets are not on their devices.
    #[error("cannot put programs on network devices")]
    Devices(#[source] Box<crate::devices::Error>),
    /// Two agents would undo each other's changes.
    #[error("another podium-proxy runs with --pin-dir {path}: stop it first")]
    InUse {
        /// The pin folder.
        path: PathBuf,
    },
    /// Nothing is pinned where a state was expected.
    #[error("nothing is pinned under {path}: podium-proxy is not running here and never was")]
    NothingPinned {
        /// The pin folder.
        path: PathBuf,
    },
}

impl Error {
    pub(crate) fn map(
        action: &'static str,
        map: &'static str,
    ) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map { action, map, source }
    }

    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
