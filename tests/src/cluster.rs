//! A cluster on this machine: control plane, nodes and ingress, each program in its own namespace,
//! all below one work folder. Dropping it takes everything down.

mod client;
mod control_plane;
mod node;

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::binaries::Binaries;
use crate::down::down;
use crate::fabric::Fabric;
use crate::kubectl::Kubectl;
use crate::machine;
use crate::process::{Launch, Process, log_tail};
use crate::wait::wait_until;
use crate::workdir::Workdir;

pub use client::OutsideClient;
pub use control_plane::ControlPlane;
pub use node::{Node, mount_bpf};

const NODE_READY_LIMIT: Duration = Duration::from_secs(60);
const TEARDOWN_LIMIT: Duration = Duration::from_secs(30);

/// Whether a condition of an object is true.
pub fn is_condition_true(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|c| c["type"] == kind).any(|c| c["status"] == "True")
}

/// The IngressClass of the ingress, named as ingress-nginx is usually installed.
pub const INGRESS_CLASS: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: podium.dev/ingress}
";

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
        let containerds = self.nodes.iter().map(|node| log_tail(&node.containerd_log()));
        all.map(Process::log_tail).chain(containerds).collect::<Vec<_>>().join("\n")
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

    /// Adds a client outside of the nodes; there is place for one.
    ///
    /// # Errors
    /// When something cannot be made, or there is one already.
    pub fn add_client(&self) -> anyhow::Result<OutsideClient> {
        OutsideClient::join(&self.workdir, &self.fabric)
    }

    /// Starts the ingress on the first node, again where it was started before, for Ingresses of the class `class`.
    ///
    /// # Errors
    /// When there is no node or it cannot be started.
    pub fn start_ingress(&mut self, class: &str) -> anyhow::Result<()> {
        // One that was started before frees its addresses first.
        self.ingress = None;
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
