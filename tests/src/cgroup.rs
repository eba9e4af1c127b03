//! Cgroups of a cluster: the same path below the root of the version 2 tree and, where runc puts
//! containers there too, of the version 1 hierarchies. Never the root itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::machine::{self, CgroupHierarchies};
use crate::wait::wait_uninterrupted;
use crate::workdir::{Made, Workdir};

const EMPTY_LIMIT: Duration = Duration::from_secs(10);

/// A cgroup in the version 2 tree.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: String,
    dir: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup `/<prefix>/<name>`, with its parents; all below the prefix goes with it.
    ///
    /// # Errors
    /// When there is no version 2 tree or the folder cannot be made.
    pub fn create(workdir: &Workdir, name: &str) -> anyhow::Result<Self> {
        let top = format!("/{}", workdir.prefix());
        let path = format!("{top}/{name}");
        ensure!(is_below_root(&path), "cgroup {path:?} is not an absolute path below the root");
        let v2 = machine::cgroup_hierarchies().v2.context("no cgroup v2 tree is mounted")?;
        workdir.record(&Made::Cgroup(top))?;
        let dir = v2.join(path.trim_start_matches('/'));
        fs::create_dir_all(&dir).with_context(|| format!("create cgroup {}", dir.display()))?;
        Ok(Self { path, dir })
    }

    /// Its path below the root of each hierarchy.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its folder in the version 2 tree.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn is_below_root(path: &str) -> bool {
    path.starts_with('/') && path.len() > 1 && !path.split('/').any(|part| part == "..")
}

/// Ends every process in the cgroup, in all hierarchies, and removes it with all below it.
///
/// # Errors
/// When a process does not end or a folder cannot be removed.
pub fn remove(path: &str) -> anyhow::Result<()> {
    ensure!(is_below_root(path), "cgroup {path:?} is not an absolute path below the root");
    let dirs: Vec<PathBuf> = roots(&machine::cgroup_hierarchies())
        .into_iter()
        .map(|root| root.join(path.trim_start_matches('/')))
        .filter(|dir| dir.exists())
        .collect();
    wait_uninterrupted(&format!("processes of cgroup {path} end"), EMPTY_LIMIT, || {
        let pids: Vec<i32> = dirs.iter().flat_map(|dir| processes(dir)).collect();
        if pids.is_empty() {
            return Ok(());
        }
        for pid in &pids {
            // A process gone since it was listed is what is wanted.
            let _gone = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        Err(format!("{} processes alive: {pids:?}", pids.len()))
    })?;
    for dir in &dirs {
        wait_uninterrupted(&format!("remove cgroup {}", dir.display()), EMPTY_LIMIT, || {
            remove_tree(dir).map_err(|error| error.to_string())
        })?;
    }
    Ok(())
}

fn roots(found: &CgroupHierarchies) -> Vec<PathBuf> {
    found.v2.iter().chain(&found.v1).cloned().collect()
}

fn processes(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    // Zero stands for a process of another pid namespace, which is not ours to end.
    let own = text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0);
    own.chain(children(dir).iter().flat_map(|child| processes(child))).collect()
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_never_ours() {
        for (path, fine) in
            [("/", false), ("", false), ("podium", false), ("/a/../..", false), ("/podium/n", true)]
        {
            assert_eq!(is_below_root(path), fine, "{path}");
        }
    }
}
