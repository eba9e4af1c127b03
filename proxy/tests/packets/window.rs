//! TCP outside of a connection's window, and after its end: translated like the rest of it. A
//! packet that reached the client untranslated would make it reset the connection
//! (kubernetes#74839).

use expect_test::expect;
use podium_proxy_ebpf::{FrontendKind::NodePort, Protocol};

use crate::{
    fixture::{Fixture, check},
    forward::answer,
    packet::{ACK, Body, FIN, PSH, Packet, RST, SYN},
    world::At,
};

/// A packet far from where the connection is.
fn displaced(mut packet: Packet, wanted: u8, at: u32) -> Packet {
    if let Body::Tcp { flags, seq, ack, .. } = &mut packet.body {
        (*flags, *seq, *ack) = (wanted, at, at ^ 0x8000_0000);
    }
    packet
}

#[test]
fn kernel_packet_of_tcp_outside_the_window_is_translated() {
    let steps = |fixture: &mut Fixture<'_>| {
        let (net, to) = (fixture.net, "node:30080");
        let hooks: [(&str, &[At], &[At]); 2] = [
            ("far:8080", &[At::Uplink], &[At::Uplink]),
            ("pod:8080", &[At::Uplink, At::OutPod], &[At::Pod, At::OutUplink]),
        ];
        for (endpoint, there, back) in hooks {
            let web = fixture.service("web", Protocol::Tcp, &[endpoint]).at(NodePort, to);
            fixture.serve(web);
            let pass = |fixture: &mut Fixture<'_>, what: &str, hooks: &[At], packet: &Packet| {
                let mut bytes = packet.bytes();
                for at in hooks {
                    let (verdict, left) = fixture.world.run(*at, &bytes);
                    if at == &hooks[hooks.len() - 1] {
                        fixture.tell(what, *at, &packet.bytes(), verdict, &left);
                    }
                    bytes = left;
                }
                bytes
            };
            let syn = net.tcp("client:40000", to, SYN);
            let reached = pass(fixture, "SYN", there, &syn);
            let answers = |flags, seq| displaced(answer(net, &syn, &reached), flags, seq);
            let later = |flags, seq| displaced(net.tcp("client:40000", to, ACK), flags, seq);
            pass(fixture, "its answer", back, &answers(SYN | ACK, 1_000));
            pass(fixture, "far behind", back, &answers(ACK, 7));
            pass(fixture, "far ahead", back, &answers(ACK | PSH, 4_000_000_000));
            pass(fixture, "of the client", there, &later(ACK, 3_000_000_000));
            pass(fixture, "the end", there, &later(FIN | ACK, 1_001));
            pass(fixture, "its answer", back, &answers(FIN | ACK, 1_001));
            pass(fixture, "after the end", back, &answers(ACK, 9));
            pass(fixture, "RST", back, &answers(RST, 1_002));
            pass(fixture, "after RST", back, &answers(ACK, 11));
            fixture.world.forget();
        }
    };
    check(
        "window",
        steps,
        expect![[r#"
            SYN: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 TCP S 1000/0 +0
            its answer: Uplink: Redirect router > node: node:30080 > client:40000 ttl 63 TCP SA 1000/2147484648 +0
            far behind: Uplink: Redirect router > node: node:30080 > client:40000 ttl 63 TCP A 7/2147483655 +0
            far ahead: Uplink: Redirect router > node: node:30080 > client:40000 ttl 63 TCP PA 4000000000/1852516352 +0
            of the client: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 TCP A 3000000000/852516352 +0
            the end: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 TCP FA 1001/2147484649 +0
            its answer: Uplink: Redirect router > node: node:30080 > client:40000 ttl 63 TCP FA 1001/2147484649 +0
            after the end: Uplink: Redirect router > node: node:30080 > client:40000 ttl 63 TCP A 9/2147483657 +0
            RST: Uplink: Redirect router > node: node:30080 > client:40000 ttl 63 TCP R 1002/2147484650 +0
            after RST: Uplink: Redirect router > node: node:30080 > client:40000 ttl 63 TCP A 11/2147483659 +0
            SYN: OutPod: Next router > node: node:nat > pod:8080 ttl 64 TCP S 1000/0 +0
            its answer: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 TCP SA 1000/2147484648 +0
            far behind: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 TCP A 7/2147483655 +0
            far ahead: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 TCP PA 4000000000/1852516352 +0
            of the client: OutPod: Next router > node: node:nat > pod:8080 ttl 64 TCP A 3000000000/852516352 +0
            the end: OutPod: Next router > node: node:nat > pod:8080 ttl 64 TCP FA 1001/2147484649 +0
            its answer: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 TCP FA 1001/2147484649 +0
            after the end: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 TCP A 9/2147483657 +0
            RST: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 TCP R 1002/2147484650 +0
            after RST: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 TCP A 11/2147483659 +0
        "#]],
    );
}
