//! Direct server return: the client's address is kept, the service's is told in an option, and the
//! endpoint's node answers for it.

use std::net::IpAddr;

use expect_test::expect;
use podium_proxy_ebpf::{
    FrontendKind::{ExternalIp, LoadBalancer, NodePort},
    Protocol, config,
};

use crate::{
    checksum,
    fixture::{Fixture, Service, check},
    flows::say_flows,
    net::{self, Net},
    packet::{ACK, SYN, TCP},
    read::{self, Read},
    world::At,
};

#[test]
fn kernel_packet_direct_server_return() {
    let steps = |fixture: &mut Fixture<'_>| {
        let net = fixture.net;
        fixture.world.config.flags = config::flags::DIRECT_RETURN;
        fixture.world.configure();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let web =
                fixture.service("web", protocol, &["far:8080"]).at(LoadBalancer, "balancer:80");
            fixture.serve(web);
            let first = match protocol {
                Protocol::Tcp => net.tcp("client:40000", "balancer:80", SYN),
                _ => net.udp("client:40000", "balancer:80", b"data"),
            };
            let left = fixture.step("sent along", At::Uplink, &first);
            fixture.say(format_args!("{}", option_text(net.is_v4(), &left)));
            if protocol == Protocol::Tcp {
                fixture.step("later", At::Uplink, &net.tcp("client:40000", "balancer:80", ACK));
                fixture.step("by XDP", At::Xdp, &net.tcp("client:40000", "balancer:80", ACK));
            }
            say_flows(fixture, "of the client's node");
            fixture.world.forget();
            // The same packet as the endpoint's node gets it, which this node now is: with the
            // endpoint's address changed, where it is.
            let web =
                fixture.service("web", protocol, &["pod:8080"]).at(LoadBalancer, "balancer:80");
            fixture.serve(web);
            let there = readdressed(net, &left);
            fixture.step_bytes("on the endpoint's node", At::Uplink, &there);
            say_flows(fixture, "of the endpoint's node");
            let mut back = net.tcp("pod:8080", "client:40000", SYN | ACK);
            if protocol == Protocol::Udp {
                back = net.udp("pod:8080", "client:40000", b"answer");
            }
            let left = fixture.step("answer", At::Pod, &back);
            fixture.step_bytes("  on its way out", At::OutUplink, &left);
            fixture.world.forget();
            let untold = fixture.service("web", protocol, &["pod2:8080"]);
            fixture.serve(untold.at(LoadBalancer, "balancer:80"));
            fixture.step_bytes("of no endpoint", At::Uplink, &there);
            assert_eq!(fixture.world.flows(), [], "nobody speaks for a service's address");
        }
        fixture.world.config.flags = 0;
        fixture.world.configure();
    };
    check(
        "dsr",
        steps,
        expect![[r#"
            sent along: Uplink: Redirect router > node: client:40000 > far:8080 ttl 63 extra TCP S 1000/0 +0
                tells balancer:80
            later: Uplink: Redirect router > node: client:40000 > far:8080 ttl 63 TCP A 1000/2000 +0
            by XDP: Xdp: Back node > peer: client:40000 > far:8080 ttl 63 TCP A 1000/2000 +0
            of the client's node:
                ingress client:40000 > balancer:80 => client:40000 > far:8080 OWDe
            on the endpoint's node: Uplink: Next untouched
            of the endpoint's node:
                egress pod:8080 > client:40000 => balancer:80 > client:40000 D
            answer: Pod: Next untouched
              on its way out: OutUplink: Next router > node: balancer:80 > client:40000 ttl 64 TCP SA 1000/2000 +0
            of no endpoint: Uplink: Next untouched
            sent along: Uplink: Redirect router > node: client:40000 > far:8080 ttl 63 extra UDP 12
                tells balancer:80
            of the client's node:
                ingress client:40000 > balancer:80 => client:40000 > far:8080 OWD
            on the endpoint's node: Uplink: Next untouched
            of the endpoint's node:
                egress pod:8080 > client:40000 => balancer:80 > client:40000 D
            answer: Pod: Next untouched
              on its way out: OutUplink: Next router > node: balancer:80 > client:40000 ttl 64 UDP 14
            of no endpoint: Uplink: Next untouched
        "#]],
    );
}

/// A client's port is used again by another address of the service; and a node port that is told by
/// another node.
#[test]
fn kernel_packet_direct_server_return_of_other_addresses() {
    let steps = |fixture: &mut Fixture<'_>| {
        let net = fixture.net;
        fixture.world.config.flags = config::flags::DIRECT_RETURN;
        fixture.world.configure();
        for (told, to) in [
            ("balancer:80", "balancer:80"),
            ("external:80", "external:80"),
            ("node:30080", "node:30080"),
            ("peer:30080", "node:30080"),
            ("peer:30081", "node:30080"),
        ] {
            let far = fixture.service("web", Protocol::Tcp, &["far:8080"]);
            fixture.serve(everywhere(far));
            let left = fixture.world.run(At::Uplink, &net.tcp("client:40000", to, SYN).bytes()).1;
            let pod = fixture.service("web", Protocol::Tcp, &["pod:8080"]);
            fixture.serve(everywhere(pod));
            let there = telling(net, readdressed(net, &left), told);
            fixture.step_bytes(told, At::Uplink, &there);
            let back = net.tcp("pod:8080", "client:40000", SYN | ACK);
            fixture.step("  answer", At::OutUplink, &back);
        }
        fixture.world.config.flags = 0;
        fixture.world.configure();
    };
    check(
        "dsrother",
        steps,
        expect![[r#"
        balancer:80: Uplink: Next untouched
          answer: OutUplink: Next router > node: balancer:80 > client:40000 ttl 64 TCP SA 1000/2000 +0
        external:80: Uplink: Next untouched
          answer: OutUplink: Next router > node: external:80 > client:40000 ttl 64 TCP SA 1000/2000 +0
        node:30080: Uplink: Next untouched
          answer: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 TCP SA 1000/2000 +0
        peer:30080: Uplink: Next untouched
          answer: OutUplink: Next router > node: peer:30080 > client:40000 ttl 64 TCP SA 1000/2000 +0
        peer:30081: Uplink: Next untouched
          answer: OutUplink: Next router > node: peer:30080 > client:40000 ttl 64 TCP SA 1000/2000 +0
    "#]],
    );
}

fn everywhere(service: Service) -> Service {
    let service = service.at(LoadBalancer, "balancer:80").at(ExternalIp, "external:80");
    service.at(NodePort, "node:30080")
}

/// The same frame with another address in its option.
fn telling(net: Net, mut frame: Vec<u8>, told: &str) -> Vec<u8> {
    let at = net.at(told);
    let start = if net.is_v4() { 36 } else { 58 };
    frame[start..start + 2].copy_from_slice(&at.port().to_be_bytes());
    match at.ip() {
        IpAddr::V4(ip) => frame[38..42].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => frame[62..78].copy_from_slice(&ip.octets()),
    }
    readdressed(net, &frame)
}

/// The option behind the fixed IP header.
fn option_text(is_v4: bool, frame: &[u8]) -> String {
    let (kind, port, ip): (&[u8], &[u8], IpAddr) = if is_v4 {
        let ip: [u8; 4] = frame[38..42].try_into().unwrap();
        (&frame[34..36], &frame[36..38], ip.into())
    } else {
        let ip: [u8; 16] = frame[62..78].try_into().unwrap();
        (&frame[56..58], &frame[58..60], ip.into())
    };
    let expected: &[u8] = if is_v4 { &[0x9e, 8] } else { &[0x1e, 20] };
    assert_eq!(kind, expected);
    format!("    tells {}:{}", net::name(ip), u16::from_be_bytes([port[0], port[1]]))
}

/// A frame for `far` made one for `pod`, its checksums with it.
fn readdressed(net: Net, frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let (to, at) = if net.is_v4() { (net.ip("pod"), 30) } else { (net.ip("pod"), 38) };
    match to {
        IpAddr::V4(ip) => bytes[at..at + 4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes[at..at + 16].copy_from_slice(&ip.octets()),
    }
    if net.is_v4() {
        bytes[24..26].fill(0);
        let end = 14 + usize::from(bytes[14] & 0xf) * 4;
        let sum = checksum::internet(&bytes[14..end]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let (_, read) = Read::frame(&bytes).unwrap();
    let start = bytes.len() - read.transport.len();
    let offset = start + if read.protocol == TCP { 16 } else { 6 };
    let (from, to, protocol) = (read.from, read.to, read.protocol);
    bytes[offset..offset + 2].fill(0);
    let covered = checksum::with_pseudo_header(from, to, protocol, &bytes[start..]);
    let sum = checksum::internet(&covered);
    bytes[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
    assert!(read::deltas(&bytes).iter().all(|(_, delta)| *delta == 0));
    bytes
}
