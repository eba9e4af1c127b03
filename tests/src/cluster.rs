//! A cluster on this machine: control plane, nodes and ingress, each program in its own namespace,
//! all below one work folder. Dropping it takes everything down.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::binaries::Binaries;
use crate::cgroup::Cgroup;
use crate::down::down;
use crate::fabric::{CONTROL_ADDRESS, Fabric, node_address};
use crate::kubectl::Kubectl;
use crate::machine;
use crate::netns::Netns;
use crate::process::{Launch, Process};
use crate::wait::wait_until;
use crate::workdir::{Made, Workdir};

/// A loaded machine of two cores is given time.
const START_LIMIT: Duration = Duration::from_secs(60);
const NODE_READY_LIMIT: Duration = Duration::from_secs(60);
const TEARDOWN_LIMIT: Duration = Duration::from_secs(30);
const API_PORT: u16 = 6443;

/// Addresses for Services of type LoadBalancer (TEST-NET-1 of RFC 5737).
pub const LOAD_BALANCER_CIDR: &str = "192.0.2.0/24";

/// Whether a condition of an object is true.
pub fn is_condition_true(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|c| c["type"] == kind).any(|c| c["status"] == "True")
}

/// A control plane with nodes.
#[derive(Debug)]
pub struct Cluster {
    /// `podium server`.
    pub control: ControlPlane,
    /// Nodes, in the order they were added.
    pub nodes: Vec<Node>,
    /// `podium-ingress`, once started.
    pub ingress: Option<Process>,
    fabric: Fabric,
    binaries: Binaries,
    workdir: Workdir,
}

impl Cluster {
    /// A cluster for the test of this name, with programs from the environment.
    ///
    /// # Errors
    /// When the machine lacks something, and as [`Cluster::start`].
    pub fn for_test(name: &str) -> anyhow::Result<Self> {
        machine::check().map_err(anyhow::Error::msg)?;
        let binaries = Binaries::from_env()?;
        let dir = binaries.tests_dir().join(name);
        let workdir = Workdir::create(&dir, &format!("podium-test-{name}"))?;
        Self::start(workdir, binaries)
    }

    /// Waits until every node added so far is ready, and routes their pods' networks.
    ///
    /// # Errors
    /// When one is not ready in time, with the programs' last words.
    pub fn wait_nodes_ready(&mut self, kubectl: &Kubectl) -> anyhow::Result<()> {
        let wanted = self.nodes.len();
        let ready = wait_until("nodes ready", NODE_READY_LIMIT, || {
            self.check_alive().map_err(|error| format!("{error:#}"))?;
            let nodes = kubectl.json(&["get", "nodes"]).map_err(|error| format!("{error:#}"))?;
            let items = nodes["items"].as_array().into_iter().flatten();
            let ready = items.filter(|node| is_condition_true(node, "Ready")).count();
            if ready == wanted { Ok(()) } else { Err(format!("{ready} of {wanted} ready")) }
        });
        ready.with_context(|| self.last_words())?;
        self.route_pod_networks(kubectl)
    }

    /// The end of every program's log.
    pub fn last_words(&self) -> String {
        let nodes = self.nodes.iter().flat_map(|node| [&node.agent, &node.proxy]);
        let all = nodes.chain([&self.control.process]).chain(&self.ingress);
        all.map(Process::log_tail).collect::<Vec<_>>().join("\n")
    }

    /// Starts a control plane without nodes.
    ///
    /// # Errors
    /// When something cannot be made or the server does not become ready.
    pub fn start(workdir: Workdir, binaries: Binaries) -> anyhow::Result<Self> {
        let started = Fabric::create(&workdir).and_then(|fabric| {
            let control = ControlPlane::start(&workdir, &binaries, &fabric)?;
            Ok((fabric, control))
        });
        match started {
            Ok((fabric, control)) => {
                Ok(Self { control, nodes: Vec::new(), ingress: None, fabric, binaries, workdir })
            }
            Err(error) => {
                // The error at hand says more than one from cleaning up, which prints its own.
                let _printed = down(workdir.path());
                Err(error)
            }
        }
    }

