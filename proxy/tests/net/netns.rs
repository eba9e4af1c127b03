//! Network namespaces of one test. Threads and processes enter only the network namespace: the
//! folders of cgroups and pins stay in their sight.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use podium_proxy::preflight;

/// What every name begins with that a test makes outside of its own memory.
const PREFIX: &str = "pnet";

/// A network namespace, deleted when dropped.
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes the namespace `name` with its loopback up and IPv6 addresses usable at once.
    pub fn new(name: &str) -> Self {
        ip(&["netns", "add", name], "");
        let netns = Self { name: name.to_owned() };
        netns.ip("link set lo up");
        netns.sysctl(&[
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv6/conf/default/router_solicitations", "0"),
        ]);
        netns
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on this namespace, one command a line.
    pub fn ip(&self, commands: &str) -> String {
        ip(&["-n", &self.name, "-batch", "-"], commands)
    }

    /// What `ip`, or `tc`, says about this namespace.
    pub fn show(&self, program: &str, command: &str) -> String {
        let output =
            Command::new(program).args(["-n", &self.name]).args(command.split(' ')).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    /// Writes files under `/proc/sys/net`.
    pub fn sysctl(&self, values: &[(&str, &str)]) {
        self.run(|| {
            for (name, value) in values {
                let path = Path::new("/proc/sys/net").join(name);
                fs::write(&path, value).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            }
        });
    }

    /// Runs something on a thread of its own inside the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                work()
            });
            thread.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Moves the calling thread into the namespace.
    pub fn enter(&self) {
        enter(&self.name);
    }

    /// A counter of the namespace, as `nstat` names them: of the lines that begin with `group`.
    pub fn counter(&self, group: &str, name: &str) -> u64 {
        self.run(|| {
            let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap()
                + &fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
            let mut lines =
                text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
            let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
            let mut pairs = names.split_whitespace().zip(values.split_whitespace());
            let value = pairs.find(|(found, _)| *found == name).expect(name).1;
            value.parse().unwrap()
        })
    }

    /// A counter of a device, as in `/sys/class/net/DEVICE/statistics`.
    pub fn device_counter(&self, device: &str, name: &str) -> u64 {
        let shown: serde_json::Value =
            serde_json::from_str(&self.show("ip", &format!("-j -s -s link show {device}")))
                .unwrap();
        let (direction, counter) = name.split_once('_').unwrap();
        shown[0]["stats64"][direction][counter].as_u64().expect(name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// Moves the calling thread into a namespace by name.
pub fn enter(name: &str) {
    let file = fs::File::open(netns_path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    setns(file, CloneFlags::CLONE_NEWNET).expect("cannot enter a network namespace");
}

fn netns_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

fn delete(name: &str) {
    if netns_path(name).exists() {
        let _ = Command::new("ip").args(["netns", "delete", name]).status();
    }
}

/// Runs `ip` with this as its input and returns what it says.
fn ip(args: &[&str], input: &str) -> String {
    let mut child = Command::new("ip")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("net tests need iproute2");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args:?}: {said}\n{input}");
    String::from_utf8(output.stdout).unwrap()
}

/// The prefix of all that `test` makes.
pub fn prefix(test: &str) -> String {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        assert!(geteuid().is_root(), "net tests need root; skip them by name: --skip net_");
        preflight::check_kernel().expect("this machine cannot run net tests");
        sweep();
    });
    format!("{PREFIX}-{test}-{}", std::process::id())
}

/// The cgroup that those of nodes are made in.
pub fn cgroup_root() -> PathBuf {
    preflight::cgroup(None).expect("net tests need a cgroup v2 mount")
}

/// Removes what test runs left behind that were killed.
fn sweep() {
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| is_left_over(name)).collect()
    };
    for name in names(Path::new("/run/netns")) {
        let pids = Command::new("ip").args(["netns", "pids", &name]).output().unwrap();
        for pid in String::from_utf8_lossy(&pids.stdout).split_whitespace() {
            let _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
        }
        delete(&name);
    }
    let bpffs = Path::new("/sys/fs/bpf");
    for name in names(bpffs) {
        let _ = fs::remove_dir_all(bpffs.join(name));
    }
    thread::sleep(Duration::from_millis(1));
    let cgroups = cgroup_root();
    for name in names(&cgroups) {
        let _ = fs::remove_dir(cgroups.join(name));
    }
}

/// Whether a name is that of something a test made whose process is gone.
fn is_left_over(name: &str) -> bool {
    let mut parts = name.split('-');
    if parts.next() != Some(PREFIX) {
        return false;
    }
    let pid = parts.nth(1).and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}
