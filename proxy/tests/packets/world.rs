//! A node for packets: a network namespace with devices, routes and neighbours, the programs and
//! the maps, filled through the real plan. No packet ever leaves: programs run by BPF_PROG_TEST_RUN.
//!
//! ```text
//! client 198.51.100.9 ─ router 192.0.2.254 ─┐
//!                        peer 192.0.2.2 ────┴─ up0 [node 192.0.2.1] pod0 ─ pods 10.244.1.0/24
//!                        (pods 10.244.2.0/24)
//! ```
//! The same in IPv6: 2001:db8:9::9, 2001:db8:2::/64, fd00:244:1::/64, fd00:244:2::/64.

use std::{
    collections::HashSet,
    fs,
    io::{self, Write as _},
    net::IpAddr,
    os::fd::BorrowedFd,
    path::PathBuf,
    process::{Command, Stdio},
};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use podium_proxy::{
    datapath::{
        Datapath as _,
        kernel::KernelDatapath,
        pins::PinDir,
        programs::{self, Programs},
    },
    model::Desired,
    plan::{
        self,
        held::{Held, Limits},
    },
    preflight,
};
use podium_proxy_ebpf::{
    AffinityEntry, AffinityKey, Cidr, Config, FlowEntry, FlowKey, Outcome, PortRange,
    ServiceCounters, address, maps,
};

use crate::{
    bpf::{self, Context, Tagged},
    net::NAT_PORTS,
};

const DEVICES: &str = "\
link set lo up
link add up0 address 02:00:00:00:00:01 type veth peer name up1
link add pod0 address 02:00:00:00:01:01 type veth peer name pod1
link set up1 up
link set up0 up
link set pod1 up
link set pod0 up
addr add 192.0.2.1/24 dev up0
addr add 2001:db8:2::1/64 dev up0 nodad
addr add 10.244.1.1/24 dev pod0
addr add fd00:244:1::1/64 dev pod0 nodad
route add default via 192.0.2.254
route add default via 2001:db8:2::fe
route add blackhole 10.250.0.0/16
route add blackhole fd00:250::/32
route add 10.244.2.0/24 via 192.0.2.2
route add fd00:244:2::/64 via 2001:db8:2::2
neigh add 192.0.2.254 lladdr 02:00:00:00:00:fe dev up0 nud permanent
neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev up0 nud permanent
neigh add 2001:db8:2::fe lladdr 02:00:00:00:00:fe dev up0 nud permanent
neigh add 2001:db8:2::2 lladdr 02:00:00:00:00:02 dev up0 nud permanent
neigh add 10.244.1.5 lladdr 02:00:00:00:01:05 dev pod0 nud permanent
neigh add 10.244.1.6 lladdr 02:00:00:00:01:06 dev pod0 nud permanent
neigh add fd00:244:1::5 lladdr 02:00:00:00:01:05 dev pod0 nud permanent
neigh add fd00:244:1::6 lladdr 02:00:00:00:01:06 dev pod0 nud permanent
";

/// Sizes of the maps.
pub const LIMITS: Limits = Limits {
    services: 256,
    endpoints: 1024,
    maglev: 65_536,
    source_ranges: 64,
    affinity: 1024,
    socket_peers: 1024,
    flows: 8192,
};

/// A program, and where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// `uplink_ingress` on the device towards other machines.
    Uplink,
    /// `xdp` on the same.
    Xdp,
    /// `pod_ingress` on a pod's device.
    Pod,
    /// `egress` on the device towards other machines.
    OutUplink,
    /// `egress` on a pod's device.
    OutPod,
}

impl At {
    /// The name of the program.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uplink => "uplink_ingress",
            Self::Xdp => "uplink_xdp",
            Self::Pod => "pod_ingress",
            Self::OutUplink | Self::OutPod => "egress",
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on through the stack.
    Next,
    Drop,
    /// Out through a device the program names.
    Redirect,
    /// Out through the device it came in by.
    Back,
    /// None of the verdicts a program may give here.
    Unknown(i32),
}

