//! Plans as text: which operations, in which order. What they add up to is tested in `model.rs`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::SocketAddr,
    sync::Arc,
};

use expect_test::{Expect, expect};
use podium_proxy::{
    datapath::{Datapath as _, fake::FakeDatapath},
    model::{Desired, Frontend, ObjectName, PortName, Reach, ServicePort},
    plan::{
        self, Limit, Op,
        held::{Held, Limits},
        ranges,
    },
    status::Status,
    trace::{self, Query, Via},
};
use podium_proxy_ebpf::{
    AddressPort, Config, Endpoint, Family, FrontendKind, Protocol, SourceRange, flags,
};

fn limits() -> Limits {
    Limits { services: 8, endpoints: 6, maglev: 2048, source_ranges: 3, ..Limits::default() }
}

fn at(text: &str) -> AddressPort {
    AddressPort::from(text.parse::<SocketAddr>().unwrap())
}

fn elsewhere(text: &str) -> Endpoint {
    Endpoint::new(&at(text), Endpoint::ELSEWHERE)
}

fn frontend(kind: FrontendKind) -> Frontend {
    Frontend { kind, internal: Reach::Cluster, external: Reach::Cluster, restricted: false }
}

fn desired(ports: &[(&str, &str, &[&str])]) -> Desired {
    let mut desired = Desired::default();
    for (service, address, endpoints) in ports {
        let name = PortName {
            service: ObjectName { namespace: "default".to_owned(), name: (*service).to_owned() },
            port: String::new(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        };
        desired.cluster_ips.insert(at(address).socket_addr().ip());
        let port = ServicePort {
            name: name.clone(),
            addresses: BTreeMap::from([(at(address), frontend(FrontendKind::ClusterIp))]),
            endpoints: endpoints.iter().map(|endpoint| elsewhere(endpoint)).collect(),
            local: Vec::new(),
            affinity_secs: 0,
            source_ranges: BTreeSet::new(),
        };
        desired.ports.insert(name, Arc::new(port));
    }
    desired
}

fn line(op: &Op) -> String {
    match op {
        Op::WriteEndpoints { start, endpoints } => {
            let shown: Vec<_> =
                endpoints.iter().map(|one| one.at().socket_addr().to_string()).collect();
            format!("write {start}+{}: {}", endpoints.len(), shown.join(" "))
        }
        Op::WriteMaglev { start, slots } => format!("write table {start}: {} slots", slots.len()),
        Op::Renew { id } => format!("renew {id}"),
        Op::AddSourceRange { range, prefix_len } => {
            format!("allow id {} {}", range.service_id, shown_range(range, *prefix_len))
        }
        Op::RemoveSourceRange { range, prefix_len } => {
            format!("disallow id {} {}", range.service_id, shown_range(range, *prefix_len))
        }
        Op::SetName { id, name } => {
            format!("name {id} {}", PortName::from_abi(name).unwrap())
        }
        Op::RemoveName { id } => format!("unname {id}"),
        Op::ResetCounter { id } => format!("reset {id}"),
        Op::SetService { key, .. } if key.is_whole_address() => {
            format!("mark {}", key.socket_addr().ip())
        }
        Op::SetService { key, entry } => {
            let span = entry.endpoints;
            let mut text = format!(
                "set {} -> id {} span {}+{}",
                key.socket_addr(),
                entry.id,
                span.start,
                span.len
            );
            if entry.maglev.len > 0 {
                write!(text, " table {}+{}", entry.maglev.start, entry.maglev.len).unwrap();
            }
            if entry.flags & flags::SOURCE_RANGES != 0 {
                text.push_str(" restricted");
            }
            text
        }
        Op::RemoveService { key } if key.is_whole_address() => {
            format!("unmark {}", key.socket_addr().ip())
        }
        Op::RemoveService { key } => format!("remove {}", key.socket_addr()),
        Op::WaitForReaders => "wait".to_owned(),
    }
}

fn shown_range(range: &SourceRange, prefix_len: u32) -> String {
    ranges::from_abi(&(*range, prefix_len)).unwrap().to_string()
}

fn check(held: &mut Held, desired: &Desired, expected: Expect) {
    let plan = plan::plan(held, desired);
    assert!(held.shortages.is_empty(), "{:?}", held.shortages);
    let text: String = plan.ops.iter().map(|op| line(op) + "\n").collect();
    expected.assert_eq(&text);
}

#[test]
fn a_service_comes_changes_and_goes() {
    let mut held = Held::empty(limits());
    let web = "10.96.0.10:80";
    check(
        &mut held,
        &desired(&[("web", web, &["10.0.0.1:8080", "10.0.0.2:8080"])]),
        expect![[r#"
        write 0+2: 10.0.0.1:8080 10.0.0.2:8080
        reset 0
        name 0 default/web
        set 10.96.0.10:80 -> id 0 span 0+2
        mark 10.96.0.10
    "#]],
    );
    check(
        &mut held,
        &desired(&[("web", web, &["10.0.0.2:8080"])]),
        expect![[r#"
            write 2+1: 10.0.0.2:8080
            set 10.96.0.10:80 -> id 0 span 2+1
            renew 0
        "#]],
    );
    check(&mut held, &desired(&[("web", web, &["10.0.0.2:8080"])]), expect![[""]]);
    check(
        &mut held,
        &desired(&[("web", web, &[])]),
        expect![[r#"
            set 10.96.0.10:80 -> id 0 span 0+0
            renew 0
        "#]],
    );
    check(
        &mut held,
        &desired(&[]),
        expect![[r#"
            remove 10.96.0.10:80
            unmark 10.96.0.10
            renew 0
            unname 0
        "#]],
    );
}

#[test]
fn room_is_given_out_again_only_after_a_wait() {
    let mut held = Held::empty(limits());
    let three = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"];
    let web = "10.96.0.10:80";
    check(
        &mut held,
        &desired(&[("web", web, &three)]),
        expect![[r#"
        write 0+3: 10.0.0.1:1 10.0.0.2:1 10.0.0.3:1
        reset 0
        name 0 default/web
        set 10.96.0.10:80 -> id 0 span 0+3
        mark 10.96.0.10
    "#]],
    );
    check(
        &mut held,
        &desired(&[("web", web, &three[..2])]),
        expect![[r#"
            write 3+2: 10.0.0.1:1 10.0.0.2:1
            set 10.96.0.10:80 -> id 0 span 3+2
            renew 0
        "#]],
    );
    check(
        &mut held,
        &desired(&[("web", web, &three)]),
        expect![[r#"
            wait
            write 0+3: 10.0.0.1:1 10.0.0.2:1 10.0.0.3:1
            set 10.96.0.10:80 -> id 0 span 0+3
            renew 0
        "#]],
    );
}

#[test]
fn an_address_changes_hands_in_one_step() {
    let mut held = Held::empty(limits());
    let web = "10.96.0.10:80";
    check(
        &mut held,
        &desired(&[("old", web, &["10.0.0.1:1"])]),
        expect![[r#"
        write 0+1: 10.0.0.1:1
        reset 0
        name 0 default/old
        set 10.96.0.10:80 -> id 0 span 0+1
        mark 10.96.0.10
    "#]],
    );
    check(
        &mut held,
        &desired(&[("new", web, &["10.0.0.2:1"])]),
        expect![[r#"
            write 1+1: 10.0.0.2:1
            reset 1
            name 1 default/new
            set 10.96.0.10:80 -> id 1 span 1+1
            renew 0
            unname 0
        "#]],
    );
}

#[test]
fn traces_say_why() {
    let (mut held, mut datapath) = (Held::empty(limits()), FakeDatapath::new(limits()));
    let two = desired(&[
        ("web", "10.96.0.10:80", &["10.0.0.1:8080", "10.0.0.2:8080"]),
        ("none", "10.96.0.11:80", &[]),
    ]);
    for op in plan::plan(&mut held, &two).ops {
        datapath.execute(&op).unwrap();
    }
    let snapshot = datapath.snapshot().unwrap();
    let shown = |target: &str| {
        let query = Query { target: target.parse().unwrap(), from: None, via: Via::Socket };
        trace::trace(&snapshot, &held, &Config::default(), query).to_string()
    };
    let targets = [
        "10.96.0.10:80",
        "10.96.0.10:443",
        "10.96.0.10:80/udp",
        "10.96.0.11:80",
        "192.0.2.1:80/tcp",
    ];
    let text: String = targets.map(shown).concat();
    expect![[r#"
        TCP 10.96.0.10:80
          service default/web (id 1), at a ClusterIP address
          endpoints: 10.0.0.1:8080 10.0.0.2:8080 (span 0+2)
          no session affinity
        => goes to one of these 2 at random, all equally likely
        TCP 10.96.0.10:443
          no service has this address, port and protocol
          ports of this ClusterIP: 80/TCP (default/web)
        => refused at once (ECONNREFUSED): a ClusterIP, but none of its ports
        UDP 10.96.0.10:80
          no service has this address, port and protocol
          ports of this ClusterIP: 80/TCP (default/web)
        => refused at once (ECONNREFUSED): a ClusterIP, but none of its ports
        TCP 10.96.0.11:80
          service default/none (id 0), at a ClusterIP address
          endpoints: none
          no session affinity
        => refused at once (ECONNREFUSED): no endpoints
        TCP 192.0.2.1:80
          no service has this address, port and protocol
          the address is no ClusterIP
        => untouched: the connection goes to this very address
    "#]]
    .assert_eq(&text);
    assert!("10.96.0.10".parse::<trace::Target>().is_err());
}

/// A Service of type LoadBalancer: at a ClusterIP, a node port and a restricted address.
fn load_balancer(endpoints: &[&str], sources: &[&str]) -> Desired {
    let mut all = desired(&[("web", "10.96.0.10:80", endpoints)]);
    let port = Arc::make_mut(all.ports.values_mut().next().unwrap());
    let restricted =
        Frontend { restricted: !sources.is_empty(), ..frontend(FrontendKind::LoadBalancer) };
    port.addresses.insert(at("203.0.113.1:80"), restricted);
    let local = Frontend { external: Reach::Node, ..frontend(FrontendKind::NodePort) };
    port.addresses.insert(at("10.0.0.1:30080"), local);
    port.local = port.endpoints.iter().take(1).map(at_node).collect();
    port.source_ranges = sources.iter().map(|range| range.parse().unwrap()).collect();
    all
}

fn at_node(endpoint: &Endpoint) -> Endpoint {
    Endpoint::new(&endpoint.at(), Endpoint::ON_NODE)
}

#[test]
fn tables_are_written_anew_only_for_another_list() {
    let mut held = Held::empty(limits());
    let two = ["10.0.0.1:1", "10.0.0.2:1"];
    check(
        &mut held,
        &load_balancer(&two, &[]),
        expect![[r#"
        write 0+2: 10.0.0.1:1 10.0.0.2:1
        write 2+1: 10.0.0.1:1
        reset 0
        name 0 default/web
        write table 0: 4093 slots
        set 10.0.0.1:30080 -> id 0 span 0+2 table 0+4093
        set 10.96.0.10:80 -> id 0 span 0+2 table 0+4093
        set 203.0.113.1:80 -> id 0 span 0+2 table 0+4093
        mark 10.96.0.10
    "#]],
    );
    check(
        &mut held,
        &load_balancer(&two, &["192.0.2.0/24"]),
        expect![[r#"
        allow id 0 192.0.2.0/24
        set 203.0.113.1:80 -> id 0 span 0+2 table 0+4093 restricted
        renew 0
    "#]],
    );
    check(
        &mut held,
        &load_balancer(&["10.0.0.1:1", "10.0.0.3:1"], &[]),
        expect![[r#"
        write 3+2: 10.0.0.1:1 10.0.0.3:1
        write table 1024: 4093 slots
        set 10.0.0.1:30080 -> id 0 span 3+2 table 1024+4093
        set 10.96.0.10:80 -> id 0 span 3+2 table 1024+4093
        set 203.0.113.1:80 -> id 0 span 3+2 table 1024+4093
        wait
        disallow id 0 192.0.2.0/24
        renew 0
    "#]],
    );
    check(
        &mut held,
        &load_balancer(&["10.0.0.1:1"], &[]),
        expect![[r#"
        write 5+1: 10.0.0.1:1
        set 10.0.0.1:30080 -> id 0 span 5+1
        set 10.96.0.10:80 -> id 0 span 5+1
        set 203.0.113.1:80 -> id 0 span 5+1
        renew 0
    "#]],
    );
}

#[test]
fn source_ranges_are_there_before_and_gone_after_who_needs_them() {
    let mut held = Held::empty(limits());
    let one = ["10.0.0.1:1"];
    check(
        &mut held,
        &load_balancer(&one, &["192.0.2.0/24"]),
        expect![[r#"
        write 0+1: 10.0.0.1:1
        write 1+1: 10.0.0.1:1
        reset 0
        name 0 default/web
        allow id 0 192.0.2.0/24
        set 10.0.0.1:30080 -> id 0 span 0+1
        set 10.96.0.10:80 -> id 0 span 0+1
        set 203.0.113.1:80 -> id 0 span 0+1 restricted
        mark 10.96.0.10
    "#]],
    );
    let others = ["192.0.2.0/25", "198.51.100.0/24"];
    check(
        &mut held,
        &load_balancer(&one, &others),
        expect![[r#"
        allow id 0 192.0.2.0/25
        allow id 0 198.51.100.0/24
        disallow id 0 192.0.2.0/24
    "#]],
    );
    check(
        &mut held,
        &load_balancer(&one, &[]),
        expect![[r#"
        set 203.0.113.1:80 -> id 0 span 0+1
        wait
        disallow id 0 192.0.2.0/25
        disallow id 0 198.51.100.0/24
        renew 0
    "#]],
    );
}

#[test]
fn source_ranges_without_room_keep_the_address_closed() {
    let mut held = Held::empty(limits());
    let one = ["10.0.0.1:1"];
    check(
        &mut held,
        &load_balancer(&one, &[]),
        expect![[r#"
        write 0+1: 10.0.0.1:1
        write 1+1: 10.0.0.1:1
        reset 0
        name 0 default/web
        set 10.0.0.1:30080 -> id 0 span 0+1
        set 10.96.0.10:80 -> id 0 span 0+1
        set 203.0.113.1:80 -> id 0 span 0+1
        mark 10.96.0.10
    "#]],
    );
    let four = ["192.0.2.0/26", "192.0.2.64/26", "192.0.2.128/26", "198.51.100.0/24"];
    let plan = plan::plan(&mut held, &load_balancer(&one, &four));
    let text: String = plan.ops.iter().map(|op| line(op) + "\n").collect();
    expect![[r#"
        set 203.0.113.1:80 -> id 0 span 0+1 restricted
        renew 0
    "#]]
    .assert_eq(&text);
    assert_eq!(held.shortages.full(), BTreeSet::from([Limit::SourceRanges]));
    expect!["Service default/web: the map of source ranges is full: raise --max-source-ranges; its old state stays"].assert_eq(&first_problem(&held));
}

fn first_problem(held: &Held) -> String {
    held.shortages.problems().first().unwrap().to_string()
}

#[test]
fn tables_without_room_leave_the_service_working() {
    let mut held = Held::empty(Limits { maglev: 1023, ..limits() });
    let all = load_balancer(&["10.0.0.1:1", "10.0.0.2:1"], &[]);
    let plan = plan::plan(&mut held, &all);
    let text: String = plan.ops.iter().map(|op| line(op) + "\n").collect();
    expect![[r#"
        write 0+2: 10.0.0.1:1 10.0.0.2:1
        write 2+1: 10.0.0.1:1
        reset 0
        name 0 default/web
        set 10.0.0.1:30080 -> id 0 span 0+2
        set 10.96.0.10:80 -> id 0 span 0+2
        set 203.0.113.1:80 -> id 0 span 0+2
        mark 10.96.0.10
    "#]]
    .assert_eq(&text);
    assert_eq!(held.shortages.full(), BTreeSet::from([Limit::Maglev]));
    assert!(plan.shortages_changed);
    expect!["Service default/web: no room for its table of the consistent choice: raise --max-maglev-blocks; until then more flows from outside than need to move when its endpoints change"].assert_eq(&first_problem(&held));
    let again = plan::plan(&mut held, &all);
    assert_eq!((again.ops.len(), again.shortages_changed), (0, false));
    assert_eq!(held.shortages.full(), BTreeSet::from([Limit::Maglev]), "as long as it lasts");
}

#[test]
fn two_nodes_have_the_same_table_whatever_came_first() {
    let table_of = |services: &[(&str, &str, &[&str])]| {
        let mut held = Held::empty(Limits { endpoints: 64, ..limits() });
        let mut tables = Vec::new();
        for count in 1..=services.len() {
            let mut all = desired(&services[..count]);
            for port in all.ports.values_mut() {
                let port = Arc::make_mut(port);
                port.addresses.values_mut().for_each(|one| one.kind = FrontendKind::NodePort);
            }
            for op in plan::plan(&mut held, &all).ops {
                if let Op::WriteMaglev { slots, .. } = op {
                    tables.push(slots);
                }
            }
        }
        tables.sort();
        tables
    };
    let web = ("web", "10.96.0.10:80", &["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"][..]);
    let api = ("api", "10.96.0.11:80", &["10.0.0.4:1", "10.0.0.5:1", "10.0.0.6:1"][..]);
    let tables = table_of(&[web, api]);
    assert_eq!(tables.len(), 2);
    assert_eq!(tables, table_of(&[api, web]));
}

#[test]
fn traces_of_packets_and_status_say_why() {
    let limits = Limits { maglev: 4096, ..limits() };
    let (mut held, mut datapath) = (Held::empty(limits), FakeDatapath::new(limits));
    let all = load_balancer(&["10.0.1.1:8080", "10.0.2.1:8080"], &["192.0.2.0/24"]);
    for op in plan::plan(&mut held, &all).ops {
        datapath.execute(&op).unwrap();
    }
    let snapshot = datapath.snapshot().unwrap();
    let config = Config { node_v4: at("10.0.0.1:0").ip, ..Config::default() };
    let shown = |(target, from, via): (&str, &str, Via)| {
        let query = Query { target: target.parse().unwrap(), from: from.parse().ok(), via };
        trace::trace(&snapshot, &held, &config, query).to_string()
    };
    let text: String = [
        ("203.0.113.1:80", "192.0.2.7:4000", Via::Uplink),
        ("203.0.113.1:80", "198.51.100.7:4000", Via::Uplink),
        ("203.0.113.1:80", "", Via::Socket),
        ("10.0.0.1:30080", "198.51.100.7:4000", Via::Uplink),
        ("10.96.0.10:80", "10.0.1.1:4000", Via::Pod),
        ("10.96.0.10:81/sctp", "", Via::Uplink),
    ]
    .map(shown)
    .concat();
    expect![[r#"
        TCP 192.0.2.7:4000 -> 203.0.113.1:80, a packet from another machine
          service default/web (id 0), at a LoadBalancer address
          loadBalancerSourceRanges: 192.0.2.0/24
          the source is among them
          endpoints: 10.0.1.1:8080 10.0.2.1:8080 (span 0+2)
          no session affinity
          hash of the client 0x8b8738e1: slot 2230 of 4093 (Maglev), endpoint 2 of the list
          the source is rewritten to 10.0.0.1: externalTrafficPolicy Cluster, answers must come back through this node
        => goes to 10.0.2.1:8080, on another node
        TCP 198.51.100.7:4000 -> 203.0.113.1:80, a packet from another machine
          service default/web (id 0), at a LoadBalancer address
          loadBalancerSourceRanges: 192.0.2.0/24
        => dropped: the source is not among them
        TCP 203.0.113.1:80
          service default/web (id 0), at a LoadBalancer address
          loadBalancerSourceRanges: 192.0.2.0/24
          a pod's packets are judged when they come out of its device (--via pod)
        => fails at once (EHOSTUNREACH) for the host: the node's address is not among them
        TCP 198.51.100.7:4000 -> 10.0.0.1:30080, a packet from another machine
          service default/web (id 0), at a NodePort address
          endpoints: 10.0.1.1:8080 10.0.2.1:8080 (span 0+2)
          externalTrafficPolicy Local; of this node: 10.0.1.1:8080 (span 2+1)
          no session affinity
          the source is kept: externalTrafficPolicy Local
        => goes to 10.0.1.1:8080, a pod of this node
        TCP 10.0.1.1:4000 -> 10.96.0.10:80, a packet of a pod of this node
          service default/web (id 0), at a ClusterIP address
          endpoints: 10.0.1.1:8080 10.0.2.1:8080 (span 0+2)
          no session affinity
          the source is kept, but rewritten where a pod is its own endpoint (hairpin)
        => goes to one of these 2 at random, all equally likely
        SCTP 10.96.0.10:81, a packet from another machine
          no service has this address, port and protocol
          ports of this ClusterIP: 80/TCP (default/web)
        => refused at once (ICMP port unreachable): a ClusterIP, but none of its ports
    "#]].assert_eq(&text);
    let status = Status::new(&held, &BTreeMap::new(), Vec::new(), Vec::new());
    expect![[r#"
        programs: 0 of 8 attached
        devices: none
        SERVICES 4/8 (--max-services)
        ENDPOINTS 3/6 (--max-endpoints)
        MAGLEV 1024/4096 (--max-maglev-blocks)
        SOURCE_RANGES 1/3 (--max-source-ranges)
        SERVICE      PORT  ADDRESSES                                                                                                AFFINITY  HITS  PACKETS  BYTES  ENDPOINTS
        default/web  TCP   10.0.0.1:30080 NodePort external-local, 10.96.0.10:80 ClusterIP, 203.0.113.1:80 LoadBalancer restricted  -         0     0        0      10.0.1.1:8080,10.0.2.1:8080 (this node only: 10.0.1.1:8080) (restricted to 192.0.2.0/24)
    "#]].assert_eq(&status.to_string());
}
