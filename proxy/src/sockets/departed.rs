//! What left between two states of the service ports. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use podium_proxy_ebpf::{AddressPort, Endpoint, FrontendKind};

use crate::model::{PortName, ServicePort};

/// What sockets to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Departed {
    /// Service address, and an endpoint that it leads to no more: sockets that reached the one
    /// through the other.
    pub left: BTreeSet<(AddressPort, AddressPort)>,
    /// Service addresses that lead to an endpoint now and led to none before: sockets connected to
    /// the address itself, as nobody translated it when they were.
    pub appeared: BTreeSet<AddressPort>,
}

impl Departed {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty() && self.appeared.is_empty()
    }
}

/// Compares the states of all UDP service ports.
pub fn between(
    old: &BTreeMap<PortName, Arc<ServicePort>>,
    new: &BTreeMap<PortName, Arc<ServicePort>>,
) -> Departed {
    let same = |a: &Arc<ServicePort>, b: &Arc<ServicePort>| Arc::ptr_eq(a, b) || a == b;
    let gone = old.iter().filter(|(name, _)| !new.contains_key(*name));
    let other = (new.iter()).map(|(name, port)| (old.get(name), Some(port)));
    let changed = (gone.map(|(_, port)| (Some(port), None)))
        .chain(other)
        .filter(|(old, new)| !matches!((old, new), (Some(old), Some(new)) if same(old, new)));
    let (mut before, mut after) = (Reached::default(), Reached::default());
    for (old, new) in changed {
        old.into_iter().for_each(|port| before.add(port));
        new.into_iter().for_each(|port| after.add(port));
    }
    // Over all changed ports at once: an address may have gone from one to another.
    let led = |reached: &Reached, at: &AddressPort| reached.led.contains(at);
    Departed {
        appeared: (after.led.iter())
            .filter(|at| !led(&before, at) && !after.host_only.contains(*at))
            .copied()
            .collect(),
        left: before.pairs.difference(&after.pairs).copied().collect(),
    }
}

/// What service addresses lead to.
#[derive(Default)]
struct Reached {
    pairs: BTreeSet<(AddressPort, AddressPort)>,
    led: BTreeSet<AddressPort>,
    /// Loopback addresses: in other namespaces they are somebody else's.
    host_only: BTreeSet<AddressPort>,
}

