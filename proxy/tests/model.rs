//! Random changes through index-shaped states, plan and the fake datapath, against a plain
//! reference: after each single operation every address answers as before or as wanted, and after
//! the last one as wanted. Agents are "killed" at random operations in between.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use podium_proxy::{
    datapath::{
        self, Datapath as _,
        fake::{Answer, FakeDatapath},
    },
    model::{Desired, Frontend, ObjectName, PortName, Reach, ServicePort},
    plan::{
        self, Limit, Op, Plan,
        held::{Held, Limits},
        maglev,
    },
};
use podium_proxy_ebpf::{
    AddressPort, Endpoint, Family, FrontendKind, NoEndpoint, Origin, Protocol,
};
use proptest::{collection, prelude::*, sample};

/// Room for all that is drawn, twice.
fn limits() -> Limits {
    Limits {
        services: 40,
        endpoints: 120,
        maglev: 14 * 1024,
        source_ranges: 30,
        ..Limits::default()
    }
}

fn at(last: u8, port: u16) -> AddressPort {
    AddressPort::from(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, last)), port))
}

fn endpoints(from: &BTreeSet<u8>) -> Vec<Endpoint> {
    let list = from.iter();
    list.map(|last| {
        let ip = IpAddr::V4(Ipv4Addr::new(10, 244, 0, *last));
        Endpoint::new(&AddressPort::from(SocketAddr::new(ip, 8080)), Endpoint::ELSEWHERE)
    })
    .collect()
}

/// Where the packets of the test come from: each in one of the ranges.
fn source(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, number, 1))
}

fn drawn_kind() -> impl Strategy<Value = FrontendKind> {
    prop_oneof![
        Just(FrontendKind::ClusterIp),
        Just(FrontendKind::ExternalIp),
        Just(FrontendKind::LoadBalancer),
        Just(FrontendKind::LoopbackNodePort),
    ]
}

/// One service port.
#[derive(Clone, Debug)]
struct Drawn {
    number: u8,
    addresses: BTreeMap<u8, Frontend>,
    all: BTreeSet<u8>,
    local: BTreeSet<u8>,
    affinity: bool,
    sources: BTreeSet<u8>,
}

