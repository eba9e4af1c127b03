//! Pods as kubectl shows them, and their processes on this machine.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podium_tests::cluster::is_condition_true;
use podium_tests::machine;
use serde_json::Value;

use crate::demo::Demo;

/// A running pod.
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: String,
    node: String,
    uid: String,
}

/// The ready pods of a label selector that are not being deleted.
pub fn ready(demo: &Demo, selector: &str) -> anyhow::Result<Vec<Pod>> {
    let list = demo.kubectl.json(&["get", "pods", "-l", selector])?;
    let items = list["items"].as_array().into_iter().flatten();
    let items = items.filter(|pod| is_condition_true(pod, "Ready"));
    let items = items.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(items
        .map(|pod| Pod {
            name: text(&pod["metadata"]["name"]),
            ip: text(&pod["status"]["podIP"]),
            node: text(&pod["spec"]["nodeName"]),
            uid: text(&pod["metadata"]["uid"]),
        })
        .collect())
}

impl Pod {
    /// Kills the server in the pod at once, as the kernel's out-of-memory killer would.
    pub fn kill_server(&self, demo: &Demo) -> anyhow::Result<()> {
        let v2 = machine::cgroup_hierarchies().v2.context("no cgroup v2 tree")?;
        let prefix = demo.cluster.workdir().prefix();
        let cgroup = v2.join(format!("{prefix}/{}/pod{}", self.node, self.uid));
        let pids = servers_below(&cgroup);
        if pids.is_empty() {
            bail!("no server process in cgroup {}", cgroup.display());
        }
        for pid in pids {
            kill(Pid::from_raw(pid), Signal::SIGKILL)
                .with_context(|| format!("kill process {pid} of pod {}", self.name))?;
        }
        Ok(())
    }
}

fn servers_below(cgroup: &Path) -> Vec<i32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    pids.retain(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == b"serve")
    });
    let children = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let children = children.map(|entry| entry.path()).filter(|path| path.is_dir());
    pids.into_iter().chain(children.flat_map(|child| servers_below(&child))).collect()
}
