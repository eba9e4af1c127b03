//! A node whose uplink is a veth, and what is at the other end of it: a client, and the node with the
//! endpoints. Neither of these is more than an address of the link and a program that counts.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use podium_tests::cgroup::Cgroup;
use podium_tests::cluster::mount_bpf;
use podium_tests::netns::Netns;
use podium_tests::process::{Launch, Process};
use podium_tests::wait::wait_until;

use crate::bench::Bench;
use crate::bench::rate::wire::{BURST, FRAME_LEN, Template, Wire};
use crate::bench::site::{
    CLIENT, Contender, ENDPOINT_PORT, ENDPOINTS, NODE, OTHER_NODE, endpoint, endpoint_elsewhere,
    feed,
};
use crate::bench::workload::{SERVICE_CIDR, Workload};

const AGENT_LIMIT: Duration = Duration::from_secs(60);
/// How long a burst may take to come out again.
const BURST_LIMIT: Duration = Duration::from_secs(2);
/// Less of what was sent must not come out, or what is counted is not what was spent.
const DELIVERED_MIN: f64 = 0.95;
/// Flows that are established, a power of two.
const FLOWS: u64 = 64;

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Packets of a few flows.
    Established,
    /// A flow each.
    New,
}

/// The node, what balances on it, and its link.
pub struct Node {
    agent: Option<Process>,
    node: Netns,
    far: Netns,
    _cgroup: Cgroup,
    wire: Wire,
    device: String,
    /// Where clients send packets to.
    to: (Ipv4Addr, u16),
    /// Of frames that were sent.
    number: u64,
    /// The kernel thread that receives.
    receiver: Option<Pid>,
}

impl Node {
    /// Makes it, and lets the contender balance; see [`Node::wait`].
    pub fn create(bench: &Bench, number: usize, contender: Contender) -> anyhow::Result<Node> {
        let workdir = &bench.workdir;
        let node = Netns::create(workdir, &format!("rate{number}-node"))?;
        let far = Netns::create(workdir, &format!("rate{number}-far"))?;
        let device = format!("rate{number}");
        link(&node, &far, &device)?;
        let workload = Workload {
            services: 1,
            endpoints: (1..=ENDPOINTS).map(endpoint).collect(),
            endpoints_elsewhere: (1..=ENDPOINTS).map(endpoint_elsewhere).collect(),
            port: ENDPOINT_PORT,
        };
        let wire = far.run(|| Wire::new(&far_name(&device)))??;
        let cgroup = Cgroup::create(workdir, &format!("rate{number}"))?;
        let mut agent = None;
        match contender {
            Contender::Direct => {}
            Contender::Podium(flags) => {
                agent = Some(start_agent(bench, &node, &device, &cgroup, &workload, flags)?);
            }
            Contender::Iptables => {
                let rules = workload.iptables();
                node.run(|| feed(&["iptables-restore", "--wait"], &rules))??;
            }
            Contender::Nftables => {
                let rules = workload.nftables(NODE);
                node.run(|| feed(&["nft", "-f", "-"], &rules))??;
            }
        }
        let to = match contender {
            Contender::Direct => (endpoint_elsewhere(1), ENDPOINT_PORT),
            _ => (NODE, workload.outside_port()),
        };
        Ok(Node { agent, node, far, _cgroup: cgroup, wire, device, to, number: 0, receiver: None })
    }

    /// Waits until the node balances, and finds the thread that receives.
    pub fn wait(&mut self) -> anyhow::Result<()> {
        if let Some(agent) = &mut self.agent {
            let netns = self.node.name();
            wait_until("the agent is healthy", AGENT_LIMIT, || {
                let ask =
                    ["--silent", "--fail", "--max-time", "2", "http://127.0.0.1:10256/healthz"];
                let probe = Launch::new("curl", "curl".as_ref()).args(ask);
                let probe =
                    probe.inside(Some(netns), None).map_err(|error| format!("{error:#}"))?;
                probe.output().map(drop).map_err(|error| format!("{error:#}"))
            })?;
            agent.check_alive()?;
        }
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let receiver = receiver(&self.device)?;
        pin(receiver, cpus - 1)?;
        pin(self::receiver(&far_name(&self.device))?, 0)?;
        self.receiver = Some(receiver);
        Ok(())
    }

