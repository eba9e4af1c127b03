//! A node: a network namespace with an uplink and pods, a cgroup, a pin dir and the real agent.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::wait::waitpid,
    unistd::{ForkResult, Pid, fork, pipe},
};

use crate::{
    island::forward,
    netns::{Netns, cgroup_root},
    server::Server,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_podium-proxy");

/// Long enough for a busy machine; a test that needs it all has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The port pods serve at.
pub const POD_PORT: u16 = 8080;

/// How pods are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A device for each, and a route to it.
    Routed,
    /// All on a bridge.
    Bridged,
}

pub struct Node {
    netns: Netns,
    number: u8,
    style: Style,
    cgroup: PathBuf,
    pin_dir: PathBuf,
    pub pods: Vec<Pod>,
    agent: Option<Child>,
    flags: Vec<String>,
}

/// A pod: a network namespace, and a server.
pub struct Pod {
    pub netns: Netns,
    pub name: String,
    pub v4: String,
    pub v6: String,
    pub server: Option<Server>,
}

impl Pod {
    /// Its address of the family of `like`.
    pub fn ip(&self, like: IpAddr) -> &str {
        if like.is_ipv4() { &self.v4 } else { &self.v6 }
    }
}

impl Node {
    pub fn new(prefix: &str, number: u8, style: Style) -> Self {
        let name = format!("{prefix}-n{number}");
        let netns = Netns::new(&name);
        forward(&netns);
        netns.sysctl(&[("ipv4/conf/all/rp_filter", "1"), ("ipv4/conf/default/rp_filter", "1")]);
        let cgroup = cgroup_root().join(&name);
        fs::create_dir(&cgroup).expect("cannot make a cgroup");
        let pin_dir = Path::new("/sys/fs/bpf").join(&name);
        let flags = Vec::new();
        Self { netns, number, style, cgroup, pin_dir, pods: Vec::new(), agent: None, flags }
    }

    /// Connects it to the segment of the nodes.
    pub fn wire(&self, router: &str) {
        let number = self.number;
        self.netns.ip(&format!(
            "link add eth0 type veth peer name node{number} netns {router}
             addr add 192.0.2.1{number}/24 dev eth0
             addr add 2001:db8:a::1{number}/64 dev eth0 nodad
             link set eth0 up
             route add default via 192.0.2.1
             route add default via 2001:db8:a::1"
        ));
        if self.style == Style::Bridged {
            self.netns.ip(&format!(
                "link add cni0 type bridge
                 addr add 10.244.{number}.1/24 dev cni0
                 addr add fd00:10:244:{number}::1/64 dev cni0 nodad
                 link set cni0 up"
            ));
        }
    }

    /// The routes by which others reach its pods.
    pub fn pod_routes(&self) -> String {
        let number = self.number;
        format!(
            "route add 10.244.{number}.0/24 via 192.0.2.1{number}
             route add fd00:10:244:{number}::/64 via 2001:db8:a::1{number}"
        )
    }

    pub const fn number(&self) -> u8 {
        self.number
    }

    /// As Kubernetes calls it.
    pub fn name(&self) -> String {
        format!("node-{}", char::from(b'a' + self.number - 1))
    }

    pub const fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its address of the family of `like`.
    pub fn ip(&self, like: IpAddr) -> IpAddr {
        let number = self.number;
        let text = match like {
            IpAddr::V4(_) => format!("192.0.2.1{number}"),
            IpAddr::V6(_) => format!("2001:db8:a::1{number}"),
        };
        text.parse().unwrap()
    }

    /// Adds a pod with a server.
    pub fn pod(&mut self) -> &Pod {
        let (number, index) = (self.number, self.pods.len() + 1);
        let name = format!("pod-{}{index}", char::from(b'a' + number - 1));
        let netns = Netns::new(&format!("{}-p{index}", self.netns.name()));
        let last = index + 1;
        let v4 = format!("10.244.{number}.{last}");
        let v6 = format!("fd00:10:244:{number}::{last}");
        let device = format!("veth{index}");
        self.netns
            .ip(&format!("link add {device} type veth peer name eth0 netns {}", netns.name()));
        match self.style {
            Style::Routed => self.netns.ip(&format!(
                "addr add 10.244.{number}.1/32 dev {device}
                 addr add fd00:10:244:{number}::1/128 dev {device} nodad
                 link set {device} up
                 route add {v4} dev {device}
                 route add {v6} dev {device}"
            )),
            Style::Bridged => {
                self.netns.ip(&format!("link set {device} master cni0\nlink set {device} up"))
            }
        };
        let (v4_len, v6_len) = match self.style {
            Style::Routed => (32, 128),
            Style::Bridged => (24, 64),
        };
        netns.ip(&format!(
            "addr add {v4}/{v4_len} dev eth0
             addr add {v6}/{v6_len} dev eth0 nodad
             link set eth0 up
             route add default via 10.244.{number}.1 dev eth0 onlink
             route add default via fd00:10:244:{number}::1 dev eth0 onlink"
        ));
        let server = Some(Server::start(netns.name(), &name, POD_PORT));
        self.pods.push(Pod { netns, name, v4, v6, server });
        self.pods.last().unwrap()
    }

