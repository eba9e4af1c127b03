//! Cgroup directories of the node and of its pods, in every hierarchy that is mounted: version 1
//! controllers, version 2, or both side by side. Containers' own cgroups belong to the runtime.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Where the hierarchies are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    /// Mount point and controllers of each version 1 hierarchy.
    v1: Vec<(PathBuf, Vec<String>)>,
    /// Mount point of the version 2 hierarchy.
    v2: Option<PathBuf>,
}

/// Limits of a pod as a whole. `None`: not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodLimits {
    pub(crate) cpu_shares: u64,
    pub(crate) cpu_quota_us: Option<i64>,
    pub(crate) memory_bytes: Option<i64>,
}

/// The period every CPU quota is given for.
pub(crate) const CPU_PERIOD_US: i64 = 100_000;

impl Hierarchies {
    /// Reads the mount table of this process.
    pub(crate) fn discover() -> Result<Self, Error> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let found = Self::parse(&text);
        if found.v2.is_none() && found.v1.is_empty() {
            return Err(Error::Missing("no cgroup hierarchy is mounted".to_owned()));
        }
        Ok(found)
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount_point) = left.split(' ').nth(4) else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next(), right.nth(1).unwrap_or_default());
            match kind {
                Some("cgroup2") if found.v2.is_none() => found.v2 = Some(mount_point.into()),
                Some("cgroup") => {
                    let controllers = options.split(',').map(str::to_owned).collect();
                    found.v1.push((mount_point.into(), controllers));
                }
                _ => {}
            }
        }
        found
    }

    /// Creates a cgroup and its parents everywhere.
    pub(crate) fn create(&self, cgroup: &str) -> Result<(), Error> {
        for (mount, controllers) in &self.v1 {
            let path = below(mount, cgroup);
            fs::create_dir_all(&path).map_err(|e| Error::io("create cgroup", &path, e))?;
            if controllers.iter().any(|controller| controller == "cpuset") {
                inherit_cpuset(mount, cgroup)?;
            }
        }
        if let Some(mount) = &self.v2 {
            let path = below(mount, cgroup);
            fs::create_dir_all(&path).map_err(|e| Error::io("create cgroup", &path, e))?;
            delegate_controllers(mount, &path);
        }
        Ok(())
    }

    /// Writes a pod's limits where the controllers are.
    pub(crate) fn limit(&self, cgroup: &str, limits: &PodLimits) -> Result<(), Error> {
        for (mount, controllers) in &self.v1 {
            let path = below(mount, cgroup);
            if controllers.iter().any(|controller| controller == "cpu") {
                write(&path.join("cpu.shares"), &limits.cpu_shares.to_string())?;
                write(&path.join("cpu.cfs_period_us"), &CPU_PERIOD_US.to_string())?;
                write(
                    &path.join("cpu.cfs_quota_us"),
                    &limits.cpu_quota_us.unwrap_or(-1).to_string(),
                )?;
            }
            if controllers.iter().any(|controller| controller == "memory") {
                let bytes = limits.memory_bytes.unwrap_or(-1).to_string();
                write(&path.join("memory.limit_in_bytes"), &bytes)?;
            }
        }
        let Some(mount) = &self.v2 else { return Ok(()) };
        let path = below(mount, cgroup);
        let weight = weight_of_shares(limits.cpu_shares).to_string();
        let quota = limits.cpu_quota_us.map_or("max".to_owned(), |quota| quota.to_string());
        let memory = limits.memory_bytes.map_or("max".to_owned(), |bytes| bytes.to_string());
        for (file, text) in [
            ("cpu.weight", weight),
            ("cpu.max", format!("{quota} {CPU_PERIOD_US}")),
            ("memory.max", memory),
        ] {
            // Beside version 1, the version 2 tree has the directories but not the controllers.
            let file = path.join(file);
            if file.exists() {
                write(&file, &text)?;
            }
        }
        Ok(())
    }

    /// Removes a cgroup with all below it; processes have to be gone.
    pub(crate) fn remove(&self, cgroup: &str) -> Result<(), Error> {
        for mount in self.v1.iter().map(|(mount, _)| mount).chain(&self.v2) {
            let path = below(mount, cgroup);
            remove_tree(&path).map_err(|e| Error::io("remove cgroup", &path, e))?;
        }
        Ok(())
    }

    /// The names of the pods that have a cgroup below this one.
    pub(crate) fn pod_uids(&self, root: &str) -> Vec<String> {
        let Some(mount) = self.v2.as_ref().or(self.v1.first().map(|(mount, _)| mount)) else {
            return Vec::new();
        };
        let entries = fs::read_dir(below(mount, root)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| name.strip_prefix("pod").map(str::to_owned)).collect()
    }
}

fn below(mount: &Path, cgroup: &str) -> PathBuf {
    mount.join(cgroup.trim_start_matches('/'))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|e| Error::io("write", path, e))
}

/// A new version 1 cpuset allows nothing, and no process can enter it, until it is filled in.
fn inherit_cpuset(mount: &Path, cgroup: &str) -> Result<(), Error> {
    let mut path = mount.to_path_buf();
    for part in cgroup.split('/').filter(|part| !part.is_empty()) {
        let parent = path.clone();
        path.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = path.join(file);
            let now = fs::read_to_string(&own).map_err(|e| Error::io("read", &own, e))?;
            if now.trim().is_empty() {
                let from = parent.join(file);
                let text = fs::read_to_string(&from).map_err(|e| Error::io("read", &from, e))?;
                write(&own, text.trim())?;
            }
        }
    }
    Ok(())
}

/// Passes on, from the root of version 2 down to `path`, the controllers pods are limited with.
/// One that the machine does not have here is not passed on; limits it would carry are then absent.
fn delegate_controllers(mount: &Path, path: &Path) {
    let mut ancestors: Vec<&Path> =
        path.ancestors().skip(1).take_while(|ancestor| ancestor.starts_with(mount)).collect();
    ancestors.reverse();
    for ancestor in ancestors.into_iter().chain([path]) {
        let available = fs::read_to_string(ancestor.join("cgroup.controllers")).unwrap_or_default();
        for controller in available.split_whitespace() {
            if ["cpu", "cpuset", "memory", "pids", "io"].contains(&controller) {
                let file = ancestor.join("cgroup.subtree_control");
                if let Err(error) = fs::write(&file, format!("+{controller}")) {
                    tracing::debug!(file = %file.display(), controller, %error, "not delegated");
                }
            }
        }
    }
}

/// The kernel's own mapping of version 1 shares (2…262144) to version 2 weights (1…10000).
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_hybrid_and_unified_hierarchies() {
        let hybrid = "30 25 0:26 / /sys/fs/cgroup/cpu rw shared:1 - cgroup cgroup rw,cpu\n\
                      31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      32 25 0:28 / /tmp rw - tmpfs tmpfs rw";
        let found = Hierarchies::parse(hybrid);
        assert_eq!(found.v2, Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(found.v1.len(), 1);
        assert_eq!(found.v1[0].1, ["rw", "cpu"]);
        let unified = "31 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(Hierarchies::parse(unified).v1, []);
    }

    #[test]
    fn shares_map_to_weights() {
        assert_eq!([2, 1024, 262_144].map(weight_of_shares), [1, 39, 10_000]);
    }
}
