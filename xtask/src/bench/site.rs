//! One node with its endpoints behind it and a client in front: three network namespaces of its own, in
//! which one contender balances services. All sites are alike but for the contender.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use podium_tests::binaries::Binaries;
use podium_tests::cgroup::Cgroup;
use podium_tests::netns::Netns;
use podium_tests::process::{Launch, Process};
use podium_tests::wait::wait_until;
use podium_tests::workdir::Workdir;
use serde_json::Value;

use crate::bench::workload::Workload;

/// How many endpoints a service has.
pub const ENDPOINTS: u8 = 10;
/// The port they listen on.
pub const ENDPOINT_PORT: u16 = 8080;
/// The node towards the client.
pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// The node towards its endpoints.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
const AGENT_LIMIT: Duration = Duration::from_secs(120);

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

/// The namespaces, and what runs in them.
pub struct Site {
    /// The node: its programs, its own clients.
    pub node: Netns,
    /// Beyond the node's uplink.
    pub client: Netns,
    // Kept so that it outlives the links to it; programs end before it goes.
    agent: Option<Process>,
    _server: Process,
    _endpoints: Netns,
    cgroup: Cgroup,
    contender: Contender,
}

impl Site {
    /// Makes the namespaces, starts the server. Nothing is balanced yet.
    pub fn create(
        workdir: &Workdir,
        binaries: &Binaries,
        name: &str,
        contender: Contender,
    ) -> anyhow::Result<Site> {
        let netns = |role: &str| Netns::create(workdir, &format!("{name}-{role}"));
        let (node, client, endpoints) = (netns("node")?, netns("client")?, netns("pods")?);
        link(&node, "eth0", NODE, &client, CLIENT)?;
        link(&node, "pods0", GATEWAY, &endpoints, endpoint(1))?;
        for number in 2..=ENDPOINTS {
            let address = format!("{}/24", endpoint(number));
            endpoints.ip(&["address", "add", &address, "dev", "eth0"])?;
        }
        endpoints.ip(&["route", "add", "default", "via", &GATEWAY.to_string()])?;
        client.ip(&["route", "add", "10.0.0.0/8", "via", &NODE.to_string()])?;
        node.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?
            .context("let the node forward")?;
        let cgroup = Cgroup::create(workdir, name)?;
        let server = Launch::new(&format!("{name}-server"), &binaries.find("loadgen")?)
            .args(["serve", "--listen", &format!("0.0.0.0:{ENDPOINT_PORT}")])
            .inside(Some(endpoints.name()), None)?
            .spawn(workdir)?;
        Ok(Site {
            node,
            client,
            agent: None,
            _server: server,
            _endpoints: endpoints,
            cgroup,
            contender,
        })
    }

    /// Lets the contender balance the services of a workload, in place of what it balanced before.
    pub fn balance(
        &mut self,
        workdir: &Workdir,
        binaries: &Binaries,
        workload: &Workload,
    ) -> anyhow::Result<()> {
        match self.contender {
            Contender::Direct => Ok(()),
            Contender::Podium(flags) => self.start_agent(workdir, binaries, workload, flags),
            Contender::Iptables => self.feed(&["iptables-restore", "--wait"], &workload.iptables()),
            Contender::Nftables => {
                let rules = workload.nftables(NODE);
                self.feed(
                    &["nft", "-f", "-"],
                    &format!("table ip kube-proxy\ndelete table ip kube-proxy\n{rules}"),
                )
            }
        }
    }

    fn start_agent(
        &mut self,
        workdir: &Workdir,
        binaries: &Binaries,
        workload: &Workload,
        flags: &[&str],
    ) -> anyhow::Result<()> {
        self.agent = None;
        let name = self.node.name().to_owned();
        let manifests = workdir.path().join(format!("{name}-manifests"));
        std::fs::create_dir_all(&manifests)
            .with_context(|| format!("create {}", manifests.display()))?;
        std::fs::write(manifests.join("services.yaml"), workload.manifests())
            .with_context(|| format!("write below {}", manifests.display()))?;
        let pins = Path::new("/sys/fs/bpf").join(&name);
        let agent = Launch::new(&format!("{name}-agent"), &binaries.find("podium-proxy")?)
            .args(["run", "--manifests"])
            .args([&manifests])
            .arg_pair("--cgroup", self.cgroup.dir())
            .arg_pair("--pin-dir", &pins)
            .args(["--node-name", &name, "--uplinks", "eth0", "--service-cidrs", "10.96.0.0/16"])
            .args(["--nodeport-addresses", &format!("{NODE}/32")])
            .args(["--healthz-bind-address", "127.0.0.1:10256"])
            .args(["--metrics-bind-address", "127.0.0.1:10249"])
            .args(flags)
            .inside(Some(&name), None)?
            .spawn(workdir)?;
        self.agent = Some(agent);
        wait_until("the agent is healthy", AGENT_LIMIT, || {
            let curl = ["--silent", "--fail", "--max-time", "2", "http://127.0.0.1:10256/healthz"];
            let probe = Launch::new("curl", "curl".as_ref()).args(curl);
            let probe = probe.inside(Some(&name), None).map_err(|error| format!("{error:#}"))?;
            probe.output().map(drop).map_err(|error| format!("{error:#}"))
        })
    }

    /// Runs a program of the system on the node with this input.
    fn feed(&self, command: &[&str], input: &str) -> anyhow::Result<()> {
        use std::io::Write;
        let words = command.join(" ");
        let run = || -> anyhow::Result<()> {
            let mut child = Command::new(command[0])
                .args(&command[1..])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
            let output = child.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success(), "{}: {}", output.status, said.trim());
            Ok(())
        };
        self.node.run(run)?.with_context(|| words)
    }

    /// Runs the load generator on the node, where its sockets are balanced, and gives what it saw.
    pub fn on_node(&self, binaries: &Binaries, args: &[&str]) -> anyhow::Result<Value> {
        self.generate(binaries, &self.node, Some(&self.cgroup), args)
    }

    /// Runs it beyond the uplink, where packets are.
    pub fn on_client(&self, binaries: &Binaries, args: &[&str]) -> anyhow::Result<Value> {
        self.generate(binaries, &self.client, None, args)
    }

    fn generate(
        &self,
        binaries: &Binaries,
        netns: &Netns,
        cgroup: Option<&Cgroup>,
        args: &[&str],
    ) -> anyhow::Result<Value> {
        let client = Launch::new("loadgen", &binaries.find("loadgen")?).args(args);
        let text = client.inside(Some(netns.name()), cgroup)?.output()?;
        let seen: Value = serde_json::from_str(&text).context("read what the client saw")?;
        ensure!(
            seen["failed"] == 0,
            "{}: {} of the exchanges failed, the last one: {}",
            args.join(" "),
            seen["failed"],
            seen["lastFailure"]
        );
        Ok(seen)
    }
}

/// An endpoint's address, counted from 1.
pub fn endpoint(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 1, 10 + number)
}

/// A veth pair between two namespaces; the far end is always `eth0`.
fn link(
    near: &Netns,
    device: &str,
    address: Ipv4Addr,
    far: &Netns,
    far_address: Ipv4Addr,
) -> anyhow::Result<()> {
    near.ip(&["link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", far.name()])?;
    for (netns, device, address) in [(near, device, address), (far, "eth0", far_address)] {
        netns.ip(&["address", "add", &format!("{address}/24"), "dev", device])?;
        netns.ip(&["link", "set", device, "up"])?;
    }
    Ok(())
}
