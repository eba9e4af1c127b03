//! What is remembered: states of flows, endpoints that leave, affinity, counters.

use std::collections::BTreeSet;

use expect_test::expect;
use podium_proxy_ebpf::{
    FlowEntry, FlowKey,
    FrontendKind::{ClusterIp, LoadBalancer, NodePort},
    Hook, Protocol, Tuple, flow,
};

use crate::{
    fixture::{Fixture, check},
    forward::answer,
    net::{self, FAMILIES, NAT_PORTS},
    packet::{ACK, FIN, PSH, RST, SYN},
    read::Read,
    world::{At, Verdict, World},
};

fn tuple_text(tuple: &Tuple) -> String {
    let end = |at: std::net::SocketAddr| {
        let port = at.port();
        let port = if NAT_PORTS.contains(&port) { "nat".to_owned() } else { port.to_string() };
        format!("{}:{port}", net::name(at.ip()))
    };
    format!("{} > {}", end(tuple.from().socket_addr()), end(tuple.to().socket_addr()))
}

/// A flow's entry in one line.
fn flow_text((key, entry): &(FlowKey, FlowEntry)) -> String {
    let hook = if key.hook == Hook::Ingress as u8 { "ingress" } else { "egress" };
    let names: String = [
        (flow::flags::ORIGIN, 'O'),
        (flow::flags::FORWARD, 'W'),
        (flow::flags::DIRECT_RETURN, 'D'),
        (flow::flags::SOURCE_REWRITTEN, 'S'),
        (flow::flags::ESTABLISHED, 'e'),
        (flow::flags::FIN, 'f'),
        (flow::flags::RST, 'r'),
    ]
    .iter()
    .filter_map(|(bit, name)| (entry.flags & bit != 0).then_some(*name))
    .collect();
    format!("    {hook} {} => {} {names}", tuple_text(&key.tuple), tuple_text(&entry.to))
}

pub fn say_flows(fixture: &mut Fixture<'_>, what: &str) {
    let mut lines: Vec<String> = fixture.world.flows().iter().map(flow_text).collect();
    lines.sort();
    fixture.say(format_args!("{what}:\n{}", lines.join("\n")));
}

