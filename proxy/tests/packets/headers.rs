//! Headers that are not the plainest: options, extension headers, fragments, tags, cut short,
//! checksums that are wrong, none or zero.

use expect_test::expect;
use podium_proxy_ebpf::{
    FrontendKind::{ClusterIp, NodePort},
    Protocol,
};

use crate::{
    checksum,
    fixture::{Fixture, assert_checksums, assert_only_translated, check},
    net::{FAMILIES, Net},
    packet::{ACK, Body, DESTINATION, Fragment, HOP_BY_HOP, Packet, ROUTING, SYN},
    read::{self, Read},
    world::{At, World},
};

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// A service of each protocol, with an endpoint here at 30080 and one elsewhere at 30081.
pub fn serve_both(fixture: &mut Fixture<'_>) {
    for protocol in PROTOCOLS {
        let here = fixture.service("here", protocol, &["pod:8080"]).at(NodePort, "node:30080");
        fixture.serve(here.at(ClusterIp, "cluster:80"));
        let there = fixture.service("there", protocol, &["far:8080"]).at(NodePort, "node:30081");
        fixture.serve(there);
    }
}

/// Options of IPv4, extension headers of IPv6.
pub fn with_extras(net: Net, packet: Packet) -> Packet {
    if net.is_v4() {
        return Packet { options: vec![7, 7, 4, 0, 0, 0, 0, 0], ..packet };
    }
    let extensions = vec![
        (HOP_BY_HOP, vec![1, 4, 0, 0, 0, 0]),
        (ROUTING, vec![4, 0, 0, 0, 0, 0]),
        (DESTINATION, vec![1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    Packet { extensions, ..packet }
}

#[test]
fn kernel_packet_options_and_extension_headers() {
    let steps = |fixture: &mut Fixture<'_>| {
        serve_both(fixture);
        let net = fixture.net;
        for to in ["node:30080", "node:30081"] {
            for packet in [
                net.tcp("client:40000", to, SYN),
                net.tcp("client:40000", to, ACK),
                net.udp("client:40000", to, b"data"),
                net.sctp("client:40000", to, 1, &[0; 16]),
            ] {
                let packet = Packet { tos: 0xb8, ..with_extras(net, packet) };
                let left = fixture.step(to, At::Uplink, &packet);
                assert_only_translated(to, &packet.bytes(), &left);
            }
        }
    };
    check(
        "options",
        steps,
        expect![[r#"
            node:30080: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 tos 0xb8 extra TCP S 1000/0 +0
            node:30080: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 tos 0xb8 extra TCP A 1000/2000 +0
            node:30080: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 tos 0xb8 extra UDP 12
            node:30080: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 tos 0xb8 extra SCTP 0 chunk 1/0
            node:30081: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 tos 0xb8 extra TCP S 1000/0 +0
            node:30081: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 tos 0xb8 extra TCP A 1000/2000 +0
            node:30081: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 tos 0xb8 extra UDP 12
            node:30081: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 tos 0xb8 extra SCTP 0 chunk 1/0
        "#]],
    );
}

#[test]
fn kernel_packet_fragments_follow_the_first() {
    let steps = |fixture: &mut Fixture<'_>| {
        serve_both(fixture);
        let net = fixture.net;
        for (to, hooks) in
            [("node:30080", [At::Uplink, At::OutPod].as_slice()), ("node:30081", &[At::Uplink])]
        {
            let data: Vec<u8> = (0..=255).collect();
            let tcp = Body::Tcp { flags: ACK, seq: 1, ack: 1, options: vec![], data: data.clone() };
            for whole in [net.udp("client:40000", to, &data), net.packet("client:40000", to, tcp)] {
                if whole.protocol() == crate::packet::TCP {
                    fixture.world.run(At::Uplink, &net.tcp("client:40000", to, SYN).bytes());
                }
                let mut parts = Vec::new();
                // The last comes before the middle.
                for (offset, len) in [(0, 96), (192, 96), (96, 96)] {
                    let fragment = Some(Fragment { id: 0x77, offset, len });
                    let mut bytes = Packet { fragment, ..whole.clone() }.bytes();
                    for at in hooks {
                        bytes = fixture.step_bytes(&format!("{to} {offset}"), *at, &bytes);
                    }
                    parts.push((offset, bytes));
                }
                parts.sort();
                assert_reassembled(&parts);
            }
        }
        fixture.say_outcomes();
    };
    check(
        "fragments",
        steps,
        expect![[r#"
            node:30080 0: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 fragment 0x77@0+ UDP 264
            node:30080 0: OutPod: Next router > node: node:nat > pod:8080 ttl 64 fragment 0x77@0+ UDP 264
            node:30080 192: Uplink: Next router > node: client > pod ttl 64 fragment 0x77@192 72 bytes of 17
            node:30080 192: OutPod: Next router > node: node > pod ttl 64 fragment 0x77@192 72 bytes of 17
            node:30080 96: Uplink: Next router > node: client > pod ttl 64 fragment 0x77@96+ 96 bytes of 17
            node:30080 96: OutPod: Next router > node: node > pod ttl 64 fragment 0x77@96+ 96 bytes of 17
            node:30080 0: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 fragment 0x77@0+ TCP A 1/1 +76
            node:30080 0: OutPod: Next router > node: node:nat > pod:8080 ttl 64 fragment 0x77@0+ TCP A 1/1 +76
            node:30080 192: Uplink: Next router > node: client > pod ttl 64 fragment 0x77@192 84 bytes of 6
            node:30080 192: OutPod: Next router > node: node > pod ttl 64 fragment 0x77@192 84 bytes of 6
            node:30080 96: Uplink: Next router > node: client > pod ttl 64 fragment 0x77@96+ 96 bytes of 6
            node:30080 96: OutPod: Next router > node: node > pod ttl 64 fragment 0x77@96+ 96 bytes of 6
            node:30081 0: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 fragment 0x77@0+ UDP 264
            node:30081 192: Uplink: Redirect router > node: node > far ttl 63 fragment 0x77@192 72 bytes of 17
            node:30081 96: Uplink: Redirect router > node: node > far ttl 63 fragment 0x77@96+ 96 bytes of 17
            node:30081 0: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 fragment 0x77@0+ TCP A 1/1 +76
            node:30081 192: Uplink: Redirect router > node: node > far ttl 63 fragment 0x77@192 84 bytes of 6
            node:30081 96: Uplink: Redirect router > node: node > far ttl 63 fragment 0x77@96+ 96 bytes of 6
            [(FlowOpened, 4)]
        "#]],
    );
}

/// The transport of all parts together has the right checksum.
fn assert_reassembled(parts: &[(usize, Vec<u8>)]) {
    let mut transport = Vec::new();
    for (offset, bytes) in parts {
        let (_, part) = Read::frame(bytes).unwrap();
        assert_eq!(*offset, transport.len());
        transport.extend(part.transport);
    }
    let (_, first) = Read::frame(&parts[0].1).unwrap();
    let covered = checksum::with_pseudo_header(first.from, first.to, first.protocol, &transport);
    assert_eq!(checksum::internet_delta(&covered), 0, "the checksum of the whole is off");
}

#[test]
fn kernel_packet_later_fragments_before_the_first() {
    let steps = |fixture: &mut Fixture<'_>| {
        serve_both(fixture);
        let net = fixture.net;
        for (at, from, to) in
            [(At::Uplink, "client:40000", "node:30080"), (At::Pod, "pod2:50000", "cluster:80")]
        {
            let whole = net.udp(from, to, &[3; 64]);
            for (offset, len) in [(32, 64), (0, 32), (32, 64)] {
                let fragment = Some(Fragment { id: 0x78, offset, len });
                let part = Packet { fragment, ..whole.clone() };
                fixture.step(&format!("{to} {offset}"), at, &part);
            }
        }
        fixture.say_outcomes();
    };
    check(
        "later",
        steps,
        expect![[r#"
        node:30080 32: Uplink: Next untouched
        node:30080 0: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 fragment 0x78@0+ UDP 72
        node:30080 32: Uplink: Next router > node: client > pod ttl 64 fragment 0x78@32 40 bytes of 17
        cluster:80 32: Pod: Drop
        cluster:80 0: Pod: Next router > node: pod2:50000 > pod:8080 ttl 64 fragment 0x78@0+ UDP 72
        cluster:80 32: Pod: Next router > node: pod2 > pod ttl 64 fragment 0x78@32 40 bytes of 17
        [(FlowOpened, 2), (FragmentWithoutFirst, 1)]
    "#]],
    );
}

#[test]
fn kernel_packet_vlan_tags() {
    let steps = |fixture: &mut Fixture<'_>| {
        serve_both(fixture);
        let net = fixture.net;
        for to in ["node:30080", "node:30081"] {
            let packet = net.tcp("client:40000", to, SYN).bytes();
            for (what, tag) in [("VLAN 5", 5), ("VLAN 4095", 0x0fff), ("priority 3", 0x6000)] {
                let (verdict, left) = fixture.world.run_tagged(At::Uplink, tag, &packet);
                fixture.tell(what, At::Uplink, &packet, verdict, &left);
            }
            let within = Packet { tags: vec![5], ..net.tcp("client:40000", to, SYN) };
            fixture.step("tag within", At::Uplink, &within);
        }
    };
    check(
        "vlan",
        steps,
        expect![[r#"
            VLAN 5: Uplink: Next untouched
            VLAN 4095: Uplink: Next untouched
            priority 3: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 TCP S 1000/0 +0
            tag within: Uplink: Next untouched
            VLAN 5: Uplink: Next untouched
            VLAN 4095: Uplink: Next untouched
            priority 3: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 TCP S 1000/0 +0
            tag within: Uplink: Next untouched
        "#]],
    );
}

#[test]
fn kernel_packet_wrong_checksums_stay_wrong() {
    let mut world = World::new("wrong");
    for net in FAMILIES {
        let mut fixture = Fixture::new(&mut world, net);
        serve_both(&mut fixture);
        for to in ["node:30080", "node:30081"] {
            for at in [At::Uplink, At::Xdp] {
                for packet in [
                    net.tcp("client:40000", to, SYN),
                    net.udp("client:40000", to, b"some data"),
                    net.sctp("client:40000", to, 1, &[0; 16]),
                ] {
                    for error in [1, 0x0100, 0x7fff, 0xfffe] {
                        let mut bytes = Packet { error, ..packet.clone() }.bytes();
                        if net.is_v4() {
                            bytes[24] ^= 0x5a;
                        }
                        let before = read::deltas(&bytes);
                        assert!(before.iter().all(|(_, delta)| *delta != 0), "{before:?}");
                        let (verdict, left) = fixture.world.run(at, &bytes);
                        assert!(at == At::Xdp || left != bytes, "{to} {verdict:?}");
                        assert_checksums(to, &bytes, &left);
                    }
                }
            }
        }
    }
}

/// UDP: no checksum stays none, and one that comes out as zero is written as ones.
#[test]
fn kernel_packet_udp_checksum_zero() {
    let mut world = World::new("zero");
    for net in FAMILIES {
        let mut fixture = Fixture::new(&mut world, net);
        serve_both(&mut fixture);
        for (to, hooks) in [
            ("node:30080", [At::Uplink, At::OutPod].as_slice()),
            ("node:30081", &[At::Uplink]),
            ("node:30081", &[At::Xdp]),
        ] {
            let pass = |mut bytes: Vec<u8>| {
                for at in hooks {
                    bytes = fixture.world.run(*at, &bytes).1;
                }
                let checksum = |bytes: &[u8]| {
                    let (_, read) = Read::frame(bytes).unwrap();
                    u16::from_be_bytes([read.transport[6], read.transport[7]])
                };
                (checksum(&bytes), bytes)
            };
            let ordinary = net.udp("client:40000", to, &[0, 0]);
            // Opens the flow, for XDP.
            fixture.world.run(At::Uplink, &ordinary.bytes());
            let (checksum, left) = pass(ordinary.bytes());
            assert_ne!(left, ordinary.bytes(), "not translated");
            // What makes the sum of the translated packet all ones.
            let (ones, _) = pass(net.udp("client:40000", to, &checksum.to_be_bytes()).bytes());
            assert_eq!(ones, 0xffff, "{net:?} {to} {hooks:?}");
            if net.is_v4() {
                let body = Body::Udp { has_checksum: false, data: b"data".to_vec() };
                let (none, left) = pass(net.packet("client:40000", to, body).bytes());
                assert_eq!(none, 0, "{to} {hooks:?}");
                assert_checksums(to, &[], &left);
            }
        }
    }
}

#[test]
fn kernel_packet_sctp_checksum_follows_the_ports() {
    let mut world = World::new("crc");
    for net in FAMILIES {
        let mut fixture = Fixture::new(&mut world, net);
        serve_both(&mut fixture);
        for to in ["node:30080", "node:30081"] {
            for len in (0..64).chain((64..1400).step_by(97)).chain([1440]) {
                let value: Vec<u8> = (0..len).map(|at| (at * 31 + len) as u8).collect();
                let packet = net.sctp("client:40000", to, 1, &value);
                let mut bytes = packet.bytes();
                // What Ethernet pads short frames with is not covered.
                bytes.extend(vec![0; 60_usize.saturating_sub(bytes.len())]);
                let (_, left) = fixture.world.run(At::Uplink, &bytes);
                assert_ne!(left, bytes, "not translated");
                assert_checksums(&format!("{to} {len}"), &bytes, &left);
            }
        }
    }
}
