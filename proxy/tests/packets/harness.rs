//! Tests of the tests: what builds packets, what reads them and what runs programs on them.

use expect_test::{Expect, expect};

use crate::{
    bpf::{Context, Tagged, passing_classifier, test_run},
    net::{Error, FAMILIES, Net},
    packet::{ACK, DESTINATION, Fragment, HOP_BY_HOP, Packet, ROUTING, SYN},
    read,
};

fn check(packet: &Packet, expected: Expect) {
    let bytes = packet.bytes();
    expected.assert_eq(&read::text(&bytes));
    let deltas = read::deltas(&bytes);
    assert!(deltas.iter().all(|(_, delta)| *delta == 0), "{packet:?}: {deltas:?}");
}

const V4: Net = FAMILIES[0];
const V6: Net = FAMILIES[1];
const ENDS: (&str, &str) = ("client:40000", "node:30080");

#[test]
fn built_packets_read_as_what_they_are() {
    check(
        &V4.tcp(ENDS.0, ENDS.1, SYN),
        expect!["router > node: client:40000 > node:30080 ttl 64 TCP S 1000/0 +0"],
    );
    check(
        &Packet { options: vec![7, 7, 4, 0, 0, 0, 0, 0], ..V4.tcp(ENDS.0, ENDS.1, SYN | ACK) },
        expect!["router > node: client:40000 > node:30080 ttl 64 extra TCP SA 1000/2000 +0"],
    );
    check(
        &Packet { tags: vec![7], ..V4.udp(ENDS.0, ENDS.1, b"odd") },
        expect!["router > node: tag 0x7 client:40000 > node:30080 ttl 64 UDP 11"],
    );
    let extensions = vec![
        (HOP_BY_HOP, vec![1, 4, 0, 0, 0, 0]),
        (ROUTING, vec![0; 6]),
        (DESTINATION, vec![1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    check(
        &Packet { extensions, ..V6.sctp(ENDS.0, ENDS.1, 1, &[0; 16]) },
        expect!["router > node: client:40000 > node:30080 ttl 64 extra SCTP 0 chunk 1/0"],
    );
    let fragment = Some(Fragment { id: 0xabcd, offset: 0, len: 16 });
    let first = Packet { fragment, ..V6.udp(ENDS.0, ENDS.1, &[1; 30]) };
    check(
        &first,
        expect!["router > node: client:40000 > node:30080 ttl 64 fragment 0xabcd@0+ UDP 38"],
    );
    let fragment = Some(Fragment { id: 0xabcd, offset: 16, len: 30 });
    let second = Packet { fragment, ..V4.udp(ENDS.0, ENDS.1, &[1; 30]) };
    check(
        &second,
        expect!["router > node: client > node ttl 64 fragment 0xabcd@16 22 bytes of 17"],
    );
    let about = V6.tcp(ENDS.1, ENDS.0, ACK);
    check(
        &V6.error(Error::TooBig, ("gateway", "node"), &about, 48),
        expect![
            "router > node: gateway > node ttl 64 ICMP TooBig 1400 about [node:30080 > client:40000 ttl 64 truncated (8 bytes)]"
        ],
    );
}

#[test]
fn wrong_checksums_are_seen() {
    for packet in [
        V4.tcp(ENDS.0, ENDS.1, SYN),
        V6.udp(ENDS.0, ENDS.1, b"data"),
        V4.sctp(ENDS.0, ENDS.1, 0, b"data"),
    ] {
        let wrong = Packet { error: 0x0100, ..packet };
        let deltas = read::deltas(&wrong.bytes());
        let delta = deltas.iter().map(|(_, delta)| *delta).max().unwrap();
        assert_eq!(delta, 0x0100, "{deltas:?}");
    }
}

#[test]
fn kernel_packet_harness_runs_a_program() {
    let program = passing_classifier().unwrap();
    let packet = V6.udp(ENDS.0, ENDS.1, b"data").bytes();
    use std::os::fd::AsFd as _;
    let context = Context::Buffer { ifindex: 1 };
    let (verdict, left) = test_run(program.as_fd(), context, &packet).unwrap();
    assert_eq!((verdict, &left), (-1, &packet));
    let tagged = Tagged::new(program.as_fd(), 5).unwrap();
    assert_eq!(tagged.run(context, &packet).unwrap(), (-1, packet));
}