#[test]
fn kernel_packet_states_of_a_flow() {
    let steps = |fixture: &mut Fixture<'_>| {
        let net = fixture.net;
        for (to, endpoint, out, back) in [
            ("node:30080", "far:8080", None, (At::Uplink, None)),
            ("node:30081", "pod:8080", Some(At::OutPod), (At::Pod, Some(At::OutUplink))),
        ] {
            fixture.world.forget();
            let web = fixture.service(to, Protocol::Tcp, &[endpoint]).at(NodePort, to);
            fixture.serve(web);
            let run = |fixture: &Fixture<'_>, first: At, second: Option<At>, packet: &[u8]| {
                let left = fixture.world.run(first, packet).1;
                second.map_or_else(|| left.clone(), |at| fixture.world.run(at, &left).1)
            };
            let syn = net.tcp("client:40000", to, SYN);
            let reached = run(fixture, At::Uplink, out, &syn.bytes());
            say_flows(fixture, "SYN");
            let answered = |flags| {
                let mut packet = answer(net, &syn, &reached);
                if let crate::packet::Body::Tcp { flags: of, .. } = &mut packet.body {
                    *of = flags;
                }
                packet.bytes()
            };
            run(fixture, back.0, back.1, &answered(SYN | ACK));
            say_flows(fixture, "SYN ACK");
            run(fixture, At::Uplink, out, &net.tcp("client:40000", to, ACK).bytes());
            say_flows(fixture, "ACK");
            run(fixture, At::Uplink, out, &net.tcp("client:40000", to, FIN | ACK).bytes());
            say_flows(fixture, "FIN");
            run(fixture, back.0, back.1, &answered(FIN | ACK));
            say_flows(fixture, "FIN of the endpoint");
            run(fixture, back.0, back.1, &answered(RST));
            say_flows(fixture, "RST of the endpoint");
            run(fixture, At::Uplink, out, &net.tcp("client:40000", to, RST).bytes());
            say_flows(fixture, "RST");
            run(fixture, At::Uplink, out, &syn.bytes());
            run(fixture, back.0, back.1, &answered(SYN | ACK));
            run(fixture, At::Uplink, out, &net.tcp("client:40000", to, ACK).bytes());
            say_flows(fixture, "a connection again");
        }
        fixture.world.forget();
    };
    check(
        "states",
        steps,
        expect![[r#"
            SYN:
                ingress client:40000 > node:30080 => node:nat > far:8080 OWS
                ingress far:8080 > node:nat => node:30080 > client:40000 WS
            SYN ACK:
                ingress client:40000 > node:30080 => node:nat > far:8080 OWS
                ingress far:8080 > node:nat => node:30080 > client:40000 WSe
            ACK:
                ingress client:40000 > node:30080 => node:nat > far:8080 OWSe
                ingress far:8080 > node:nat => node:30080 > client:40000 WSe
            FIN:
                ingress client:40000 > node:30080 => node:nat > far:8080 OWSef
                ingress far:8080 > node:nat => node:30080 > client:40000 WSe
            FIN of the endpoint:
                ingress client:40000 > node:30080 => node:nat > far:8080 OWSef
                ingress far:8080 > node:nat => node:30080 > client:40000 WSef
            RST of the endpoint:
                ingress client:40000 > node:30080 => node:nat > far:8080 OWSef
                ingress far:8080 > node:nat => node:30080 > client:40000 WSefr
            RST:
                ingress client:40000 > node:30080 => node:nat > far:8080 OWSefr
                ingress far:8080 > node:nat => node:30080 > client:40000 WSefr
            a connection again:
                ingress client:40000 > node:30080 => node:nat > far:8080 OWSe
                ingress far:8080 > node:nat => node:30080 > client:40000 WSe
            SYN:
                egress client:40000 > pod:8080 => node:nat > pod:8080 S
                egress pod:8080 > client:40000 => node:30081 > client:40000 S
                ingress client:40000 > node:30081 => node:nat > pod:8080 OS
                ingress pod:8080 > node:nat => node:30081 > client:40000 S
            SYN ACK:
                egress client:40000 > pod:8080 => node:nat > pod:8080 S
                egress pod:8080 > client:40000 => node:30081 > client:40000 Se
                ingress client:40000 > node:30081 => node:nat > pod:8080 OS
                ingress pod:8080 > node:nat => node:30081 > client:40000 Se
            ACK:
                egress client:40000 > pod:8080 => node:nat > pod:8080 Se
                egress pod:8080 > client:40000 => node:30081 > client:40000 Se
                ingress client:40000 > node:30081 => node:nat > pod:8080 OSe
                ingress pod:8080 > node:nat => node:30081 > client:40000 Se
            FIN:
                egress client:40000 > pod:8080 => node:nat > pod:8080 Sef
                egress pod:8080 > client:40000 => node:30081 > client:40000 Se
                ingress client:40000 > node:30081 => node:nat > pod:8080 OSef
                ingress pod:8080 > node:nat => node:30081 > client:40000 Se
            FIN of the endpoint:
                egress client:40000 > pod:8080 => node:nat > pod:8080 Sef
                egress pod:8080 > client:40000 => node:30081 > client:40000 Sef
                ingress client:40000 > node:30081 => node:nat > pod:8080 OSef
                ingress pod:8080 > node:nat => node:30081 > client:40000 Sef
            RST of the endpoint:
                egress client:40000 > pod:8080 => node:nat > pod:8080 Sef
                egress pod:8080 > client:40000 => node:30081 > client:40000 Sefr
                ingress client:40000 > node:30081 => node:nat > pod:8080 OSef
                ingress pod:8080 > node:nat => node:30081 > client:40000 Sefr
            RST:
                egress client:40000 > pod:8080 => node:nat > pod:8080 Sefr
                egress pod:8080 > client:40000 => node:30081 > client:40000 Sefr
                ingress client:40000 > node:30081 => node:nat > pod:8080 OSefr
                ingress pod:8080 > node:nat => node:30081 > client:40000 Sefr
            a connection again:
                egress client:40000 > pod:8080 => node:nat > pod:8080 Se
                egress pod:8080 > client:40000 => node:30081 > client:40000 Se
                ingress client:40000 > node:30081 => node:nat > pod:8080 OSe
                ingress pod:8080 > node:nat => node:30081 > client:40000 Se
        "#]],
    );
}

#[test]
fn kernel_packet_endpoint_that_left() {
    let steps = |fixture: &mut Fixture<'_>| {
        let net = fixture.net;
        let (from, to) = ("client:40000", "node:30080");
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let service = |fixture: &Fixture<'_>, ends: &[&str]| {
                fixture.service("web", protocol, ends).at(NodePort, to)
            };
            fixture.serve(service(fixture, &["far:8080"]));
            let first = match protocol {
                Protocol::Tcp => net.tcp(from, to, SYN),
                Protocol::Udp => net.udp(from, to, b"data"),
                Protocol::Sctp => net.sctp(from, to, 1, &[0; 16]),
            };
            let later = match protocol {
                Protocol::Tcp => net.tcp(from, to, ACK | PSH),
                Protocol::Udp => net.udp(from, to, b"data"),
                Protocol::Sctp => net.sctp(from, to, 0, &[0; 16]),
            };
            let port = |left: &[u8]| Read::frame(left).unwrap().1.ports().unwrap().0;
            let opened = port(&fixture.step("first", At::Uplink, &first));
            fixture.serve(service(fixture, &["far2:8080", "far:8080"]));
            let same = port(&fixture.step("still listed", At::Uplink, &first));
            assert_eq!(opened, same, "the flow goes on");
            fixture.serve(service(fixture, &["far2:8080"]));
            fixture.step("left, a later packet", At::Uplink, &later);
            fixture.step("left, the first again", At::Uplink, &first);
            fixture.step("a later packet of that", At::Uplink, &later);
            fixture.serve(service(fixture, &[]));
            fixture.step("all left", At::Uplink, &first);
        }
    };
    check(
        "left",
        steps,
        expect![[r#"
            first: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 TCP S 1000/0 +0
            still listed: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 TCP S 1000/0 +0
            left, a later packet: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 TCP PA 1000/2000 +0
            left, the first again: Uplink: Redirect router > node: node:nat > far2:8080 ttl 63 TCP S 1000/0 +0
            a later packet of that: Uplink: Redirect router > node: node:nat > far2:8080 ttl 63 TCP PA 1000/2000 +0
            all left: Uplink: Redirect node > router: node:30080 > client:40000 ttl 64 TCP RA 0/1001 +0
            first: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 UDP 12
            still listed: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 UDP 12
            left, a later packet: Uplink: Redirect router > node: node:nat > far2:8080 ttl 63 UDP 12
            left, the first again: Uplink: Redirect router > node: node:nat > far2:8080 ttl 63 UDP 12
            a later packet of that: Uplink: Redirect router > node: node:nat > far2:8080 ttl 63 UDP 12
            all left: Uplink: Redirect node > router: node > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 64 UDP 12 (8 bytes)]
            first: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 SCTP 0 chunk 1/0
            still listed: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 SCTP 0 chunk 1/0
            left, a later packet: Uplink: Redirect router > node: node:nat > far:8080 ttl 63 SCTP deadbeef chunk 0/0
            left, the first again: Uplink: Redirect router > node: node:nat > far2:8080 ttl 63 SCTP 0 chunk 1/0
            a later packet of that: Uplink: Redirect router > node: node:nat > far2:8080 ttl 63 SCTP deadbeef chunk 0/0
            all left: Uplink: Redirect node > router: node > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 64 truncated (8 bytes)]
        "#]],
    );
}

