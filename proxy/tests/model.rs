//! Random changes through index-shaped states, plan and the fake datapath, against a plain
//! reference: after each single operation every address answers as before or as wanted, and after
//! the last one as wanted. Agents are "killed" at random operations in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use podium_proxy::{
    datapath::{
        Datapath as _,
        fake::{Answer, FakeDatapath},
    },
    model::{Desired, ObjectName, PortName, Reach, ServicePort},
    plan::{
        self,
        held::{Held, Limits},
    },
};
use podium_proxy_ebpf::{AddressPort, Family, NoEndpoint, Protocol};
use proptest::{collection, prelude::*, sample};

const LIMITS: Limits = Limits { services: 40, endpoints: 48 };

fn at(last: u8, port: u16) -> AddressPort {
    AddressPort::from(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, last)), port))
}

fn endpoints(from: &BTreeSet<u8>) -> Vec<AddressPort> {
    let list = from.iter();
    list.map(|last| {
        AddressPort::from(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 244, 0, *last)), 8080))
    })
    .collect()
}

/// One service port: its number, addresses with their reach, endpoints, those of this node.
type Drawn = (u8, BTreeMap<u8, bool>, BTreeSet<u8>, BTreeSet<u8>, bool);

fn drawn() -> impl Strategy<Value = Drawn> {
    (
        0_u8..6,
        collection::btree_map(0_u8..8, any::<bool>(), 1..3),
        collection::btree_set(0_u8..20, 0..6),
        collection::btree_set(0_u8..20, 0..3),
        any::<bool>(),
    )
}

fn desired(drawn: &[Drawn]) -> Desired {
    let mut desired = Desired::default();
    let mut taken = BTreeSet::new();
    for (number, addresses, all, local, affinity) in drawn {
        let name = PortName {
            service: ObjectName { namespace: "default".to_owned(), name: format!("s{number}") },
            port: String::new(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        };
        let mine: BTreeMap<AddressPort, Reach> = (addresses.iter())
            .filter(|(last, _)| !desired.ports.contains_key(&name) && taken.insert(**last))
            .map(|(last, node)| (at(*last, 80), if *node { Reach::Node } else { Reach::Cluster }))
            .collect();
        if mine.is_empty() {
            continue;
        }
        let first = mine.keys().next().map(|at| at.socket_addr().ip());
        desired.cluster_ips.extend(first);
        let port = ServicePort {
            name: name.clone(),
            addresses: mine,
            endpoints: endpoints(all),
            local: endpoints(&local.intersection(all).copied().collect()),
            affinity_secs: if *affinity { 60 } else { 0 },
        };
        desired.ports.insert(name, Arc::new(port));
    }
    desired
}

/// What the rules say, without spans, ids or operations.
fn reference(desired: &Desired, to: AddressPort) -> Answer {
    for port in desired.ports.values() {
        let Some(reach) = port.addresses.get(&to) else { continue };
        return match reach {
            _ if port.endpoints.is_empty() => Answer::None(NoEndpoint::Anywhere),
            Reach::Cluster => Answer::OneOf(port.endpoints.clone()),
            Reach::Node if port.local.is_empty() => Answer::None(NoEndpoint::OnThisNode),
            Reach::Node => Answer::OneOf(port.local.clone()),
        };
    }
    if desired.cluster_ips.contains(&to.socket_addr().ip()) {
        Answer::UnknownPort
    } else {
        Answer::Untouched
    }
}

fn probes() -> impl Iterator<Item = AddressPort> {
    (0..8).flat_map(|last| [at(last, 80), at(last, 81)])
}

/// An address that comes or goes may for a moment be known without its port, or not at all.
fn is_between(answer: &Answer, before: &Answer, after: &Answer) -> bool {
    let passing = |of: &Answer| matches!(of, Answer::Untouched | Answer::UnknownPort);
    answer == before || answer == after || (passing(answer) && (passing(before) || passing(after)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_operation_leaves_a_whole_state(
        states in collection::vec(collection::vec(drawn(), 0..7), 1..12),
        kills in collection::vec(any::<Option<sample::Index>>(), 12),
    ) {
        let mut datapath = FakeDatapath::new(LIMITS);
        let mut held = Held::empty(LIMITS);
        for (state, kill) in states.iter().zip(&kills) {
            let desired = desired(state);
            let before: Vec<Answer> =
                probes().map(|at| datapath.connect(at, Protocol::Tcp)).collect();
            let mut plan = plan::plan(&mut held, &desired);
            prop_assert!(plan.problems.is_empty(), "{:?}", plan.problems);
            let killed_at = kill.map(|kill| kill.index(plan.ops.len() + 1));
            for (index, op) in plan.ops.iter().enumerate() {
                if killed_at == Some(index) {
                    break;
                }
                datapath.execute(op).unwrap();
                for (at, before) in probes().zip(&before) {
                    let answer = datapath.connect(at, Protocol::Tcp);
                    let after = reference(&desired, at);
                    prop_assert!(
                        is_between(&answer, before, &after),
                        "{at:?} after {op:?}: {answer:?} is neither {before:?} nor {after:?}"
                    );
                }
            }
            if killed_at.is_some() {
                // A new agent comes, much later: nobody reads what was there before.
                datapath.execute(&plan::Op::WaitForReaders).unwrap();
                held = Held::rebuild(&datapath.snapshot().unwrap(), LIMITS);
                plan = plan::plan(&mut held, &desired);
                prop_assert!(plan.problems.is_empty(), "{:?}", plan.problems);
                for op in &plan.ops {
                    datapath.execute(op).unwrap();
                }
            }
            for at in probes() {
                let answer = datapath.connect(at, Protocol::Tcp);
                prop_assert_eq!(answer, reference(&desired, at));
            }
            let again = plan::plan(&mut held, &desired);
            prop_assert!(again.ops.is_empty(), "not settled: {:?}", again.ops);
            let rebuilt = Held::rebuild(&datapath.snapshot().unwrap(), LIMITS);
            prop_assert_eq!(&rebuilt.entries, &held.entries);
            prop_assert!(plan::plan(&mut rebuilt.clone(), &desired).ops.is_empty());
        }
    }
}

#[test]
fn a_full_map_is_a_problem_and_the_old_state_stays() {
    let limits = Limits { services: 3, endpoints: 4 };
    let mut held = Held::empty(limits);
    let mut datapath = FakeDatapath::new(limits);
    let one = (0, BTreeMap::from([(0, false)]), BTreeSet::from([1, 2]), BTreeSet::new(), false);
    let big: BTreeSet<u8> = (0..5).collect();
    let too_big = (0, BTreeMap::from([(0, false)]), big, BTreeSet::new(), false);
    let other = (1, BTreeMap::from([(1, false)]), BTreeSet::from([3]), BTreeSet::new(), false);
    for (state, field) in [(vec![one.clone()], ""), (vec![too_big], "--max-endpoints")] {
        let plan = plan::plan(&mut held, &desired(&state));
        plan.ops.iter().for_each(|op| datapath.execute(op).unwrap());
        assert_eq!(plan.problems.iter().any(|p| p.message.contains(field)), !field.is_empty());
    }
    let kept = Answer::OneOf(endpoints(&BTreeSet::from([1, 2])));
    assert_eq!(datapath.connect(at(0, 80), Protocol::Tcp), kept);
    let plan = plan::plan(&mut held, &desired(&[one, other]));
    plan.ops.iter().for_each(|op| datapath.execute(op).unwrap());
    assert!(plan.problems.iter().any(|p| p.message.contains("--max-services")));
    assert_eq!(datapath.connect(at(0, 80), Protocol::Tcp), kept);
}
