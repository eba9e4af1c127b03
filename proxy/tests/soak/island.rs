//! The little world of the test, without a way out, and the real agent in it.
//!
//! | namespace | addresses |
//! |---|---|
//! | client | 192.0.2.9, 2001:db8:a::9, on the node's uplink eth0 |
//! | node | .11, ::11; the agent, and processes in its cgroup |
//! | pods | half of the endpoints, 10.244.1.0/24 and fd00:10:244:1::/64; processes in its cgroup |
//! | far | the others, on the uplink eth1, as on another node: 10.244.2.0/24, fd00:10:244:2::/64 |
//! | plain | 10.244.3.2, fd00:10:244:3::2: a pod whose sockets no hook sees |

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use podium_proxy::datapath::pins::PinDir;
use tempfile::TempDir;

use crate::{
    netns::{self, Netns},
    plan::{ENDPOINTS, NODE, NODE_IPS, endpoint_ip},
    server::Servers,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_podium-proxy");

/// Long enough for a busy machine; a test that needs it all has failed.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub struct Island {
    pub cgroup: PathBuf,
    pub pins: PinDir,
    pub manifests: TempDir,
    agent: Option<Child>,
    // Servers go before their namespaces.
    _servers: [Servers; 2],
    pub client: Netns,
    pub node: Netns,
    pub pods: Netns,
    _far: Netns,
    pub plain: Netns,
}

