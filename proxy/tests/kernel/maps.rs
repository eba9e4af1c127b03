//! What the maps hold beyond the life of one agent, one set or one flow.

use std::{net::SocketAddr, path::Path};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapInfo},
};
use podium_proxy::{
    datapath::{
        Datapath as _, Error,
        kernel::{self, KernelDatapath},
        pins::PinDir,
    },
    model::{LocalNode, PortName},
    plan::{Op, held::Limits},
};
use podium_proxy_ebpf::{
    AddressPort, AffinityEntry, AffinityKey, Config, FlowEntry, FlowKey, FragmentKey,
    FragmentPorts, Hook, Outcome, PeerKey, Protocol, SourceRange, StreamPeer, Tuple, flow::flags,
    maps, socket::Holder,
};

use super::{
    IPS,
    node::{Node, ask, eventually, serve_tcp, service, slice},
};

fn open<K: Pod, V: Pod>(set: &Path, map: &str) -> HashMap<MapData, K, V> {
    let data = MapData::from_pin(set.join(map)).unwrap();
    HashMap::try_from(Map::from_map_data(data).unwrap()).unwrap()
}

fn array<V: Pod>(set: &Path, map: &str) -> Array<MapData, V> {
    let data = MapData::from_pin(set.join(map)).unwrap();
    Array::try_from(Map::from_map_data(data).unwrap()).unwrap()
}

fn at(text: &str) -> AddressPort {
    text.parse::<SocketAddr>().unwrap().into()
}

/// The programs' clock.
fn now_ns() -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is written to and outlives the call.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut at) }, 0);
    at.tv_sec.unsigned_abs() * 1_000_000_000 + at.tv_nsec.unsigned_abs()
}

/// The set in use, and the ids of a Service's TCP and UDP port in it.
fn ids(pins: &PinDir, service: &str) -> (std::path::PathBuf, u32, u32) {
    let (set, _) = pins.current().unwrap();
    let names = KernelDatapath::open_current(pins).unwrap().snapshot().unwrap().names;
    let id = |protocol| {
        let is_it = |name: &PortName| name.service.name == service && name.protocol == protocol;
        let found =
            names.iter().find(|(_, name)| PortName::from_abi(name).is_some_and(|n| is_it(&n)));
        found.unwrap_or_else(|| panic!("{service} has no id")).0
    };
    (set, id(Protocol::Tcp), id(Protocol::Udp))
}

fn flow(
    client: &str,
    protocol: Protocol,
    service_id: u32,
    used_at_ns: u64,
) -> (FlowKey, FlowEntry) {
    let service = at("192.0.2.1:80");
    let key = FlowKey::new(Tuple::new(&at(client), &service), protocol as u8, Hook::Ingress);
    let to = Tuple::new(&at(client), &at("127.0.0.1:8080"));
    (key, FlowEntry { to, flags: flags::ORIGIN, service_id, generation: 0, used_at_ns })
}