fn endpoint_of(left: &[u8]) -> String {
    let (_, read) = Read::frame(left).unwrap();
    net::name(read.to)
}

#[test]
fn kernel_packet_session_affinity() {
    let mut world = World::new("affinity");
    for net in FAMILIES {
        let mut fixture = Fixture::new(&mut world, net);
        let all = ["far:8080", "far2:8080", "pod:8080", "pod2:8080"];
        let service = |fixture: &Fixture<'_>, ends: &[&str]| {
            let web = fixture.service("web", Protocol::Tcp, ends).at(NodePort, "node:30080");
            web.at(LoadBalancer, "balancer:80").at(ClusterIp, "cluster:80").affinity(600)
        };
        let choices = |fixture: &Fixture<'_>, at, from: &str, base: u16| -> BTreeSet<String> {
            (0..20)
                .map(|index| {
                    let to = if index % 2 == 0 { "node:30080" } else { "balancer:80" };
                    let from = format!("{from}:{}", base + index);
                    let (verdict, left) = fixture.world.run(at, &net.tcp(&from, to, SYN).bytes());
                    assert!(matches!(verdict, Verdict::Next | Verdict::Redirect));
                    endpoint_of(&left)
                })
                .collect()
        };
        fixture.serve(service(&fixture, &all));
        let first = choices(&fixture, At::Uplink, "client", 41_000);
        assert_eq!(first.len(), 1, "one client, one endpoint: {first:?}");
        let gone = first.first().unwrap().clone();
        let left: Vec<&str> =
            all.into_iter().filter(|at| !at.starts_with(&format!("{gone}:"))).collect();
        fixture.serve(service(&fixture, &left));
        let second = choices(&fixture, At::Uplink, "client", 42_000);
        assert!(second.len() == 1 && second != first, "{first:?}, then {second:?}");
        fixture.serve(service(&fixture, &all));
        assert_eq!(choices(&fixture, At::Uplink, "client", 43_000), second, "it is kept");
        assert_eq!(choices(&fixture, At::Pod, "pod", 43_000).len(), 1, "a pod is a client too");
        assert_eq!(fixture.world.affinity().len(), 2, "one entry a client");
        fixture.world.forget();
    }
}