    /// The work folder.
    pub fn workdir(&self) -> &Workdir {
        &self.workdir
    }

    /// The programs it runs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// kubectl of one release, as the cluster's administrator.
    pub fn kubectl(&self, version: &str) -> Kubectl {
        self.control.kubectl(&self.binaries.kubectl(version), self.workdir.path())
    }

    /// Starts the agent and the proxy of a node; does not wait until it is ready.
    ///
    /// # Errors
    /// When something cannot be made or started.
    pub fn add_node(&mut self) -> anyhow::Result<&mut Node> {
        let number = u8::try_from(self.nodes.len() + 1).context("too many nodes")?;
        let node = Node::start(&self.workdir, &self.binaries, &self.fabric, &self.control, number)?;
        self.nodes.push(node);
        self.nodes.last_mut().context("node just added")
    }

    /// Starts the ingress on the first node, for Ingresses of the class `class`.
    ///
    /// # Errors
    /// When there is no node or it cannot be started.
    pub fn start_ingress(&mut self, class: &str) -> anyhow::Result<()> {
        let node = self.nodes.first().context("the ingress needs a node")?;
        let kubeconfig = self.control.kubeconfig_for(
            &self.workdir,
            &self.binaries,
            "system:podium-ingress",
            "system:masters",
        )?;
        let address = node.address;
        let ingress = Launch::new("ingress", &self.binaries.find("podium-ingress")?)
            .args(["run", "--ingress-class", class, "--kubeconfig"])
            .args([&kubeconfig])
            .args(["--http-bind-address", &format!("{address}:80")])
            .args(["--https-bind-address", &format!("{address}:443")])
            .args(["--status-bind-address", &format!("{address}:10254")])
            .args(["--publish-status-address", &address.to_string()])
            .inside(Some(node.netns.name()), Some(&node.host_cgroup))?
            .spawn(&self.workdir)?;
        self.ingress = Some(ingress);
        Ok(())
    }

    /// Fails if any program has ended, with the end of its log.
    ///
    /// # Errors
    /// When one is not running.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        self.control.process.check_alive()?;
        for node in &mut self.nodes {
            node.agent.check_alive()?;
            node.proxy.check_alive()?;
        }
        self.ingress.as_mut().map_or(Ok(()), Process::check_alive)
    }

    /// Lets pods and the control plane reach each other: a route for each node's pods.
    ///
    /// # Errors
    /// When the nodes cannot be read or `ip` fails.
    pub fn route_pod_networks(&self, kubectl: &Kubectl) -> anyhow::Result<()> {
        let nodes = kubectl.json(&["get", "nodes"])?;
        for node in &self.nodes {
            let items = nodes["items"].as_array().into_iter().flatten();
            let mut own = items.filter(|item| item["metadata"]["name"] == node.name.as_str());
            let cidr = own.next().and_then(|item| item["spec"]["podCIDR"].as_str());
            let Some(cidr) = cidr else { bail!("Node {} has no spec.podCIDR", node.name) };
            let via = node.address.to_string();
            self.control.netns.ip(&["route", "replace", cidr, "via", &via])?;
        }
        Ok(())
    }

    /// Ends every program in order and removes everything.
    ///
    /// # Errors
    /// When something cannot be removed; `cargo xtask down` tries again.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.end_programs();
        down(self.workdir.path())
    }

    fn end_programs(&mut self) {
        if let Some(ingress) = &mut self.ingress {
            ingress.stop();
        }
        for node in &mut self.nodes {
            node.proxy.stop();
            node.agent.stop();
        }
        // Nodes undo themselves, all at once; what they leave is found by the record.
        let undoing: Vec<_> = std::mem::take(&mut self.nodes)
            .into_iter()
            .map(|node| {
                let undoing = node.launch_on(&self.workdir, &self.binaries).teardown();
                (node, undoing)
            })
            .collect();
        for (node, undoing) in undoing {
            if let Err(error) = undoing.and_then(|mut program| program.wait(TEARDOWN_LIMIT)) {
                eprintln!("tearing {} down: {error:#}", node.name);
            }
        }
        self.control.process.stop();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end_programs();
        if self.workdir.path().exists()
            && let Err(error) = down(self.workdir.path())
        {
            eprintln!("cleaning up: {error:#}");
        }
    }
}