impl Verdict {
    /// From `TC_ACT_*` and `TCX_*`, or from `XDP_*`.
    pub const fn new(at: At, number: i32) -> Self {
        match (at, number) {
            (At::Xdp, 1) => Self::Drop,
            (At::Xdp, 2) => Self::Next,
            (At::Xdp, 3) => Self::Back,
            (At::Xdp, 4) => Self::Redirect,
            (At::Xdp, other) => Self::Unknown(other),
            (_, -1) => Self::Next,
            (_, 2) => Self::Drop,
            (_, 7) => Self::Redirect,
            (_, other) => Self::Unknown(other),
        }
    }
}

pub struct World {
    pub desired: Desired,
    pub config: Config,
    programs: Programs,
    datapath: KernelDatapath,
    held: Held,
    pins: PinDir,
    uplink: u32,
    pod: u32,
}

impl World {
    /// Moves the calling thread into a network namespace of its own and sets it up.
    pub fn new(test: &str) -> Self {
        namespace();
        let root = PathBuf::from(format!("/sys/fs/bpf/podium_{test}_{}", std::process::id()));
        preflight::pin_dir(&root).expect("no bpffs");
        let pins = PinDir::new(root);
        let (programs, datapath) = programs::load(&pins, LIMITS).unwrap_or_else(|error| {
            let _ = fs::remove_dir_all(pins.root());
            panic!("{error:?}")
        });
        let mut world = Self {
            desired: Desired::default(),
            config: config(),
            programs,
            datapath,
            held: Held::empty(LIMITS),
            pins,
            uplink: if_nametoindex("up0").expect("no up0"),
            pod: if_nametoindex("pod0").expect("no pod0"),
        };
        world.configure();
        world
    }

    /// Makes the kernel hold what is desired.
    pub fn sync(&mut self) {
        let plan = plan::plan(&mut self.held, &self.desired);
        assert!(self.held.shortages.is_empty(), "{:?}", self.held.shortages);
        for op in &plan.ops {
            self.datapath.execute(op).unwrap_or_else(|error| panic!("{op:?}: {error:?}"));
        }
    }

    /// Writes `config` down.
    pub fn configure(&mut self) {
        let mut map: Array<MapData, Config> =
            Array::try_from(self.map(maps::CONFIG)).expect("CONFIG is no array");
        map.set(0, self.config, 0).expect("cannot write CONFIG");
    }

