//! Packets that end before they should: in the frame, or by what they say of themselves.

use crate::{
    checksum,
    fixture::{Fixture, assert_checksums},
    headers::{serve_both, with_extras},
    net::{Error, FAMILIES, Net},
    packet::{ACK, Packet, SYN},
    read::Read,
    world::{At, Verdict, World},
};

/// Every beginning of a packet, with a length field that tells the truth or does not.
#[test]
fn kernel_packet_truncated_at_every_length() {
    let mut world = World::new("truncated");
    for net in FAMILIES {
        let mut fixture = Fixture::new(&mut world, net);
        serve_both(&mut fixture);
        for to in ["node:30080", "node:30081"] {
            for (header_len, packet) in [
                (20, net.tcp("client:40000", to, SYN)),
                (8, net.udp("client:40000", to, b"some data")),
                (12, net.sctp("client:40000", to, 1, &[0; 16])),
            ] {
                let plain = packet.clone();
                for packet in [plain, with_extras(net, packet)] {
                    every_beginning(fixture.world, &packet, header_len);
                }
            }
        }
        let about = net.tcp("node:30080", "client:40000", ACK);
        let ends = ("gateway", "node");
        let error = net.error(Error::TooBig, ends, &about, net.header_len() + 20);
        // The ports of the quoted packet, which flow it is of.
        every_beginning(fixture.world, &error, 8 + net.header_len() + 4);
    }
}

fn every_beginning(world: &World, packet: &Packet, header_len: usize) {
    let bytes = packet.bytes();
    let before_transport = bytes.len() - Read::frame(&bytes).unwrap().1.transport.len();
    for len in 15..bytes.len() {
        let cut = &bytes[..len];
        let mut honest = cut.to_vec();
        if packet.is_v4() && len >= 34 {
            let total = (len - 14) as u16;
            honest[16..18].copy_from_slice(&total.to_be_bytes());
            honest[24..26].fill(0);
            let options_end = (14 + usize::from(honest[14] & 0xf) * 4).min(len);
            let sum = checksum::internet(&honest[14..options_end]);
            honest[24..26].copy_from_slice(&sum.to_be_bytes());
        } else if !packet.is_v4() && len >= 54 {
            honest[18..20].copy_from_slice(&((len - 54) as u16).to_be_bytes());
        }
        for at in [At::Uplink, At::Xdp, At::Pod, At::OutUplink] {
            let what = || format!("{at:?}: {} bytes of {packet:?}", len);
            let Ok((verdict, left)) = world.try_run(at, cut) else {
                // The test run wants whole network headers of buffers.
                assert!(at != At::Xdp && len < 54, "{}", what());
                continue;
            };
            assert_eq!((verdict, left.as_slice()), (Verdict::Next, cut), "{}", what());
            let (verdict, left) = world.run(at, &honest);
            if len < before_transport.saturating_add(header_len) {
                let untouched = verdict == Verdict::Next && left == honest;
                assert!(untouched || verdict == Verdict::Drop, "{}: {verdict:?}", what());
            } else {
                let known = !matches!(verdict, Verdict::Unknown(_));
                assert!(known && left.len() == honest.len(), "{}: {verdict:?}", what());
            }
        }
    }
}

/// A packet that, by its own length, ends before its transport header does: what follows it in the
/// frame is nobody's ports.
#[test]
fn kernel_packet_that_ends_within_its_headers() {
    let mut world = World::new("ends");
    for net in FAMILIES {
        let mut fixture = Fixture::new(&mut world, net);
        serve_both(&mut fixture);
        let (from, to) = ("client:40000", "node:30081");
        let packets = [
            (20, net.tcp(from, to, SYN)),
            (8, net.udp(from, to, b"some data")),
            (12, net.sctp(from, to, 1, &[0; 16])),
        ];
        let known: Vec<_> = packets
            .iter()
            .map(|(_, packet)| fixture.world.run(At::Uplink, &packet.bytes()))
            .collect();
        assert!(known.iter().all(|(verdict, _)| *verdict == Verdict::Redirect));
        let about = net.udp("node:30081", "client:40000", b"some data");
        let about = net.error(Error::TooBig, ("gateway", "node"), &about, 1000);
        let quoted = (8 + net.header_len() + 8, about);
        for (header_len, packet) in packets.into_iter().chain([quoted]) {
            for len in 0..header_len {
                let mut bytes = packet.bytes();
                set_length(net, &mut bytes, len);
                for at in [At::Uplink, At::Pod, At::Xdp, At::OutUplink] {
                    let (verdict, left) = fixture.world.run(at, &bytes);
                    let untouched = verdict == Verdict::Next && left == bytes;
                    assert!(untouched, "{at:?}: {verdict:?} {len} bytes of {packet:?}");
                }
            }
        }
    }
}

/// Makes an IP header say that so many bytes follow it.
fn set_length(net: Net, frame: &mut [u8], len: usize) {
    if net.is_v4() {
        frame[16..18].copy_from_slice(&((20 + len) as u16).to_be_bytes());
        frame[24..26].fill(0);
        let sum = checksum::internet(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[18..20].copy_from_slice(&(len as u16).to_be_bytes());
    }
}

/// What fills a short frame up is not part of the packet that an error quotes.
#[test]
fn kernel_packet_icmp_error_in_a_padded_frame() {
    let mut world = World::new("padded");
    for net in FAMILIES {
        let mut fixture = Fixture::new(&mut world, net);
        serve_both(&mut fixture);
        for to in ["node:30080", "node:30081"] {
            fixture.world.run(At::Uplink, &net.tcp("client:40000", to, SYN).bytes());
            let about = net.tcp(to, "client:40000", ACK);
            let len = net.header_len() + 8;
            let error = net.error(Error::TooBig, ("gateway", "node"), &about, len);
            let mut bytes = error.bytes();
            bytes.extend([0x5a; 30]);
            let (_, left) = fixture.world.run(At::Uplink, &bytes);
            assert_ne!(left, bytes, "not translated");
            assert_checksums(to, &bytes, &left);
            assert!(left.ends_with(&[0x5a; 30]), "the padding is not the packet's");
        }
    }
}