    /// Sends bursts through the node; gives the packets that came out for each second of its time.
    pub fn pass(&mut self, traffic: Traffic, bursts: u32) -> anyhow::Result<f64> {
        let receiver = self.receiver.context("the node was not waited for")?;
        let (wire, to, first) = (&self.wire, self.to, self.number);
        self.number += u64::from(bursts) * u64::from(BURST);
        let before = spent_ns(receiver)?;
        let delivered = self.far.run(|| -> anyhow::Result<u64> {
            pin(Pid::from_raw(0), 0)?;
            let begin = wire.received()?;
            for burst in 0..u64::from(bursts) {
                let sent = first + burst * u64::from(BURST);
                burst_through(wire, &template(traffic, to, sent))?;
            }
            Ok(wire.received()? - begin)
        })??;
        let spent_ns = spent_ns(receiver)? - before;
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let (delivered, sent, spent_ns) =
            (delivered as f64, f64::from(bursts) * f64::from(BURST), spent_ns as f64);
        ensure!(
            delivered >= sent * DELIVERED_MIN,
            "{}: of {sent} packets {delivered} came out",
            self.node.name()
        );
        Ok(delivered * 1e9 / spent_ns)
    }
}

/// Sends a burst and waits until it came out, so that no ring overflows.
fn burst_through(wire: &Wire, template: &Template) -> anyhow::Result<()> {
    let expected = wire.received()? + u64::from(BURST);
    wire.send(template)?;
    let sent_at = Instant::now();
    while wire.received()? < expected && sent_at.elapsed() < BURST_LIMIT {
        std::thread::yield_now();
    }
    Ok(())
}

/// The frames from this number on. New flows have a port of 32,768 and an address of many.
fn template(traffic: Traffic, to: (Ipv4Addr, u16), number: u64) -> Template {
    let (from, mask) = match traffic {
        Traffic::Established => (CLIENT, FLOWS - 1),
        Traffic::New => {
            let [.., high, low] = (number >> 15).to_be_bytes();
            (Ipv4Addr::new(198, 18, high, low.wrapping_add(1)), 0x7fff)
        }
    };
    let mut frame = [0; FRAME_LEN];
    frame[..6].copy_from_slice(&MAC_NODE);
    frame[6..12].copy_from_slice(&MAC_FAR);
    frame[12..14].copy_from_slice(&[8, 0]);
    // IPv4, not to be fragmented, UDP. Without a checksum of its own: what a card has verified costs
    // nobody anything.
    let len = u16::try_from(FRAME_LEN - 14).unwrap_or(0);
    let udp_len = len - 20;
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame[20] = 0x40;
    frame[22..24].copy_from_slice(&[64, 17]);
    frame[26..30].copy_from_slice(&from.octets());
    frame[30..34].copy_from_slice(&to.0.octets());
    let words = frame[14..34].chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(0);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[36..38].copy_from_slice(&to.1.to_be_bytes());
    frame[38..40].copy_from_slice(&udp_len.to_be_bytes());
    Template { frame, number, mask }
}

const MAC_NODE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MAC_FAR: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The other end of a device.
fn far_name(device: &str) -> String {
    format!("far{}", device.trim_start_matches("rate"))
}

