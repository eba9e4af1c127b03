//! Packets that nobody serves: told so at once, dropped, or left alone; and what nobody is told.

use expect_test::expect;
use podium_proxy_ebpf::{
    FrontendKind::{ClusterIp, LoadBalancer, NodePort},
    Protocol,
};

use crate::{
    fixture::{Fixture, check},
    net::Error,
    packet::{ACK, Body, FIN, Fragment, PSH, Packet, RST, SYN},
    world::At,
};

fn without_endpoints(fixture: &mut Fixture<'_>) {
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
        let web = fixture.service("web", protocol, &[]).at(NodePort, "node:30080");
        fixture.serve(web.at(LoadBalancer, "balancer:80").at(ClusterIp, "cluster:80"));
    }
}

#[test]
fn kernel_packet_refused_without_endpoints() {
    let steps = |fixture: &mut Fixture<'_>| {
        without_endpoints(fixture);
        let net = fixture.net;
        for (at, from, to) in [
            (At::Uplink, "client:40000", "node:30080"),
            (At::Uplink, "client:40000", "balancer:80"),
            (At::Pod, "pod:50000", "cluster:80"),
        ] {
            fixture.say(format_args!("{from} > {to}"));
            fixture.step("SYN", at, &net.tcp(from, to, SYN));
            fixture.step("ACK", at, &net.tcp(from, to, ACK));
            let mut request = net.tcp(from, to, ACK | PSH | FIN);
            request.body = Body::Tcp {
                flags: ACK | PSH | FIN,
                seq: 5,
                ack: 77,
                options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
                data: b"GET /".to_vec(),
            };
            fixture.step("data", at, &request);
            let flags = PSH | FIN;
            let options = vec![1; 4];
            request.body =
                Body::Tcp { flags, seq: u32::MAX - 1, ack: 0, options, data: b"GET /".to_vec() };
            fixture.step("data without ACK", at, &request);
            fixture.step("UDP", at, &net.udp(from, to, b"some question"));
            fixture.step("empty UDP", at, &net.udp(from, to, b""));
            fixture.step("SCTP", at, &net.sctp(from, to, 1, &[0; 16]));
        }
        fixture.say_outcomes();
        fixture.say("ports of a ClusterIP that it has not");
        fixture.step("SYN", At::Pod, &net.tcp("pod:50000", "cluster:81", SYN));
        fixture.step("UDP", At::Pod, &net.udp("pod:50000", "cluster:81", b"?"));
        fixture.step("SYN", At::Uplink, &net.tcp("client:40000", "cluster:81", SYN));
        fixture.say_outcomes();
        fixture.say("an address in the block of ClusterIPs that is nobody's");
        fixture.step("SYN", At::Pod, &net.tcp("pod:50000", "nobody:80", SYN));
        fixture.step("UDP", At::Uplink, &net.udp("client:40000", "nobody:80", b"?"));
        fixture.step("SYN", At::OutUplink, &net.tcp("node:40000", "nobody:80", SYN));
        fixture.say_outcomes();
    };
    check(
        "refused",
        steps,
        expect![[r#"
        client:40000 > node:30080
        SYN: Uplink: Redirect node > router: node:30080 > client:40000 ttl 64 TCP RA 0/1001 +0
        ACK: Uplink: Redirect node > router: node:30080 > client:40000 ttl 64 TCP R 2000/0 +0
        data: Uplink: Redirect node > router: node:30080 > client:40000 ttl 64 TCP R 77/0 +0
        data without ACK: Uplink: Redirect node > router: node:30080 > client:40000 ttl 64 TCP RA 0/4 +0
        UDP: Uplink: Redirect node > router: node > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 64 UDP 21 (8 bytes)]
        empty UDP: Uplink: Redirect node > router: node > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 64 UDP 8 (8 bytes)]
        SCTP: Uplink: Redirect node > router: node > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > node:30080 ttl 64 truncated (8 bytes)]
        client:40000 > balancer:80
        SYN: Uplink: Redirect node > router: balancer:80 > client:40000 ttl 64 TCP RA 0/1001 +0
        ACK: Uplink: Redirect node > router: balancer:80 > client:40000 ttl 64 TCP R 2000/0 +0
        data: Uplink: Redirect node > router: balancer:80 > client:40000 ttl 64 TCP R 77/0 +0
        data without ACK: Uplink: Redirect node > router: balancer:80 > client:40000 ttl 64 TCP RA 0/4 +0
        UDP: Uplink: Redirect node > router: balancer > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > balancer:80 ttl 64 UDP 21 (8 bytes)]
        empty UDP: Uplink: Redirect node > router: balancer > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > balancer:80 ttl 64 UDP 8 (8 bytes)]
        SCTP: Uplink: Redirect node > router: balancer > client ttl 64 ICMP PortUnreachable 0 about [client:40000 > balancer:80 ttl 64 truncated (8 bytes)]
        pod:50000 > cluster:80
        SYN: Pod: Redirect node > router: cluster:80 > pod:50000 ttl 64 TCP RA 0/1001 +0
        ACK: Pod: Redirect node > router: cluster:80 > pod:50000 ttl 64 TCP R 2000/0 +0
        data: Pod: Redirect node > router: cluster:80 > pod:50000 ttl 64 TCP R 77/0 +0
        data without ACK: Pod: Redirect node > router: cluster:80 > pod:50000 ttl 64 TCP RA 0/4 +0
        UDP: Pod: Redirect node > router: cluster > pod ttl 64 ICMP PortUnreachable 0 about [pod:50000 > cluster:80 ttl 64 UDP 21 (8 bytes)]
        empty UDP: Pod: Redirect node > router: cluster > pod ttl 64 ICMP PortUnreachable 0 about [pod:50000 > cluster:80 ttl 64 UDP 8 (8 bytes)]
        SCTP: Pod: Redirect node > router: cluster > pod ttl 64 ICMP PortUnreachable 0 about [pod:50000 > cluster:80 ttl 64 truncated (8 bytes)]
        [(NoEndpoints, 21)]
        ports of a ClusterIP that it has not
        SYN: Pod: Redirect node > router: cluster:81 > pod:50000 ttl 64 TCP RA 0/1001 +0
        UDP: Pod: Redirect node > router: cluster > pod ttl 64 ICMP PortUnreachable 0 about [pod:50000 > cluster:81 ttl 64 UDP 9 (8 bytes)]
        SYN: Uplink: Redirect node > router: cluster:81 > client:40000 ttl 64 TCP RA 0/1001 +0
        [(UnknownPort, 3)]
        an address in the block of ClusterIPs that is nobody's
        SYN: Pod: Drop
        UDP: Uplink: Drop
        SYN: OutUplink: Drop
        [(UnallocatedClusterIp, 3)]
    "#]],
    );
}

