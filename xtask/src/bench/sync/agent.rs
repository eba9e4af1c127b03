//! `podium-proxy` beside `podium server`, and what can be read of it: its metrics, its memory, the
//! memory of its maps.

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use podium_tests::binaries::Binaries;
use podium_tests::cgroup::Cgroup;
use podium_tests::cluster::Cluster;
use podium_tests::process::{Launch, Process};
use podium_tests::wait::wait_until;

use crate::bench::sync::http::Connection;

const METRICS_PORT: u16 = 10249;
const START_LIMIT: Duration = Duration::from_secs(60);
/// `BPF_OBJ_GET` of `linux/bpf.h`.
const BPF_OBJ_GET: libc::c_long = 7;
/// The maps that grow with services and their endpoints.
const GROWING: [&str; 2] = ["SERVICES", "NAMES"];

/// The agent; it and what it pinned go when this is dropped.
pub struct Agent<'a> {
    pub process: Process,
    binaries: &'a Binaries,
    cluster: &'a Cluster,
    pins: PathBuf,
}

/// Bytes of kernel memory.
#[derive(Clone, Copy, Debug)]
pub struct Maps {
    /// The array of endpoints, all of it.
    pub endpoints: f64,
    /// Entries and names of services.
    pub growing: f64,
    /// All maps.
    pub all: f64,
}

impl<'a> Agent<'a> {
    /// Starts it with its defaults and these flags. Nothing is pinned before.
    pub fn start(cluster: &'a Cluster, cgroup: &Cgroup, flags: &[String]) -> anyhow::Result<Self> {
        let (workdir, binaries) = (cluster.workdir(), cluster.binaries());
        let kubeconfig = workdir.path().join("system-podium-proxy.kubeconfig");
        if !kubeconfig.exists() {
            let group = "system:masters";
            cluster.control.kubeconfig_for(workdir, binaries, "system:podium-proxy", group)?;
        }
        let pins = Path::new("/sys/fs/bpf").join(workdir.prefix());
        let process = Launch::new("agent", &binaries.find("podium-proxy")?)
            .args(["run", "--node-name", "bench", "--service-cidrs", "10.96.0.0/16"])
            .arg_pair("--kubeconfig", &kubeconfig)
            .arg_pair("--cgroup", cgroup.dir())
            .arg_pair("--pin-dir", &pins)
            .args(["--healthz-bind-address", "127.0.0.1:10256"])
            .arg_pair("--metrics-bind-address", format!("127.0.0.1:{METRICS_PORT}"))
            .args(flags)
            .inside(Some(cluster.control.netns.name()), None)?
            .spawn(workdir)?;
        Ok(Agent { process, binaries, cluster, pins })
    }

    /// All metrics, as text.
    pub fn metrics(&self) -> anyhow::Result<Metrics> {
        let mut connection = Connection::open(&self.cluster.control.netns, METRICS_PORT)?;
        connection.request("GET", "/metrics", "").map(Metrics)
    }

    /// Waits until the first pass is done, and gives the metrics then.
    pub fn wait_in_step(&self) -> anyhow::Result<Metrics> {
        wait_until("the agent is in step", START_LIMIT, || {
            let metrics = self.metrics().map_err(|error| format!("{error:#}"))?;
            match metrics.value("kubeproxy_sync_proxy_rules_duration_seconds_count") {
                Ok(count) if count > 0.0 => Ok(metrics),
                Ok(_) => Err("it has made no pass".to_owned()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
    }

    /// Memory of the process in MiB: now, and at most so far.
    pub fn memory_mib(&self) -> anyhow::Result<[f64; 2]> {
        let path = format!("/proc/{}/status", self.process.pid());
        let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let field = |name: &str| -> anyhow::Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|text| text.trim().strip_suffix(" kB"));
            let kib: f64 = kib.with_context(|| format!("no {name} in {path}"))?.parse()?;
            Ok(kib / 1024.0)
        };
        Ok([field("VmRSS:")?, field("VmHWM:")?])
    }

    /// Kernel memory of its maps.
    pub fn maps(&self) -> anyhow::Result<Maps> {
        let mut maps = Maps { endpoints: 0.0, growing: 0.0, all: 0.0 };
        for path in files(&self.pins)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            // Links and programs are pinned there too.
            let Some(bytes) = memlock(&path)? else { continue };
            maps.all += bytes;
            if name == "ENDPOINTS" {
                maps.endpoints = bytes;
            } else if GROWING.contains(&name) {
                maps.growing += bytes;
            }
        }
        ensure!(maps.endpoints > 0.0, "no map of endpoints below {}", self.pins.display());
        Ok(maps)
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        self.process.stop();
        let cleanup = || {
            Launch::new("podium-proxy cleanup", &self.binaries.find("podium-proxy")?)
                .args(["cleanup", "--pin-dir"])
                .args([&self.pins])
                .inside(Some(self.cluster.control.netns.name()), None)?
                .output()
        };
        if let Err(error) = cleanup() {
            eprintln!("cleaning up: {error:#}");
        }
    }
}

/// The agent's metrics in the text format.
pub struct Metrics(String);

impl Metrics {
    /// One that has no labels.
    pub fn value(&self, name: &str) -> anyhow::Result<f64> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines
            .find(|(shown, _)| *shown == name)
            .with_context(|| format!("the agent has no metric {name}"))?;
        value.parse().with_context(|| format!("read metric {name}"))
    }
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(files(&path)?);
        } else {
            all.push(path);
        }
    }
    Ok(all)
}

/// Bytes that the kernel counts for a pinned map; `None` for what is no map.
fn memlock(path: &Path) -> anyhow::Result<Option<f64>> {
    /// The part of `union bpf_attr` for this command.
    #[repr(C)]
    struct Attr {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let text = std::ffi::CString::new(path.as_os_str().as_bytes()).context("a path")?;
    let attr = Attr { pathname: text.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let size = mem::size_of::<Attr>();
    // SAFETY: `attr` is the beginning of a `union bpf_attr` for this command, with a path that
    // outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attr, size) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0);
    let fd = fd.ok_or_else(io::Error::last_os_error);
    let fd = fd.with_context(|| format!("open {}", path.display()))?;
    // SAFETY: a descriptor of our own, just opened.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
    let info = info.context("read the information of a map")?;
    if !info.lines().any(|line| line.starts_with("map_type:")) {
        return Ok(None);
    }
    let bytes = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    let bytes = bytes.with_context(|| format!("no size of {}", path.display()))?;
    Ok(Some(bytes.trim().parse()?))
}