/// The pair of devices, with one queue each, served by kernel threads: addresses, routes, neighbours.
fn link(node: &Netns, far: &Netns, device: &str) -> anyhow::Result<()> {
    let (other, far_netns) = (far_name(device), far.name());
    let lines = format!(
        "link add {device} address 02:00:00:00:00:01 numrxqueues 1 numtxqueues 1 type veth \
         peer name {other} address 02:00:00:00:00:02 numrxqueues 1 numtxqueues 1 netns {far_netns}\n\
         address add {NODE}/24 dev {device}\nlink set {device} up\n"
    );
    feed(&["ip", "-n", node.name(), "-batch", "-"], &lines).context("make the link")?;
    far.ip(&["link", "set", &other, "up"])?;
    let neighbour = format!("lladdr 02:00:00:00:00:02 dev {device} nud permanent");
    let lines = format!(
        "neigh add {CLIENT} {neighbour}\nneigh add {OTHER_NODE} {neighbour}\n\
         route add 10.244.2.0/24 via {OTHER_NODE}\nroute add 198.18.0.0/15 via {CLIENT}\n"
    );
    feed(&["ip", "-n", node.name(), "-batch", "-"], &lines).context("add routes")?;
    let settings = [
        ("ip_forward", "1"),
        ("conf/all/send_redirects", "0"),
        (&format!("conf/{device}/send_redirects"), "0"),
    ];
    let set = |(name, value)| std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value);
    node.run(|| settings.into_iter().try_for_each(set))?.context("let the node forward")?;
    for (netns, device) in [(node, device), (far, &*other)] {
        // A veth receives like a card, in turns of its own, where it joins packets.
        run(netns, &["ethtool", "-K", device, "gro", "on"])?;
        let threaded = format!("echo 1 > /sys/class/net/{device}/threaded");
        run(netns, &["sh", "-c", &threaded])?;
    }
    Ok(())
}

/// Runs a program that is to see the devices of a namespace below `/sys`.
fn run(netns: &Netns, command: &[&str]) -> anyhow::Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["netns", "exec", netns.name()]).args(command);
    let output = ip.output().context("run ip")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {}", command.join(" "), said.trim());
    Ok(())
}

fn start_agent(
    bench: &Bench,
    node: &Netns,
    device: &str,
    cgroup: &Cgroup,
    workload: &Workload,
    flags: &[&str],
) -> anyhow::Result<Process> {
    let name = node.name();
    let folder = bench.workdir.path();
    let manifests = folder.join(format!("{name}-manifests"));
    std::fs::create_dir_all(&manifests)
        .and_then(|()| std::fs::write(manifests.join("services.yaml"), workload.manifests()))
        .with_context(|| format!("write below {}", manifests.display()))?;
    let pins = mount_bpf(&folder.join(format!("{name}-bpf")))?;
    Launch::new(&format!("{name}-agent"), &bench.binaries.find("podium-proxy")?)
        .args(["run", "--manifests"])
        .args([&manifests])
        .arg_pair("--cgroup", cgroup.dir())
        .arg_pair("--pin-dir", &pins)
        .args(["--node-name", name, "--node-ip", &NODE.to_string()])
        .args(["--uplinks", device, "--service-cidrs", SERVICE_CIDR])
        .args(flags)
        .inside(Some(name), None)?
        .spawn(&bench.workdir)
}

/// The kernel thread that receives for a device.
fn receiver(device: &str) -> anyhow::Result<Pid> {
    let prefix = format!("napi/{device}-");
    let folders = std::fs::read_dir("/proc").context("list processes")?;
    let is_it = |pid: &i32| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|comm| comm.starts_with(&prefix))
    };
    let pids = folders.filter_map(|folder| folder.ok()?.file_name().to_str()?.parse().ok());
    let found: Vec<i32> = pids.filter(is_it).collect();
    match found[..] {
        [pid] => Ok(Pid::from_raw(pid)),
        _ => bail!("{} kernel threads receive for {device}, not one", found.len()),
    }
}

fn pin(pid: Pid, cpu: usize) -> anyhow::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).and_then(|()| sched_setaffinity(pid, &cpus)).context("pin a thread")
}

/// Nanoseconds that a thread has run.
fn spent_ns(pid: Pid) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/schedstat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().with_context(|| format!("read {path}: {text:?}"))
}
