//! Which endpoints of a service port traffic gets: readiness (KEP-1669) and topology (KEP-2433,
//! KEP-4444, KEP-3015). What the choice among them is made by is up to the kernel.

use std::{collections::BTreeSet, net::SocketAddr};

use podium_proxy_ebpf::{AddressPort, Endpoint, Family, Protocol};

use super::slice::{Hint, Slice};
use crate::model::{LocalNode, family_of};

/// What all slices together say of one endpoint.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    ready: bool,
    serving_terminating: bool,
    local: bool,
    for_node: Hint,
    for_zone: Hint,
    place: u8,
}

/// The endpoints of one service port in one family, sorted.
#[derive(Debug)]
pub struct Candidates(Vec<(AddressPort, Candidate)>);

impl Candidates {
    /// The endpoints of all slices that answer a port. One that several slices list, as while it
    /// moves between them, is as good as the best they say of it.
    pub fn new(
        slices: &[&Slice],
        port_name: &str,
        protocol: Protocol,
        family: Family,
        node: &LocalNode,
    ) -> Self {
        let mut seen = Vec::new();
        for slice in slices.iter().filter(|slice| slice.family == Some(family)) {
            let ports = (slice.ports.iter())
                .filter(|port| port.name == port_name && port.protocol == Some(protocol));
            for port in ports {
                seen.reserve(slice.endpoints.len());
                for endpoint in &slice.endpoints {
                    let at = AddressPort::from(SocketAddr::new(endpoint.ip, port.number));
                    let place = if node.host_ips.contains(&endpoint.ip) {
                        Endpoint::ON_HOST
                    } else if endpoint.local {
                        Endpoint::ON_NODE
                    } else {
                        Endpoint::ELSEWHERE
                    };
                    let candidate = Candidate {
                        ready: endpoint.ready,
                        serving_terminating: endpoint.serving_terminating,
                        local: endpoint.local,
                        for_node: endpoint.for_node,
                        for_zone: slice.for_zone(endpoint, node.zone.as_deref()),
                        place,
                    };
                    seen.push((at, candidate));
                }
            }
        }
        // Those of one address stay in the order of their slices.
        seen.sort_by_key(|(at, _)| *at);
        seen.dedup_by(|(at, candidate), (known_at, known)| {
            let is_known = at == known_at;
            if is_known {
                known.merge(candidate);
            }
            is_known
        });
        Self(seen)
    }

    /// The list for traffic that may go to any node.
    pub fn of_cluster(&self) -> Vec<Endpoint> {
        match self.topology() {
            Topology::Anywhere => self.usable(|_| true),
            Topology::Node => self.usable(|candidate| candidate.for_node == Hint::Here),
            Topology::Zone => self.usable(|candidate| candidate.for_zone == Hint::Here),
        }
    }

    /// The list for traffic that must stay on this node. Hints do not count here.
    pub fn of_node(&self) -> Vec<Endpoint> {
        self.usable(|candidate| candidate.local)
    }

    /// Ready endpoints; when there are none, those both serving and terminating (KEP-1669).
    fn usable(&self, counts: impl Fn(&Candidate) -> bool) -> Vec<Endpoint> {
        let list = |is_usable: fn(&Candidate) -> bool| -> Vec<Endpoint> {
            let mut list: Vec<Endpoint> = (self.0.iter())
                .filter(|(_, candidate)| is_usable(candidate) && counts(candidate))
                .map(|(at, candidate)| Endpoint::new(at, candidate.place))
                .collect();
            list.shrink_to_fit();
            list
        };
        let ready = list(|candidate| candidate.ready);
        if ready.is_empty() { list(|candidate| candidate.serving_terminating) } else { ready }
    }

    /// Hints count only if every ready endpoint has one and one of them is meant for us: else some
    /// node or zone would be left without endpoints. Nodes go before zones (KEP-3015).
    fn topology(&self) -> Topology {
        let covers = |hint: fn(&Candidate) -> Hint| {
            let candidates = || self.0.iter().map(|(_, candidate)| candidate);
            let ready = || candidates().filter(|candidate| candidate.ready).map(hint);
            ready().all(|hint| hint != Hint::None) && ready().any(|hint| hint == Hint::Here)
        };
        if covers(|candidate| candidate.for_node) {
            Topology::Node
        } else if covers(|candidate| candidate.for_zone) {
            Topology::Zone
        } else {
            Topology::Anywhere
        }
    }
}

#[derive(Clone, Copy)]
enum Topology {
    Anywhere,
    Node,
    Zone,
}

impl Candidate {
    fn merge(&mut self, other: &Self) {
        // The hints are those of the slice that would have the endpoint used.
        if other.ready && !self.ready {
            (self.for_node, self.for_zone) = (other.for_node, other.for_zone);
        } else if other.ready == self.ready {
            self.for_node = self.for_node.max(other.for_node);
            self.for_zone = self.for_zone.max(other.for_zone);
        }
        self.ready |= other.ready;
        self.serving_terminating |= other.serving_terminating;
        self.local |= other.local;
        self.place = self.place.max(other.place);
    }
}

/// How many ready endpoints a Service has on this node, whatever their ports. Those of a dual-stack
/// Service have an address in each family and must not count twice, so the larger family counts.
pub fn local_ready(slices: &[&Slice]) -> usize {
    let count = |family| {
        (slices.iter())
            .flat_map(|slice| &slice.endpoints)
            .filter(|endpoint| endpoint.ready && endpoint.local && family_of(endpoint.ip) == family)
            .map(|endpoint| endpoint.ip)
            .collect::<BTreeSet<_>>()
            .len()
    };
    count(Family::V4).max(count(Family::V6))
}
