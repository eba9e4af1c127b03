//! Two nodes, pods on both, a client beyond them: network namespaces of its own, in which one contender
//! balances services. All sites are alike but for the contender.
//!
//! ```text
//! pod ─┐
//!      ├─ node ══ segment ══ other node ── endpoints of services that clients outside use
//! endpoints ┘        ║
//!                  client
//! ```

mod driver;
mod wiring;

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use podium_tests::binaries::Binaries;
use podium_tests::cgroup::Cgroup;
use podium_tests::cluster::mount_bpf;
use podium_tests::netns::Netns;
use podium_tests::process::{Launch, Process};
use podium_tests::wait::wait_until;
use podium_tests::workdir::Workdir;
use serde_json::Value;

use crate::bench::workload::{SERVICE_CIDR, Workload};
use wiring::Network;
pub use wiring::{CLIENT, NODE, OTHER_NODE, POD, endpoint, endpoint_elsewhere};

/// How many endpoints a service has.
pub const ENDPOINTS: u8 = 10;
/// The port they listen on.
pub const ENDPOINT_PORT: u16 = 8080;
/// Where more than one exchange in so many fails, nothing is measured.
const LOST_ONE_IN: u64 = 100;
const AGENT_LIMIT: Duration = Duration::from_secs(180);

/// Who balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Nobody: clients know the endpoints.
    Direct,
    /// `podium-proxy`, with these flags besides its defaults.
    Podium(&'static [&'static str]),
    /// iptables rules as kube-proxy lays them out.
    Iptables,
    /// nftables rules as kube-proxy lays them out.
    Nftables,
}

/// Where a client runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// In a pod of the node: its sockets are in the cgroup of pods.
    Pod,
    /// In the same network namespace, its sockets unknown to the node, as those of a VM are.
    VmLikePod,
    /// Beyond the nodes.
    Outside,
}

/// The namespaces, and what runs in them.
pub struct Site {
    // Programs end before their namespaces go.
    agents: Vec<Process>,
    _servers: Vec<Process>,
    network: Network,
    /// Of the pods of each node.
    cgroups: Vec<Cgroup>,
    contender: Contender,
}

impl Site {
    /// Makes the namespaces, starts the servers. Nothing is balanced yet.
    pub fn create(
        workdir: &Workdir,
        binaries: &Binaries,
        name: &str,
        contender: Contender,
    ) -> anyhow::Result<Site> {
        let network = Network::create(workdir, name)?;
        let mut servers = Vec::new();
        let mut cgroups = Vec::new();
        for (role, pods, address) in [
            ("node", &network.endpoints, endpoint as fn(u8) -> Ipv4Addr),
            ("other", &network.endpoints_elsewhere, endpoint_elsewhere),
        ] {
            cgroups.push(Cgroup::create(workdir, &format!("{name}-{role}"))?);
            let listen = targets((1..=ENDPOINTS).map(address), ENDPOINT_PORT);
            let server = Launch::new(&format!("{name}-{role}-server"), &binaries.find("loadgen")?)
                .args(["serve", "--listen", &listen, "--cpu", &server_cpu()])
                .inside(Some(pods.name()), None)?
                .spawn(workdir)?;
            servers.push(server);
        }
        Ok(Site { network, agents: Vec::new(), _servers: servers, cgroups, contender })
    }

    /// The node that clients ask.
    pub fn node(&self) -> &Netns {
        &self.network.node
    }

    /// Lets the contender balance the services of a workload, in place of what it balanced before. Those
    /// with agents come to it in their own time: [`Site::wait`].
    pub fn balance(
        &mut self,
        workdir: &Workdir,
        binaries: &Binaries,
        workload: &Workload,
    ) -> anyhow::Result<()> {
        match self.contender {
            Contender::Direct => Ok(()),
            Contender::Podium(flags) => self.start_agents(workdir, binaries, workload, flags),
            Contender::Iptables => {
                let rules = |workload: &Workload, _| workload.iptables();
                self.feed(&["iptables-restore", "--wait"], workload, rules)
            }
            Contender::Nftables => self.feed(&["nft", "-f", "-"], workload, Workload::nftables),
        }
    }

