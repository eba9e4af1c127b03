//! What the tables promise: few flows move, shares are even, every slot is filled.

use std::net::{Ipv4Addr, SocketAddr};

use podium_proxy_ebpf::{Family, Protocol};
use proptest::{collection, prelude::*};

use super::*;
use crate::model::ObjectName;

fn name(service: &str) -> PortName {
    PortName {
        service: ObjectName { namespace: "default".to_owned(), name: service.to_owned() },
        port: "http".to_owned(),
        protocol: Protocol::Tcp,
        family: Family::V4,
    }
}

fn endpoint(number: u32, port: u16) -> Endpoint {
    let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 0)) + number);
    Endpoint::new(&AddressPort::from(SocketAddr::new(ip.into(), port)), Endpoint::ELSEWHERE)
}

fn endpoints(count: u32) -> Vec<Endpoint> {
    (0..count).map(|number| endpoint(number, 8080)).collect()
}

/// Where the flows of each slot go.
fn chosen(name: &PortName, endpoints: &[Endpoint]) -> Vec<AddressPort> {
    table(name, endpoints).iter().map(|offset| endpoints[usize::from(*offset)].at()).collect()
}

/// Flows that change their endpoint when one of N leaves: at least its own share, 1/N. What Maglev
/// moves beyond that is a few per cent, the fewer the more slots there are to an endpoint.
#[test]
fn few_flows_move_when_an_endpoint_leaves() {
    for (count, beyond_max) in [(2, 0.01), (3, 0.01), (10, 0.02), (50, 0.03), (400, 0.02)] {
        let name = name("web");
        let all = endpoints(count);
        let before = chosen(&name, &all);
        let gone = usize::try_from(count / 2).unwrap();
        let mut fewer = all.clone();
        fewer.remove(gone);
        // One endpoint alone needs no table: everything goes to it.
        let after = match fewer.as_slice() {
            [only] => vec![only.at(); before.len()],
            more => chosen(&name, more),
        };
        assert_eq!(before.len(), after.len());
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        let share = moved as f64 / before.len() as f64;
        let least =
            before.iter().filter(|at| **at == all[gone].at()).count() as f64 / before.len() as f64;
        let minimum = 1.0 / f64::from(count);
        println!(
            "{count} endpoints, one leaves: {:.2} % of the flows move; minimum 1/N {:.2} % (its \
             own share {:.2} %)",
            share * 100.0,
            minimum * 100.0,
            least * 100.0
        );
        assert!(share >= least);
        assert!(share <= minimum + beyond_max, "{count}: {share} > {minimum} + {beyond_max}");
    }
}

/// No endpoint's share differs from another's by more than one slot in a table of at least ten
/// slots an endpoint, as all take in turn.
#[test]
fn shares_of_endpoints_are_even() {
    for count in [2, 3, 7, 50, 400, 401, 5_000] {
        let mut taken = vec![0_u32; count as usize];
        for offset in table(&name("web"), &endpoints(count)) {
            taken[usize::from(offset)] += 1;
        }
        let (least, most) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
        assert!(most - least <= 1, "{count}: {least} to {most}");
        assert!(*least >= 10, "{count}: {least}");
    }
}

#[test]
fn services_with_the_same_endpoints_differ() {
    let all = endpoints(10);
    let (web, api) = (table(&name("web"), &all), table(&name("api"), &all));
    let same = web.iter().zip(&api).filter(|(web, api)| web == api).count();
    assert!(same < web.len() / 5, "{same} of {}", web.len());
}

/// What makes nodes of different builds agree: the table is a fixed one.
#[test]
fn a_table_is_the_same_in_every_build() {
    let table = table(&name("web"), &endpoints(5));
    let sum = table.iter().fold(0_u64, |sum, offset| mix(sum ^ u64::from(*offset)));
    assert_eq!(table[..12], [3, 0, 0, 2, 2, 1, 4, 3, 0, 3, 0, 4]);
    assert_eq!(sum, 8_932_641_604_649_379_746);
}

#[test]
fn one_endpoint_or_none_needs_no_table() {
    assert!(table(&name("web"), &[]).is_empty());
    assert!(table(&name("web"), &endpoints(1)).is_empty());
}

#[test]
fn where_an_endpoint_is_does_not_matter() {
    let here = |endpoint: &Endpoint| Endpoint::new(&endpoint.at(), Endpoint::ON_NODE);
    let all = endpoints(20);
    let local: Vec<Endpoint> = all.iter().map(here).collect();
    assert_eq!(table(&name("web"), &all), table(&name("web"), &local));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_slot_is_in_range(drawn in collection::btree_set((0_u32..100_000, 1_u16..4), 0..600)) {
        let list: Vec<Endpoint> = drawn.iter().map(|(n, port)| endpoint(*n, *port)).collect();
        let table = table(&name("web"), &list);
        prop_assert_eq!(table.len(), slots(&list) as usize);
        prop_assert!(table.iter().all(|offset| usize::from(*offset) < list.len()));
    }
}
