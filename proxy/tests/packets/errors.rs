//! ICMP errors about translated packets: their receiver finds the packet it sent in them.

use expect_test::expect;
use podium_proxy_ebpf::{FrontendKind::NodePort, Protocol};

use crate::{
    fixture::{Fixture, check},
    forward::answer,
    net::{Error, Net},
    packet::{ACK, Body, Fragment, Packet, SYN},
    world::At,
};

/// The packet as it was seen after a hook, to be quoted.
fn seen(packet: &Packet, bytes: &[u8]) -> Packet {
    let (_, read) = crate::read::Read::frame(bytes).unwrap();
    let (from, to) = read.ports().unwrap();
    Packet {
        from: (read.from, from).into(),
        to: (read.to, to).into(),
        ttl: read.ttl,
        ..packet.clone()
    }
}

fn first_packets(net: Net, to: &str) -> [Packet; 3] {
    [
        net.tcp("client:40000", to, SYN),
        net.udp("client:40000", to, b"some data"),
        net.sctp("client:40000", to, 1, &[0; 16]),
    ]
}

/// How much of the packet is quoted: the least there may be, and all of it.
fn quoted(net: Net) -> [usize; 2] {
    [net.header_len() + 8, 1000]
}

fn serve(fixture: &mut Fixture<'_>, endpoint: &str) {
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let web = fixture.service("web", protocol, &[endpoint]).at(NodePort, "node:30080");
        fixture.serve(web);
    }
}