#[test]
fn kernel_flows_outlive_a_change_of_sizes() {
    let mut node = Node::new("carry");
    let pins = PinDir::new(node.pin_dir());
    serve_tcp("127.0.0.1:8080");
    let named =
        |name: &str, ip: &str| service(name, ip, 80, "") + &slice(name, "IPv4", 8080, &IPS[..1]);
    node.manifest("z.yaml", &named("zzz", "10.96.0.10"));
    node.start();
    node.manifest("a.yaml", &named("aaa", "10.96.0.11"));
    eventually("both are there", || node.shown(&["status"]).contains("aaa"));
    assert_eq!(node.in_pod(|| ask("10.96.0.10:80")), "127.0.0.1:8080");
    let (old, tcp, udp) = ids(&pins, "zzz");
    let now = now_ns();
    let kept = [
        flow("192.0.2.9:1", Protocol::Tcp, tcp, now),
        flow("192.0.2.9:2", Protocol::Udp, udp, now),
        flow("192.0.2.9:3", Protocol::Tcp, 999, now),
    ];
    let lost = flow("192.0.2.9:4", Protocol::Udp, 999, now);
    let mut flows = open::<FlowKey, FlowEntry>(&old, maps::FLOWS);
    for (key, entry) in kept.iter().chain([&lost]) {
        flows.insert(key, entry, 0).unwrap();
    }
    // More than one batch.
    for number in 0..20_000_u32 {
        let client = format!("198.51.{}.{}:7", number >> 8, number & 0xff);
        let (key, entry) = flow(&client, Protocol::Tcp, tcp, now);
        flows.insert(key, entry, 0).unwrap();
    }
    let client = |id| AffinityKey::of_cookie(77, id, Holder::Socket);
    let sticky = AffinityEntry { endpoint: at("127.0.0.1:8080"), used_at_ns: now };
    open(&old, maps::AFFINITY).insert(client(udp), sticky, 0).unwrap();
    let peer = PeerKey { socket_cookie: 1 << 60, endpoint: at("127.0.0.1:8080") };
    open(&old, maps::SOCKET_PEERS).insert(peer, at("10.96.0.10:80"), 0).unwrap();
    let cookie = (1 << 60) + 5;
    let stream = StreamPeer::new(cookie, at("127.0.0.1:8080"), at("10.96.0.10:80"));
    let place = |set: &Path| {
        let len = MapInfo::from_pin(set.join(maps::STREAM_PEERS)).unwrap().max_entries();
        StreamPeer::place(cookie, len).unwrap()
    };
    let place_before = place(&old);
    array(&old, maps::STREAM_PEERS).set(place_before, stream, 0).unwrap();
    let fragment = FragmentKey::new([1; 16], [2; 16], [0, 0, 0, 3], 17, Hook::Ingress);
    let ports = FragmentPorts { src_port: [1, 2], dst_port: [3, 4] };
    open(&old, maps::FRAGMENTS).insert(fragment, ports, 0).unwrap();
    let generation_before = array::<u32>(&old, maps::GENERATIONS).get(&tcp, 0).unwrap();

    node.kill();
    node.flags(&["--max-flows", "300000", "--max-socket-peers", "1000"]);
    node.start();
    let (new, new_tcp, new_udp) = ids(&pins, "zzz");
    assert!(new != old && new_tcp != tcp && new_udp != udp, "{new:?} {new_tcp} {new_udp}");
    assert_eq!(pins.current().unwrap().1.flows, 300_000);
    let flows = open::<FlowKey, FlowEntry>(&new, maps::FLOWS);
    for ((key, entry), id) in kept.iter().zip([new_tcp, new_udp, u32::MAX]) {
        let generation = if id == u32::MAX { id } else { entry.generation };
        let expected = FlowEntry { service_id: id, generation, ..*entry };
        assert_eq!(flows.get(key, 0).unwrap(), expected);
    }
    assert!(flows.get(&lost.0, 0).is_err(), "UDP ends with its Service");
    assert_eq!(flows.keys().count(), 20_003);
    assert_eq!(
        open::<AffinityKey, AffinityEntry>(&new, maps::AFFINITY).get(&client(new_udp), 0).unwrap(),
        sticky
    );
    assert_eq!(
        open::<PeerKey, AddressPort>(&new, maps::SOCKET_PEERS).get(&peer, 0).unwrap(),
        at("10.96.0.10:80")
    );
    assert_ne!(place(&new), place_before);
    assert_eq!(array::<StreamPeer>(&new, maps::STREAM_PEERS).get(&place(&new), 0).unwrap(), stream);
    assert_eq!(
        open::<FragmentKey, FragmentPorts>(&new, maps::FRAGMENTS).get(&fragment, 0).unwrap(),
        ports
    );
    let generation = array::<u32>(&new, maps::GENERATIONS).get(&new_tcp, 0).unwrap();
    assert_ne!(generation, generation_before, "each flow looks its endpoint up once");
    let shown = node.shown(&["status", "-o", "json"]);
    assert!(shown.contains("\"hits\": 1"), "counts go on: {shown}");
    assert!(!old.exists(), "the old set is gone");

    node.kill();
    node.flags(&["--max-flows", "1024"]);
    node.start();
    let (small, _, _) = ids(&pins, "zzz");
    let used = open::<FlowKey, FlowEntry>(&small, maps::FLOWS).keys().count();
    assert!((1..=1024).contains(&used), "as many as there is room for: {used}");
    assert!(!new.exists());
}

