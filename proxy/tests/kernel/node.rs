//! A node for one test: a network namespace with loopback only, a cgroup for its pods, a folder of
//! manifests and the real agent. Everything goes with the value; what cannot be set up panics.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::wait::waitpid,
    unistd::{ForkResult, Pid, fork, geteuid, pipe},
};
use podium_proxy::preflight;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_podium-proxy");

/// Long enough for a busy machine; a test that needs it all has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Node {
    cgroup: PathBuf,
    pin_dir: PathBuf,
    manifests: TempDir,
    agent: Option<Child>,
    flags: Vec<String>,
}

impl Node {
    /// Moves the calling thread, and what it starts, into a new network namespace.
    pub fn new(test: &str) -> Self {
        assert!(geteuid().is_root(), "kernel tests need root; skip them by name: --skip kernel_");
        preflight::check_kernel().expect("this machine cannot run kernel tests");
        let root = preflight::cgroup(None).expect("kernel tests need a cgroup v2 mount");
        unshare(CloneFlags::CLONE_NEWNET).expect("cannot make a network namespace");
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("kernel tests need iproute2").success(), "loopback does not come up");
        let name = format!("podium_{test}_{}", std::process::id());
        let cgroup = root.join(&name);
        fs::create_dir(&cgroup).expect("cannot make a cgroup");
        let manifests = tempfile::tempdir().expect("cannot make a folder");
        let pin_dir = Path::new("/sys/fs/bpf").join(&name);
        Self { cgroup, pin_dir, manifests, agent: None, flags: Vec::new() }
    }

    /// Further flags for the next agent.
    pub fn flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Replaces one manifest file in one step, as tools do.
    pub fn manifest(&self, file: &str, text: &str) {
        let hidden = self.manifests.path().join(format!("{file}.new"));
        fs::write(&hidden, text).unwrap();
        fs::rename(hidden, self.manifests.path().join(file)).unwrap();
    }

    /// Starts the agent and waits until it is healthy.
    pub fn start(&mut self) {
        let child = Command::new(PROGRAM)
            .arg("run")
            .arg("--manifests")
            .arg(self.manifests.path())
            .arg("--cgroup")
            .arg(&self.cgroup)
            .arg("--pin-dir")
            .arg(&self.pin_dir)
            .args(["--node-name", "node-a", "--healthz-bind-address", "127.0.0.1:10256"])
            .args(&self.flags)
            .spawn()
            .expect("cannot start the agent");
        self.agent = Some(child);
        eventually("the agent is healthy", || http("/healthz").starts_with("HTTP/1.1 200"));
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
        Command::new(PROGRAM).args(args).arg("--pin-dir").arg(&self.pin_dir).output().unwrap()
    }

    /// The text such a command prints.
    pub fn shown(&self, args: &[&str]) -> String {
        let output = self.command(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a process in the pods' cgroup.
    pub fn pod(&self, run: impl FnOnce() -> String) -> Pod {
        let (read, write) = pipe().unwrap();
        let procs = fs::OpenOptions::new().write(true).open(self.cgroup.join("cgroup.procs"));
        let mut procs = procs.unwrap();
        // SAFETY: the child only opens sockets, allocates (glibc keeps that usable), writes to its
        // pipe and leaves with `_exit`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => {
                drop(write);
                Pod { pid: child, output: read }
            }
            ForkResult::Child => {
                let text = catch_unwind(AssertUnwindSafe(|| {
                    procs.write_all(b"0").unwrap();
                    run()
                }));
                let text = text.unwrap_or_else(|_| "the pod panicked".to_owned());
                let _ = fs::File::from(write).write_all(text.as_bytes());
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Runs something in the pods' cgroup and returns what it says.
    pub fn in_pod(&self, run: impl FnOnce() -> String) -> String {
        self.pod(run).said()
    }

    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        let _ = self.command(&["cleanup"]);
        for _ in 0..50 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A process in the pods' cgroup.
pub struct Pod {
    pid: Pid,
    output: OwnedFd,
}

impl Pod {
    /// Waits for its end.
    pub fn said(self) -> String {
        assert!(self.output.as_raw_fd() >= 0);
        let mut text = String::new();
        fs::File::from(self.output).read_to_string(&mut text).unwrap();
        waitpid(self.pid, None).unwrap();
        text
    }
}

/// Waits for something to become true.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A response of the agent's health address, or nothing.
pub fn http(path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect("127.0.0.1:10256") else { return String::new() };
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    let mut response = String::new();
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_string(&mut response);
    response
}

/// A TCP server that says who it is, for as long as the test runs.
pub fn serve_tcp(at: &str) {
    let listener = TcpListener::bind(at).unwrap();
    let name = at.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(name.as_bytes()));
        }
    });
}

/// The same over UDP.
pub fn serve_udp(at: &str) {
    let socket = UdpSocket::bind(at).unwrap();
    let name = at.to_owned();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(name.as_bytes(), from);
        }
    });
}

/// Connects and returns who answered, or the error's name.
pub fn ask(at: &str) -> String {
    let at: SocketAddr = at.parse().unwrap();
    let mut answer = String::new();
    let result = TcpStream::connect_timeout(&at, Duration::from_secs(5))
        .and_then(|mut stream| stream.read_to_string(&mut answer));
    match result {
        Ok(_) => answer,
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// A Service with one port, `more` being further lines of its spec.
pub fn service(name: &str, ip: &str, port: u16, more: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  \
         clusterIP: \"{ip}\"\n  {more}\n  ports:\n  - {{name: a, port: {port}, protocol: TCP}}\n  \
         - {{name: b, port: {port}, protocol: UDP}}\n"
    )
}

/// Its endpoints; addresses may be followed by `@node`.
pub fn slice(name: &str, family: &str, port: u16, addresses: &[&str]) -> String {
    let mut text = format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
         name: {name}-{family}\n  labels: {{kubernetes.io/service-name: {name}}}\n\
         addressType: {family}\nports:\n- {{name: a, port: {port}, protocol: TCP}}\n\
         - {{name: b, port: {port}, protocol: UDP}}\nendpoints:\n"
    );
    for address in addresses {
        let (ip, node) = address.split_once('@').unwrap_or((address, "node-a"));
        text.push_str(&format!("- {{addresses: [\"{ip}\"], nodeName: {node}}}\n"));
    }
    if addresses.is_empty() {
        text.push_str("- {addresses: [\"127.0.0.99\"], conditions: {ready: false}}\n");
    }
    text
}
