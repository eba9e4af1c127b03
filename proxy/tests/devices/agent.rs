//! The agent itself, with the programs it ships.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use podium_proxy::{datapath::links::DeviceHook::TcxIngress, preflight};

use crate::namespace::{Namespace, eventually, ip};

const PROGRAM: &str = env!("CARGO_BIN_EXE_podium-proxy");

/// A running agent, its pods' cgroup and its manifests, of which there are none.
struct Agent {
    process: Option<Child>,
    cgroup: PathBuf,
    manifests: tempfile::TempDir,
}

impl Agent {
    fn new(test: &str) -> Self {
        let root = preflight::cgroup(None).expect("kernel tests need a cgroup v2 mount");
        let cgroup = root.join(format!("podium_devices_{test}_{}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        Self { process: None, cgroup, manifests: tempfile::tempdir().unwrap() }
    }

    fn start(&mut self, pins: &Path) {
        let child = Command::new(PROGRAM)
            .args(["run", "--node-name", "node-a", "--manifests"])
            .arg(self.manifests.path())
            .arg("--cgroup")
            .arg(&self.cgroup)
            .arg("--pin-dir")
            .arg(pins)
            .spawn();
        self.process = Some(child.unwrap());
    }

    /// `kill -9`.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir(&self.cgroup);
    }
}

#[test]
fn kernel_agent_crashes_and_the_next_one_takes_over() {
    let namespace = Namespace::new("agent");
    ip("link add eth0 type veth peer name wire");
    ip("addr add 192.0.2.1/24 dev eth0");
    ip("link set eth0 up");
    ip("link set wire up");
    ip("route add default via 192.0.2.254 dev eth0");
    let mut agent = Agent::new("agent");
    agent.start(namespace.pins());
    eventually("programs are on both ends", || namespace.attached().len() == 4);
    assert_eq!(namespace.program(TcxIngress, "eth0"), "uplink_ingress");
    assert_eq!(namespace.program(TcxIngress, "wire"), "pod_ingress");
    let before = namespace.attached();
    agent.kill();
    assert_eq!(namespace.attached(), before, "they stay");
    agent.start(namespace.pins());
    eventually("they run the programs of the new agent", || {
        let after = namespace.attached();
        before.iter().zip(&after).all(|(old, new)| old.program_id != new.program_id)
    });
    for (old, new) in before.iter().zip(&namespace.attached()) {
        assert!(new.attached, "{new:?}");
        assert_eq!((old.ifindex, old.hook, old.link_id), (new.ifindex, new.hook, new.link_id));
    }
    ip("link add pod0 type veth peer name inside");
    eventually("a new pod is served", || {
        namespace.program(TcxIngress, "pod0") == "pod_ingress" && namespace.attached().len() == 8
    });
    agent.kill();
    let cleanup =
        Command::new(PROGRAM).args(["cleanup", "--pin-dir"]).arg(namespace.pins()).status();
    assert!(cleanup.unwrap().success());
    assert_eq!(namespace.attached(), []);
    assert!(!Namespace::any_left(&before));
}