#[test]
fn kernel_flows_outlive_another_version_of_the_maps() {
    let mut node = Node::new("version");
    let pins = PinDir::new(node.pin_dir());
    let web = service("web", "10.96.0.10", 80, "") + &slice("web", "IPv4", 8080, &IPS[..1]);
    node.manifest("web.yaml", &web);
    node.start();
    let (set, tcp, _) = ids(&pins, "web");
    let (key, entry) = flow("192.0.2.9:1", Protocol::Tcp, tcp, now_ns());
    open::<FlowKey, FlowEntry>(&set, maps::FLOWS).insert(key, entry, 0).unwrap();
    node.kill();
    // As an agent of another version names its maps; and with one that is none of this version's.
    let earlier = node.pin_dir().join("maps_v1_65536_262144");
    std::fs::rename(&set, &earlier).unwrap();
    std::fs::rename(earlier.join(maps::AFFINITY), earlier.join("OTHER")).unwrap();
    std::fs::rename(earlier.join(maps::SOURCE_RANGES), earlier.join(maps::AFFINITY)).unwrap();
    node.start();
    let (set, tcp, _) = ids(&pins, "web");
    let carried = open::<FlowKey, FlowEntry>(&set, maps::FLOWS).get(&key, 0).unwrap();
    assert_eq!(carried, FlowEntry { service_id: tcp, ..entry });
    assert!(!earlier.exists());
}

#[test]
fn kernel_flows_outlive_an_interrupted_change_of_sizes() {
    let mut node = Node::new("interrupted");
    let pins = PinDir::new(node.pin_dir());
    let web = service("web", "10.96.0.10", 80, "") + &slice("web", "IPv4", 8080, &IPS[..1]);
    node.manifest("web.yaml", &web);
    node.start();
    let (old, tcp, _) = ids(&pins, "web");
    node.kill();
    // An agent that ends after the programs went over, before it took over what came meanwhile.
    let limits = Limits { flows: 300_000, ..Limits::default() };
    let (programs, maps_of_other) = kernel::load(&pins, limits).unwrap();
    let died = || Err(Error::NothingPinned { path: node.pin_dir().to_owned() });
    programs.attach_with::<Error>(node.cgroup(), died).unwrap_err();
    drop((programs, maps_of_other));
    let (key, entry) = flow("192.0.2.9:1", Protocol::Tcp, tcp, now_ns());
    open::<FlowKey, FlowEntry>(&old, maps::FLOWS).insert(key, entry, 0).unwrap();
    node.flags(&["--max-flows", "300000"]);
    node.start();
    let (new, tcp, _) = ids(&pins, "web");
    assert_ne!(new, old);
    let carried = open::<FlowKey, FlowEntry>(&new, maps::FLOWS).get(&key, 0).unwrap();
    assert_eq!(carried, FlowEntry { service_id: tcp, ..entry });
    assert!(!old.exists());
}

#[test]
fn kernel_collector_walks_a_full_map() {
    let node = Node::new("full");
    let pins = PinDir::new(node.pin_dir());
    let limits = Limits { services: 16, endpoints: 16, maglev: 16, ..Limits::default() };
    let (_programs, datapath) = kernel::load(&pins, limits).unwrap();
    let set = pins.maps(limits);
    let now = now_ns();
    let mut flows = open::<FlowKey, FlowEntry>(&set, maps::FLOWS);
    // A few less than there is room for: an LRU map begins to evict before it is full.
    let wanted = limits.flows - limits.flows / 16;
    for number in 0..wanted {
        let client = SocketAddr::new(std::net::Ipv4Addr::from_bits(number).into(), 9);
        let (key, entry) = flow(&client.to_string(), Protocol::Udp, 0, now);
        flows.insert(key, entry, 0).unwrap();
    }
    let mut collector = datapath.collector().unwrap();
    let started = std::time::Instant::now();
    collector.collect().unwrap();
    println!("{wanted} entries walked in {:?}", started.elapsed());
    let used = datapath.map_use().into_iter().find(|one| one.map == maps::FLOWS).unwrap();
    assert_eq!((used.used, used.size), (wanted, limits.flows));
    assert_eq!(datapath.flows()[&Protocol::Udp], u64::from(wanted));
}

