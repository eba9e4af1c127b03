//! Maps in memory, with the lookup a program would do, for tests of plans.
//!
//! Stricter than the kernel: it panics when an operation touches what a program could be reading.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use podium_proxy_ebpf::{
    AddressPort, Endpoint, NoEndpoint, Origin, Protocol, ServiceCounters, ServiceEntry, ServiceKey,
    ServiceName, SourceRange, Span, choice::SLOTS_PER_BLOCK,
};

use super::{Datapath, Error};
use crate::plan::{Op, held::Limits, held::Snapshot};

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
    maglev: Vec<Option<u16>>,
    source_ranges: BTreeSet<(SourceRange, u32)>,
    generations: BTreeMap<u32, u32>,
    counters: BTreeMap<u32, ServiceCounters>,
    /// Spans that were readable since the last wait: written to only after the next.
    exposed: Vec<Span>,
    limits: Limits,
}

impl FakeDatapath {
    /// Empty maps.
    pub fn new(limits: Limits) -> Self {
        Self {
            services: HashMap::new(),
            names: BTreeMap::new(),
            endpoints: vec![None; limits.endpoints as usize],
            maglev: vec![None; (limits.maglev * SLOTS_PER_BLOCK) as usize],
            source_ranges: BTreeSet::new(),
            generations: BTreeMap::new(),
            counters: BTreeMap::new(),
            exposed: Vec::new(),
            limits,
        }
    }

    /// What a program would answer to a socket that connects.
    pub fn connect(&self, to: AddressPort, protocol: Protocol) -> Answer {
        let key = ServiceKey::new(&to, protocol);
        let Some(entry) = self.services.get(&key) else {
            let whole = self.services.contains_key(&ServiceKey::whole_address(to.ip));
            return if whole { Answer::UnknownPort } else { Answer::Untouched };
        };
        assert_eq!(entry.sealed, entry.seal(&key), "entry of {key:?} is not sealed");
        match entry.candidates(Origin::Inside) {
            Ok(span) => Answer::OneOf(self.read(span)),
            Err(none) => Answer::None(none),
        }
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
            let apart = span.len == 0
                || end <= span.start as usize
                || start as usize >= (span.start + span.len) as usize;
            assert!(apart, "{start}+{} overlaps {span:?}, which is readable", endpoints.len());
        }
        for (slot, endpoint) in self.endpoints[start as usize..end].iter_mut().zip(endpoints) {
            *slot = Some(*endpoint);
        }
    }
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
            Op::WriteMaglev { start, slots } => {
                let start = (start * SLOTS_PER_BLOCK) as usize;
                for (slot, offset) in self.maglev[start..].iter_mut().zip(slots) {
                    *slot = Some(*offset);
                }
            }
            Op::Renew { id } => *self.generations.entry(*id).or_default() += 1,
            Op::AddSourceRange { range, prefix_len } => {
                self.source_ranges.insert((*range, *prefix_len));
            }
            Op::RemoveSourceRange { range, prefix_len } => {
                self.source_ranges.remove(&(*range, *prefix_len));
            }
            Op::SetName { id, name } => {
                self.names.insert(*id, **name);
            }
            Op::RemoveName { id } => {
                self.names.remove(id);
            }
            Op::ResetCounter { id } => {
                self.counters.insert(*id, ServiceCounters::default());
            }
            Op::SetService { key, entry } => {
                let old = self.services.insert(*key, *entry);
                self.exposed.extend(old.into_iter().flat_map(|old| [old.endpoints, old.local]));
                assert!(self.services.len() <= self.limits.services as usize, "services map full");
            }
            Op::RemoveService { key } => {
                let old = self.services.remove(key);
                self.exposed.extend(old.into_iter().flat_map(|old| [old.endpoints, old.local]));
            }
            Op::WaitForReaders => self.exposed.clear(),
        }
        Ok(())
    }

    fn counters(&self, ids: &[u32]) -> Result<BTreeMap<u32, ServiceCounters>, Error> {
        let count = |id: &u32| (*id, self.counters.get(id).copied().unwrap_or_default());
        Ok(ids.iter().map(count).collect())
    }
}
