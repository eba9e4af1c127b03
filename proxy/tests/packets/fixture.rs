//! How a fixture is written: steps, each a packet and what became of it, told as lines of text that
//! are the same for both families; and what must hold for every packet whatever the text says.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use expect_test::Expect;
use podium_proxy::model::{Frontend, ObjectName, PortName, Reach, ServicePort};
use podium_proxy_ebpf::{AddressPort, Endpoint, FrontendKind, Protocol};

use crate::{
    net::{FAMILIES, Net},
    packet::Packet,
    read::{self, Read},
    world::{At, Verdict, World},
};

/// The node of a test, in one family, and what was told so far.
pub struct Fixture<'a> {
    pub world: &'a mut World,
    pub net: Net,
    told: String,
}

/// Runs the steps in both families; the text must be the same.
pub fn check(test: &str, steps: impl Fn(&mut Fixture<'_>), expected: Expect) {
    let mut world = World::new(test);
    let mut first = None;
    for net in FAMILIES {
        let mut fixture = Fixture::new(&mut world, net);
        fixture.world.take_outcomes();
        steps(&mut fixture);
        let told = fixture.told;
        match &first {
            None => {
                expected.assert_eq(&told);
                first = Some(told);
            }
            Some(first) => assert_eq!(*first, told, "IPv4 (left) and IPv6 (right)"),
        }
    }
}

/// A service port as the tests write it.
pub struct Service {
    port: ServicePort,
    net: Net,
}

impl Service {
    /// At another address of a kind.
    pub fn at(mut self, kind: FrontendKind, at: &str) -> Self {
        let frontend = Frontend {
            kind,
            internal: Reach::Cluster,
            external: Reach::Cluster,
            restricted: false,
        };
        self.port.addresses.insert(AddressPort::from(self.net.at(at)), frontend);
        self
    }

    /// `externalTrafficPolicy: Local`.
    pub fn external_local(mut self) -> Self {
        for frontend in self.port.addresses.values_mut() {
            if frontend.kind != FrontendKind::ClusterIp {
                frontend.external = Reach::Node;
            }
        }
        self
    }

    /// `internalTrafficPolicy: Local`.
    pub fn internal_local(mut self) -> Self {
        for frontend in self.port.addresses.values_mut() {
            if frontend.kind == FrontendKind::ClusterIp {
                (frontend.internal, frontend.external) = (Reach::Node, Reach::Node);
            }
        }
        self
    }

    /// `loadBalancerSourceRanges`.
    pub fn source_ranges(mut self, ranges: &[&str]) -> Self {
        for frontend in self.port.addresses.values_mut() {
            frontend.restricted = frontend.kind == FrontendKind::LoadBalancer;
        }
        self.port.source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        self
    }

    pub fn affinity(mut self, secs: u32) -> Self {
        self.port.affinity_secs = secs;
        self
    }
}

impl<'a> Fixture<'a> {
    pub fn new(world: &'a mut World, net: Net) -> Self {
        Self { world, net, told: String::new() }
    }

    /// A service port without addresses yet, with endpoints whose place follows from their name.
    pub fn service(&self, name: &str, protocol: Protocol, endpoints: &[&str]) -> Service {
        let net = self.net;
        let mut endpoints: Vec<Endpoint> = (endpoints.iter())
            .map(|at| {
                let place = match at.split(':').next() {
                    Some("node") => Endpoint::ON_HOST,
                    Some("pod" | "pod2") => Endpoint::ON_NODE,
                    _ => Endpoint::ELSEWHERE,
                };
                Endpoint::new(&AddressPort::from(net.at(at)), place)
            })
            .collect();
        endpoints.sort();
        let name = PortName {
            service: ObjectName { namespace: "default".to_owned(), name: name.to_owned() },
            port: String::new(),
            protocol,
            family: net.0,
        };
        let port = ServicePort {
            name,
            addresses: BTreeMap::new(),
            endpoints,
            local: Vec::new(),
            affinity_secs: 0,
            source_ranges: [].into(),
        };
        Service { port, net }
    }

    /// Makes the kernel hold a service, or another state of it.
    pub fn serve(&mut self, service: Service) -> ServicePort {
        let mut port = service.port;
        let reaches_node = |frontend: &Frontend| {
            frontend.internal == Reach::Node || frontend.external == Reach::Node
        };
        if port.addresses.values().any(reaches_node) {
            let local = port.endpoints.iter().filter(|at| at.place != Endpoint::ELSEWHERE);
            port.local = local.copied().collect();
        }
        let desired = &mut self.world.desired;
        for (at, frontend) in &port.addresses {
            if frontend.kind == FrontendKind::ClusterIp {
                desired.cluster_ips.insert(at.socket_addr().ip());
            }
        }
        desired.ports.insert(port.name.clone(), Arc::new(port.clone()));
        self.world.sync();
        port
    }

    /// Runs a program on a packet and tells what became of it.
    pub fn step(&mut self, what: &str, at: At, packet: &Packet) -> Vec<u8> {
        self.step_bytes(what, at, &packet.bytes())
    }

    pub fn step_bytes(&mut self, what: &str, at: At, packet: &[u8]) -> Vec<u8> {
        let (verdict, left) = self.world.run(at, packet);
        self.tell(what, at, packet, verdict, &left);
        left
    }

    pub fn tell(&mut self, what: &str, at: At, packet: &[u8], verdict: Verdict, left: &[u8]) {
        let text = match verdict {
            Verdict::Drop => String::new(),
            _ if packet == left => " untouched".to_owned(),
            _ => {
                assert_checksums(what, packet, left);
                format!(" {}", read::text(left))
            }
        };
        let _ = writeln!(self.told, "{what}: {at:?}: {verdict:?}{text}");
    }

    /// What these steps would have told, without telling it.
    pub fn aside(&mut self, steps: impl FnOnce(&mut Self)) -> String {
        let start = self.told.len();
        steps(self);
        self.told.split_off(start)
    }

    /// Adds a line.
    pub fn say(&mut self, line: impl std::fmt::Display) {
        let _ = writeln!(self.told, "{line}");
    }

    /// What the programs counted since the last call.
    pub fn say_outcomes(&mut self) {
        let outcomes = self.world.take_outcomes();
        self.say(format_args!("{outcomes:?}"));
    }
}

/// Right checksums stay right, and wrong ones as wrong as they were.
pub fn assert_checksums(what: &str, before: &[u8], after: &[u8]) {
    let (before, after): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (read::deltas(before).into_iter().collect(), read::deltas(after).into_iter().collect());
    for (name, delta) in &after {
        let expected = before.get(name).copied().unwrap_or(0);
        assert_eq!(*delta, expected, "{what}: the checksum of {name} is off; before {before:?}");
    }
}

/// All but addresses, ports, TTL and checksums is what it was.
pub fn assert_only_translated(what: &str, before: &[u8], after: &[u8]) {
    let parts = |frame: &[u8]| {
        let (tags, read) = Read::frame(frame).unwrap();
        let mut transport = read.transport.to_vec();
        if read.ports().is_some() {
            transport[..4].fill(0);
            let sum = match read.protocol {
                crate::packet::TCP => 16..18,
                crate::packet::UDP => 6..8,
                _ => 8..12,
            };
            if transport.len() >= sum.end {
                transport[sum].fill(0);
            }
        }
        (tags, read.protocol, read.tos, read.extra.clone(), read.fragment, transport)
    };
    assert_eq!(parts(before), parts(after), "{what}");
    assert_eq!(before.len(), after.len(), "{what}");
}
