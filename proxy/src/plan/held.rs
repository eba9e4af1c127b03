//! The model of what the kernel holds, and how it is rebuilt from the maps alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use podium_proxy_ebpf::{
    AddressPort, Endpoint, FrontendKind, Protocol, ServiceEntry, ServiceKey, ServiceName, Span,
    address, choice, flags, maps,
};

use super::{
    Limit, Op, maglev,
    ranges::{self, RangeKey},
    shortages::Shortages,
    spans::{Ids, Spans},
    whole_address_entry,
};
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
    pub source_ranges: Vec<RangeKey>,
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
    /// Its table for the consistent choice, as entries refer to it.
    pub maglev: Span,
    /// What the trie holds for it.
    pub source_ranges: BTreeSet<RangeKey>,
    /// What was put there.
    pub content: Arc<ServicePort>,
    /// Whether all of that was; else the next plan tries again.
    pub settled: bool,
}

/// A part of one of the arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Of the endpoints.
    Endpoints(Span),
    /// Of the tables for the consistent choice: start block and number of slots.
    Maglev(Span),
}

/// The blocks of a table's slots.
pub const fn blocks(table: Span) -> Span {
    Span { start: table.start, len: choice::maglev_blocks(table.len) }
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
    /// The ClusterIPs that are marked as such.
    pub cluster_ips: BTreeSet<IpAddr>,
    /// Room for endpoints.
    pub spans: Spans,
    /// Room for tables, in blocks.
    pub maglev: Spans,
    /// Elements of the trie of source ranges.
    pub source_ranges: u32,
    /// Free ids.
    pub ids: Ids,
    /// What an interrupted change left; the next plan ends it.
    pub leftover: Leftover,
    /// What found no room.
    pub shortages: Shortages,
    /// Whether all of this was compared with what is wanted once.
    pub(super) is_compared: bool,
}

/// What fits nothing else.
#[derive(Clone, Debug, Default)]
pub struct Leftover {
    /// Entries that no port counts as its own.
    pub keys: Vec<ServiceKey>,
    /// What only these refer to.
    pub rooms: Vec<Room>,
    /// Ranges of an id that has no name.
    pub ranges: Vec<RangeKey>,
}

