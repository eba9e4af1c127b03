//! Packets that are given an endpoint, and their answers: here, elsewhere, in the host's network.

use expect_test::expect;
use podium_proxy_ebpf::{
    FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, NodePort},
    Protocol,
};

use crate::{
    fixture::{Fixture, assert_only_translated, check},
    net::Net,
    packet::{ACK, PSH, Packet, SYN},
    world::At,
};

pub const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// A packet of a flow: its first, or a later one.
pub fn packet(net: Net, protocol: Protocol, from: &str, to: &str, is_first: bool) -> Packet {
    match protocol {
        Protocol::Tcp => net.tcp(from, to, if is_first { SYN } else { ACK | PSH }),
        Protocol::Udp => net.udp(from, to, b"some data"),
        Protocol::Sctp => net.sctp(from, to, u8::from(is_first), &[7; 16]),
    }
}

/// Passes a packet on from hook to hook, and answers it: every translation on its way, each of
/// which changes nothing but ends, checksums and the time to live.
pub fn there_and_back(fixture: &mut Fixture<'_>, first: &Packet, hooks: [&[At]; 2]) {
    let [there, back] = hooks;
    let mut bytes = first.bytes();
    for at in there {
        let left = fixture.step_bytes("there", *at, &bytes);
        assert_only_translated("there", &bytes, &left);
        bytes = left;
    }
    let mut bytes = answer(fixture.net, first, &bytes).bytes();
    for at in back {
        let left = fixture.step_bytes("back", *at, &bytes);
        assert_only_translated("back", &bytes, &left);
        bytes = left;
    }
}

/// Whatever address of the service is used, all else is the same.
fn alike_at_every_address(fixture: &mut Fixture<'_>, protocol: Protocol, hooks: [&[At]; 2]) {
    let mut told = None;
    for (from, to) in [
        ("client:40000", "node:30080"),
        ("client:40001", "balancer:80"),
        ("client:40002", "external:80"),
    ] {
        let text = fixture.aside(|fixture| {
            for is_first in [true, false] {
                there_and_back(fixture, &packet(fixture.net, protocol, from, to, is_first), hooks);
            }
        });
        let text = text.replace(to, "SERVICE").replace(from, "CLIENT");
        match &told {
            None => {
                fixture.say(text.trim_end());
                told = Some(text);
            }
            Some(told) => assert_eq!(*told, text, "{to}"),
        }
    }
}

/// What an endpoint answers to a packet as it reached it.
pub fn answer(net: Net, to: &Packet, reached: &[u8]) -> Packet {
    let (_, read) = crate::read::Read::frame(reached).unwrap();
    let (from_port, to_port) = read.ports().unwrap();
    let mut answer = to.clone();
    answer.from = (read.to, to_port).into();
    answer.to = (read.from, from_port).into();
    match &mut answer.body {
        crate::packet::Body::Tcp { flags, ack, .. } => {
            *flags |= ACK;
            *ack = 1_001;
        }
        crate::packet::Body::Sctp { chunks, .. } => chunks[0].0 *= 2,
        _ => {}
    }
    assert_eq!(answer.is_v4(), net.is_v4());
    answer
}

