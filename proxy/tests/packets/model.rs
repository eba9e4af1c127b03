//! Random services and random packets against a plain model of what the programs owe them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, SystemTime},
};

use podium_proxy::model::{Reach, ServicePort};
use podium_proxy_ebpf::{AddressPort, Endpoint, FrontendKind, Protocol};

use crate::{
    fixture::{Fixture, Service, assert_checksums, assert_only_translated},
    forward::answer,
    headers::with_extras,
    net::{FAMILIES, NAT_PORTS, Net},
    packet::{ACK, Packet, RST, SYN},
    read::{self, Read},
    world::{At, Verdict, World},
};

const ROUNDS: usize = 25;
const PACKETS: usize = 100;
/// A CPU sends an ICMP error in this time, and no more: the model counts on every one.
const ICMP_INTERVAL: Duration = Duration::from_millis(1);

const ENDPOINTS: [&str; 5] = ["pod:8080", "pod2:8080", "far:8080", "far2:8080", "node:8080"];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
/// Addresses of the three services, which differ in the port's last digit; and others.
const ADDRESSES: [&str; 3] = ["node:3008", "balancer:8", "cluster:8"];
const OTHERS: [&str; 4] = ["cluster:99", "node:99", "nobody:80", "peer:80"];

/// What the model expects of a packet.
#[derive(Debug)]
enum Expected {
    Untouched,
    Dropped,
    /// Told so, unless it only ends things.
    Refused,
    /// It goes to one of these.
    Translated(BTreeSet<Endpoint>),
}

/// What a flow got when it was opened.
#[derive(Clone, Copy, Debug)]
struct Open {
    endpoint: Endpoint,
    is_rewritten: bool,
}

/// A packet of the model.
#[derive(Debug)]
struct Sent {
    at: At,
    protocol: Protocol,
    from: SocketAddr,
    to: SocketAddr,
    opens: bool,
    resets: bool,
    /// It has options or extension headers, to which no refusal is made.
    has_extras: bool,
    packet: Packet,
}

/// splitmix64.
pub struct Random(u64);

impl Random {
    /// From a seed that is shown when the test fails.
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seed = std::env::var("PODIUM_SEED")
            .map_or(now.as_nanos() as u64, |text| text.parse().expect("PODIUM_SEED is no number"));
        println!("PODIUM_SEED={seed}");
        Self(seed)
    }

    pub fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % count as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

#[derive(Default)]
struct Model {
    services: BTreeMap<usize, ServicePort>,
    open: BTreeMap<(At, u8, SocketAddr, SocketAddr), Open>,
    affinity: BTreeMap<(IpAddr, usize), Endpoint>,
}

impl Model {
    fn find(&self, sent: &Sent) -> Option<(usize, &ServicePort)> {
        let to = AddressPort::from(sent.to);
        let mut all = self.services.iter().map(|(index, port)| (*index, port));
        all.find(|(_, port)| {
            port.name.protocol == sent.protocol && port.addresses.contains_key(&to)
        })
    }

    fn flow(&self, sent: &Sent) -> Option<Open> {
        let open = *self.open.get(&(sent.at, sent.protocol as u8, sent.from, sent.to))?;
        let needs_live = sent.protocol == Protocol::Udp || sent.opens;
        let listed = || {
            let (_, port) = self.find(sent)?;
            let mut all = port.endpoints.iter().chain(&port.local);
            all.any(|endpoint| endpoint.at() == open.endpoint.at()).then_some(())
        };
        (!needs_live || listed().is_some()).then_some(open)
    }

    fn expect(&self, net: Net, sent: &Sent) -> Expected {
        if let Some(open) = self.flow(sent) {
            return Expected::Translated([open.endpoint].into());
        }
        let Some((index, port)) = self.find(sent) else {
            return match () {
                () if sent.to.ip() == net.ip("cluster") => Expected::Refused,
                () if sent.to.ip() == net.ip("nobody") => Expected::Dropped,
                () => Expected::Untouched,
            };
        };
        // No flow begins with its end.
        if sent.resets {
            return Expected::Dropped;
        }
        let frontend = port.addresses[&AddressPort::from(sent.to)];
        let is_allowed = port.source_ranges.iter().any(|range| range.contains(&sent.from.ip()));
        if frontend.restricted && !is_allowed {
            return Expected::Dropped;
        }
        let reach = if sent.at == At::Pod { frontend.internal } else { frontend.external };
        let span = if reach == Reach::Node { &port.local } else { &port.endpoints };
        if port.endpoints.is_empty() {
            return Expected::Refused;
        }
        if span.is_empty() {
            return Expected::Dropped;
        }
        let kept = self.affinity.get(&(sent.from.ip(), index));
        match kept.filter(|kept| port.affinity_secs > 0 && span.contains(kept)) {
            Some(kept) => Expected::Translated([*kept].into()),
            None => Expected::Translated(span.iter().copied().collect()),
        }
    }