impl Held {
    /// Empty maps.
    pub fn empty(limits: Limits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            ports: BTreeMap::new(),
            cluster_ips: BTreeSet::new(),
            spans: Spans::new(limits.endpoints),
            maglev: Spans::new(limits.maglev),
            source_ranges: 0,
            ids: Ids::new(limits.services),
            leftover: Leftover::default(),
            shortages: Shortages::default(),
            is_compared: false,
        }
    }

    /// The model of maps that some agent left behind, perhaps in the middle of a change. What does
    /// not fit together is kept as entries without an owner: the next plan replaces or removes them.
    pub fn rebuild(snapshot: &Snapshot, limits: Limits) -> Self {
        let mut held = Self::empty(limits);
        let mut by_id: HashMap<u32, Vec<(ServiceKey, ServiceEntry)>> = HashMap::new();
        for (key, entry) in &snapshot.services {
            held.entries.insert(*key, *entry);
            if key.is_whole_address() && *entry == whole_address_entry(key) {
                held.cluster_ips.insert(address::unmap(key.ip));
            } else if !key.is_whole_address() && entry.sealed == entry.seal(key) {
                by_id.entry(entry.id).or_default().push((*key, *entry));
            } else {
                held.leftover.keys.push(*key);
            }
        }
        let mut ranges: HashMap<u32, BTreeSet<RangeKey>> = HashMap::new();
        for range in &snapshot.source_ranges {
            held.source_ranges += 1;
            ranges.entry(range.0.service_id).or_default().insert(*range);
        }
        for (id, name) in &snapshot.names {
            let Some(name) = PortName::from_abi(name) else {
                continue;
            };
            if held.ports.contains_key(&name) || !held.ids.reserve(*id) {
                continue;
            }
            let mut entries = by_id.remove(id).unwrap_or_default();
            // Of an interrupted change, the same half wins each time.
            entries.sort_by_key(|(key, _)| *key);
            let ranges = ranges.remove(id).unwrap_or_default();
            let port = held.rebuild_port(*id, &name, &entries, ranges, snapshot);
            held.ports.insert(name, port);
        }
        // Entries and ranges of ids that have no name: nobody's.
        for (key, entry) in by_id.into_values().flatten() {
            held.keep_leftover(key, entry);
        }
        held.leftover.ranges.extend(ranges.into_values().flatten());
        held
    }

    fn rebuild_port(
        &mut self,
        id: u32,
        name: &PortName,
        entries: &[(ServiceKey, ServiceEntry)],
        source_ranges: BTreeSet<RangeKey>,
        snapshot: &Snapshot,
    ) -> HeldPort {
        let mut port = ServicePort {
            name: name.clone(),
            addresses: BTreeMap::new(),
            endpoints: Vec::new(),
            local: Vec::new(),
            affinity_secs: 0,
            source_ranges: source_ranges.iter().filter_map(ranges::from_abi).collect(),
        };
        let (mut endpoints, mut local, mut table) =
            (Span::default(), Span::default(), Span::default());
        if let Some((_, first)) = entries.first() {
            port.affinity_secs = first.affinity_secs;
            if self.spans.reserve(first.endpoints) {
                endpoints = first.endpoints;
                port.endpoints = snapshot.spans.get(&endpoints).cloned().unwrap_or_default();
            }
            if self.spans.reserve(first.local) {
                local = first.local;
                port.local = snapshot.spans.get(&local).cloned().unwrap_or_default();
            }
            if first.maglev.len == maglev::slots(&port.endpoints)
                && self.maglev.reserve(blocks(first.maglev))
            {
                table = first.maglev;
            }
        }
        for (key, entry) in entries {
            let same = entry.endpoints == endpoints
                && entry.local == local
                && entry.maglev == table
                && entry.affinity_secs == port.affinity_secs;
            if same && let Some(frontend) = frontend_of(entry.flags) {
                port.addresses.insert(AddressPort::new(key.ip, key.port), frontend);
            } else {
                // Left out of the content, so that the port is placed anew.
                self.keep_leftover(*key, *entry);
            }
        }
        let settled = table.len == wanted_slots(&port);
        let content = Arc::new(port);
        HeldPort { id, endpoints, local, maglev: table, source_ranges, content, settled }
    }

    fn keep_leftover(&mut self, key: ServiceKey, entry: ServiceEntry) {
        self.leftover.keys.push(key);
        for span in [entry.endpoints, entry.local] {
            if self.spans.reserve(span) {
                self.leftover.rooms.push(Room::Endpoints(span));
            }
        }
        if self.maglev.reserve(blocks(entry.maglev)) {
            self.leftover.rooms.push(Room::Maglev(entry.maglev));
        }
    }

    /// Gives a part of an array up.
    pub fn rest(&mut self, room: Room) {
        match room {
            Room::Endpoints(span) => self.spans.rest(span),
            Room::Maglev(table) => self.maglev.rest(blocks(table)),
        }
    }

    /// Makes the flows of every port look their endpoint up again: what an agent that was stopped
    /// between a change and its [`Op::Renew`] owes them. For whoever has just rebuilt this.
    pub fn renewals(&self) -> impl Iterator<Item = Op> {
        self.ports.values().map(|port| Op::Renew { id: port.id })
    }

    /// Elements of a map that are not in use.
    pub fn room(&self, limit: Limit) -> u32 {
        let entries = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        match limit {
            Limit::Services => self.limits.services.saturating_sub(entries),
            Limit::Endpoints => self.spans.unused_len(),
            Limit::Maglev => self.maglev.unused_len(),
            Limit::SourceRanges => self.limits.source_ranges.saturating_sub(self.source_ranges),
        }
    }

    /// As many of these as may be next to each other.
    pub fn gap(&self, limit: Limit) -> u32 {
        match limit {
            Limit::Endpoints => self.spans.gap_max(),
            Limit::Maglev => self.maglev.gap_max(),
            Limit::Services | Limit::SourceRanges => self.room(limit),
        }
    }

    /// Elements of the endpoints array in use. What rests is not: it is free as soon as there is
    /// need for it.
    pub fn endpoints_used(&self) -> u32 {
        self.limits.endpoints - self.spans.unused_len()
    }

    /// Blocks of the array of tables in use.
    pub fn maglev_used(&self) -> u32 {
        self.limits.maglev - self.maglev.unused_len()
    }
}

/// How many slots the table of a port shall have.
pub fn wanted_slots(port: &ServicePort) -> u32 {
    if port.is_consistent() { maglev::slots(&port.endpoints) } else { 0 }
}

/// What an entry's flags say of its address.
pub fn frontend_of(bits: u32) -> Option<Frontend> {
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