/// `podium server` in a namespace.
#[derive(Debug)]
pub struct ControlPlane {
    /// The server.
    pub process: Process,
    /// Its namespace.
    pub netns: Netns,
    data_dir: PathBuf,
}

impl ControlPlane {
    fn start(workdir: &Workdir, binaries: &Binaries, fabric: &Fabric) -> anyhow::Result<Self> {
        let netns = fabric.join(workdir, "control", CONTROL_ADDRESS)?;
        let data_dir = workdir.path().join("control");
        let process = Self::launch(workdir, binaries, &netns, &data_dir)?;
        let mut control = Self { process, netns, data_dir };
        control.wait_ready()?;
        Ok(control)
    }

    fn launch(
        workdir: &Workdir,
        binaries: &Binaries,
        netns: &Netns,
        data_dir: &Path,
    ) -> anyhow::Result<Process> {
        let address = CONTROL_ADDRESS.to_string();
        Launch::new("server", &binaries.find("podium")?)
            .args(["server", "--bind-address", &address, "--advertise-address", &address])
            .args(["--service-cidr", "10.96.0.0/16", "--cluster-cidr", "10.244.0.0/16"])
            // The demo forwards a port of the host's loopback to it.
            .args(["--tls-san", "127.0.0.1"])
            .args(["--load-balancer-cidr", LOAD_BALANCER_CIDR, "--data-dir"])
            .args([data_dir])
            .inside(Some(netns.name()), None)?
            .spawn(workdir)
    }

    /// Starts it again, on the same data, after it was killed or stopped.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn restart(&mut self, workdir: &Workdir, binaries: &Binaries) -> anyhow::Result<()> {
        self.process.stop();
        self.process = Self::launch(workdir, binaries, &self.netns, &self.data_dir)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let url = format!("https://{CONTROL_ADDRESS}:{API_PORT}/readyz");
        let kubeconfig = self.admin_kubeconfig();
        let netns = self.netns.name().to_owned();
        let process = &mut self.process;
        wait_until("API server ready", START_LIMIT, || {
            // A server that has ended will not become ready: reported below.
            if process.ended().is_some() {
                return Ok(());
            }
            let curl = Launch::new("curl", Path::new("curl"))
                .args(["--silent", "--show-error", "--insecure", "--fail", "--max-time", "2", &url])
                .inside(Some(&netns), None);
            let answer = curl.and_then(Launch::output).map_err(|error| format!("{error:#}"))?;
            if !kubeconfig.is_file() {
                return Err(format!("{answer}, but no {}", kubeconfig.display()));
            }
            Ok(())
        })
        .with_context(|| process.log_tail())?;
        process.check_alive()
    }

    /// The administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }

    /// `binary` as the cluster's administrator, its caches in `home`.
    pub fn kubectl(&self, binary: &Path, home: &Path) -> Kubectl {
        Kubectl::new(binary, &self.admin_kubeconfig(), home, self.netns.name())
    }

    /// Writes the kubeconfig of another user and gives its path.
    ///
    /// # Errors
    /// When `podium kubeconfig` fails, with its words.
    pub fn kubeconfig_for(
        &self,
        workdir: &Workdir,
        binaries: &Binaries,
        user: &str,
        group: &str,
    ) -> anyhow::Result<PathBuf> {
        let path = workdir.path().join(format!("{}.kubeconfig", user.replace(':', "-")));
        let server = format!("https://{CONTROL_ADDRESS}:{API_PORT}");
        Launch::new("podium kubeconfig", &binaries.find("podium")?)
            .args(["kubeconfig", "--user", user, "--group", group, "--server", &server])
            .args([Path::new("--data-dir"), &self.data_dir, Path::new("-o"), &path])
            .output()?;
        Ok(path)
    }
}

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
    fn start(
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

    fn launch_on<'a>(&'a self, workdir: &'a Workdir, binaries: &'a Binaries) -> NodeLaunch<'a> {
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
struct NodeLaunch<'a> {
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
    fn teardown(&self) -> anyhow::Result<Process> {
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
