//! Removing everything a demo or a test made, from its record alone: it works the same after an
//! orderly end, a panic and a crash.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_uninterrupted;
use crate::workdir::{Made, recorded};
use crate::{cgroup, machine, netns, process};

const END_LIMIT: Duration = Duration::from_secs(10);
/// Where containerd's shims keep runc's state, whatever the configuration says.
const RUNC_STATE_DIR: &str = "/run/containerd/runc/k8s.io";

/// Removes what the record in `dir` lists, then the folder. What is gone already is fine.
///
/// # Errors
/// The first thing that could not be removed; everything else was tried all the same, and the
/// record is kept for another try.
pub fn down(dir: &Path) -> anyhow::Result<()> {
    let mut all = recorded(dir);
    all.reverse();
    let mut first_error = None;
    let mut note = |result: anyhow::Result<()>| {
        if let Err(error) = result {
            eprintln!("cleaning up: {error:#}");
            first_error.get_or_insert(error);
        }
    };
    // Programs first, so that none makes anew what is being removed; then what kept running for
    // them; then what held them.
    for made in &all {
        if let Made::Process(pid, start) = made {
            note(end_process(*pid, *start));
        }
    }
    for made in &all {
        if let Made::NodeData(data_dir) = made {
            note(end_containerd(data_dir));
        }
    }
    for made in &all {
        if let Made::Cgroup(path) = made {
            note(cgroup::remove(path));
        }
    }
    for made in &all {
        if let Made::NodeData(data_dir) = made {
            note(forget_containers(data_dir));
        }
    }
    note(unmount_below(dir));
    for made in &all {
        if let Made::Netns(name) = made {
            note(netns::delete(name));
        }
    }
    match first_error {
        Some(error) => Err(error),
        None if dir.exists() => {
            fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))
        }
        None => Ok(()),
    }
}

/// Kills a process, if the id still belongs to the one recorded.
fn end_process(pid: i32, start: u64) -> anyhow::Result<()> {
    let alive = || process::start_ticks(pid) == Some(start) && !is_zombie(pid);
    if !alive() {
        return Ok(());
    }
    // Gone since the look above is as good.
    let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
    wait_uninterrupted(&format!("process {pid} ends"), END_LIMIT, || {
        if alive() { Err("still alive".to_owned()) } else { Ok(()) }
    })
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
}

/// Ends the private containerd of a node and its shims: the processes whose command line names a
/// path below the node's data folder.
fn end_containerd(data_dir: &Path) -> anyhow::Result<()> {
    let prefix = format!("{}/", data_dir.display());
    wait_uninterrupted(&format!("processes of {} end", data_dir.display()), END_LIMIT, || {
        let pids = containerd_processes(&prefix);
        for pid in &pids {
            let _gone = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if pids.is_empty() { Ok(()) } else { Err(format!("alive: {pids:?}")) }
    })
}

fn containerd_processes(prefix: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = process::command_line(*pid);
        let program = line.first().map(PathBuf::from).unwrap_or_default();
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("containerd")
            && line.iter().any(|argument| argument.to_string_lossy().starts_with(prefix))
            && !is_zombie(*pid)
    })
    .collect()
}

/// Where containerd's CNI library keeps what the plugins answered, whatever the configuration says;
/// the file names hold the sandbox's id.
const CNI_RESULTS_DIR: &str = "/var/lib/cni/results";

/// Removes what the shims left outside of the data folder.
fn forget_containers(data_dir: &Path) -> anyhow::Result<()> {
    let tasks = data_dir.join("containerd/state/io.containerd.runtime.v2.task/k8s.io");
    for bundle in fs::read_dir(&tasks).into_iter().flatten().flatten() {
        let address = fs::read_to_string(bundle.path().join("address")).unwrap_or_default();
        if let Some(socket) = address.trim().strip_prefix("unix://") {
            remove_if_there(Path::new(socket))?;
        }
        let id = bundle.file_name().to_string_lossy().into_owned();
        let results = fs::read_dir(CNI_RESULTS_DIR).into_iter().flatten().flatten();
        for result in results {
            if result.file_name().to_string_lossy().contains(&id) {
                remove_if_there(&result.path())?;
            }
        }
        let state = Path::new(RUNC_STATE_DIR).join(bundle.file_name());
        if state.is_dir() {
            fs::remove_dir_all(&state).with_context(|| format!("remove {}", state.display()))?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Unmounts everything below a folder, the innermost first. A private bpf filesystem lets go of the
/// programs and maps pinned in it with its last mount.
fn unmount_below(dir: &Path) -> anyhow::Result<()> {
    for point in machine::mounts_below(dir).iter().rev() {
        umount2(point, MntFlags::MNT_DETACH)
            .with_context(|| format!("unmount {}", point.display()))?;
    }
    Ok(())
}
