//! Maps in memory, with the lookup a program would do, for tests of plans.
//!
//! Stricter than the kernel: it panics when an operation touches what a program could be reading.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use podium_proxy_ebpf::{
    AddressPort, Endpoint, NoEndpoint, Origin, Protocol, ServiceCounters, ServiceEntry, ServiceKey,
    ServiceName, Span, address, choice::SLOTS_PER_BLOCK, flags,
};

use super::{Datapath, Error};
use crate::{
    model::PortName,
    plan::{
        Op,
        held::{Limits, Snapshot, blocks},
        ranges::RangeKey,
    },
};

/// What a program would answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not a service: the call goes on as it is.
    Untouched,
    /// A ClusterIP without this port.
    UnknownPort,
    /// A service without a usable endpoint.
    None(NoEndpoint),
    /// One of these.
    OneOf(Vec<Endpoint>),
}

/// The maps.
#[derive(Debug)]
pub struct FakeDatapath {
    services: HashMap<ServiceKey, ServiceEntry>,
    names: BTreeMap<u32, ServiceName>,
    endpoints: Vec<Option<Endpoint>>,
    maglev: Vec<u16>,
    source_ranges: BTreeSet<RangeKey>,
    generations: BTreeMap<u32, u32>,
    counters: BTreeMap<u32, ServiceCounters>,
    /// Spans that were readable since the last wait: written to only after the next.
    exposed: Vec<Span>,
    /// The same of tables.
    exposed_maglev: Vec<Span>,
    limits: Limits,
}

/// A slot that was never written.
const UNWRITTEN: u16 = u16::MAX;

impl FakeDatapath {
    /// Empty maps.
    pub fn new(limits: Limits) -> Self {
        Self {
            services: HashMap::new(),
            names: BTreeMap::new(),
            endpoints: vec![None; limits.endpoints as usize],
            maglev: vec![UNWRITTEN; (limits.maglev * SLOTS_PER_BLOCK) as usize],
            source_ranges: BTreeSet::new(),
            generations: BTreeMap::new(),
            counters: BTreeMap::new(),
            exposed: Vec::new(),
            exposed_maglev: Vec::new(),
            limits,
        }
    }

    /// What a program would answer to a socket that connects.
    pub fn connect(&self, to: AddressPort, protocol: Protocol) -> Answer {
        self.answer(to, protocol, Origin::Inside)
    }

    /// What a program would answer to a packet or a socket, if its source may come here.
    pub fn answer(&self, to: AddressPort, protocol: Protocol, origin: Origin) -> Answer {
        let Some(entry) = self.entry(to, protocol) else {
            let whole = self.services.contains_key(&ServiceKey::whole_address(to.ip));
            return if whole { Answer::UnknownPort } else { Answer::Untouched };
        };
        if entry.flags & flags::HOST_ONLY != 0 && origin == Origin::Outside {
            return Answer::Untouched;
        }
        match entry.candidates(origin) {
            Ok(span) => Answer::OneOf(self.read(span)),
            Err(none) => Answer::None(none),
        }
    }

    /// Whether a packet of this source may come to an address.
    pub fn allows(&self, from: IpAddr, to: AddressPort, protocol: Protocol) -> bool {
        let Some(entry) = self.entry(to, protocol) else {
            return true;
        };
        let ip = address::map(from);
        entry.flags & flags::SOURCE_RANGES == 0
            || self.source_ranges.iter().any(|(range, prefix_len)| {
                let shift = 128_u32.saturating_sub(*prefix_len);
                let differ = u128::from_be_bytes(range.ip) ^ u128::from_be_bytes(ip);
                range.service_id == entry.id && differ.checked_shr(shift).unwrap_or(0) == 0
            })
    }

    /// Every endpoint of an entry.
    pub fn list(&self, entry: &ServiceEntry) -> Vec<Endpoint> {
        self.read(entry.endpoints)
    }

    /// Where each slot of an entry's table leads to; empty without a table.
    pub fn table(&self, entry: &ServiceEntry) -> Vec<Endpoint> {
        let endpoints = self.read(entry.endpoints);
        let start = (entry.maglev.start * SLOTS_PER_BLOCK) as usize;
        let slots = &self.maglev[start..start + entry.maglev.len as usize];
        slots.iter().map(|offset| endpoints[usize::from(*offset)]).collect()
    }

    /// The service port an id belongs to.
    pub fn name(&self, id: u32) -> Option<PortName> {
        PortName::from_abi(self.names.get(&id)?)
    }

    /// The id behind an address, and how often its flows were told to look again.
    pub fn generation(&self, to: AddressPort, protocol: Protocol) -> Option<(u32, u32)> {
        let id = self.entry(to, protocol)?.id;
        Some((id, self.generation_of(id)))
    }

    /// How often the flows of an id were told to look again.
    pub fn generation_of(&self, id: u32) -> u32 {
        self.generations.get(&id).copied().unwrap_or(0)
    }