    /// Flags for the next agent, after the usual ones.
    pub fn flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Starts the agent.
    pub fn spawn(&mut self, manifests: &Path) {
        let mut command = Command::new(PROGRAM);
        command
            .arg("run")
            .arg("--manifests")
            .arg(manifests)
            .arg("--cgroup")
            .arg(&self.cgroup)
            .arg("--pin-dir")
            .arg(&self.pin_dir)
            .args(["--node-name", &self.name()])
            .args(["--healthz-bind-address", "127.0.0.1:10256"])
            .args(["--metrics-bind-address", "127.0.0.1:10249"])
            .args(["--uplinks", "eth0", "--service-cidrs", "10.96.0.0/16,fd00:96::/112"])
            .env("RUST_LOG", "podium_proxy=warn")
            .args(&self.flags);
        self.agent = Some(self.netns.run(|| command.spawn()).expect("cannot start the agent"));
    }

    /// Waits until the agent is healthy.
    pub fn wait(&self) {
        eventually("the agent is healthy", || self.http(10256, "/healthz").starts_with("200"));
    }

    /// Status and body of a response of the node, or nothing.
    pub fn http(&self, port: u16, path: &str) -> String {
        self.netns.run(|| http(&format!("127.0.0.1:{port}"), path))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
    }

    /// Runs `podium-proxy COMMAND --pin-dir …`.
    pub fn command(&self, args: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.args(args).arg("--pin-dir").arg(&self.pin_dir);
        self.netns.run(|| command.output()).unwrap()
    }

    /// The text such a command prints.
    pub fn shown(&self, args: &[&str]) -> String {
        let output = self.command(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a process of this node's cgroup in a network namespace: the node's, or a pod's.
    pub fn process(&self, netns: &Netns, run: impl FnOnce() -> String) -> Process {
        let (read, write) = pipe().unwrap();
        let procs = fs::OpenOptions::new().write(true).open(self.cgroup.join("cgroup.procs"));
        let mut procs = procs.unwrap();
        // SAFETY: the child only opens sockets, allocates (glibc keeps that usable), writes to its
        // pipe and leaves with `_exit`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => {
                drop(write);
                Process { pid: child, output: read.into() }
            }
            ForkResult::Child => {
                let text = catch_unwind(AssertUnwindSafe(|| {
                    procs.write_all(b"0").unwrap();
                    netns.enter();
                    run()
                }));
                let text = text.unwrap_or_else(|_| "the process panicked".to_owned());
                let _ = fs::File::from(write).write_all(text.as_bytes());
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Runs something as a process of one of its pods and returns what it says.
    pub fn in_pod(&self, pod: usize, run: impl FnOnce() -> String) -> String {
        self.process(&self.pods[pod].netns, run).said()
    }

    /// Runs something as a process of the host and returns what it says.
    pub fn on_host(&self, run: impl FnOnce() -> String) -> String {
        self.process(&self.netns, run).said()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        let _ = self.command(&["cleanup"]);
        let _ = fs::remove_dir_all(&self.pin_dir);
        for _ in 0..50 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A process in the cgroup of a node.
pub struct Process {
    pid: Pid,
    output: fs::File,
}

impl Process {
    /// Waits for its end.
    pub fn said(mut self) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        waitpid(self.pid, None).unwrap();
        text
    }
}

/// Waits for something to become true.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Status and body of a response, or nothing.
pub fn http(at: &str, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(at) else { return String::new() };
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    let mut response = String::new();
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_string(&mut response);
    let status = response.split(' ').nth(1).unwrap_or_default();
    let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    format!("{status} {body}")
}