#[test]
fn kernel_packet_icmp_errors_about_forwarded_packets() {
    let steps = |fixture: &mut Fixture<'_>| {
        serve(fixture, "far:8080");
        let net = fixture.net;
        for first in first_packets(net, "node:30080") {
            let left = fixture.step("first", At::Uplink, &first);
            let forwarded = seen(&first, &left);
            let back = answer(net, &first, &left);
            let returned = seen(&back, &fixture.step("answer", At::Uplink, &back));
            for len in quoted(net) {
                for error in [Error::TooBig, Error::TimeExceeded] {
                    let packet = net.error(error, ("gateway", "node"), &forwarded, len);
                    fixture.step("a router's", At::Uplink, &packet);
                }
                let error = Error::PortUnreachable;
                let packet = net.error(error, ("far", "node"), &forwarded, len);
                fixture.step("the endpoint's", At::Uplink, &packet);
                let packet = net.error(Error::TooBig, ("gateway", "node"), &returned, len);
                fixture.step("a router's to the endpoint", At::Uplink, &packet);
                let packet = net.error(error, ("client", "node"), &returned, len);
                fixture.step("the client's", At::Uplink, &packet);
            }
        }
    };
    check(
        "icmpfar",
        steps,
        expect![[r#"
            first: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 TCP S 1000/0 +0
            answer: Uplink: Redirect router > node: node:30080 > client:40000 ttl 63 TCP SA 1000/1001 +0
            a router's: Uplink: Redirect router > node: gateway > client ttl 63 ICMP TooBig 1400 about [client:40000 > node:30080 ttl 63 truncated (8 bytes)]
            a router's: Uplink: Redirect router > node: gateway > client ttl 63 ICMP TimeExceeded 0 about [client:40000 > node:30080 ttl 63 truncated (8 bytes)]
            the endpoint's: Uplink: Redirect router > node: node > client ttl 63 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 63 truncated (8 bytes)]
            a router's to the endpoint: Uplink: Redirect router > node: gateway > far ttl 63 ICMP TooBig 1400 about [far:8080 > node:nat ttl 63 truncated (8 bytes)]
            the client's: Uplink: Redirect router > node: node > far ttl 63 ICMP PortUnreachable 0 about [far:8080 > node:nat ttl 63 truncated (8 bytes)]
            a router's: Uplink: Redirect router > node: gateway > client ttl 63 ICMP TooBig 1400 about [client:40000 > node:30080 ttl 63 TCP S 1000/0 +0 (24 bytes)]
            a router's: Uplink: Redirect router > node: gateway > client ttl 63 ICMP TimeExceeded 0 about [client:40000 > node:30080 ttl 63 TCP S 1000/0 +0 (24 bytes)]
            the endpoint's: Uplink: Redirect router > node: node > client ttl 63 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 63 TCP S 1000/0 +0 (24 bytes)]
            a router's to the endpoint: Uplink: Redirect router > node: gateway > far ttl 63 ICMP TooBig 1400 about [far:8080 > node:nat ttl 63 TCP SA 1000/1001 +0 (24 bytes)]
            the client's: Uplink: Redirect router > node: node > far ttl 63 ICMP PortUnreachable 0 about [far:8080 > node:nat ttl 63 TCP SA 1000/1001 +0 (24 bytes)]
            first: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 UDP 17
            answer: Uplink: Redirect router > node: node:30080 > client:40000 ttl 63 UDP 17
            a router's: Uplink: Redirect router > node: gateway > client ttl 63 ICMP TooBig 1400 about [client:40000 > node:30080 ttl 63 UDP 17 (8 bytes)]
            a router's: Uplink: Redirect router > node: gateway > client ttl 63 ICMP TimeExceeded 0 about [client:40000 > node:30080 ttl 63 UDP 17 (8 bytes)]
            the endpoint's: Uplink: Redirect router > node: node > client ttl 63 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 63 UDP 17 (8 bytes)]
            a router's to the endpoint: Uplink: Redirect router > node: gateway > far ttl 63 ICMP TooBig 1400 about [far:8080 > node:nat ttl 63 UDP 17 (8 bytes)]
            the client's: Uplink: Redirect router > node: node > far ttl 63 ICMP PortUnreachable 0 about [far:8080 > node:nat ttl 63 UDP 17 (8 bytes)]
            a router's: Uplink: Redirect router > node: gateway > client ttl 63 ICMP TooBig 1400 about [client:40000 > node:30080 ttl 63 UDP 17 (17 bytes)]
            a router's: Uplink: Redirect router > node: gateway > client ttl 63 ICMP TimeExceeded 0 about [client:40000 > node:30080 ttl 63 UDP 17 (17 bytes)]
            the endpoint's: Uplink: Redirect router > node: node > client ttl 63 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 63 UDP 17 (17 bytes)]
            a router's to the endpoint: Uplink: Redirect router > node: gateway > far ttl 63 ICMP TooBig 1400 about [far:8080 > node:nat ttl 63 UDP 17 (17 bytes)]
            the client's: Uplink: Redirect router > node: node > far ttl 63 ICMP PortUnreachable 0 about [far:8080 > node:nat ttl 63 UDP 17 (17 bytes)]
            first: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 SCTP 0 chunk 1/0
            answer: Uplink: Redirect router > node: node:30080 > client:40000 ttl 63 SCTP 0 chunk 2/0
            a router's: Uplink: Redirect router > node: gateway > client ttl 63 ICMP TooBig 1400 about [client:40000 > node:30080 ttl 63 truncated (8 bytes)]
            a router's: Uplink: Redirect router > node: gateway > client ttl 63 ICMP TimeExceeded 0 about [client:40000 > node:30080 ttl 63 truncated (8 bytes)]
            the endpoint's: Uplink: Redirect router > node: node > client ttl 63 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 63 truncated (8 bytes)]
            a router's to the endpoint: Uplink: Redirect router > node: gateway > far ttl 63 ICMP TooBig 1400 about [far:8080 > node:nat ttl 63 truncated (8 bytes)]
            the client's: Uplink: Redirect router > node: node > far ttl 63 ICMP PortUnreachable 0 about [far:8080 > node:nat ttl 63 truncated (8 bytes)]
            a router's: Uplink: Redirect router > node: gateway > client ttl 63 ICMP TooBig 1400 about [client:40000 > node:30080 ttl 63 SCTP 0 chunk 1/0 (32 bytes)]
            a router's: Uplink: Redirect router > node: gateway > client ttl 63 ICMP TimeExceeded 0 about [client:40000 > node:30080 ttl 63 SCTP 0 chunk 1/0 (32 bytes)]
            the endpoint's: Uplink: Redirect router > node: node > client ttl 63 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 63 SCTP 0 chunk 1/0 (32 bytes)]
            a router's to the endpoint: Uplink: Redirect router > node: gateway > far ttl 63 ICMP TooBig 1400 about [far:8080 > node:nat ttl 63 SCTP 0 chunk 2/0 (32 bytes)]
            the client's: Uplink: Redirect router > node: node > far ttl 63 ICMP PortUnreachable 0 about [far:8080 > node:nat ttl 63 SCTP 0 chunk 2/0 (32 bytes)]
        "#]],
    );
}

#[test]
fn kernel_packet_icmp_errors_about_packets_to_this_node() {
    let steps = |fixture: &mut Fixture<'_>| {
        serve(fixture, "pod:8080");
        let net = fixture.net;
        for first in first_packets(net, "node:30080") {
            let left = fixture.world.run(At::Uplink, &first.bytes()).1;
            let left = fixture.step_bytes("first", At::OutPod, &left);
            let forwarded = seen(&first, &left);
            let back = answer(net, &first, &left);
            let left = fixture.world.run(At::Pod, &back.bytes()).1;
            let returned = seen(&back, &fixture.step_bytes("answer", At::OutUplink, &left));
            for len in quoted(net) {
                let error = Error::PortUnreachable;
                let packet = net.error(error, ("pod", "node"), &forwarded, len);
                let left = fixture.step("the endpoint's", At::Pod, &packet);
                fixture.step_bytes("  on its way out", At::OutUplink, &left);
                let packet = net.error(Error::TooBig, ("gateway", "node"), &returned, len);
                let left = fixture.step("a router's", At::Uplink, &packet);
                fixture.step_bytes("  on its way out", At::OutPod, &left);
                let packet = net.error(Error::TooBig, ("client", "node"), &returned, len);
                let left = fixture.step("the client's", At::Uplink, &packet);
                fixture.step_bytes("  on its way out", At::OutPod, &left);
            }
        }
    };
    check(
        "icmphere",
        steps,
        expect![[r#"
        first: OutPod: Next router > node: node:nat > pod:8080 ttl 64 TCP S 1000/0 +0
        answer: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 TCP SA 1000/1001 +0
        the endpoint's: Pod: Next router > node: pod > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > pod:8080 ttl 64 truncated (8 bytes)]
          on its way out: OutUplink: Next router > node: node > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 64 truncated (8 bytes)]
        a router's: Uplink: Next router > node: gateway > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > client:40000 ttl 64 truncated (8 bytes)]
          on its way out: OutPod: Next router > node: gateway > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > node:nat ttl 64 truncated (8 bytes)]
        the client's: Uplink: Next router > node: client > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > client:40000 ttl 64 truncated (8 bytes)]
          on its way out: OutPod: Next router > node: node > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > node:nat ttl 64 truncated (8 bytes)]
        the endpoint's: Pod: Next router > node: pod > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > pod:8080 ttl 64 TCP S 1000/0 +0 (24 bytes)]
          on its way out: OutUplink: Next router > node: node > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 64 TCP S 1000/0 +0 (24 bytes)]
        a router's: Uplink: Next router > node: gateway > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > client:40000 ttl 64 TCP SA 1000/1001 +0 (24 bytes)]
          on its way out: OutPod: Next router > node: gateway > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > node:nat ttl 64 TCP SA 1000/1001 +0 (24 bytes)]
        the client's: Uplink: Next router > node: client > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > client:40000 ttl 64 TCP SA 1000/1001 +0 (24 bytes)]
          on its way out: OutPod: Next router > node: node > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > node:nat ttl 64 TCP SA 1000/1001 +0 (24 bytes)]
        first: OutPod: Next router > node: node:nat > pod:8080 ttl 64 UDP 17
        answer: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 UDP 17
        the endpoint's: Pod: Next router > node: pod > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > pod:8080 ttl 64 UDP 17 (8 bytes)]
          on its way out: OutUplink: Next router > node: node > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 64 UDP 17 (8 bytes)]
        a router's: Uplink: Next router > node: gateway > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > client:40000 ttl 64 UDP 17 (8 bytes)]
          on its way out: OutPod: Next router > node: gateway > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > node:nat ttl 64 UDP 17 (8 bytes)]
        the client's: Uplink: Next router > node: client > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > client:40000 ttl 64 UDP 17 (8 bytes)]
          on its way out: OutPod: Next router > node: node > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > node:nat ttl 64 UDP 17 (8 bytes)]
        the endpoint's: Pod: Next router > node: pod > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > pod:8080 ttl 64 UDP 17 (17 bytes)]
          on its way out: OutUplink: Next router > node: node > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 64 UDP 17 (17 bytes)]
        a router's: Uplink: Next router > node: gateway > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > client:40000 ttl 64 UDP 17 (17 bytes)]
          on its way out: OutPod: Next router > node: gateway > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > node:nat ttl 64 UDP 17 (17 bytes)]
        the client's: Uplink: Next router > node: client > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > client:40000 ttl 64 UDP 17 (17 bytes)]
          on its way out: OutPod: Next router > node: node > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > node:nat ttl 64 UDP 17 (17 bytes)]
        first: OutPod: Next router > node: node:nat > pod:8080 ttl 64 SCTP 0 chunk 1/0
        answer: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 SCTP 0 chunk 2/0
        the endpoint's: Pod: Next router > node: pod > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > pod:8080 ttl 64 truncated (8 bytes)]
          on its way out: OutUplink: Next router > node: node > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 64 truncated (8 bytes)]
        a router's: Uplink: Next router > node: gateway > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > client:40000 ttl 64 truncated (8 bytes)]
          on its way out: OutPod: Next router > node: gateway > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > node:nat ttl 64 truncated (8 bytes)]
        the client's: Uplink: Next router > node: client > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > client:40000 ttl 64 truncated (8 bytes)]
          on its way out: OutPod: Next router > node: node > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > node:nat ttl 64 truncated (8 bytes)]
        the endpoint's: Pod: Next router > node: pod > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > pod:8080 ttl 64 SCTP 0 chunk 1/0 (32 bytes)]
          on its way out: OutUplink: Next router > node: node > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 64 SCTP 0 chunk 1/0 (32 bytes)]
        a router's: Uplink: Next router > node: gateway > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > client:40000 ttl 64 SCTP 0 chunk 2/0 (32 bytes)]
          on its way out: OutPod: Next router > node: gateway > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > node:nat ttl 64 SCTP 0 chunk 2/0 (32 bytes)]
        the client's: Uplink: Next router > node: client > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > client:40000 ttl 64 SCTP 0 chunk 2/0 (32 bytes)]
          on its way out: OutPod: Next router > node: node > pod ttl 64 ICMP TooBig 1400 about [pod:8080 > node:nat ttl 64 SCTP 0 chunk 2/0 (32 bytes)]
    "#]],
    );
}