#[test]
fn kernel_collector_removes_what_is_over() {
    let mut node = Node::new("collect");
    let pins = PinDir::new(node.pin_dir());
    let web = service("web", "10.96.0.10", 80, "") + &slice("web", "IPv4", 8080, &IPS[..1]);
    node.manifest("web.yaml", &web);
    node.flags(&["--flow-collect-interval", "1"]);
    node.start();
    let (set, tcp, udp) = ids(&pins, "web");
    let now = now_ns();
    let ago = |secs: u64| now.checked_sub(secs * 1_000_000_000).expect("booted a moment ago");
    let mut flows = open::<FlowKey, FlowEntry>(&set, maps::FLOWS);
    let over = flow("192.0.2.9:1", Protocol::Tcp, tcp, ago(121));
    let young = flow("192.0.2.9:2", Protocol::Tcp, tcp, ago(60));
    let datagrams = flow("192.0.2.9:3", Protocol::Udp, udp, now);
    let answered = flow("192.0.2.9:4", Protocol::Tcp, tcp, ago(121));
    let answer_key = answered.1.answer_key(Protocol::Tcp as u8).unwrap();
    let answer =
        FlowEntry { to: answered.0.tuple.reversed(), flags: 0, used_at_ns: now, ..answered.1 };
    let orphan_key = over.1.answer_key(Protocol::Tcp as u8).unwrap();
    let orphan = FlowEntry { to: over.0.tuple.reversed(), flags: 0, ..over.1 };
    let all = [over, young, datagrams, answered, (answer_key, answer), (orphan_key, orphan)];
    for (key, entry) in all {
        flows.insert(key, entry, 0).unwrap();
    }
    let mut affinity = open::<AffinityKey, AffinityEntry>(&set, maps::AFFINITY);
    let client = |cookie| AffinityKey::of_cookie(cookie, udp, Holder::Socket);
    for (cookie, used_at_ns) in [(1, ago(181)), (2, now)] {
        let entry = AffinityEntry { endpoint: at("127.0.0.1:8080"), used_at_ns };
        affinity.insert(client(cookie), entry, 0).unwrap();
    }
    eventually("the flow that is over is gone", || flows.get(&over.0, 0).is_err());
    eventually("so are its answers", || flows.get(&orphan_key, 0).is_err());
    eventually("and a socket's choice", || affinity.get(&client(1), 0).is_err());
    for key in [young.0, datagrams.0, answered.0, answer_key] {
        assert!(flows.get(&key, 0).is_ok(), "{key:?}");
    }
    assert!(affinity.get(&client(2), 0).is_ok());
}

