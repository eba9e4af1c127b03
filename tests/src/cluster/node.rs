//! A node of a cluster: its namespace, its cgroup, and the programs that run in them.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::binaries::Binaries;
use crate::cgroup::Cgroup;
use crate::cluster::ControlPlane;
use crate::fabric::{Fabric, node_address};
use crate::netns::Netns;
use crate::process::{Launch, Process};
use crate::workdir::{Made, Workdir};

/// A node: a namespace with an agent, its private containerd, and a proxy.
#[derive(Debug)]
pub struct Node {
    /// Name of the Node object.
    pub name: String,
    /// Its address on the fabric.
    pub address: Ipv4Addr,
    /// Its namespace.
    pub netns: Netns,
    /// `podium agent`.
    pub agent: Process,
    /// `podium-proxy run`.
    pub proxy: Process,
    /// Cgroup for clients on the node itself, below the one the proxy is attached to.
    pub host_cgroup: Cgroup,
    cgroup: Cgroup,
    data_dir: PathBuf,
    pin_dir: PathBuf,
    agent_kubeconfig: PathBuf,
    proxy_kubeconfig: PathBuf,
}

impl Node {
    pub(super) fn start(
        workdir: &Workdir,
        binaries: &Binaries,
        fabric: &Fabric,
        control: &ControlPlane,
        number: u8,
    ) -> anyhow::Result<Self> {
        let name = format!("node-{number}");
        let address = node_address(number);
        let netns = fabric.join(workdir, &name, address)?;
        let cgroup = Cgroup::create(workdir, &name)?;
        let host_cgroup = Cgroup::create(workdir, &format!("{name}/host"))?;
        let data_dir = workdir.path().join(&name);
        let pin_dir = mount_bpf(&workdir.path().join(format!("{name}-bpf")))?;
        let kubeconfig = |user: &str, group| control.kubeconfig_for(workdir, binaries, user, group);
        let agent_kubeconfig = kubeconfig(&format!("system:node:{name}"), "system:nodes")?;
        let proxy_kubeconfig = kubeconfig("system:kube-proxy", "system:masters")?;
        workdir.record(&Made::NodeData(data_dir.clone()))?;
        let launch = NodeLaunch {
            workdir,
            binaries,
            name: &name,
            address,
            netns: netns.name(),
            cgroup: &cgroup,
            data_dir: &data_dir,
            pin_dir: &pin_dir,
        };
        let proxy = launch.proxy(&proxy_kubeconfig)?;
        let agent = launch.agent(&agent_kubeconfig)?;
        Ok(Self {
            name,
            address,
            netns,
            agent,
            proxy,
            host_cgroup,
            cgroup,
            data_dir,
            pin_dir,
            agent_kubeconfig,
            proxy_kubeconfig,
        })
    }

    pub(super) fn launch_on<'a>(
        &'a self,
        workdir: &'a Workdir,
        binaries: &'a Binaries,
    ) -> NodeLaunch<'a> {
        NodeLaunch {
            workdir,
            binaries,
            name: &self.name,
            address: self.address,
            netns: self.netns.name(),
            cgroup: &self.cgroup,
            data_dir: &self.data_dir,
            pin_dir: &self.pin_dir,
        }
    }

    /// Log of its private containerd.
    pub(super) fn containerd_log(&self) -> PathBuf {
        self.data_dir.join("containerd/containerd.log")
    }

    /// Process id of its private containerd.
    ///
    /// # Errors
    /// When the agent has not written it.
    pub fn containerd_pid(&self) -> anyhow::Result<i32> {
        let path = self.data_dir.join("containerd/containerd.pid");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        text.trim().parse().with_context(|| format!("read {}", path.display()))
    }

    /// Starts the agent again after it was killed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart_agent(&mut self, workdir: &Workdir, binaries: &Binaries) -> anyhow::Result<()> {
        self.agent.stop();
        self.agent = self.launch_on(workdir, binaries).agent(&self.agent_kubeconfig)?;
        Ok(())
    }

    /// Starts the proxy again after it was killed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart_proxy(&mut self, workdir: &Workdir, binaries: &Binaries) -> anyhow::Result<()> {
        self.proxy.stop();
        self.proxy = self.launch_on(workdir, binaries).proxy(&self.proxy_kubeconfig)?;
        Ok(())
    }

    /// A client program on the node itself, which the proxy's programs see.
    ///
    /// # Errors
    /// When namespace or cgroup cannot be opened.
    pub fn client(&self, program: &Path) -> anyhow::Result<Launch> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Launch::new(&name, program).inside(Some(self.netns.name()), Some(&self.host_cgroup))
    }
}

/// What the programs of a node are started with.
pub(super) struct NodeLaunch<'a> {
    workdir: &'a Workdir,
    binaries: &'a Binaries,
    name: &'a str,
    address: Ipv4Addr,
    netns: &'a str,
    cgroup: &'a Cgroup,
    data_dir: &'a Path,
    pin_dir: &'a Path,
}

impl NodeLaunch<'_> {
    pub(super) fn teardown(&self) -> anyhow::Result<Process> {
        Launch::new(&format!("{}-teardown", self.name), &self.binaries.find("podium")?)
            .args(["agent", "--teardown", "--node-name", self.name])
            .args(["--node-ip", &self.address.to_string()])
            .args(["--cgroup-root", self.cgroup.path()])
            .args([Path::new("--data-dir"), self.data_dir])
            .inside(Some(self.netns), None)?
            .spawn(self.workdir)
    }

    fn agent(&self, kubeconfig: &Path) -> anyhow::Result<Process> {
        Launch::new(&format!("{}-agent", self.name), &self.binaries.find("podium")?)
            .args(["agent", "--node-name", self.name, "--node-ip", &self.address.to_string()])
            .args(["--cgroup-root", self.cgroup.path()])
            .args([Path::new("--kubeconfig"), kubeconfig, Path::new("--data-dir"), self.data_dir])
            .args([Path::new("--image-archive-dir"), &self.binaries.images_dir()])
            .inside(Some(self.netns), None)?
            .spawn(self.workdir)
    }

    fn proxy(&self, kubeconfig: &Path) -> anyhow::Result<Process> {
        Launch::new(&format!("{}-proxy", self.name), &self.binaries.find("podium-proxy")?)
            .args(["run", "--node-name", self.name])
            .args([Path::new("--kubeconfig"), kubeconfig, Path::new("--cgroup"), self.cgroup.dir()])
            .args([Path::new("--pin-dir"), self.pin_dir])
            .inside(Some(self.netns), None)?
            .spawn(self.workdir)
    }
}

/// Mounts a bpf filesystem of our own at `dir`, so that what is pinned goes with the mount; gives a
/// folder name in it.
///
/// # Errors
/// When it cannot be mounted.
pub fn mount_bpf(dir: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    nix::mount::mount(
        Some("bpf"),
        dir,
        Some("bpf"),
        nix::mount::MsFlags::empty(),
        Some("mode=0700"),
    )
    .with_context(|| format!("mount a bpf filesystem at {}", dir.display()))?;
    Ok(dir.join("podium"))
}
