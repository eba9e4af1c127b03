//! The model of what the kernel holds, and how it is rebuilt from the maps alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use podium_proxy_ebpf::{
    AddressPort, Endpoint, FrontendKind, Protocol, ServiceEntry, ServiceKey, ServiceName,
    SourceRange, Span, flags, maps,
};

use super::spans::{Ids, Spans};
use crate::model::{Frontend, PortName, Reach, ServicePort};

/// Sizes of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the services map, and ids.
    pub services: u32,
    /// Elements of the endpoints array.
    pub endpoints: u32,
    /// Blocks of the array of tables for the consistent choice.
    pub maglev: u32,
    /// Source ranges of all services.
    pub source_ranges: u32,
    /// Clients with affinity.
    pub affinity: u32,
    /// Sockets whose peer is remembered.
    pub socket_peers: u32,
    /// Translations of flows.
    pub flows: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            services: maps::SERVICES_DEFAULT,
            endpoints: maps::ENDPOINTS_DEFAULT,
            maglev: maps::MAGLEV_DEFAULT,
            source_ranges: maps::SOURCE_RANGES_DEFAULT,
            affinity: maps::AFFINITY_DEFAULT,
            socket_peers: maps::SOCKET_PEERS_DEFAULT,
            flows: maps::FLOWS_DEFAULT,
        }
    }
}

/// What the maps contain, read back.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The services map.
    pub services: Vec<(ServiceKey, ServiceEntry)>,
    /// The names map.
    pub names: Vec<(u32, ServiceName)>,
    /// The source ranges, with their prefix lengths.
    pub source_ranges: Vec<(SourceRange, u32)>,
    /// The elements of every span that an entry refers to.
    pub spans: BTreeMap<Span, Vec<Endpoint>>,
}

/// A service port as the kernel holds it.
#[derive(Clone, Debug)]
pub struct HeldPort {
    /// Its id.
    pub id: u32,
    /// Where its endpoints are.
    pub endpoints: Span,
    /// Where those of this node are.
    pub local: Span,
    /// What was put there.
    pub content: Arc<ServicePort>,
}

/// Everything the kernel holds.
#[derive(Clone, Debug)]
pub struct Held {
    /// Sizes of the maps.
    pub limits: Limits,
    /// The services map, exactly.
    pub entries: HashMap<ServiceKey, ServiceEntry>,
    /// The ports behind the ids.
    pub ports: BTreeMap<PortName, HeldPort>,
    /// Room for endpoints.
    pub spans: Spans,
    /// Free ids.
    pub ids: Ids,
    /// Spans that only leftovers of an interrupted change refer to; the next plan ends them.
    pub leftover: Vec<Span>,
}

impl Held {
    /// Empty maps.
    pub fn empty(limits: Limits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            ports: BTreeMap::new(),
            spans: Spans::new(limits.endpoints),
            ids: Ids::new(limits.services),
            leftover: Vec::new(),
        }
    }

    /// The model of maps that some agent left behind, perhaps in the middle of a change. What does
    /// not fit together is kept as entries without an owner: the next plan replaces or removes them.
    pub fn rebuild(snapshot: &Snapshot, limits: Limits) -> Self {
        let mut held = Self::empty(limits);
        let mut by_id: HashMap<u32, Vec<(ServiceKey, ServiceEntry)>> = HashMap::new();
        for (key, entry) in &snapshot.services {
            held.entries.insert(*key, *entry);
            if !key.is_whole_address() && entry.sealed == entry.seal(key) {
                by_id.entry(entry.id).or_default().push((*key, *entry));
            }
        }
        for (id, name) in &snapshot.names {
            let Some(name) = PortName::from_abi(name) else {
                continue;
            };
            if held.ports.contains_key(&name) || !held.ids.reserve(*id) {
                continue;
            }
            let entries = by_id.remove(id).unwrap_or_default();
            let port = held.rebuild_port(*id, &name, &entries, snapshot);
            held.ports.insert(name, port);
        }
        // Entries of ids that have no name: nobody's.
        for (_, entry) in by_id.into_values().flatten() {
            held.keep_leftover(entry);
        }
        held
    }

    fn rebuild_port(
        &mut self,
        id: u32,
        name: &PortName,
        entries: &[(ServiceKey, ServiceEntry)],
        snapshot: &Snapshot,
    ) -> HeldPort {
        let mut port = ServicePort {
            name: name.clone(),
            addresses: BTreeMap::new(),
            endpoints: Vec::new(),
            local: Vec::new(),
            affinity_secs: 0,
            source_ranges: BTreeSet::new(),
        };
        let mut held = HeldPort {
            id,
            endpoints: Span::default(),
            local: Span::default(),
            content: Arc::new(port.clone()),
        };
        let Some((_, first)) = entries.first().copied() else {
            return held;
        };
        port.affinity_secs = first.affinity_secs;
        if self.spans.reserve(first.endpoints) {
            held.endpoints = first.endpoints;
            port.endpoints = snapshot.spans.get(&first.endpoints).cloned().unwrap_or_default();
        }
        if self.spans.reserve(first.local) {
            held.local = first.local;
            port.local = snapshot.spans.get(&first.local).cloned().unwrap_or_default();
        }
        for (key, entry) in entries {
            let same = entry.endpoints == held.endpoints
                && entry.local == held.local
                && entry.affinity_secs == port.affinity_secs;
            if same && let Some(frontend) = frontend(entry.flags) {
                port.addresses.insert(AddressPort::new(key.ip, key.port), frontend);
            } else {
                // Left out of the content, so that the port is placed anew.
                self.keep_leftover(*entry);
            }
        }
        held.content = Arc::new(port);
        held
    }

    fn keep_leftover(&mut self, entry: ServiceEntry) {
        for span in [entry.endpoints, entry.local] {
            if self.spans.reserve(span) {
                self.leftover.push(span);
            }
        }
    }

    /// Elements of the endpoints array in use.
    pub fn endpoints_used(&self) -> u32 {
        self.limits.endpoints - self.spans.free_len()
    }
}

/// What an entry's flags say of its address.
fn frontend(bits: u32) -> Option<Frontend> {
    let reach = |bit| if bits & bit == 0 { Reach::Cluster } else { Reach::Node };
    Some(Frontend {
        kind: FrontendKind::from_flags(bits)?,
        internal: reach(flags::INTERNAL_LOCAL),
        external: reach(flags::EXTERNAL_LOCAL),
        restricted: bits & flags::SOURCE_RANGES != 0,
    })
}

/// The protocol of a key, if it is that of a service port.
pub const fn key_protocol(key: &ServiceKey) -> Option<Protocol> {
    Protocol::from_number(key.protocol)
}
