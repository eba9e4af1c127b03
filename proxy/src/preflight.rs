//! What the machine must have, checked before anything is touched: each lack is one sentence.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, statfs},
    unistd::geteuid,
};

/// `bpf_set_retval`, which a refusal needs to be a refusal.
const KERNEL_MIN: (u32, u32) = (5, 18);

/// Where bpffs is mounted by convention.
const BPFFS: &str = "/sys/fs/bpf";

/// Something the machine lacks.
#[derive(Debug, thiserror::Error)]
pub enum Lack {
    /// Not root.
    #[error("podium-proxy must run as root: it loads programs into the kernel")]
    Root,
    /// Kernel too old.
    #[error(
        "kernel {found} is too old: podium-proxy needs {}.{} or newer (bpf_set_retval)",
        KERNEL_MIN.0, KERNEL_MIN.1
    )]
    Kernel {
        /// Its release.
        found: String,
    },
    /// No BTF.
    #[error(
        "/sys/kernel/btf/vmlinux is missing: podium-proxy needs a kernel built with \
         CONFIG_DEBUG_INFO_BTF"
    )]
    Btf,
    /// No or no clear cgroup v2 mount.
    #[error(
        "{found} in /proc/self/mountinfo: say which cgroup holds all pods with --cgroup DIR \
         (mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`)"
    )]
    Cgroup {
        /// What was found instead.
        found: &'static str,
    },
    /// A folder that is no cgroup.
    #[error("--cgroup {path}: is no folder of a cgroup v2 mount")]
    NotACgroup {
        /// The folder.
        path: PathBuf,
    },
    /// Pins need a bpffs.
    #[error("--pin-dir {path}: is not on a bpffs; mount one with `mount -t bpf bpf DIR`")]
    NotOnBpffs {
        /// The folder.
        path: PathBuf,
    },
    /// A system call that should work did not.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why.
        source: io::Error,
    },
}

/// Checks the kernel. The memory lock limit needs no lifting: since 5.11 BPF memory is charged to
/// cgroups.
///
/// # Errors
/// With what is missing.
pub fn check_kernel() -> Result<(), Lack> {
    if !geteuid().is_root() {
        return Err(Lack::Root);
    }
    let found = fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_err(|source| Lack::Io { action: "read the kernel's release".to_owned(), source })?
        .trim()
        .to_owned();
    if version(&found).is_none_or(|version| version < KERNEL_MIN) {
        return Err(Lack::Kernel { found });
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(Lack::Btf);
    }
    Ok(())
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The cgroup to attach to: the one given, else the root of the only cgroup v2 mount.
///
/// # Errors
/// If there is none or it is not clear which.
pub fn cgroup(given: Option<&Path>) -> Result<PathBuf, Lack> {
    if let Some(path) = given {
        return match statfs(path) {
            Ok(stat) if stat.filesystem_type() == CGROUP2_SUPER_MAGIC => Ok(path.to_owned()),
            _ => Err(Lack::NotACgroup { path: path.to_owned() }),
        };
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|source| Lack::Io { action: "read the mount table".to_owned(), source })?;
    cgroup_root(&mounts)
}

/// The mount point of cgroup v2 in a mount table. A mount of only a part of the tree, as in a
/// container, does not hold all pods.
fn cgroup_root(mountinfo: &str) -> Result<PathBuf, Lack> {
    let mut roots = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, file_system)) = line.split_once(" - ") else {
            continue;
        };
        let mut fields = mount.split(' ').skip(3);
        let (Some(root), Some(at)) = (fields.next(), fields.next()) else {
            continue;
        };
        if file_system.starts_with("cgroup2 ") {
            roots.push((root, at));
        }
    }
    match roots.as_slice() {
        [] => Err(Lack::Cgroup { found: "there is no cgroup v2 mount" }),
        [("/", at)] => Ok(PathBuf::from(at)),
        [_] => Err(Lack::Cgroup { found: "only a part of the cgroup v2 tree is mounted" }),
        [("/", at), rest @ ..] if rest.iter().all(|(root, _)| *root == "/") => {
            Ok(PathBuf::from(at))
        }
        _ => Err(Lack::Cgroup { found: "there are several cgroup v2 mounts" }),
    }
}

/// What this network namespace lacks to pass packets on to pods: sysctls that are 0. One that cannot
/// be read belongs to a family the kernel does without.
pub fn forwarding_off() -> Vec<&'static str> {
    let sysctls = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
    let is_off = |sysctl: &str| {
        let path = Path::new("/proc/sys").join(sysctl.replace('.', "/"));
        fs::read_to_string(path).is_ok_and(|value| value.trim() == "0")
    };
    sysctls.into_iter().filter(|sysctl| is_off(sysctl)).collect()
}

/// Makes sure that the pin folder is on a bpffs; mounts one at its usual place if it is missing.
///
/// # Errors
/// If the folder is elsewhere.
pub fn pin_dir(path: &Path) -> Result<(), Lack> {
    if on_bpffs(path) {
        return Ok(());
    }
    if path.starts_with(BPFFS) {
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700")).map_err(
            |error| Lack::Io { action: format!("mount bpffs at {BPFFS}"), source: error.into() },
        )?;
        return Ok(());
    }
    Err(Lack::NotOnBpffs { path: path.to_owned() })
}

fn on_bpffs(path: &Path) -> bool {
    (path.ancestors())
        .find_map(|ancestor| statfs(ancestor).ok())
        .is_some_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.4.0"), Some((5, 4)));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn cgroup_mounts() {
        let unified = "30 23 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let v1 = "29 23 0:25 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n";
        let part = "31 23 0:26 /docker/a /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let root = cgroup_root(&format!("{v1}{unified}")).unwrap();
        assert_eq!(root, Path::new("/sys/fs/cgroup/unified"));
        assert!(cgroup_root(v1).unwrap_err().to_string().starts_with("there is no cgroup v2"));
        assert!(cgroup_root(part).unwrap_err().to_string().contains("--cgroup DIR"));
    }
}