    fn map(&self, name: &str) -> Map {
        let path = self.pins.maps(LIMITS).join(name);
        let data = MapData::from_pin(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        Map::from_map_data(data).expect("a map of a kind aya knows")
    }

    fn hash<K: Pod, V: Pod>(&self, name: &str) -> HashMap<MapData, K, V> {
        HashMap::try_from(self.map(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn program(&self, at: At) -> BorrowedFd<'_> {
        self.programs.fd(at.name()).unwrap_or_else(|error| panic!("{at:?}: {error}"))
    }

    /// A program by its name.
    pub fn program_named(&self, name: &'static str) -> BorrowedFd<'_> {
        self.programs.fd(name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Every program, and how many instructions the verifier went through for it.
    pub fn verified(&self) -> Vec<(&'static str, u32)> {
        self.programs.verified_instructions().expect("the kernel does not tell")
    }

    /// What the program is given besides the packet.
    pub fn context(&self, at: At) -> Context {
        match at {
            At::Uplink | At::OutUplink => Context::Buffer { ifindex: self.uplink },
            At::Pod | At::OutPod => Context::Buffer { ifindex: self.pod },
            At::Xdp => Context::Frame { ifindex: self.uplink },
        }
    }

    /// Runs a program on a packet.
    pub fn run(&self, at: At, packet: &[u8]) -> (Verdict, Vec<u8>) {
        self.try_run(at, packet).unwrap_or_else(|error| panic!("{at:?} does not run: {error}"))
    }

    /// The same on what is perhaps too short for the kernel to make a packet buffer of.
    pub fn try_run(&self, at: At, packet: &[u8]) -> io::Result<(Verdict, Vec<u8>)> {
        let (number, left) = bpf::test_run(self.program(at), self.context(at), packet)?;
        Ok((Verdict::new(at, number), left))
    }

    /// The same with a VLAN tag in the packet's metadata.
    pub fn run_tagged(&self, at: At, tag: u16, packet: &[u8]) -> (Verdict, Vec<u8>) {
        let tagged = Tagged::new(self.program(at), tag).expect("no tagging program");
        let (number, left) = tagged.run(self.context(at), packet).expect("it does not run");
        (Verdict::new(at, number), left)
    }

    pub fn flows(&self) -> Vec<(FlowKey, FlowEntry)> {
        let flows = self.hash(maps::FLOWS);
        flows.iter().map(|item| item.expect("FLOWS cannot be read")).collect()
    }

    pub fn affinity(&self) -> Vec<(AffinityKey, AffinityEntry)> {
        let affinity = self.hash(maps::AFFINITY);
        affinity.iter().map(|item| item.expect("AFFINITY cannot be read")).collect()
    }

    /// How often each outcome was counted since the last call, of those that were.
    pub fn take_outcomes(&self) -> Vec<(Outcome, u64)> {
        let mut outcomes: PerCpuArray<MapData, u64> =
            PerCpuArray::try_from(self.map(maps::OUTCOMES)).expect("OUTCOMES is no array");
        let cpus = nr_cpus().expect("no CPUs");
        let mut taken = Vec::new();
        for outcome in Outcome::ALL {
            let index = outcome as u32;
            let counts = outcomes.get(&index, 0).expect("OUTCOMES is too short");
            let zeros = PerCpuValues::try_from(vec![0; cpus]).expect("no CPUs");
            outcomes.set(index, zeros, 0).expect("OUTCOMES cannot be written");
            let count: u64 = counts.iter().sum();
            if count > 0 {
                taken.push((outcome, count));
            }
        }
        taken
    }

    /// Counters of the only service there is, or of all of them.
    pub fn counters(&self) -> ServiceCounters {
        let ids: Vec<u32> = self.held.ports.values().map(|port| port.id).collect();
        let all = self.datapath.counters(&ids).expect("COUNTERS cannot be read");
        all.values().fold(ServiceCounters::default(), |sum, of| ServiceCounters {
            connections: sum.connections + of.connections,
            packets: sum.packets + of.packets,
            bytes: sum.bytes + of.bytes,
        })
    }

    /// Forgets every flow but these.
    pub fn forget_all_but(&self, kept: &HashSet<FlowKey>) {
        let mut flows = self.hash::<FlowKey, FlowEntry>(maps::FLOWS);
        for (key, _) in self.flows() {
            if !kept.contains(&key) {
                let _ = flows.remove(&key);
            }
        }
    }

    /// Forgets every flow, fragment and affinity.
    pub fn forget(&self) {
        self.forget_all_but(&HashSet::new());
        let mut affinity = self.hash::<AffinityKey, AffinityEntry>(maps::AFFINITY);
        for (key, _) in self.affinity() {
            let _ = affinity.remove(&key);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.pins.root());
    }
}

fn config() -> Config {
    let block = |ip: &str, prefix_len| {
        let ip: IpAddr = ip.parse().expect("an address");
        Cidr { ip: address::map(ip), prefix_len }
    };
    let ip = |text: &str| address::map(text.parse().expect("an address"));
    let mut config =
        Config { node_v4: ip("192.0.2.1"), node_v6: ip("2001:db8:2::1"), ..Config::default() };
    config.nat_ports[0] = PortRange { first: NAT_PORTS.start, len: NAT_PORTS.len() as u16 };
    config.service_cidrs[0] = block("10.96.0.0", 96 + 12);
    config.service_cidrs[1] = block("fd00:96::", 112);
    config
}

/// A network namespace for the calling thread.
pub fn namespace() {
    assert!(geteuid().is_root(), "kernel tests need root; skip them by name: --skip kernel_");
    preflight::check_kernel().expect("this machine cannot run kernel tests");
    unshare(CloneFlags::CLONE_NEWNET).expect("cannot make a network namespace");
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("kernel tests need iproute2");
    let mut stdin = ip.stdin.take().expect("a pipe");
    // What is set here holds for devices made later.
    for (key, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/default/forwarding", "1"),
        ("ipv6/conf/default/accept_ra", "0"),
    ] {
        set(key, value);
    }
    stdin.write_all(DEVICES.as_bytes()).expect("ip does not read");
    drop(stdin);
    assert!(ip.wait().expect("ip is gone").success(), "the devices cannot be set up");
}

/// `/proc/sys/net` shows the calling thread's namespace.
fn set(key: &str, value: &str) {
    let path = format!("/proc/sys/net/{key}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}
