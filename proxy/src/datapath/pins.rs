//! Where things lie on the bpffs.
//!
//! ```text
//! PIN_DIR/maps_v2_65536_…/SERVICES …   one folder for each layout version and set of sizes
//! PIN_DIR/links/connect4 …             the programs, attached
//! ```
//!
//! Maps of another version or size lie in another folder: a new set is built and filled beside the
//! old one, the links are swung over, then the old folder goes.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use podium_proxy_ebpf::maps::{LAYOUT_VERSION, SOCKET_PEERS};

use super::{Error, bpf, links::HOOKS};
use crate::plan::held::Limits;

const SET_PREFIX: &str = "maps_v";

/// The folder everything is pinned under.
#[derive(Clone, Debug)]
pub struct PinDir {
    root: PathBuf,
}

impl PinDir {
    /// The folder at `root`, which must be on a bpffs.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where links are pinned.
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Where the maps of this version and these sizes are.
    pub fn maps(&self, limits: Limits) -> PathBuf {
        self.root.join(set_name(limits))
    }

    /// Makes this process the only agent that writes here, until the value goes or it dies.
    ///
    /// # Errors
    /// If there is another one.
    pub fn lock(&self) -> Result<Flock<File>, Error> {
        fs::create_dir_all(&self.root).map_err(Error::io("create", &self.root))?;
        let folder = File::open(&self.root).map_err(Error::io("open", &self.root))?;
        Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => Error::InUse { path: self.root.clone() },
            errno => Error::io("lock", &self.root)(errno.into()),
        })
    }

    /// Every set of maps there is, of whatever version.
    pub(super) fn sets(&self) -> Result<Vec<PathBuf>, Error> {
        let mut sets = Vec::new();
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(sets),
            Err(error) => return Err(Error::io("list", &self.root)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &self.root))?;
            if entry.file_name().to_string_lossy().starts_with(SET_PREFIX) {
                sets.push(entry.path());
            }
        }
        sets.sort();
        Ok(sets)
    }

    /// The set the attached programs use, and its sizes. Where nothing is attached yet: the only
    /// set there is.
    ///
    /// # Errors
    /// If there is none, or none that this version can read.
    pub fn current(&self) -> Result<(PathBuf, Limits), Error> {
        let nothing = || Error::NothingPinned { path: self.root.clone() };
        let readable: Vec<_> = (self.sets()?.into_iter())
            .filter_map(|path| limits_of(&path).map(|limits| (path, limits)))
            .collect();
        let used = self.map_ids_in_use();
        let current = readable.iter().find(|(path, _)| {
            MapInfo::from_pin(path.join(SOCKET_PEERS)).is_ok_and(|info| used.contains(&info.id()))
        });
        match (current, readable.as_slice()) {
            (Some(current), _) => Ok(current.clone()),
            (None, [only]) if used.is_empty() => Ok(only.clone()),
            (None, _) => Err(nothing()),
        }
    }

    /// The sets, of whatever version, that attached programs use: one, or several where going over
    /// from one to another was interrupted.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn sets_in_use(&self) -> Result<Vec<PathBuf>, Error> {
        let used = self.map_ids_in_use();
        let mut sets = self.sets()?;
        sets.retain(|path| {
            MapInfo::from_pin(path.join(SOCKET_PEERS)).is_ok_and(|info| used.contains(&info.id()))
        });
        Ok(sets)
    }

    /// The maps of the attached programs; every program for sockets uses `SOCKET_PEERS`.
    fn map_ids_in_use(&self) -> BTreeSet<u32> {
        let attached: BTreeSet<u32> = (HOOKS.iter())
            .filter_map(|hook| {
                let link = bpf::get(&self.links().join(hook.name)).ok()?;
                bpf::link_info(link.as_fd()).ok().map(|info| info.program_id)
            })
            .collect();
        if attached.is_empty() {
            return BTreeSet::new();
        }
        (aya::programs::loaded_programs().filter_map(Result::ok))
            .filter(|info| attached.contains(&info.id()))
            .filter_map(|info| info.map_ids().ok().flatten())
            .flatten()
            .collect()
    }

    /// Removes every set but the one given.
    ///
    /// # Errors
    /// If a folder cannot be removed.
    pub fn drop_other_sets(&self, keep: &Path) -> Result<(), Error> {
        for set in self.sets()? {
            if set != keep {
                remove_pins(&set)?;
            }
        }
        Ok(())
    }

    /// Removes links, programs and maps; traffic to services is then on its own. Returns whether
    /// there was anything.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn remove_all(&self) -> Result<bool, Error> {
        let mut found = remove_pins(&self.links())?;
        for set in self.sets()? {
            found |= remove_pins(&set)?;
        }
        match fs::remove_dir(&self.root) {
            Ok(()) => found = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Not ours alone, or the root of the bpffs.
            Err(_) => {}
        }
        Ok(found)
    }
}

/// The sizes are all in the name: they are what makes two sets of one version different. A name on a
/// bpffs has no dots.
fn set_name(limits: Limits) -> String {
    let Limits { services, endpoints, maglev, source_ranges, affinity, socket_peers, flows } =
        limits;
    format!(
        "{SET_PREFIX}{LAYOUT_VERSION}_{services}_{endpoints}_{maglev}_{source_ranges}_{affinity}_\
         {socket_peers}_{flows}"
    )
}

fn limits_of(set: &Path) -> Option<Limits> {
    let name = set.file_name().and_then(OsStr::to_str)?;
    let numbers: Vec<u32> = (name.strip_prefix(SET_PREFIX)?.split('_'))
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    let [LAYOUT_VERSION, services, endpoints, maglev, source_ranges, affinity, socket_peers, flows] =
        *numbers
    else {
        return None;
    };
    Some(Limits { services, endpoints, maglev, source_ranges, affinity, socket_peers, flows })
}

fn remove_pins(folder: &Path) -> Result<bool, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io("list", folder)(error)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if path.is_dir() {
            remove_pins(&path)?;
        } else {
            fs::remove_file(&path).map_err(Error::io("unpin", &path))?;
        }
    }
    fs::remove_dir(folder).map_err(Error::io("remove", folder))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_the_name() {
        let limits = Limits { services: 1, endpoints: 2, maglev: 3, flows: 7, ..Limits::default() };
        let set = PinDir::new("/pins").maps(limits);
        let name = set.file_name().and_then(OsStr::to_str).unwrap();
        assert!(!name.contains('.'), "{name}");
        assert_eq!(limits_of(&set), Some(limits), "{name}");
        for other in ["maps_v1_65536_262144", "maps_v2", "maps_v2_1_2_3_4_5_6_7_8", "links"] {
            assert_eq!(limits_of(Path::new(other)), None, "{other}");
        }
    }
}