#[test]
fn kernel_packet_never_refused() {
    let steps = |fixture: &mut Fixture<'_>| {
        without_endpoints(fixture);
        let net = fixture.net;
        let (from, to) = ("client:40000", "node:30080");
        fixture.step("RST", At::Uplink, &net.tcp(from, to, RST));
        fixture.step("RST ACK", At::Uplink, &net.tcp(from, to, RST | ACK));
        fixture.step("ABORT", At::Uplink, &net.sctp(from, to, 6, &[]));
        let about = net.udp(to, from, b"data");
        for error in Error::ALL {
            let packet = net.error(error, ("gateway", "node"), &about, net.header_len() + 8);
            fixture.step(&format!("{error:?}"), At::Uplink, &packet);
        }
        let whole = net.udp(from, to, &[1; 64]);
        for (offset, len) in [(0, 16), (16, 16), (32, 64)] {
            let fragment = Some(Fragment { id: 9, offset, len });
            let part = Packet { fragment, ..whole.clone() };
            fixture.step(&format!("fragment {offset}"), At::Uplink, &part);
        }
        fixture.step("SYN by XDP", At::Xdp, &net.tcp(from, to, SYN));
        fixture.step("SYN on its way out", At::OutUplink, &net.tcp("pod:1", "balancer:80", SYN));
    };
    check(
        "never",
        steps,
        expect![[r#"
        RST: Uplink: Drop
        RST ACK: Uplink: Drop
        ABORT: Uplink: Drop
        PortUnreachable: Uplink: Next untouched
        HostUnreachable: Uplink: Next untouched
        TooBig: Uplink: Next untouched
        TimeExceeded: Uplink: Next untouched
        fragment 0: Uplink: Drop
        fragment 16: Uplink: Drop
        fragment 32: Uplink: Drop
        SYN by XDP: Xdp: Next untouched
        SYN on its way out: OutUplink: Next untouched
    "#]],
    );
}

#[test]
fn kernel_packet_not_for_a_service() {
    let steps = |fixture: &mut Fixture<'_>| {
        let net = fixture.net;
        let web = fixture.service("web", Protocol::Tcp, &["pod:8080"]).at(NodePort, "node:30080");
        fixture.serve(web);
        let (from, node) = ("client:40000", "node:30080");
        let packets = [
            ("another port", net.tcp(from, "node:22", SYN)),
            ("another protocol", net.udp(from, node, b"x")),
            ("another address", net.tcp(from, "peer:30080", SYN)),
            ("the endpoint itself", net.tcp(from, "pod:8080", SYN)),
            ("from the service's port", net.tcp("node:30080", "client:40000", ACK)),
            ("GRE", net.packet(from, node, Body::Other { protocol: 47, data: vec![0; 8] })),
            ("a ping", {
                let kind = if net.is_v4() { 8 } else { 128 };
                let (rest, data) = ([0, 1, 0, 1], vec![5; 16]);
                net.packet("client", "node", Body::Icmp { kind, code: 0, rest, data })
            }),
            ("wrong checksum", Packet { error: 3, ..net.tcp(from, "node:22", SYN) }),
        ];
        for (what, packet) in packets {
            for at in [At::Uplink, At::Pod, At::Xdp, At::OutUplink, At::OutPod] {
                fixture.step(what, at, &packet);
            }
        }
        let mut arp = vec![0xff; 6];
        arp.extend([2, 0, 0, 0, 0, 0xfe, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        arp.resize(42, 0);
        fixture.step_bytes("ARP", At::Uplink, &arp);
        fixture.say_outcomes();
        assert_eq!(fixture.world.flows(), []);
    };
    check(
        "foreign",
        steps,
        expect![[r#"
        another port: Uplink: Next untouched
        another port: Pod: Next untouched
        another port: Xdp: Next untouched
        another port: OutUplink: Next untouched
        another port: OutPod: Next untouched
        another protocol: Uplink: Next untouched
        another protocol: Pod: Next untouched
        another protocol: Xdp: Next untouched
        another protocol: OutUplink: Next untouched
        another protocol: OutPod: Next untouched
        another address: Uplink: Next untouched
        another address: Pod: Next untouched
        another address: Xdp: Next untouched
        another address: OutUplink: Next untouched
        another address: OutPod: Next untouched
        the endpoint itself: Uplink: Next untouched
        the endpoint itself: Pod: Next untouched
        the endpoint itself: Xdp: Next untouched
        the endpoint itself: OutUplink: Next untouched
        the endpoint itself: OutPod: Next untouched
        from the service's port: Uplink: Next untouched
        from the service's port: Pod: Next untouched
        from the service's port: Xdp: Next untouched
        from the service's port: OutUplink: Next untouched
        from the service's port: OutPod: Next untouched
        GRE: Uplink: Next untouched
        GRE: Pod: Next untouched
        GRE: Xdp: Next untouched
        GRE: OutUplink: Next untouched
        GRE: OutPod: Next untouched
        a ping: Uplink: Next untouched
        a ping: Pod: Next untouched
        a ping: Xdp: Next untouched
        a ping: OutUplink: Next untouched
        a ping: OutPod: Next untouched
        wrong checksum: Uplink: Next untouched
        wrong checksum: Pod: Next untouched
        wrong checksum: Xdp: Next untouched
        wrong checksum: OutUplink: Next untouched
        wrong checksum: OutPod: Next untouched
        ARP: Uplink: Next untouched
        []
    "#]],
    );
}
