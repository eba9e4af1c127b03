//! Where there is no way on: no port, no address, no route; and ports that others have.

use std::{
    collections::BTreeSet,
    net::{TcpListener, UdpSocket},
};

use expect_test::expect;
use podium_proxy_ebpf::{
    FrontendKind::{ClusterIp, LoadBalancer, LoopbackNodePort, NodePort},
    PortRange, Protocol,
};

use crate::{
    fixture::{Fixture, check},
    net::{FAMILIES, NAT_PORTS},
    packet::{ACK, Fragment, Packet, SYN},
    read::Read,
    world::{At, Verdict, World},
};

fn nat_ports(world: &mut World, first: u16, len: u16) {
    world.config.nat_ports[0] = PortRange { first, len };
    world.configure();
}

#[test]
fn kernel_packet_nowhere_to_go() {
    let steps = |fixture: &mut Fixture<'_>| {
        let net = fixture.net;
        let web = fixture.service("web", Protocol::Tcp, &["far:8080"]).at(NodePort, "node:30080");
        fixture.serve(web);
        nat_ports(fixture.world, NAT_PORTS.start, 2);
        for port in 40_000..40_003 {
            let from = format!("client:{port}");
            fixture.step("two ports", At::Uplink, &net.tcp(&from, "node:30080", SYN));
        }
        nat_ports(fixture.world, NAT_PORTS.start, 0);
        fixture.step("no ports", At::Uplink, &net.tcp("client:41000", "node:30080", SYN));
        nat_ports(fixture.world, NAT_PORTS.start, NAT_PORTS.len() as u16);

        let (v4, v6) = (fixture.world.config.node_v4, fixture.world.config.node_v6);
        (fixture.world.config.node_v4, fixture.world.config.node_v6) = ([0; 16], [0; 16]);
        fixture.world.configure();
        fixture.step("no address", At::Uplink, &net.tcp("client:42000", "node:30080", SYN));
        (fixture.world.config.node_v4, fixture.world.config.node_v6) = (v4, v6);
        fixture.world.configure();
        fixture.say_outcomes();

        let web = fixture.service("web", Protocol::Tcp, &["nowhere:80"]).at(NodePort, "node:30080");
        fixture.serve(web);
        fixture.step("no route", At::Uplink, &net.tcp("client:43000", "node:30080", SYN));
        let web = fixture.service("web", Protocol::Tcp, &["silent:80"]).at(NodePort, "node:30080");
        fixture.serve(web);
        fixture.step("no neighbour yet", At::Uplink, &net.tcp("client:44000", "node:30080", SYN));
        fixture.step("  nor by XDP", At::Xdp, &net.tcp("client:44000", "node:30080", ACK));
        fixture.say_outcomes();
    };
    check(
        "nowhere",
        steps,
        expect![[r#"
            two ports: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 TCP S 1000/0 +0
            two ports: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 TCP S 1000/0 +0
            two ports: Uplink: Drop
            no ports: Uplink: Drop
            no address: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 TCP S 1000/0 +0
            [(FlowOpened, 3), (NatPortsExhausted, 2)]
            no route: Uplink: Drop
            no neighbour yet: Uplink: Redirect router > node: node:nat > silent:80 ttl 63 TCP S 1000/0 +0
              nor by XDP: Xdp: Next untouched
            [(FlowOpened, 2), (NoRoute, 1)]
        "#]],
    );
}

/// A source is never rewritten to a port that a node port or a socket of the host has.
#[test]
fn kernel_packet_source_ports_of_others_are_left_alone() {
    let mut world = World::new("ports");
    for net in FAMILIES {
        let mut fixture = Fixture::new(&mut world, net);
        let first = NAT_PORTS.start;
        nat_ports(fixture.world, first, 4);
        let at = |port| std::net::SocketAddr::new(net.ip("node"), port);
        let _tcp = TcpListener::bind(at(first)).unwrap();
        let _udp = UdpSocket::bind(at(first)).unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let taken = fixture.service("taken", protocol, &["far2:8080"]);
            fixture.serve(taken.at(NodePort, &format!("node:{}", first + 1)));
            let web = fixture.service("web", protocol, &["far:8080"]).at(NodePort, "node:30080");
            fixture.serve(web);
            let ports: BTreeSet<u16> = (0..2)
                .map(|index| {
                    let from = format!("client:{}", 40_000 + index);
                    let packet = match protocol {
                        Protocol::Tcp => net.tcp(&from, "node:30080", SYN),
                        _ => net.udp(&from, "node:30080", b"data"),
                    };
                    let (verdict, left) = fixture.world.run(At::Uplink, &packet.bytes());
                    assert_eq!(verdict, Verdict::Redirect, "{protocol:?}");
                    Read::frame(&left).unwrap().1.ports().unwrap().0
                })
                .collect();
            assert_eq!(ports, [first + 2, first + 3].into(), "{protocol:?}");
        }
    }
}

/// What only sockets of the host may use, and what nothing is to be said about.
#[test]
fn kernel_packet_left_to_others() {
    let steps = |fixture: &mut Fixture<'_>| {
        let net = fixture.net;
        let web = fixture.service("web", Protocol::Tcp, &["pod:8080"]);
        fixture.serve(web.at(LoopbackNodePort, "loopback:30080"));
        for at in [At::Uplink, At::Pod] {
            fixture.step("loopback", at, &net.tcp("client:40000", "loopback:30080", SYN));
        }
        // The checksum of all of it cannot follow a change of the ports in the first part.
        let stream = fixture.service("stream", Protocol::Sctp, &["pod:8080"]);
        fixture.serve(stream.at(LoadBalancer, "balancer:80").at(ClusterIp, "cluster:8080"));
        for (from, to) in [("client:40000", "balancer:80"), ("pod2:40000", "cluster:8080")] {
            let whole = net.sctp(from, to, 0, &[4; 64]);
            for (offset, len) in [(0, 40), (40, 40)] {
                let fragment = Some(Fragment { id: 0x7a, offset, len });
                let part = Packet { fragment, ..whole.clone() };
                fixture.step(&format!("SCTP {to} {offset}"), At::Pod, &part);
            }
        }
        fixture.say_outcomes();
    };
    check(
        "others",
        steps,
        expect![[r#"
        loopback: Uplink: Next untouched
        loopback: Pod: Next untouched
        SCTP balancer:80 0: Pod: Drop
        SCTP balancer:80 40: Pod: Next router > node: client > pod ttl 64 fragment 0x7a@40 40 bytes of 132
        SCTP cluster:8080 0: Pod: Next router > node: pod2:40000 > pod:8080 ttl 64 fragment 0x7a@0+ SCTP deadbeef chunk 0/0
        SCTP cluster:8080 40: Pod: Next router > node: pod2 > pod ttl 64 fragment 0x7a@40 40 bytes of 132
        [(FlowOpened, 2), (Malformed, 1)]
    "#]],
    );
}
