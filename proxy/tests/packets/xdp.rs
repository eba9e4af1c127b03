//! The program that sees frames before the kernel makes packet buffers of them.

use expect_test::expect;
use podium_proxy_ebpf::{FrontendKind::NodePort, Protocol};

use crate::{
    fixture::{Fixture, check},
    forward::{PROTOCOLS, answer, packet},
    packet::{ACK, Packet, SYN},
    world::At,
};

/// XDP takes what classifiers have opened, and does to it what they would have done.
#[test]
fn kernel_packet_xdp_sends_known_flows_back_out() {
    let steps = |fixture: &mut Fixture<'_>| {
        let net = fixture.net;
        for protocol in PROTOCOLS {
            let web = fixture.service("web", protocol, &["far:8080"]).at(NodePort, "node:30080");
            fixture.serve(web);
            let first = packet(net, protocol, "client:40000", "node:30080", true);
            fixture.step("unknown", At::Xdp, &first);
            let opened = fixture.step("opened", At::Uplink, &first);
            let later = packet(net, protocol, "client:40000", "node:30080", false);
            let by_classifier = fixture.world.run(At::Uplink, &later.bytes()).1;
            let by_xdp = fixture.step("known", At::Xdp, &later);
            if protocol != Protocol::Sctp {
                // The addresses of the link are left to the kernel behind a classifier.
                assert_eq!(by_xdp[12..], by_classifier[12..]);
            }
            let answer = answer(net, &later, &opened);
            fixture.step("answer", At::Xdp, &answer);
            let last_hop = Packet { ttl: 1, ..later.clone() };
            fixture.step("ttl 1", At::Xdp, &last_hop);
            let tagged = Packet { tags: vec![0], ..later };
            fixture.step("tagged", At::Xdp, &tagged);
        }
        let local = fixture.service("local", Protocol::Tcp, &["pod:8080"]);
        fixture.serve(local.at(NodePort, "node:30081"));
        fixture.step("opened", At::Uplink, &net.tcp("client:40000", "node:30081", SYN));
        fixture.step("here", At::Xdp, &net.tcp("client:40000", "node:30081", ACK));
    };
    check(
        "xdp",
        steps,
        expect![[r#"
            unknown: Xdp: Next untouched
            opened: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 TCP S 1000/0 +0
            known: Xdp: Back node > peer: node:nat > far:8080 ttl 63 TCP PA 1000/2000 +0
            answer: Xdp: Back node > router: node:30080 > client:40000 ttl 63 TCP PA 1000/1001 +0
            ttl 1: Xdp: Next untouched
            tagged: Xdp: Next untouched
            unknown: Xdp: Next untouched
            opened: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 UDP 17
            known: Xdp: Back node > peer: node:nat > far:8080 ttl 63 UDP 17
            answer: Xdp: Back node > router: node:30080 > client:40000 ttl 63 UDP 17
            ttl 1: Xdp: Next untouched
            tagged: Xdp: Next untouched
            unknown: Xdp: Next untouched
            opened: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 SCTP 0 chunk 1/0
            known: Xdp: Next untouched
            answer: Xdp: Next untouched
            ttl 1: Xdp: Next untouched
            tagged: Xdp: Next untouched
            opened: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 TCP S 1000/0 +0
            here: Xdp: Next untouched
        "#]],
    );
}