impl Reached {
    /// Endpoints count in whichever list of the port they are: as in kube-proxy, a change of a
    /// traffic policy leaves flows where they are.
    fn add(&mut self, port: &ServicePort) {
        let endpoints: BTreeSet<_> =
            port.endpoints.iter().chain(&port.local).map(Endpoint::at).collect();
        for (at, frontend) in &port.addresses {
            if frontend.kind == FrontendKind::LoopbackNodePort {
                self.host_only.insert(*at);
            }
            if !endpoints.is_empty() {
                self.led.insert(*at);
            }
            self.pairs.extend(endpoints.iter().map(|endpoint| (*at, *endpoint)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};
    use podium_proxy_ebpf::{Family, Protocol};

    use super::*;
    use crate::model::{Frontend, ObjectName, Reach};

    fn at(text: &str) -> AddressPort {
        AddressPort::from(text.parse::<std::net::SocketAddr>().unwrap())
    }

    /// `name address,… endpoint,… [local endpoint,…]`, one port a line.
    fn ports(text: &str) -> BTreeMap<PortName, Arc<ServicePort>> {
        let list = |text: &str| -> Vec<AddressPort> {
            text.split(',').filter(|one| *one != "-").map(at).collect()
        };
        let endpoints = |text: &str| -> Vec<Endpoint> {
            list(text).iter().map(|at| Endpoint::new(at, Endpoint::ELSEWHERE)).collect()
        };
        let one = |line: &str| {
            let mut words = line.split_whitespace();
            let name = PortName {
                service: ObjectName { namespace: "a".into(), name: words.next().unwrap().into() },
                port: String::new(),
                protocol: Protocol::Udp,
                family: Family::V4,
            };
            let frontend = |at: AddressPort| {
                let loopback = at.socket_addr().ip().is_loopback();
                let kind = match loopback {
                    true => FrontendKind::LoopbackNodePort,
                    false => FrontendKind::ClusterIp,
                };
                let (internal, external) = (Reach::Cluster, Reach::Cluster);
                (at, Frontend { kind, internal, external, restricted: false })
            };
            let port = ServicePort {
                name: name.clone(),
                addresses: list(words.next().unwrap()).into_iter().map(frontend).collect(),
                endpoints: endpoints(words.next().unwrap()),
                local: endpoints(words.next().unwrap_or("-")),
                affinity_secs: 0,
                source_ranges: BTreeSet::new(),
            };
            (name, Arc::new(port))
        };
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(one).collect()
    }

    fn check(old: &str, new: &str, expected: Expect) {
        let departed = between(&ports(old), &ports(new));
        let mut text = String::new();
        for (service, endpoint) in &departed.left {
            let (service, endpoint) = (service.socket_addr(), endpoint.socket_addr());
            writeln!(text, "left {service} -> {endpoint}").unwrap();
        }
        for service in &departed.appeared {
            writeln!(text, "appeared {}", service.socket_addr()).unwrap();
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn an_endpoint_leaves_every_address_of_its_port() {
        check(
            "dns 10.96.0.10:53,192.0.2.1:53 10.1.0.1:53,10.1.0.2:53",
            "dns 10.96.0.10:53,192.0.2.1:53 10.1.0.2:53,10.1.0.3:53",
            expect![[r#"
                left 10.96.0.10:53 -> 10.1.0.1:53
                left 192.0.2.1:53 -> 10.1.0.1:53
            "#]],
        );
    }

    #[test]
    fn nothing_changed_or_nothing_left() {
        let one = "dns 10.96.0.10:53 10.1.0.1:53";
        check(one, one, expect![""]);
        check(one, "dns 10.96.0.10:53 10.1.0.1:53,10.1.0.2:53", expect![""]);
    }

    #[test]
    fn a_port_or_an_address_goes() {
        check(
            "dns 10.96.0.10:53 10.1.0.1:53",
            "",
            expect![[r#"
                left 10.96.0.10:53 -> 10.1.0.1:53
            "#]],
        );
        check(
            "dns 10.96.0.10:53,192.0.2.1:53 10.1.0.1:53",
            "dns 10.96.0.10:53 10.1.0.1:53",
            expect![[r#"
                left 192.0.2.1:53 -> 10.1.0.1:53
            "#]],
        );
    }

    #[test]
    fn the_first_endpoint_after_none() {
        check(
            "dns 10.96.0.10:53 -",
            "dns 10.96.0.10:53 10.1.0.1:53",
            expect![[r#"
                appeared 10.96.0.10:53
            "#]],
        );
        check(
            "",
            "dns 10.96.0.10:53,127.0.0.1:30053 10.1.0.1:53",
            expect![[r#"
                appeared 10.96.0.10:53
            "#]],
        );
        check("", "dns 10.96.0.10:53 -", expect![""]);
    }

    #[test]
    fn a_service_of_another_name_takes_the_address() {
        check(
            "old 10.96.0.10:53 10.1.0.1:53,10.1.0.2:53",
            "new 10.96.0.10:53 10.1.0.1:53",
            expect![[r#"
                left 10.96.0.10:53 -> 10.1.0.2:53
            "#]],
        );
    }

    #[test]
    fn a_change_of_policy_moves_nothing() {
        check(
            "dns 10.96.0.10:53 10.1.0.1:53,10.1.0.2:53",
            "dns 10.96.0.10:53 10.1.0.1:53 10.1.0.2:53",
            expect![""],
        );
    }
}
