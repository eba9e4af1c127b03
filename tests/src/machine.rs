//! What this machine offers: root, kernel, BTF, cgroup hierarchies, mounts. Only looks; installing
//! is left to `cargo xtask setup`.

use std::fs;
use std::path::{Path, PathBuf};

/// `bpf_set_retval` for cgroup hooks, which gives callers ECONNREFUSED, came with this release.
const KERNEL_MIN: (u32, u32) = (5, 18);

/// Checks everything the programs need from the machine that no package can bring.
///
/// # Errors
/// One sentence that says what is missing and how to get it.
pub fn check() -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        return Err("Podium needs Linux: its load balancer runs in the Linux kernel".to_owned());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err("root is needed (network namespaces, BPF, containers): run it with sudo -E \
                    or in a root shell"
            .to_owned());
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if kernel_version(&release) < Some(KERNEL_MIN) {
        return Err(format!(
            "the kernel is {} and {}.{} or newer is needed: upgrade it, for example from your \
             distribution's backports",
            release.trim(),
            KERNEL_MIN.0,
            KERNEL_MIN.1
        ));
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err("/sys/kernel/btf/vmlinux is missing: use a kernel built with \
                    CONFIG_DEBUG_INFO_BTF=y (every current distribution kernel is)"
            .to_owned());
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.split_whitespace().last() == Some("bpf")) {
        return Err(
            "the kernel has no bpf filesystem: use a kernel built with CONFIG_BPF_SYSCALL=y"
                .to_owned(),
        );
    }
    if cgroup_hierarchies().v2.is_none() {
        return Err(
            "no cgroup v2 tree is mounted: mount -t cgroup2 none /sys/fs/cgroup (beside v1 \
                    hierarchies, on a new folder /sys/fs/cgroup/unified), or boot with \
                    systemd.unified_cgroup_hierarchy=1"
                .to_owned(),
        );
    }
    Ok(())
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.trim().split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Where the cgroup trees are mounted.
#[derive(Debug, PartialEq, Eq)]
pub struct CgroupHierarchies {
    /// The version 2 tree.
    pub v2: Option<PathBuf>,
    /// The version 1 trees beside it, none on a unified machine.
    pub v1: Vec<PathBuf>,
}

/// Reads the mount table.
pub fn cgroup_hierarchies() -> CgroupHierarchies {
    hierarchies_in(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

fn hierarchies_in(mountinfo: &str) -> CgroupHierarchies {
    let of_type = |wanted: &str| -> Vec<PathBuf> {
        let mounts = mountinfo.lines().filter_map(parse_mount);
        mounts.filter(|(_, kind)| kind == wanted).map(|(path, _)| path).collect()
    };
    CgroupHierarchies { v2: of_type("cgroup2").into_iter().next(), v1: of_type("cgroup") }
}

/// Mount points at or below a folder, the innermost last.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines()
        .filter_map(parse_mount)
        .map(|(path, _)| path)
        .filter(|path| path.starts_with(dir))
        .collect()
}

/// Mount point and filesystem type of a line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn parse_mount(line: &str) -> Option<(PathBuf, String)> {
    let (before, after) = line.split_once(" - ")?;
    let point = before.split(' ').nth(4)?;
    Some((PathBuf::from(unescape(point)), after.split(' ').next()?.to_owned()))
}

/// Blanks and the like stand in the table as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = text.to_owned();
    for (escaped, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(escaped, plain);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_compare_as_numbers() {
        for (release, version) in [
            ("6.18.5", Some((6, 18))),
            ("5.10.0-28-amd64\n", Some((5, 10))),
            ("5.18-rc1", Some((5, 18))),
            ("", None),
        ] {
            assert_eq!(kernel_version(release), version, "{release}");
        }
        assert!(kernel_version("5.9") < Some(KERNEL_MIN));
    }

    #[test]
    fn finds_cgroup_trees() {
        let hybrid = "30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      31 25 0:27 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n\
                      32 25 0:28 / /a\\040b rw - tmpfs tmpfs rw";
        let found = hierarchies_in(hybrid);
        assert_eq!(found.v2, Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(found.v1, [PathBuf::from("/sys/fs/cgroup/cpu")]);
        assert_eq!(
            hybrid.lines().filter_map(parse_mount).next_back(),
            Some((PathBuf::from("/a b"), "tmpfs".to_owned()))
        );
    }
}