#[test]
fn kernel_operations_on_every_map() {
    let node = Node::new("ops");
    let pins = PinDir::new(node.pin_dir());
    let limits = Limits { services: 16, endpoints: 16, maglev: 16, ..Limits::default() };
    let (_programs, mut datapath) = kernel::load(&pins, limits).unwrap();
    let set = pins.maps(limits);
    let range = SourceRange { service_id: 3, ip: at("10.1.0.0:0").ip };
    let wide = SourceRange { service_id: 3, ip: [0; 16] };
    for (range, prefix_len) in [(range, 96 + 16), (wide, 0)] {
        datapath.execute(&Op::AddSourceRange { range, prefix_len }).unwrap();
    }
    let mut held = datapath.snapshot().unwrap().source_ranges;
    held.sort_unstable();
    assert_eq!(held, [(wide, 0), (range, 112)]);
    for _ in 0..2 {
        // Twice: what is not there is no error.
        datapath.execute(&Op::RemoveSourceRange { range, prefix_len: 112 }).unwrap();
    }
    assert_eq!(datapath.snapshot().unwrap().source_ranges, [(wide, 0)]);

    datapath.execute(&Op::Renew { id: 5 }).unwrap();
    datapath.execute(&Op::Renew { id: 5 }).unwrap();
    assert_eq!(array::<u32>(&set, maps::GENERATIONS).get(&5, 0).unwrap(), 2);
    assert!(datapath.execute(&Op::Renew { id: 16 }).is_err());

    datapath.execute(&Op::WriteMaglev { start: 14, slots: vec![1, 2, 3, 4, 5] }).unwrap();
    // The array has no type of aya's that fits; two numbers are as good.
    let tables = array::<[u16; 4]>(&set, maps::MAGLEV);
    assert_eq!(tables.get(&14, 0).unwrap(), [1, 2, 3, 4]);
    assert_eq!(tables.get(&15, 0).unwrap(), [5, 0, 0, 0]);
    let beyond = datapath.execute(&Op::WriteMaglev { start: 15, slots: vec![1; 5] }).unwrap_err();
    assert_eq!(beyond.to_string(), "elements 15+2 are beyond map MAGLEV of 16");

    let outcomes = datapath.outcomes().unwrap();
    assert_eq!(outcomes.len(), Outcome::ALL.len());
    assert!(datapath.map_use().is_empty(), "nobody looked yet");
    datapath.collector().unwrap().collect().unwrap();
    let found = datapath.map_use();
    let ranges = found.iter().find(|one| one.map == maps::SOURCE_RANGES).unwrap();
    assert_eq!((ranges.used, ranges.size), (1, limits.source_ranges));
}

#[test]
fn kernel_config_tells_the_programs_about_the_node() {
    let mut node = Node::new("config");
    let flags = ["--forwarding-mode", "dsr", "--service-node-port-range", "20000-20999"];
    node.flags(&flags);
    node.start();
    let pins = PinDir::new(node.pin_dir());
    let (set, _) = pins.current().unwrap();
    let read = || array::<Config>(&set, maps::CONFIG).get(&0, 0).unwrap();
    let config = read();
    assert_ne!(config.host_netns_cookie, 0);
    assert_eq!(config.flags, podium_proxy_ebpf::config::flags::DIRECT_RETURN);
    let of_node_ports = |port: u16| (20_000..=20_999).contains(&port);
    for range in config.nat_ports.iter().filter(|range| range.len > 0) {
        let last = range.first + (range.len - 1);
        assert!(range.first >= 1024 && !of_node_ports(range.first) && !of_node_ports(last));
    }
    assert!(config.nat_ports[0].len > 0, "{config:?}");
    node.kill();
    let mut datapath = KernelDatapath::open_current(&pins).unwrap();
    let local = LocalNode {
        primary_v4: "192.0.2.1".parse().ok(),
        service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
        ..LocalNode::default()
    };
    datapath.set_node(&local).unwrap();
    let told = read();
    assert_eq!(told.node_v4, at("192.0.2.1:0").ip);
    assert!(told.service_cidrs[0].contains(&at("10.100.0.1:0").ip));
    let same = Config { node_v4: config.node_v4, service_cidrs: config.service_cidrs, ..told };
    assert_eq!(same, config, "the rest stays");
}

#[test]
fn kernel_cleanup_leaves_nothing() {
    let mut node = Node::new("cleanup");
    let pins = PinDir::new(node.pin_dir());
    node.start();
    node.kill();
    // Of an agent of another version, and one that was interrupted.
    let (set, _) = pins.current().unwrap();
    std::fs::create_dir(node.pin_dir().join("maps_v1_1_1")).unwrap();
    std::fs::rename(set.join(maps::FLOWS), pins.links().join("connect4_new")).unwrap();
    let said = node.shown(&["cleanup"]);
    assert!(said.starts_with("removed what was pinned under"), "{said}");
    assert!(!node.pin_dir().exists());
    let said = node.shown(&["cleanup"]);
    assert!(said.starts_with("nothing was pinned under"), "{said}");
}