fn drawn_frontend() -> impl Strategy<Value = Frontend> {
    let reach = |node: bool| if node { Reach::Node } else { Reach::Cluster };
    (drawn_kind(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        move |(kind, internal, external, restricted)| Frontend {
            kind,
            internal: reach(internal),
            external: reach(external),
            restricted,
        },
    )
}

fn drawn() -> impl Strategy<Value = Drawn> {
    (
        0_u8..6,
        collection::btree_map(0_u8..8, drawn_frontend(), 1..3),
        collection::btree_set(0_u8..20, 0..6),
        collection::btree_set(0_u8..20, 0..3),
        any::<bool>(),
        collection::btree_set(0_u8..3, 0..3),
    )
        .prop_map(|(number, addresses, all, local, affinity, sources)| Drawn {
            number,
            addresses,
            all,
            local,
            affinity,
            sources,
        })
}

fn desired(drawn: &[Drawn]) -> Desired {
    let mut desired = Desired::default();
    let mut taken = BTreeSet::new();
    for one in drawn {
        let name = PortName {
            service: ObjectName {
                namespace: "default".to_owned(),
                name: format!("s{}", one.number),
            },
            port: String::new(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        };
        let mine: BTreeMap<AddressPort, Frontend> = (one.addresses.iter())
            .filter(|(last, _)| !desired.ports.contains_key(&name) && taken.insert(**last))
            .map(|(last, frontend)| (at(*last, 80), *frontend))
            .collect();
        if mine.is_empty() {
            continue;
        }
        let first = mine.keys().next().map(|at| at.socket_addr().ip());
        desired.cluster_ips.extend(first);
        let port = ServicePort {
            name: name.clone(),
            addresses: mine,
            endpoints: endpoints(&one.all),
            local: endpoints(&one.local.intersection(&one.all).copied().collect()),
            affinity_secs: if one.affinity { 60 } else { 0 },
            source_ranges: (one.sources.iter())
                .map(|number| format!("192.0.{number}.0/24").parse().unwrap())
                .collect(),
        };
        desired.ports.insert(name, Arc::new(port));
    }
    desired
}

/// What the rules say, without spans, ids or operations.
fn reference(desired: &Desired, to: AddressPort, origin: Origin) -> Answer {
    for port in desired.ports.values() {
        let Some(frontend) = port.addresses.get(&to) else { continue };
        let reach = match origin {
            Origin::Inside => frontend.internal,
            Origin::Outside => frontend.external,
        };
        return match reach {
            _ if frontend.kind == FrontendKind::LoopbackNodePort && origin == Origin::Outside => {
                Answer::Untouched
            }
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

/// Whether the rules let a source come to an address.
fn is_allowed(desired: &Desired, from: IpAddr, to: AddressPort) -> bool {
    let port = desired.ports.values().find(|port| port.addresses.contains_key(&to));
    port.is_none_or(|port| {
        !port.addresses[&to].restricted
            || port.source_ranges.iter().any(|range| range.contains(&from))
    })
}

const ORIGINS: [Origin; 2] = [Origin::Inside, Origin::Outside];

/// All that programs would answer.
#[derive(Debug, PartialEq)]
struct Answers {
    to: Vec<(AddressPort, [Answer; 2])>,
    allowed: Vec<(AddressPort, IpAddr, bool)>,
}

impl Answers {
    fn from_fn(
        answer: impl Fn(AddressPort, Origin) -> Answer,
        allows: impl Fn(IpAddr, AddressPort) -> bool,
    ) -> Self {
        let pairs = probes().flat_map(|to| (0..3).map(move |number| (to, source(number))));
        Self {
            to: probes().map(|to| (to, ORIGINS.map(|origin| answer(to, origin)))).collect(),
            allowed: pairs.map(|(to, from)| (to, from, allows(from, to))).collect(),
        }
    }

    fn of(datapath: &FakeDatapath) -> Self {
        Self::from_fn(
            |to, origin| datapath.answer(to, Protocol::Tcp, origin),
            |from, to| datapath.allows(from, to, Protocol::Tcp),
        )
    }

    fn wanted(desired: &Desired) -> Self {
        Self::from_fn(
            |to, origin| reference(desired, to, origin),
            |from, to| is_allowed(desired, from, to),
        )
    }

    /// Whether each is as it was or as it shall be. A source that may come before and after may
    /// come in between, and one that may at neither time may not; but at an address that is
    /// nobody's for a moment all may come, to nothing.
    ///
    /// A restricted address that changes hands may lead nowhere, or let fewer in, in between.
    fn is_between(
        &self,
        before: &Self,
        after: &Self,
        may_be_nowhere: impl Fn(AddressPort) -> bool,
    ) -> Result<(), String> {
        for (at, ((to, now), ((_, was), (_, will)))) in
            self.to.iter().zip(before.to.iter().zip(&after.to)).enumerate()
        {
            for side in 0..2 {
                let is_nowhere = matches!(now[side], Answer::Untouched | Answer::UnknownPort);
                if is_nowhere && may_be_nowhere(*to) {
                    continue;
                }
                if !is_between(&now[side], &was[side], &will[side]) {
                    return Err(format!(
                        "{to:?} {:?}: {:?} is neither {:?} nor {:?}",
                        ORIGINS[side], now[side], was[side], will[side]
                    ));
                }
            }
            let leads_nowhere = matches!(now[0], Answer::Untouched | Answer::UnknownPort);
            for index in at * 3..at * 3 + 3 {
                let (to, from, now) = self.allowed[index];
                let either = [before.allowed[index].2, after.allowed[index].2];
                let is_closed = !now && may_be_nowhere(to);
                if !leads_nowhere && !is_closed && !either.contains(&now) {
                    return Err(format!("{from} to {to:?}: {now}, not {either:?}"));
                }
            }
        }
        Ok(())
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

/// Tables are compared with those made from scratch, once for each list.
type Tables = HashMap<(PortName, Vec<Endpoint>), Vec<Endpoint>>;

fn assert_table(tables: &mut Tables, datapath: &FakeDatapath, op: &Op) {
    let Op::SetService { key, entry } = op else { return };
    if key.is_whole_address() || entry.maglev.len == 0 {
        return;
    }
    let name = datapath.name(entry.id).unwrap();
    let list = datapath.list(entry);
    let expected = tables.entry((name.clone(), list.clone())).or_insert_with(|| {
        let table = maglev::table(&name, &list);
        table.iter().map(|offset| list[usize::from(*offset)]).collect()
    });
    assert_eq!(&datapath.table(entry), expected, "the table of {name}");
}

/// Lists that flows may be on, by id and address.
fn lists(datapath: &FakeDatapath) -> BTreeMap<(u32, AddressPort), [Answer; 2]> {
    probes()
        .filter_map(|to| {
            let (id, _) = datapath.generation(to, Protocol::Tcp)?;
            Some(((id, to), ORIGINS.map(|origin| datapath.answer(to, Protocol::Tcp, origin))))
        })
        .collect()
}

/// The generation of every id whose flows may have lost their endpoint has been raised.
fn assert_renewed(
    before: &BTreeMap<(u32, AddressPort), [Answer; 2]>,
    generations: &BTreeMap<u32, u32>,
    datapath: &FakeDatapath,
) {
    let after = lists(datapath);
    for (at, list) in before {
        // Where there was no endpoint, there are no flows.
        let is_lost = (0..2).any(|side| {
            let now = after.get(at).map(|now| &now[side]);
            matches!(list[side], Answer::OneOf(_)) && now != Some(&list[side])
        });
        if is_lost {
            assert!(
                datapath.generation_of(at.0) > generations[&at.0],
                "{at:?} changed from {list:?} to {:?} and was not renewed",
                after.get(at)
            );
        }
    }
}

fn run(datapath: &mut FakeDatapath, ops: &[Op], tables: &mut Tables) {
    for op in ops {
        datapath.execute(op).unwrap();
        assert_table(tables, datapath, op);
    }
}

/// Plans with nothing but the difference known, as the index tells it.
fn plan_change(held: &mut Held, previous: &Desired, desired: &Desired) -> Plan {
    let names: BTreeSet<&PortName> = previous.ports.keys().chain(desired.ports.keys()).collect();
    let ports = (names.into_iter())
        .filter(|name| previous.ports.get(name) != desired.ports.get(name))
        .cloned()
        .collect();
    let cluster_ips = &previous.cluster_ips ^ &desired.cluster_ips;
    plan::plan_changed(held, desired, &ports, &cluster_ips)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_operation_leaves_a_whole_state(
        states in collection::vec(collection::vec(drawn(), 0..7), 1..12),
        kills in collection::vec(any::<Option<sample::Index>>(), 12),
    ) {
        let mut tables = Tables::new();
        let mut datapath = FakeDatapath::new(limits());
        let mut held = Held::empty(limits());
        let mut previous = Desired::default();
        for (state, kill) in states.iter().zip(&kills) {
            let desired = desired(state);
            let (before, after) = (Answers::of(&datapath), Answers::wanted(&desired));
            let lists = lists(&datapath);
            let generations: BTreeMap<u32, u32> =
                lists.keys().map(|(id, _)| (*id, datapath.generation_of(*id))).collect();
            let mut plan = plan_change(&mut held, &previous, &desired);
            prop_assert!(held.shortages.is_empty(), "{:?}", held.shortages);
            let killed_at = kill.map(|kill| kill.index(plan.ops.len() + 1));
            for (index, op) in plan.ops.iter().enumerate() {
                if killed_at == Some(index) {
                    break;
                }
                run(&mut datapath, std::slice::from_ref(op), &mut tables);
                let between = Answers::of(&datapath).is_between(&before, &after, |to| {
                    let owner = |of: &Desired| {
                        let mut ports = of.ports.values();
                        ports.find(|port| port.addresses.contains_key(&to)).cloned()
                    };
                    let (old, new) = (owner(&previous), owner(&desired));
                    old.is_some_and(|old| {
                        old.addresses[&to].restricted && new.is_none_or(|new| new.name != old.name)
                    })
                });
                prop_assert!(between.is_ok(), "after {op:?}: {}", between.unwrap_err());
            }
            if killed_at.is_some() {
                held = datapath::take_over(&mut datapath, limits()).unwrap();
                plan = plan::plan(&mut held, &desired);
                prop_assert!(held.shortages.is_empty(), "{:?}", held.shortages);
                run(&mut datapath, &plan.ops, &mut tables);
            }
            prop_assert_eq!(Answers::of(&datapath), after);
            assert_renewed(&lists, &generations, &datapath);
            let again = plan::plan(&mut held, &desired);
            prop_assert!(again.ops.is_empty(), "not settled: {:?}", again.ops);
            let rebuilt = Held::rebuild(&datapath.snapshot().unwrap(), limits());
            prop_assert_eq!(&rebuilt.entries, &held.entries);
            prop_assert_eq!(rebuilt.source_ranges, held.source_ranges);
            let after_rebuild = plan::plan(&mut rebuilt.clone(), &desired);
            prop_assert!(after_rebuild.ops.is_empty(), "rebuilt: {:?}", after_rebuild.ops);
            previous = desired;
        }
    }

    /// With too little room anywhere: what is there is whole, nobody gets in who may not, and all
    /// comes right once there is room.
    #[test]
    fn full_maps_leave_a_whole_state_and_keep_closed(
        states in collection::vec(collection::vec(drawn(), 0..7), 1..8),
        kills in collection::vec(any::<Option<sample::Index>>(), 8),
        services in 1_u32..12,
        spans in 1_u32..16,
        maglev in 0_u32..4096,
        source_ranges in 0_u32..5,
    ) {
        let small =
            Limits { services, endpoints: spans, maglev, source_ranges, ..Limits::default() };
        let mut tables = Tables::new();
        let mut datapath = FakeDatapath::new(small);
        let mut held = Held::empty(small);
        let mut previous = Desired::default();
        for (state, kill) in states.iter().zip(&kills) {
            let desired = desired(state);
            let before = Answers::of(&datapath);
            let plan = plan_change(&mut held, &previous, &desired);
            previous = desired.clone();
            prop_assert_eq!(held.shortages.is_empty(), held.shortages.full().is_empty());
            let killed_at = kill.map(|kill| kill.index(plan.ops.len() + 1));
            let ops = &plan.ops[..killed_at.unwrap_or(plan.ops.len())];
            run(&mut datapath, ops, &mut tables);
            if killed_at.is_some() {
                held = datapath::take_over(&mut datapath, small).unwrap();
            } else {
                let was: HashMap<_, _> =
                    before.allowed.iter().map(|(to, from, allowed)| ((*to, *from), *allowed)).collect();
                for (to, from, allowed) in Answers::of(&datapath).allowed {
                    let answer = datapath.connect(to, Protocol::Tcp);
                    let leads_nowhere = matches!(answer, Answer::Untouched | Answer::UnknownPort);
                    let new = !was[&(to, from)] && allowed;
                    prop_assert!(!new || leads_nowhere || is_allowed(&desired, from, to));
                }
                let again = plan::plan(&mut held.clone(), &desired);
                let waits = again.ops.iter().filter(|op| **op == Op::WaitForReaders).count();
                prop_assert!(held.shortages.is_empty() <= (again.ops.len() == waits));
                // What had no room is not tried again for ever, and not given up where there is.
                let nothing = (BTreeSet::new(), BTreeSet::new());
                let mut makes_room = plan.makes_room;
                let mut rounds = 0;
                while makes_room {
                    let more = plan::plan_changed(&mut held, &desired, &nothing.0, &nothing.1);
                    run(&mut datapath, &more.ops, &mut tables);
                    makes_room = more.makes_room;
                    rounds += 1;
                    prop_assert!(rounds < 20);
                }
                let all = plan::plan(&mut held.clone(), &desired);
                // Ranges of a port that has no room itself may wait for the next comparison.
                let may_wait =
                    |op: &Op| matches!(op, Op::WaitForReaders | Op::AddSourceRange { .. });
                let real: Vec<_> = all.ops.iter().filter(|op| !may_wait(op)).collect();
                prop_assert!(real.is_empty(), "{:?}: {real:?}", held.shortages);
            }
        }
    }
}

#[test]
fn a_full_map_is_a_problem_and_the_old_state_stays() {
    let limits = Limits { services: 3, endpoints: 4, ..limits() };
    let mut held = Held::empty(limits);
    let mut datapath = FakeDatapath::new(limits);
    let cluster_ip = Frontend {
        kind: FrontendKind::ClusterIp,
        internal: Reach::Cluster,
        external: Reach::Cluster,
        restricted: false,
    };
    let drawn = |number: u8, all: BTreeSet<u8>| Drawn {
        number,
        addresses: BTreeMap::from([(number, cluster_ip)]),
        all,
        local: BTreeSet::new(),
        affinity: false,
        sources: BTreeSet::new(),
    };
    let one = drawn(0, BTreeSet::from([1, 2]));
    let too_big = drawn(0, (0..5).collect());
    let other = drawn(1, BTreeSet::from([3]));
    for (state, full) in [
        (vec![one.clone()], None),
        (vec![too_big], Some(Limit::Endpoints)),
        (vec![one, other], Some(Limit::Services)),
    ] {
        let plan = plan::plan(&mut held, &desired(&state));
        plan.ops.iter().for_each(|op| datapath.execute(op).unwrap());
        assert_eq!(held.shortages.full(), full.into_iter().collect());
        let problems = held.shortages.problems();
        let names_the_flag =
            |limit: Limit| problems.iter().any(|problem| problem.message.contains(limit.flag()));
        assert_eq!(full.is_some_and(names_the_flag), full.is_some());
        let kept = Answer::OneOf(endpoints(&BTreeSet::from([1, 2])));
        assert_eq!(datapath.connect(at(0, 80), Protocol::Tcp), kept);
    }
}