#[test]
fn kernel_packet_counters() {
    let mut world = World::new("counters");
    for net in FAMILIES {
        let mut fixture = Fixture::new(&mut world, net);
        fixture.world.desired = podium_proxy::model::Desired::default();
        fixture.world.sync();
        let web = fixture.service("web", Protocol::Tcp, &["far:8080"]).at(NodePort, "node:30080");
        fixture.serve(web);
        let syn = net.tcp("client:40000", "node:30080", SYN);
        let left = fixture.world.run(At::Uplink, &syn.bytes()).1;
        let ack = net.tcp("client:40000", "node:30080", ACK);
        fixture.world.run(At::Uplink, &ack.bytes());
        fixture.world.run(At::Xdp, &ack.bytes());
        let back = answer(net, &syn, &left);
        fixture.world.run(At::Uplink, &back.bytes());
        let counted = fixture.world.counters();
        assert_eq!((counted.connections, counted.packets), (1, 4));
        let bytes = syn.ip_bytes().len() + 2 * ack.ip_bytes().len() + back.ip_bytes().len();
        assert_eq!(counted.bytes, bytes as u64, "from the IP header on");

        let here = fixture.service("here", Protocol::Tcp, &["pod:8080"]).at(NodePort, "node:30081");
        fixture.serve(here);
        let syn = net.tcp("client:40000", "node:30081", SYN);
        let left = fixture.world.run(At::Uplink, &syn.bytes()).1;
        let left = fixture.world.run(At::OutPod, &left).1;
        let back = answer(net, &syn, &left);
        let left = fixture.world.run(At::Pod, &back.bytes()).1;
        fixture.world.run(At::OutUplink, &left);
        let counted = fixture.world.counters();
        assert_eq!((counted.connections, counted.packets), (2, 6), "each packet once");
    }
}
