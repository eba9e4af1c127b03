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
        self, Op,
        held::{Held, Limits},
        ranges,
    },
    trace,
};
use podium_proxy_ebpf::{
    AddressPort, Endpoint, Family, FrontendKind, Protocol, SourceRange, flags,
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
    assert!(plan.problems.is_empty(), "{:?}", plan.problems);
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
    let shown = |target: &str| trace::trace(&snapshot, &held, target.parse().unwrap()).to_string();
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
          service default/web (id 1)
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
          service default/none (id 0)
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
