//! The agent itself, with the programs it ships.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use podium_proxy::{
    datapath::links::DeviceHook::{TcxEgress, TcxIngress},
    preflight,
};

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

#[test]
fn kernel_agent_serves_overlays_and_says_what_it_skips() {
    let namespace = Namespace::new("agent_overlay");
    ip("link add eth0 type veth peer name wire");
    ip("addr add 192.0.2.1/24 dev eth0");
    ip("link set eth0 up");
    ip("link set wire up");
    ip("route add default via 192.0.2.254 dev eth0");
    ip("link add vx0 type vxlan id 7 dstport 4789 remote 192.0.2.9 dev eth0");
    ip("addr add 10.244.1.0/32 dev vx0");
    ip("link set vx0 up");
    ip("link add eth1 type veth peer name far");
    ip("link add link eth1 name mac0 type macvlan");
    ip("link set eth1 up");
    ip("link set mac0 up");
    ip("tuntap add tun0 mode tun");
    ip("link set tun0 up");
    ip("route add 10.244.9.0/24 dev tun0");
    let mut agent = Agent::new("agent_overlay");
    agent.start(namespace.pins());
    eventually("programs are on all devices", || namespace.attached().len() == 11);
    let program = |hook, device| namespace.program(hook, device);
    for device in ["eth0", "vx0"] {
        assert_eq!(program(TcxIngress, device), "uplink_ingress", "{device}");
    }
    for device in ["wire", "eth1", "far"] {
        assert_eq!(program(TcxIngress, device), "pod_ingress", "{device}");
    }
    assert_eq!(program(TcxIngress, "mac0"), "");
    for device in ["eth0", "vx0", "wire", "eth1", "far", "mac0"] {
        assert_eq!(program(TcxEgress, device), "egress", "{device}");
    }
    let status = Command::new(PROGRAM).args(["status", "--pin-dir"]).arg(namespace.pins()).output();
    let status = String::from_utf8(status.unwrap().stdout).unwrap();
    let served = "devices: eth0 uplink tcx, vx0 uplink tcx, mac0 egress only tcx, ";
    assert!(status.contains(served), "{status}");
    let skipped = "skipped: device tun0: it has no Ethernet header, and routes lead to it: \
                   what passes there is not translated\n";
    assert!(status.contains(skipped), "{status}");
    agent.kill();
    let cleanup =
        Command::new(PROGRAM).args(["cleanup", "--pin-dir"]).arg(namespace.pins()).status();
    assert!(cleanup.unwrap().success());
    assert_eq!(namespace.attached(), []);
}
