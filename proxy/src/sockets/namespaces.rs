//! Every network namespace of the node that a process can have sockets in.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns};

/// Where iproute2 and CNI runtimes keep namespaces that no process need be in.
const NAMED: &str = "/run/netns";

/// A network namespace, held open.
#[derive(Debug)]
pub struct Namespace {
    /// Where it was found.
    pub path: PathBuf,
    file: File,
}

/// The namespace of the calling thread.
pub fn own() -> io::Result<Namespace> {
    let path = PathBuf::from("/proc/thread-self/ns/net");
    Ok(Namespace { file: File::open(&path)?, path })
}

/// Every namespace there is: the calling thread's, named ones, those of processes; each once. What
/// vanishes meanwhile is left out. Of other containers' processes, only those of the PID namespace
/// this one sees are found: a pod needs `hostPID`.
pub fn all() -> Vec<Namespace> {
    let mut paths = vec![PathBuf::from("/proc/thread-self/ns/net")];
    paths.extend(children(Path::new(NAMED)));
    paths.extend(
        (children(Path::new("/proc")).into_iter())
            .filter(|path| path.file_name().is_some_and(is_pid))
            .map(|path| path.join("ns/net")),
    );
    let mut seen = BTreeSet::new();
    (paths.into_iter())
        .filter_map(|path| {
            let met = fs::metadata(&path).ok()?;
            if !seen.insert((met.dev(), met.ino())) {
                return None;
            }
            let file = File::open(&path).ok()?;
            Some(Namespace { path, file })
        })
        .collect()
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(Result::ok).map(|entry| entry.path()).collect()
}

fn is_pid(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

impl Namespace {
    /// Moves the calling thread there.
    pub fn enter(&self) -> io::Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(Into::into)
    }
}

/// The ids of a cgroup and all below it. On kernfs the inode number of a folder is the id.
pub fn cgroup_ids(cgroup: &Path) -> BTreeSet<u64> {
    let root = fs::metadata(cgroup).map(|found| found.ino());
    let mut ids: BTreeSet<u64> = root.into_iter().collect();
    let mut folders = vec![cgroup.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                ids.insert(entry.ino());
                folders.push(entry.path());
            }
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_namespace_is_found_once() {
        let own = fs::metadata("/proc/thread-self/ns/net").unwrap();
        let inodes: Vec<u64> =
            all().iter().map(|found| found.file.metadata().unwrap().ino()).collect();
        assert_eq!(inodes.iter().filter(|inode| **inode == own.ino()).count(), 1);
    }
}