    fn start_agents(
        &mut self,
        workdir: &Workdir,
        binaries: &Binaries,
        workload: &Workload,
        flags: &[&str],
    ) -> anyhow::Result<()> {
        let manifests = workdir.path().join(format!("{}-manifests", self.network.node.name()));
        std::fs::create_dir_all(&manifests)
            .with_context(|| format!("create {}", manifests.display()))?;
        // In one step: agents that run follow the folder.
        let hidden = workdir.path().join("services.yaml.new");
        std::fs::write(&hidden, workload.manifests())
            .and_then(|()| std::fs::rename(&hidden, manifests.join("services.yaml")))
            .with_context(|| format!("write below {}", manifests.display()))?;
        if !self.agents.is_empty() {
            return Ok(());
        }
        for ((netns, address), cgroup) in self.network.nodes().into_iter().zip(&self.cgroups) {
            let name = netns.name();
            let bpf = workdir.path().join(format!("{name}-bpf"));
            let pins = if bpf.exists() { bpf.join("podium") } else { mount_bpf(&bpf)? };
            let agent = Launch::new(&format!("{name}-agent"), &binaries.find("podium-proxy")?)
                .args(["run", "--manifests"])
                .args([&manifests])
                .arg_pair("--cgroup", cgroup.dir())
                .arg_pair("--pin-dir", &pins)
                .args(["--node-name", name, "--node-ip", &address.to_string()])
                .args(["--uplinks", "eth0", "--service-cidrs", SERVICE_CIDR])
                .args(flags)
                .inside(Some(name), None)?
                .spawn(workdir)?;
            self.agents.push(agent);
        }
        Ok(())
    }

    /// Waits until everybody who balances is ready to; what they balance by then is to be asked.
    pub fn wait(&mut self) -> anyhow::Result<()> {
        if self.agents.is_empty() {
            return Ok(());
        }
        for (netns, _) in self.network.nodes() {
            wait_until("the agent is healthy", AGENT_LIMIT, || {
                let ask =
                    ["--silent", "--fail", "--max-time", "2", "http://127.0.0.1:10256/healthz"];
                let probe = Launch::new("curl", "curl".as_ref()).args(ask);
                let probe =
                    probe.inside(Some(netns.name()), None).map_err(|error| format!("{error:#}"))?;
                probe.output().map(drop).map_err(|error| format!("{error:#}"))
            })?;
        }
        self.agents.iter_mut().try_for_each(Process::check_alive)
    }

    /// Runs a program of the system on each node with rules for its address. The other node, which only
    /// passes packets on, gets those of one service: the kernel takes minutes for 10,000 with nftables,
    /// and lists that are not walked there are to the contender's advantage.
    fn feed(
        &self,
        command: &[&str],
        workload: &Workload,
        rules: impl Fn(&Workload, Ipv4Addr) -> String,
    ) -> anyhow::Result<()> {
        let few = Workload { services: 1, ..workload.clone() };
        for ((node, address), workload) in self.network.nodes().into_iter().zip([workload, &few]) {
            let text = rules(workload, address);
            node.run(|| feed(command, &text))?.with_context(|| command.join(" "))?;
        }
        Ok(())
    }

    /// Runs the load generator on the processor of clients, and gives what it saw. Single exchanges that
    /// failed are in there, for who asks to tell; many are an error.
    pub fn ask(&self, binaries: &Binaries, from: From, args: &[&str]) -> anyhow::Result<Value> {
        let (netns, cgroup) = match from {
            From::Pod => (&self.network.pod, Some(&self.cgroups[0])),
            From::VmLikePod => (&self.network.pod, None),
            From::Outside => (&self.network.client, None),
        };
        let client = Launch::new("loadgen", &binaries.find("loadgen")?).args(args);
        let client = client.args(["--cpu", CLIENT_CPU]);
        let text = client.inside(Some(netns.name()), cgroup)?.output()?;
        let seen: Value = serde_json::from_str(&text).context("read what the client saw")?;
        let count = |name: &str| seen[name].as_u64().unwrap_or_default();
        ensure!(
            count("failed") * LOST_ONE_IN <= count("count"),
            "{}: {} of the exchanges failed, the last one: {}",
            args.join(" "),
            seen["failed"],
            seen["lastFailure"]
        );
        Ok(seen)
    }
}

/// Processor of clients.
pub const CLIENT_CPU: &str = "0";

/// Processor of servers: another one, where there is another.
pub fn server_cpu() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cpus - 1).to_string()
}

/// Addresses with a port, as the load generator wants them.
pub fn targets(addresses: impl Iterator<Item = Ipv4Addr>, port: u16) -> String {
    addresses.map(|address| format!("{address}:{port}")).collect::<Vec<_>>().join(",")
}

/// Runs a program of the system with this input.
pub fn feed(command: &[&str], input: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // A program that refuses its input says why; that it stopped reading says nothing.
    let written = child.stdin.take().context("no input")?.write_all(input.as_bytes());
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {}", output.status, said.trim());
    written.context("write its input")
}