/// A packet that may go no further, or is too long for the way, is left to the stack, whose error
/// is translated back.
#[test]
fn kernel_packet_time_to_live_ends_here() {
    let steps = |fixture: &mut Fixture<'_>| {
        serve(fixture, "far:8080");
        let net = fixture.net;
        for first in first_packets(net, "node:30080") {
            let last_hop = Packet { ttl: 1, ..first.clone() };
            let left = fixture.step("ttl 1", At::Uplink, &last_hop);
            let about = seen(&last_hop, &left);
            for len in quoted(net) {
                let error = net.error(Error::TimeExceeded, ("node", "client"), &about, len);
                fixture.step("the stack's error", At::OutUplink, &error);
            }
            let last_hop = Packet { ttl: 2, ..first };
            let left = fixture.step("ttl 2", At::Uplink, &last_hop);
            let about = seen(&last_hop, &left);
            let error = net.error(Error::TimeExceeded, ("peer", "node"), &about, 1000);
            fixture.step("error with ttl 1", At::Uplink, &Packet { ttl: 1, ..error });
        }
    };
    check(
        "ttl",
        steps,
        expect![[r#"
            ttl 1: Uplink: Next router > node: client:40000 > far:8080 ttl 1 TCP S 1000/0 +0
            the stack's error: OutUplink: Next router > node: node > client ttl 64 ICMP TimeExceeded 0 about [client:40000 > node:30080 ttl 1 truncated (8 bytes)]
            the stack's error: OutUplink: Next router > node: node > client ttl 64 ICMP TimeExceeded 0 about [client:40000 > node:30080 ttl 1 TCP S 1000/0 +0 (24 bytes)]
            ttl 2: Uplink: Redirect router > node: node:nat > far:8080 ttl 1 TCP S 1000/0 +0
            error with ttl 1: Uplink: Drop
            ttl 1: Uplink: Next router > node: client:40000 > far:8080 ttl 1 UDP 17
            the stack's error: OutUplink: Next router > node: node > client ttl 64 ICMP TimeExceeded 0 about [client:40000 > node:30080 ttl 1 UDP 17 (8 bytes)]
            the stack's error: OutUplink: Next router > node: node > client ttl 64 ICMP TimeExceeded 0 about [client:40000 > node:30080 ttl 1 UDP 17 (17 bytes)]
            ttl 2: Uplink: Redirect router > node: node:nat > far:8080 ttl 1 UDP 17
            error with ttl 1: Uplink: Drop
            ttl 1: Uplink: Next router > node: client:40000 > far:8080 ttl 1 SCTP 0 chunk 1/0
            the stack's error: OutUplink: Next router > node: node > client ttl 64 ICMP TimeExceeded 0 about [client:40000 > node:30080 ttl 1 truncated (8 bytes)]
            the stack's error: OutUplink: Next router > node: node > client ttl 64 ICMP TimeExceeded 0 about [client:40000 > node:30080 ttl 1 SCTP 0 chunk 1/0 (32 bytes)]
            ttl 2: Uplink: Redirect router > node: node:nat > far:8080 ttl 1 SCTP 0 chunk 1/0
            error with ttl 1: Uplink: Drop
        "#]],
    );
}

/// What is too long for the way out goes through the stack, which takes it apart or answers it with
/// an error; the parts get their source, and the error its receiver's view, on their way out.
#[test]
fn kernel_packet_too_long_for_the_way() {
    let steps = |fixture: &mut Fixture<'_>| {
        serve(fixture, "far:8080");
        let net = fixture.net;
        let body = Body::Udp { has_checksum: true, data: (0..1600).map(|at| at as u8).collect() };
        let long = net.packet("client:40000", "node:30080", body);
        let left = fixture.step("too long", At::Uplink, &long);
        let about = seen(&long, &left);
        for (offset, len) in [(0, 1400), (1400, 1400)] {
            let fragment = Some(Fragment { id: 0x79, offset, len });
            let part = Packet { fragment, ..about.clone() };
            fixture.step("a part of it", At::OutUplink, &part);
        }
        let error = net.error(Error::TooBig, ("node", "client"), &about, net.header_len() + 480);
        fixture.step("the stack's error", At::OutUplink, &error);
        let short = net.udp("client:40000", "node:30080", b"data");
        let left = fixture.step("short again", At::Uplink, &short);
        fixture.step("its answer", At::Uplink, &answer(net, &short, &left));
    };
    check(
        "long",
        steps,
        expect![[r#"
            too long: Uplink: Next router > node: client:40000 > far:8080 ttl 64 UDP 1608
            a part of it: OutUplink: Next router > node: node:nat > far:8080 ttl 64 fragment 0x79@0+ UDP 1608
            a part of it: OutUplink: Next router > node: node > far ttl 64 fragment 0x79@1400 208 bytes of 17
            the stack's error: OutUplink: Next router > node: node > client ttl 64 ICMP TooBig 1400 about [client:40000 > node:30080 ttl 64 UDP 1608 (480 bytes)]
            short again: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 UDP 12
            its answer: Uplink: Redirect router > node: node:30080 > client:40000 ttl 63 UDP 12
        "#]],
    );
}

#[test]
fn kernel_packet_icmp_errors_about_others_pass() {
    let steps = |fixture: &mut Fixture<'_>| {
        serve(fixture, "far:8080");
        let net = fixture.net;
        fixture.world.run(At::Uplink, &net.tcp("client:40000", "node:30080", SYN).bytes());
        for (what, about) in [
            ("another port", net.tcp("node:30081", "client:40000", ACK)),
            ("another client", net.tcp("node:30080", "client2:40000", ACK)),
            ("another protocol", net.udp("node:30080", "client:40000", b"data")),
            ("the wrong way", net.tcp("client:40000", "node:30080", ACK)),
        ] {
            for at in [At::Uplink, At::Pod, At::OutUplink, At::Xdp] {
                let len = net.header_len() + 8;
                let packet = net.error(Error::TooBig, ("gateway", "node"), &about, len);
                fixture.step(what, at, &packet);
            }
        }
        let about = net.tcp("node:30080", "client:40000", ACK);
        for len in 0..net.header_len() + 8 {
            let packet = net.error(Error::TooBig, ("gateway", "node"), &about, len).bytes();
            let (verdict, left) = fixture.world.run(At::Uplink, &packet);
            let (known, ports) = (len >= net.header_len() + 4, left == packet);
            assert!(known || ports, "{len} bytes were taken for a packet: {verdict:?}");
        }
    };
    check(
        "icmpother",
        steps,
        expect![[r#"
        another port: Uplink: Next untouched
        another port: Pod: Next untouched
        another port: OutUplink: Next untouched
        another port: Xdp: Next untouched
        another client: Uplink: Next untouched
        another client: Pod: Next untouched
        another client: OutUplink: Next untouched
        another client: Xdp: Next untouched
        another protocol: Uplink: Next untouched
        another protocol: Pod: Next untouched
        another protocol: OutUplink: Next untouched
        another protocol: Xdp: Next untouched
        the wrong way: Uplink: Next untouched
        the wrong way: Pod: Next untouched
        the wrong way: OutUplink: Next untouched
        the wrong way: Xdp: Next untouched
    "#]],
    );
}