    /// Remembers what a packet got.
    fn opened(&mut self, sent: &Sent, endpoint: Endpoint) -> Open {
        if let Some(open) = self.flow(sent) {
            return open;
        }
        let (index, port) = self.find(sent).unwrap();
        let frontend = port.addresses[&AddressPort::from(sent.to)];
        let is_rewritten = if sent.at == At::Pod {
            endpoint.at().socket_addr().ip() == sent.from.ip()
        } else {
            frontend.external == Reach::Cluster && endpoint.place != Endpoint::ON_HOST
        };
        if port.affinity_secs > 0 {
            self.affinity.insert((sent.from.ip(), index), endpoint);
        }
        let open = Open { endpoint, is_rewritten };
        self.open.insert((sent.at, sent.protocol as u8, sent.from, sent.to), open);
        open
    }
}

#[test]
fn kernel_packet_random_services_and_packets() {
    let mut random = Random::new();
    let mut world = World::new("model");
    for net in FAMILIES {
        let mut fixture = Fixture::new(&mut world, net);
        let mut model = Model::default();
        let protocols = [0; 3].map(|_| PROTOCOLS[random.below(3)]);
        for round in 0..ROUNDS {
            for (index, protocol) in protocols.iter().enumerate() {
                if round == 0 || random.one_in(3) {
                    let service = service(&fixture, &mut random, index, *protocol);
                    model.services.insert(index, fixture.serve(service));
                }
            }
            for _ in 0..PACKETS {
                let sent = packet(net, &mut random, &protocols);
                step(&fixture, &mut model, &sent);
            }
        }
        let opened = model.open.len();
        assert!(opened > 50, "only {opened} flows were opened");
    }
}

fn service(
    fixture: &Fixture<'_>,
    random: &mut Random,
    index: usize,
    protocol: Protocol,
) -> Service {
    let endpoints: Vec<&str> = ENDPOINTS.into_iter().filter(|_| random.one_in(2)).collect();
    let at = |which: usize| format!("{}{index}", ADDRESSES[which]);
    let mut service = fixture
        .service(&format!("model{index}"), protocol, &endpoints)
        .at(FrontendKind::NodePort, &at(0))
        .at(FrontendKind::LoadBalancer, &at(1))
        .at(FrontendKind::ClusterIp, &at(2));
    if random.one_in(3) {
        let range = if fixture.net.is_v4() { "198.51.100.0/26" } else { "2001:db8:9::/122" };
        service = service.source_ranges(&[range]);
    }
    if random.one_in(3) {
        service = service.external_local();
    }
    if random.one_in(4) {
        service = service.internal_local();
    }
    if random.one_in(3) {
        service = service.affinity(600);
    }
    service
}

fn packet(net: Net, random: &mut Random, protocols: &[Protocol; 3]) -> Sent {
    let is_pod = random.one_in(4);
    let (address, index) = (random.below(3), random.below(3));
    let mut to = format!("{}{index}", ADDRESSES[address]);
    let mut protocol = protocols[index];
    if random.one_in(8) {
        to = OTHERS[random.below(OTHERS.len())].to_owned();
    }
    if random.one_in(16) {
        protocol = PROTOCOLS[random.below(3)];
    }
    // No two service addresses see the same source: each flow has a tuple at its endpoint.
    let port = 40_000 + 100 * address + 10 * index + random.below(6);
    let client = ["client", "client2"][random.below(2)];
    let from = format!("{}:{port}", if is_pod { "pod" } else { client });
    let opens = random.one_in(2);
    let resets = !opens && random.one_in(8);
    let packet = match protocol {
        Protocol::Tcp if resets => net.tcp(&from, &to, RST),
        Protocol::Tcp => net.tcp(&from, &to, if opens { SYN } else { ACK }),
        Protocol::Udp => net.udp(&from, &to, &vec![1; random.below(100)]),
        Protocol::Sctp if resets => net.sctp(&from, &to, 6, &[]),
        Protocol::Sctp => net.sctp(&from, &to, u8::from(opens), &vec![1; random.below(100)]),
    };
    let has_extras = random.one_in(8);
    let packet = if has_extras { with_extras(net, packet) } else { packet };
    let at = if is_pod { At::Pod } else { At::Uplink };
    let resets = resets && protocol != Protocol::Udp;
    let opens = opens && protocol != Protocol::Udp;
    Sent { at, protocol, from: packet.from, to: packet.to, opens, resets, has_extras, packet }
}

fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let (_, read) = Read::frame(frame).unwrap();
    let (from, to) = read.ports().unwrap();
    ((read.from, from).into(), (read.to, to).into())
}

fn step(fixture: &Fixture<'_>, model: &mut Model, sent: &Sent) {
    let bytes = sent.packet.bytes();
    let expected = model.expect(fixture.net, sent);
    if matches!(expected, Expected::Refused) {
        thread::sleep(ICMP_INTERVAL);
    }
    let (verdict, left) = fixture.world.run(sent.at, &bytes);
    let (told, counted) = (read::text(&left), fixture.world.take_outcomes());
    let what = format!("{sent:?}\nexpected {expected:?}\n{verdict:?} {told} {counted:?}");
    match expected {
        Expected::Untouched => assert!(verdict == Verdict::Next && left == bytes, "{what}"),
        Expected::Dropped => assert_eq!(verdict, Verdict::Drop, "{what}"),
        Expected::Refused if sent.resets || sent.has_extras => {
            assert_eq!(verdict, Verdict::Drop, "{what}")
        }
        Expected::Refused => {
            assert_eq!(verdict, Verdict::Redirect, "{what}");
            let (_, read) = Read::frame(&left).unwrap();
            assert_eq!((read.from, read.to), (sent.to.ip(), sent.from.ip()), "{what}");
            assert_checksums(&what, &bytes, &left);
        }
        Expected::Translated(candidates) => {
            let (_, to) = ends(&left);
            let chosen = candidates.iter().find(|endpoint| endpoint.at().socket_addr() == to);
            let chosen = *chosen.unwrap_or_else(|| panic!("no such endpoint: {what}"));
            let open = model.opened(sent, chosen);
            assert_checksums(&what, &bytes, &left);
            assert_only_translated(&what, &bytes, &left);
            follow(fixture, sent, open, verdict, left, &what);
        }
    }
}

/// Takes a translated packet on to its endpoint, and the answer back to the client.
fn follow(
    fixture: &Fixture<'_>,
    sent: &Sent,
    open: Open,
    verdict: Verdict,
    left: Vec<u8>,
    what: &str,
) {
    let is_far = open.endpoint.place == Endpoint::ELSEWHERE;
    let is_forwarded = is_far && sent.at == At::Uplink;
    let next = if is_forwarded { Verdict::Redirect } else { Verdict::Next };
    assert_eq!(verdict, next, "{what}");
    let (by_xdp, left_by_xdp) = fixture.world.run(At::Xdp, &sent.packet.bytes());
    if is_forwarded && sent.protocol != Protocol::Sctp {
        // The addresses of the link are left to the kernel behind a classifier.
        assert_eq!((by_xdp, &left_by_xdp[12..]), (Verdict::Back, &left[12..]), "XDP: {what}");
    } else if sent.at == At::Uplink {
        assert_eq!(by_xdp, Verdict::Next, "XDP: {what}");
    }
    let run = |hooks: &[At], mut bytes: Vec<u8>| {
        for at in hooks {
            let (verdict, next) = fixture.world.run(*at, &bytes);
            let last = is_forwarded && *at == At::Uplink;
            let expected = if last { Verdict::Redirect } else { Verdict::Next };
            assert_eq!(verdict, expected, "{at:?} {}\n{what}", read::text(&bytes));
            assert_checksums(what, &bytes, &next);
            bytes = next;
        }
        bytes
    };
    let client_out = if sent.at == At::Pod { At::OutPod } else { At::OutUplink };
    let (there, back): (&[At], &[At]) = match open.endpoint.place {
        Endpoint::ELSEWHERE if is_forwarded => (&[], &[At::Uplink]),
        Endpoint::ELSEWHERE => (&[At::OutUplink], &[At::Uplink, client_out]),
        Endpoint::ON_HOST => (&[], &[client_out]),
        _ => (&[At::OutPod], &[At::Pod, client_out]),
    };
    let reached = run(there, left);
    let (from, to) = ends(&reached);
    assert_eq!(to, open.endpoint.at().socket_addr(), "{what}");
    if open.is_rewritten {
        assert_eq!(from.ip(), fixture.net.ip("node"), "{what}");
        assert!(NAT_PORTS.contains(&from.port()), "{from}: {what}");
    } else {
        assert_eq!(from, sent.from, "{what}");
    }
    let returned = run(back, answer(fixture.net, &sent.packet, &reached).bytes());
    assert_eq!(ends(&returned), (sent.to, sent.from), "the answer to {what}");
}