impl Island {
    pub fn new() -> Self {
        let prefix = netns::prefix("soak");
        let [client, node, pods, far, plain] = ["client", "node", "pods", "far", "plain"]
            .map(|name| Netns::new(&format!("{prefix}-{name}")));
        node.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/forwarding", "1"),
        ]);
        wire_client(&client, &node);
        for (number, device, pods) in
            [(1, "pods0", &pods), (2, "eth1", &far), (3, "plain0", &plain)]
        {
            wire_pods(&node, number, device, pods);
        }
        let own = |half: std::ops::Range<usize>, pods: &Netns| {
            let addresses: Vec<_> = half
                .flat_map(|endpoint| [0, 1].map(|family| endpoint_ip(endpoint, family)))
                .collect();
            let commands: Vec<String> = (addresses.iter())
                .map(|ip| {
                    let rest = if ip.is_ipv4() { "/32 dev eth0" } else { "/128 dev eth0 nodad" };
                    format!("addr add {ip}{rest}")
                })
                .collect();
            pods.ip(&commands.join("\n"));
            Servers::start(pods.name(), addresses)
        };
        let servers = [own(0..ENDPOINTS / 2, &pods), own(ENDPOINTS / 2..ENDPOINTS, &far)];
        plain.ip("addr add 10.244.3.2/32 dev eth0\naddr add fd00:10:244:3::2/128 dev eth0 nodad");
        for pods in [&pods, &far, &plain] {
            default_routes(pods);
        }
        let cgroup = netns::cgroup_root().join(&prefix);
        fs::create_dir(&cgroup).expect("cannot make a cgroup");
        let pins = PinDir::new(Path::new("/sys/fs/bpf").join(&prefix));
        let manifests = tempfile::tempdir().expect("cannot make a folder");
        let agent = None;
        Self {
            cgroup,
            pins,
            manifests,
            agent,
            _servers: servers,
            client,
            node,
            pods,
            _far: far,
            plain,
        }
    }

    /// Replaces one manifest file in one step, or removes it.
    pub fn manifest(&self, name: &str, text: Option<&str>) {
        let file = self.manifests.path().join(format!("{name}.yaml"));
        match text {
            Some(text) => {
                let hidden = self.manifests.path().join(format!("{name}.new"));
                fs::write(&hidden, text).unwrap();
                fs::rename(hidden, file).unwrap();
            }
            None => fs::remove_file(file).unwrap(),
        }
    }

    /// Starts the agent, with `program` in front, and waits until it is healthy.
    pub fn start(&mut self, program: &[&str], flags: &[&str]) {
        let words: Vec<&str> = program.iter().copied().chain([PROGRAM]).collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(["run", "--manifests"])
            .arg(self.manifests.path())
            .arg("--cgroup")
            .arg(&self.cgroup)
            .arg("--pin-dir")
            .arg(self.pins.root())
            .args(["--node-name", NODE, "--node-ip", &NODE_IPS.join(",")])
            .args(["--healthz-bind-address", "127.0.0.1:10256"])
            .args(["--metrics-bind-address", "127.0.0.1:10249"])
            .args(["--uplinks", "eth0,eth1", "--service-cidrs", "10.96.0.0/16,fd00:96::/112"])
            .args(["--flow-collect-interval", "1"])
            .env("RUST_LOG", "podium_proxy=warn")
            .args(flags);
        let started = Instant::now();
        self.agent = Some(self.node.run(|| command.spawn()).expect("cannot start the agent"));
        while !self.http(10256, "/healthz").starts_with("200") {
            let status = self.agent.as_mut().unwrap().try_wait().unwrap();
            assert!(status.is_none(), "the agent ended: {status:?}");
            assert!(started.elapsed() < PATIENCE, "the agent does not become healthy");
            thread::sleep(Duration::from_millis(50));
        }
        println!("the agent is up after {:.1?}", started.elapsed());
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
    }

    /// What the agent holds of its machine: resident memory in KiB, and descriptors.
    pub fn agent_use(&self) -> (u64, usize) {
        let folder = PathBuf::from(format!("/proc/{}", self.agent.as_ref().unwrap().id()));
        let status = fs::read_to_string(folder.join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let rss_kib = line.trim().trim_end_matches(" kB").parse().unwrap();
        (rss_kib, fs::read_dir(folder.join("fd")).unwrap().count())
    }

    /// The agent's metrics, by name and labels as they are written.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let text = self.http(10249, "/metrics");
        (text.lines().filter(|line| !line.starts_with('#')))
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// Status and body of a response of the node, or nothing.
    fn http(&self, port: u16, path: &str) -> String {
        let response = self.node.run(|| -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut response = String::new();
            stream.read_to_string(&mut response)?;
            Ok(response)
        });
        let response = response.unwrap_or_default();
        let status = response.split(' ').nth(1).unwrap_or_default();
        let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        format!("{status} {body}")
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        self.kill();
        let mut cleanup = Command::new(PROGRAM);
        cleanup.arg("cleanup").arg("--pin-dir").arg(self.pins.root());
        let _ = self.node.run(|| cleanup.output());
        let _ = fs::remove_dir_all(self.pins.root());
        // Processes that were in it are gone, but the kernel may need a moment to see that.
        for _ in 0..100 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn wire_client(client: &Netns, node: &Netns) {
    let name = node.name();
    client.ip(&format!(
        "link add eth0 type veth peer name eth0 netns {name}
         addr add 192.0.2.9/24 dev eth0
         addr add 2001:db8:a::9/64 dev eth0 nodad
         link set eth0 up"
    ));
    node.ip("addr add 192.0.2.11/24 dev eth0
         addr add 2001:db8:a::11/64 dev eth0 nodad
         link set eth0 up");
    client.ip("route add default via 192.0.2.11
         route add default via 2001:db8:a::11");
}

fn wire_pods(node: &Netns, number: u8, device: &str, pods: &Netns) {
    let name = pods.name();
    node.ip(&format!(
        "link add {device} type veth peer name eth0 netns {name}
         addr add 10.244.{number}.1/32 dev {device}
         addr add fd00:10:244:{number}::1/128 dev {device} nodad
         link set {device} up
         route add 10.244.{number}.0/24 dev {device}
         route add fd00:10:244:{number}::/64 dev {device}"
    ));
    pods.ip(&format!(
        "link set eth0 up
         route add 10.244.{number}.1 dev eth0
         route add fd00:10:244:{number}::1 dev eth0"
    ));
}

/// The node is every pod's gateway.
fn default_routes(pods: &Netns) {
    let number = match pods.name().rsplit('-').next() {
        Some("pods") => 1,
        Some("far") => 2,
        _ => 3,
    };
    pods.ip(&format!(
        "route add default via 10.244.{number}.1 dev eth0
         route add default via fd00:10:244:{number}::1 dev eth0"
    ));
}
