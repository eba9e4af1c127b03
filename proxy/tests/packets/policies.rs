//! Traffic policies and source ranges: who gets which endpoints, and with whose address.

use expect_test::expect;
use podium_proxy_ebpf::{
    FrontendKind::{ClusterIp, LoadBalancer, NodePort},
    Protocol,
};

use crate::{
    fixture::{Fixture, check},
    forward::there_and_back,
    packet::SYN,
    world::{At, Verdict},
};

#[test]
fn kernel_packet_external_traffic_policy_local() {
    let steps = |fixture: &mut Fixture<'_>| {
        let net = fixture.net;
        let ends = ["pod:8080", "far:8080"];
        let web = fixture.service("web", Protocol::Tcp, &ends).at(NodePort, "node:30080");
        fixture.serve(web.at(LoadBalancer, "balancer:80").external_local());
        for port in 0..8 {
            let from = format!("client:{}", 40_000 + port);
            let (verdict, left) =
                fixture.world.run(At::Uplink, &net.tcp(&from, "node:30080", SYN).bytes());
            assert_eq!(verdict, Verdict::Next);
            assert!(crate::read::text(&left).contains("> pod:8080"), "only ever the node's");
        }
        let first = net.tcp("client:42000", "balancer:80", SYN);
        there_and_back(fixture, &first, [&[At::Uplink, At::OutPod], &[At::Pod, At::OutUplink]]);
        let web = fixture.service("web", Protocol::Tcp, &["far:8080"]).at(NodePort, "node:30080");
        fixture.serve(web.at(LoadBalancer, "balancer:80").external_local());
        fixture.world.take_outcomes();
        fixture.step("none here", At::Uplink, &net.tcp("client:41000", "balancer:80", SYN));
        fixture.say_outcomes();
        let first = net.tcp("pod:41000", "balancer:80", SYN);
        fixture.say("from a pod: as with policy Cluster");
        there_and_back(fixture, &first, [&[At::Pod, At::OutUplink], &[At::Uplink, At::OutPod]]);
    };
    check(
        "etp",
        steps,
        expect![[r#"
            there: Uplink: Next router > node: client:42000 > pod:8080 ttl 64 TCP S 1000/0 +0
            there: OutPod: Next untouched
            back: Pod: Next untouched
            back: OutUplink: Next router > node: balancer:80 > client:42000 ttl 64 TCP SA 1000/1001 +0
            none here: Uplink: Drop
            [(NoLocalEndpoints, 1)]
            from a pod: as with policy Cluster
            there: Pod: Next router > node: pod:41000 > far:8080 ttl 64 TCP S 1000/0 +0
            there: OutUplink: Next untouched
            back: Uplink: Next untouched
            back: OutPod: Next router > node: balancer:80 > pod:41000 ttl 64 TCP SA 1000/1001 +0
        "#]],
    );
}

#[test]
fn kernel_packet_internal_traffic_policy_local() {
    let steps = |fixture: &mut Fixture<'_>| {
        let net = fixture.net;
        let web = fixture.service("web", Protocol::Tcp, &["far:8080"]).at(ClusterIp, "cluster:80");
        fixture.serve(web.internal_local());
        fixture.step("none here", At::Pod, &net.tcp("pod:50000", "cluster:80", SYN));
        fixture.say_outcomes();
        let ends = ["far:8080", "pod2:8080"];
        let web = fixture.service("web", Protocol::Tcp, &ends).at(ClusterIp, "cluster:80");
        fixture.serve(web.internal_local());
        fixture.step("one here", At::Pod, &net.tcp("pod:50000", "cluster:80", SYN));
    };
    check(
        "itp",
        steps,
        expect![[r#"
        none here: Pod: Drop
        [(NoLocalEndpoints, 1)]
        one here: Pod: Next router > node: pod:50000 > pod2:8080 ttl 64 TCP S 1000/0 +0
    "#]],
    );
}

#[test]
fn kernel_packet_source_ranges() {
    let steps = |fixture: &mut Fixture<'_>| {
        let net = fixture.net;
        let ranges: &[&str] =
            if net.is_v4() { &["198.51.100.0/26"] } else { &["2001:db8:9::/122"] };
        let web = fixture.service("web", Protocol::Tcp, &["pod:8080"]).at(NodePort, "node:30080");
        fixture.serve(web.at(LoadBalancer, "balancer:80").source_ranges(ranges));
        fixture.step("inside", At::Uplink, &net.tcp("client:40000", "balancer:80", SYN));
        fixture.step("outside", At::Uplink, &net.tcp("client2:40000", "balancer:80", SYN));
        fixture.step("node port", At::Uplink, &net.tcp("client2:40000", "node:30080", SYN));
        fixture.say_outcomes();
    };
    check(
        "ranges",
        steps,
        expect![[r#"
        inside: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 TCP S 1000/0 +0
        outside: Uplink: Drop
        node port: Uplink: Next router > node: client2:40000 > pod:8080 ttl 64 TCP S 1000/0 +0
        [(FlowOpened, 2), (SourceNotAllowed, 1)]
    "#]],
    );
}

/// What an older flow of the same ends left does not rewrite a source that is kept now.
#[test]
fn kernel_packet_policy_local_after_policy_cluster() {
    let steps = |fixture: &mut Fixture<'_>| {
        let net = fixture.net;
        let hooks: [&[At]; 2] = [&[At::Uplink, At::OutPod], &[At::Pod, At::OutUplink]];
        let service = |fixture: &Fixture<'_>, endpoint: &str| {
            fixture.service("web", Protocol::Udp, &[endpoint]).at(NodePort, "node:30080")
        };
        fixture.serve(service(fixture, "pod:8080"));
        there_and_back(fixture, &net.udp("client:40000", "node:30080", b"data"), hooks);
        fixture.serve(service(fixture, "pod2:8080").external_local());
        there_and_back(fixture, &net.udp("client:40000", "node:30080", b"data"), hooks);
        fixture.serve(service(fixture, "pod:8080").external_local());
        there_and_back(fixture, &net.udp("client:40000", "node:30080", b"data"), hooks);
    };
    check(
        "etpchange",
        steps,
        expect![[r#"
              there: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 UDP 12
              there: OutPod: Next router > node: node:nat > pod:8080 ttl 64 UDP 12
              back: Pod: Next router > node: pod:8080 > client:40000 ttl 64 UDP 12
              back: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 UDP 12
              there: Uplink: Next router > node: client:40000 > pod2:8080 ttl 64 UDP 12
              there: OutPod: Next untouched
              back: Pod: Next untouched
              back: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 UDP 12
              there: Uplink: Next router > node: client:40000 > pod:8080 ttl 64 UDP 12
              there: OutPod: Next untouched
              back: Pod: Next untouched
              back: OutUplink: Next router > node: node:30080 > client:40000 ttl 64 UDP 12
        "#]],
    );
}