#[test]
fn kernel_packet_to_an_endpoint_of_this_node() {
    let steps = |fixture: &mut Fixture<'_>| {
        for protocol in PROTOCOLS {
            let web = fixture.service("web", protocol, &["pod:8080"]).at(NodePort, "node:30080");
            fixture.serve(web.at(LoadBalancer, "balancer:80").at(ExternalIp, "external:80"));
            let hooks: [&[At]; 2] = [&[At::Uplink, At::OutPod], &[At::Pod, At::OutUplink]];
            alike_at_every_address(fixture, protocol, hooks);
        }
        fixture.say_outcomes();
    };
    check(
        "here",
        steps,
        expect![[r#"
            there: Uplink: Next router > node: CLIENT > pod:8080 ttl 64 TCP S 1000/0 +0
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 TCP S 1000/0 +0
            back: Pod: Next router > node: pod:8080 > CLIENT ttl 64 TCP SA 1000/1001 +0
            back: OutUplink: Next router > node: SERVICE > CLIENT ttl 64 TCP SA 1000/1001 +0
            there: Uplink: Next router > node: CLIENT > pod:8080 ttl 64 TCP PA 1000/2000 +0
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 TCP PA 1000/2000 +0
            back: Pod: Next router > node: pod:8080 > CLIENT ttl 64 TCP PA 1000/1001 +0
            back: OutUplink: Next router > node: SERVICE > CLIENT ttl 64 TCP PA 1000/1001 +0
            there: Uplink: Next router > node: CLIENT > pod:8080 ttl 64 UDP 17
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 UDP 17
            back: Pod: Next router > node: pod:8080 > CLIENT ttl 64 UDP 17
            back: OutUplink: Next router > node: SERVICE > CLIENT ttl 64 UDP 17
            there: Uplink: Next router > node: CLIENT > pod:8080 ttl 64 UDP 17
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 UDP 17
            back: Pod: Next router > node: pod:8080 > CLIENT ttl 64 UDP 17
            back: OutUplink: Next router > node: SERVICE > CLIENT ttl 64 UDP 17
            there: Uplink: Next router > node: CLIENT > pod:8080 ttl 64 SCTP 0 chunk 1/0
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 SCTP 0 chunk 1/0
            back: Pod: Next router > node: pod:8080 > CLIENT ttl 64 SCTP 0 chunk 2/0
            back: OutUplink: Next router > node: SERVICE > CLIENT ttl 64 SCTP 0 chunk 2/0
            there: Uplink: Next router > node: CLIENT > pod:8080 ttl 64 SCTP deadbeef chunk 0/0
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 SCTP deadbeef chunk 0/0
            back: Pod: Next router > node: pod:8080 > CLIENT ttl 64 SCTP deadbeef chunk 0/0
            back: OutUplink: Next router > node: SERVICE > CLIENT ttl 64 SCTP deadbeef chunk 0/0
            [(FlowOpened, 9)]
        "#]],
    );
}

#[test]
fn kernel_packet_to_an_endpoint_elsewhere() {
    let steps = |fixture: &mut Fixture<'_>| {
        for protocol in PROTOCOLS {
            let web = fixture.service("web", protocol, &["far:8080"]).at(NodePort, "node:30080");
            fixture.serve(web.at(LoadBalancer, "balancer:80").at(ExternalIp, "external:80"));
            alike_at_every_address(fixture, protocol, [&[At::Uplink], &[At::Uplink]]);
        }
        fixture.say_outcomes();
    };
    check(
        "elsewhere",
        steps,
        expect![[r#"
            there: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 TCP S 1000/0 +0
            back: Uplink: Redirect router > node: SERVICE > CLIENT ttl 63 TCP SA 1000/1001 +0
            there: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 TCP PA 1000/2000 +0
            back: Uplink: Redirect router > node: SERVICE > CLIENT ttl 63 TCP PA 1000/1001 +0
            there: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 UDP 17
            back: Uplink: Redirect router > node: SERVICE > CLIENT ttl 63 UDP 17
            there: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 UDP 17
            back: Uplink: Redirect router > node: SERVICE > CLIENT ttl 63 UDP 17
            there: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 SCTP 0 chunk 1/0
            back: Uplink: Redirect router > node: SERVICE > CLIENT ttl 63 SCTP 0 chunk 2/0
            there: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 SCTP deadbeef chunk 0/0
            back: Uplink: Redirect router > node: SERVICE > CLIENT ttl 63 SCTP deadbeef chunk 0/0
            [(FlowOpened, 9)]
        "#]],
    );
}

/// One client port by two addresses of a service to one endpoint: neither flow takes the other's
/// way back. The second goes past the stack, where the first has the way through it.
#[test]
fn kernel_packet_by_two_addresses_to_one_endpoint() {
    let steps = |fixture: &mut Fixture<'_>| {
        for protocol in PROTOCOLS {
            let web = fixture.service("web", protocol, &["pod:8080"]).at(NodePort, "node:30080");
            fixture.serve(web.at(LoadBalancer, "balancer:80"));
            let hooks: [&[At]; 2] = [&[At::Uplink, At::OutPod], &[At::Pod, At::OutUplink]];
            for (to, is_first) in [
                ("node:30080", true),
                ("balancer:80", true),
                ("node:30080", false),
                ("balancer:80", false),
            ] {
                let packet = packet(fixture.net, protocol, "client:40000", to, is_first);
                there_and_back(fixture, &packet, hooks);
            }
        }
    };
    check(
        "two",
        steps,
        expect![[r#"
            there: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 TCP S 1000/0 +0
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 TCP S 1000/0 +0
            back: Pod: Next router > node: pod:8080 > client:40000 ttl 64 TCP SA 1000/1001 +0
            back: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 TCP SA 1000/1001 +0
            there: Uplink: Redirect router > node: node:nat > pod:8080 ttl 63 TCP S 1000/0 +0
            there: OutPod: Next untouched
            back: Pod: Redirect router > node: balancer:80 > client:40000 ttl 63 TCP SA 1000/1001 +0
            back: OutUplink: Next untouched
            there: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 TCP PA 1000/2000 +0
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 TCP PA 1000/2000 +0
            back: Pod: Next router > node: pod:8080 > client:40000 ttl 64 TCP PA 1000/1001 +0
            back: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 TCP PA 1000/1001 +0
            there: Uplink: Redirect router > node: node:nat > pod:8080 ttl 63 TCP PA 1000/2000 +0
            there: OutPod: Next untouched
            back: Pod: Redirect router > node: balancer:80 > client:40000 ttl 63 TCP PA 1000/1001 +0
            back: OutUplink: Next untouched
            there: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 UDP 17
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 UDP 17
            back: Pod: Next router > node: pod:8080 > client:40000 ttl 64 UDP 17
            back: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 UDP 17
            there: Uplink: Redirect router > node: node:nat > pod:8080 ttl 63 UDP 17
            there: OutPod: Next untouched
            back: Pod: Redirect router > node: balancer:80 > client:40000 ttl 63 UDP 17
            back: OutUplink: Next untouched
            there: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 UDP 17
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 UDP 17
            back: Pod: Next router > node: pod:8080 > client:40000 ttl 64 UDP 17
            back: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 UDP 17
            there: Uplink: Redirect router > node: node:nat > pod:8080 ttl 63 UDP 17
            there: OutPod: Next untouched
            back: Pod: Redirect router > node: balancer:80 > client:40000 ttl 63 UDP 17
            back: OutUplink: Next untouched
            there: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 SCTP 0 chunk 1/0
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 SCTP 0 chunk 1/0
            back: Pod: Next router > node: pod:8080 > client:40000 ttl 64 SCTP 0 chunk 2/0
            back: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 SCTP 0 chunk 2/0
            there: Uplink: Redirect router > node: node:nat > pod:8080 ttl 63 SCTP 0 chunk 1/0
            there: OutPod: Next untouched
            back: Pod: Redirect router > node: balancer:80 > client:40000 ttl 63 SCTP 0 chunk 2/0
            back: OutUplink: Next untouched
            there: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 SCTP deadbeef chunk 0/0
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 SCTP deadbeef chunk 0/0
            back: Pod: Next router > node: pod:8080 > client:40000 ttl 64 SCTP deadbeef chunk 0/0
            back: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 SCTP deadbeef chunk 0/0
            there: Uplink: Redirect router > node: node:nat > pod:8080 ttl 63 SCTP deadbeef chunk 0/0
            there: OutPod: Next untouched
            back: Pod: Redirect router > node: balancer:80 > client:40000 ttl 63 SCTP deadbeef chunk 0/0
            back: OutUplink: Next untouched
        "#]],
    );
}

#[test]
fn kernel_packet_to_the_host_network() {
    let steps = |fixture: &mut Fixture<'_>| {
        for protocol in PROTOCOLS {
            let web = fixture.service("web", protocol, &["node:8080"]).at(NodePort, "node:30080");
            fixture.serve(web);
            let packet = packet(fixture.net, protocol, "client:40000", "node:30080", true);
            there_and_back(fixture, &packet, [&[At::Uplink], &[At::OutUplink]]);
        }
    };
    check(
        "host",
        steps,
        expect![[r#"
              there: Uplink: Next router > node: client:40000 > node:8080 ttl 64 TCP S 1000/0 +0
              back: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 TCP SA 1000/1001 +0
              there: Uplink: Next router > node: client:40000 > node:8080 ttl 64 UDP 17
              back: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 UDP 17
              there: Uplink: Next router > node: client:40000 > node:8080 ttl 64 SCTP 0 chunk 1/0
              back: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 SCTP 0 chunk 2/0
        "#]],
    );
}

#[test]
fn kernel_packet_of_a_pod_to_a_cluster_ip() {
    let steps = |fixture: &mut Fixture<'_>| {
        let net = fixture.net;
        for protocol in PROTOCOLS {
            let web = fixture.service("web", protocol, &["pod2:8080"]).at(ClusterIp, "cluster:80");
            fixture.serve(web);
            let first = packet(net, protocol, "pod:50000", "cluster:80", true);
            fixture.say("to another pod of the node");
            there_and_back(fixture, &first, [&[At::Pod, At::OutPod], &[At::Pod, At::OutPod]]);

            let web = fixture.service("web", protocol, &["far:8080"]).at(ClusterIp, "cluster:80");
            fixture.serve(web);
            let first = packet(net, protocol, "pod:50001", "cluster:80", true);
            fixture.say("to another node");
            there_and_back(fixture, &first, [&[At::Pod, At::OutUplink], &[At::Uplink, At::OutPod]]);

            let web = fixture.service("web", protocol, &["pod:8080"]).at(ClusterIp, "cluster:80");
            fixture.serve(web);
            let first = packet(net, protocol, "pod:50002", "cluster:80", true);
            fixture.say("to itself");
            there_and_back(fixture, &first, [&[At::Pod, At::OutPod], &[At::Pod, At::OutPod]]);
        }
    };
    check(
        "pod",
        steps,
        expect![[r#"
            to another pod of the node
            there: Pod: Next router > node: pod:50000 > pod2:8080 ttl 64 TCP S 1000/0 +0
            there: OutPod: Next untouched
            back: Pod: Next untouched
            back: OutPod: Next router > node: cluster:80 > pod:50000 ttl 64 TCP SA 1000/1001 +0
            to another node
            there: Pod: Next router > node: pod:50001 > far:8080 ttl 64 TCP S 1000/0 +0
            there: OutUplink: Next untouched
            back: Uplink: Next untouched
            back: OutPod: Next router > node: cluster:80 > pod:50001 ttl 64 TCP SA 1000/1001 +0
            to itself
            there: Pod: Next router > node: pod:50002 > pod:8080 ttl 64 TCP S 1000/0 +0
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 TCP S 1000/0 +0
            back: Pod: Next router > node: pod:8080 > pod:50002 ttl 64 TCP SA 1000/1001 +0
            back: OutPod: Next router > node: cluster:80 > pod:50002 ttl 64 TCP SA 1000/1001 +0
            to another pod of the node
            there: Pod: Next router > node: pod:50000 > pod2:8080 ttl 64 UDP 17
            there: OutPod: Next untouched
            back: Pod: Next untouched
            back: OutPod: Next router > node: cluster:80 > pod:50000 ttl 64 UDP 17
            to another node
            there: Pod: Next router > node: pod:50001 > far:8080 ttl 64 UDP 17
            there: OutUplink: Next untouched
            back: Uplink: Next untouched
            back: OutPod: Next router > node: cluster:80 > pod:50001 ttl 64 UDP 17
            to itself
            there: Pod: Next router > node: pod:50002 > pod:8080 ttl 64 UDP 17
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 UDP 17
            back: Pod: Next router > node: pod:8080 > pod:50002 ttl 64 UDP 17
            back: OutPod: Next router > node: cluster:80 > pod:50002 ttl 64 UDP 17
            to another pod of the node
            there: Pod: Next router > node: pod:50000 > pod2:8080 ttl 64 SCTP 0 chunk 1/0
            there: OutPod: Next untouched
            back: Pod: Next untouched
            back: OutPod: Next router > node: cluster:80 > pod:50000 ttl 64 SCTP 0 chunk 2/0
            to another node
            there: Pod: Next router > node: pod:50001 > far:8080 ttl 64 SCTP 0 chunk 1/0
            there: OutUplink: Next untouched
            back: Uplink: Next untouched
            back: OutPod: Next router > node: cluster:80 > pod:50001 ttl 64 SCTP 0 chunk 2/0
            to itself
            there: Pod: Next router > node: pod:50002 > pod:8080 ttl 64 SCTP 0 chunk 1/0
            there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 SCTP 0 chunk 1/0
            back: Pod: Next router > node: pod:8080 > pod:50002 ttl 64 SCTP 0 chunk 2/0
            back: OutPod: Next router > node: cluster:80 > pod:50002 ttl 64 SCTP 0 chunk 2/0
        "#]],
    );
}
