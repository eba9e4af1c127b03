//! Packets with some bytes changed at random: whatever they have become, a program answers with a
//! verdict that it may give, and no checksum gets better or worse by it.

use podium_proxy_ebpf::{FrontendKind::NodePort, Protocol};

use crate::{
    fixture::{Fixture, assert_checksums},
    headers::with_extras,
    model::Random,
    net::{Error, FAMILIES, Net},
    packet::{ACK, Packet, SYN},
    read::{self, Read},
    world::{At, Verdict, World},
};

const PACKETS: usize = 3000;

fn packets(fixture: &Fixture<'_>) -> Vec<Packet> {
    let net = fixture.net;
    let mut packets = Vec::new();
    for to in ["node:30080", "node:30081", "node:30082"] {
        for packet in [
            net.tcp("client:40000", to, SYN),
            net.tcp("client:40000", to, ACK),
            net.udp("client:40000", to, b"some data"),
            net.sctp("client:40000", to, 1, &[7; 16]),
        ] {
            packets.push(with_extras(net, packet.clone()));
            packets.push(packet);
        }
        let about = net.udp(to, "client:40000", b"some data");
        packets.push(net.error(Error::TooBig, ("gateway", "node"), &about, 1000));
    }
    packets
}

#[test]
fn kernel_packet_bytes_changed_at_random() {
    let mut random = Random::new();
    let mut world = World::new("fuzz");
    for net in FAMILIES {
        let mut fixture = Fixture::new(&mut world, net);
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            for (to, ends) in
                [("node:30080", "far:8080"), ("node:30081", "pod:8080"), ("node:30082", "")]
            {
                let ends: &[&str] = if ends.is_empty() { &[] } else { &[ends] };
                let service = fixture.service(to, protocol, ends).at(NodePort, to);
                fixture.serve(service);
            }
        }
        let packets = packets(&fixture);
        for packet in &packets {
            fixture.world.run(At::Uplink, &packet.bytes());
        }
        for _ in 0..PACKETS {
            let mut bytes = packets[random.below(packets.len())].bytes();
            for _ in 0..=random.below(4) {
                // Behind the Ethernet header, and mostly in the headers.
                let at = 14 + random.below((bytes.len() - 14).min(64));
                bytes[at] = match random.below(3) {
                    0 => bytes[at] ^ (1 << random.below(8)),
                    1 => [0, 1, 0x7f, 0xff][random.below(4)],
                    _ => random.below(256) as u8,
                };
            }
            for at in [At::Uplink, At::Pod, At::Xdp, At::OutUplink, At::OutPod] {
                let Ok((verdict, left)) = fixture.world.try_run(at, &bytes) else { continue };
                assert_sane(net, at, &bytes, verdict, &left);
            }
        }
    }
}

fn assert_sane(net: Net, at: At, bytes: &[u8], verdict: Verdict, left: &[u8]) {
    let what = format!("{at:?}: {bytes:02x?}\n{}\n{verdict:?}", read::text(bytes));
    let what = format!("{what} {}", read::text(left));
    let is_egress = matches!(at, At::OutUplink | At::OutPod);
    match verdict {
        Verdict::Unknown(_) => panic!("{what}"),
        Verdict::Drop => {}
        Verdict::Back => assert_eq!(at, At::Xdp, "{what}"),
        Verdict::Redirect => assert!(!is_egress && at != At::Xdp, "{what}"),
        Verdict::Next => {}
    }
    if verdict == Verdict::Drop || left == bytes {
        return;
    }
    let (_, before) = Read::frame(bytes).unwrap_or_else(|| panic!("not a packet: {what}"));
    let (_, after) = Read::frame(left).unwrap_or_else(|| panic!("no packet any more: {what}"));
    let is_answer = after.to == before.from && after.from == before.to;
    if is_answer && (before.protocol != after.protocol || after.ttl == 64) {
        // Refused: all of its checksums are made from scratch, but for what it quotes.
        let deltas = read::deltas(left).into_iter();
        let own = deltas.filter(|(name, _)| !name.starts_with("inner"));
        assert!(own.into_iter().all(|(_, delta)| delta == 0), "{what}");
    } else {
        assert_checksums(&what, bytes, left);
        assert_eq!(bytes.len(), left.len(), "{what}");
    }
    assert_eq!(after.from.is_ipv4(), net.is_v4(), "{what}");
}