    fn entry(&self, to: AddressPort, protocol: Protocol) -> Option<&ServiceEntry> {
        let key = ServiceKey::new(&to, protocol);
        let entry = self.services.get(&key)?;
        assert_eq!(entry.sealed, entry.seal(&key), "entry of {key:?} is not sealed");
        Some(entry)
    }

    fn read(&self, span: Span) -> Vec<Endpoint> {
        let start = span.start as usize;
        let elements = &self.endpoints[start..start + span.len as usize];
        elements.iter().map(|element| element.expect("a span that was never written")).collect()
    }

    fn write(&mut self, start: u32, endpoints: &[Endpoint]) {
        let end = start as usize + endpoints.len();
        let live = self.services.values().flat_map(|entry| [entry.endpoints, entry.local]);
        for span in live.chain(self.exposed.iter().copied()) {
            assert_apart(start as usize, end, span);
        }
        for (slot, endpoint) in self.endpoints[start as usize..end].iter_mut().zip(endpoints) {
            *slot = Some(*endpoint);
        }
    }

    fn write_maglev(&mut self, start: u32, slots: &[u16]) {
        let end = start as usize + slots.len().div_ceil(SLOTS_PER_BLOCK as usize);
        let live = self.services.values().map(|entry| entry.maglev);
        for table in live.chain(self.exposed_maglev.iter().copied()) {
            assert_apart(start as usize, end, blocks(table));
        }
        let first = (start * SLOTS_PER_BLOCK) as usize;
        self.maglev[first..first + slots.len()].copy_from_slice(slots);
    }

    fn expose(&mut self, old: Option<ServiceEntry>) {
        if let Some(entry) = old {
            self.exposed.extend([entry.endpoints, entry.local]);
            self.exposed_maglev.push(entry.maglev);
        }
    }
}

fn assert_apart(start: usize, end: usize, span: Span) {
    let apart =
        span.len == 0 || end <= span.start as usize || start >= (span.start + span.len) as usize;
    assert!(apart, "{start} to {end} overlaps {span:?}, which is readable");
}

impl Datapath for FakeDatapath {
    fn snapshot(&self) -> Result<Snapshot, Error> {
        let services: Vec<_> = self.services.iter().map(|(key, entry)| (*key, *entry)).collect();
        let spans = (services.iter())
            .flat_map(|(_, entry)| [entry.endpoints, entry.local])
            .map(|span| (span, self.read(span)))
            .collect();
        let names = self.names.iter().map(|(id, name)| (*id, *name)).collect();
        let source_ranges = self.source_ranges.iter().copied().collect();
        Ok(Snapshot { services, names, source_ranges, spans })
    }

    fn execute(&mut self, op: &Op) -> Result<(), Error> {
        match op {
            Op::WriteEndpoints { start, endpoints } => self.write(*start, endpoints),
            Op::WriteMaglev { start, slots } => self.write_maglev(*start, slots),
            Op::Renew { id } => *self.generations.entry(*id).or_default() += 1,
            Op::AddSourceRange { range, prefix_len } => {
                assert!(self.names.contains_key(&range.service_id), "a range of nobody");
                self.source_ranges.insert((*range, *prefix_len));
                let full = self.source_ranges.len() > self.limits.source_ranges as usize;
                assert!(!full, "map of source ranges full");
            }
            Op::RemoveSourceRange { range, prefix_len } => {
                let was_there = self.source_ranges.remove(&(*range, *prefix_len));
                assert!(was_there, "{range:?}/{prefix_len} was not there");
            }
            Op::SetName { id, name } => {
                self.names.insert(*id, **name);
            }
            Op::RemoveName { id } => {
                let left = self
                    .services
                    .iter()
                    .find(|(key, entry)| !key.is_whole_address() && entry.id == *id);
                assert_eq!(left, None, "id {id} is still used");
                let ranges = self.source_ranges.iter().find(|(range, _)| range.service_id == *id);
                assert_eq!(ranges, None, "id {id} still has ranges");
                self.names.remove(id);
            }
            Op::ResetCounter { id } => {
                self.counters.insert(*id, ServiceCounters::default());
            }
            Op::SetService { key, entry } => {
                if !key.is_whole_address() {
                    assert!(self.names.contains_key(&entry.id), "an entry of nobody");
                    self.table(entry);
                }
                let old = self.services.insert(*key, *entry);
                self.expose(old);
                assert!(self.services.len() <= self.limits.services as usize, "services map full");
            }
            Op::RemoveService { key } => {
                let old = self.services.remove(key);
                self.expose(old);
            }
            Op::WaitForReaders => {
                self.exposed.clear();
                self.exposed_maglev.clear();
            }
        }
        Ok(())
    }

    fn counters(&self, ids: &[u32]) -> Result<BTreeMap<u32, ServiceCounters>, Error> {
        let count = |id: &u32| (*id, self.counters.get(id).copied().unwrap_or_default());
        Ok(ids.iter().map(count).collect())
    }
}
