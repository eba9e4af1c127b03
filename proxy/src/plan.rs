//! From what the kernel holds to what it should hold: map operations, in order. Pure.
//!
//! The order is the point. After every single operation each service address leads to its old
//! endpoints or to its new ones: a list is written to a fresh span before an entry points at it,
//! the entry is swung in one update, and the old span rests until no program can be reading it.
//! What is to go goes first, to make room; what marks a ClusterIP as known comes last.

pub mod held;
pub mod maglev;
pub mod ranges;
pub mod shortages;
pub mod spans;

mod changes;
mod place;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use podium_proxy_ebpf::{
    Endpoint, FrontendKind, ServiceEntry, ServiceKey, ServiceName, SourceRange, address, flags,
    maps,
};

use crate::model::{Desired, Frontend, PortName, Reach};
use changes::Changes;
use held::{Held, Room};
use ranges::RangeKey;

/// One change of one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Stores endpoints from this index of the array on, where no entry points yet.
    WriteEndpoints {
        /// Index of the first.
        start: u32,
        /// The endpoints, sorted.
        endpoints: Vec<Endpoint>,
    },
    /// Stores a table for the consistent choice, where no entry points yet.
    WriteMaglev {
        /// Index of its first block.
        start: u32,
        /// The slots: offsets into the span of endpoints.
        slots: Vec<u16>,
    },
    /// The list of endpoints of an id is another one now: flows that must not outlive their
    /// endpoint look it up again.
    Renew {
        /// The id.
        id: u32,
    },
    /// Lets a range of sources in.
    AddSourceRange {
        /// Service and first address.
        range: SourceRange,
        /// Leading bits that count, of those of the address.
        prefix_len: u32,
    },
    /// Lets it in no more.
    RemoveSourceRange {
        /// Service and first address.
        range: SourceRange,
        /// Leading bits that count, of those of the address.
        prefix_len: u32,
    },
    /// Says whose id this is.
    SetName {
        /// The id.
        id: u32,
        /// The service port.
        name: Box<ServiceName>,
    },
    /// The id belongs to nobody.
    RemoveName {
        /// The id.
        id: u32,
    },
    /// Starts the count of an id at zero.
    ResetCounter {
        /// The id.
        id: u32,
    },
    /// Makes an address lead somewhere, or elsewhere.
    SetService {
        /// The address.
        key: ServiceKey,
        /// Where to.
        entry: ServiceEntry,
    },
    /// Makes an address an ordinary one again.
    RemoveService {
        /// The address.
        key: ServiceKey,
    },
    /// Waits until no program can still be using what it looked up before.
    WaitForReaders,
}

/// A map whose size a flag sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// The services map, and ids.
    Services,
    /// The endpoints array.
    Endpoints,
    /// The array of tables for the consistent choice.
    Maglev,
    /// The trie of source ranges.
    SourceRanges,
}

impl Limit {
    /// The flag that raises it.
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Services => "--max-services",
            Self::Endpoints => "--max-endpoints",
            Self::Maglev => "--max-maglev-blocks",
            Self::SourceRanges => "--max-source-ranges",
        }
    }

    /// The name of the map.
    pub const fn map(self) -> &'static str {
        match self {
            Self::Services => maps::SERVICES,
            Self::Endpoints => maps::ENDPOINTS,
            Self::Maglev => maps::MAGLEV,
            Self::SourceRanges => maps::SOURCE_RANGES,
        }
    }
}

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// The operations, in the order they must be carried out.
    pub ops: Vec<Op>,
    /// The ports that this is about.
    pub ports: BTreeSet<PortName>,
    /// Whether [`Held::shortages`] are others now.
    pub shortages_changed: bool,
    /// It makes room for what had none: plan once more.
    pub makes_room: bool,
}

/// The operations that lead from `held` to `desired`; `held` is then as it will be when all of them
/// have been carried out. Should one fail, what is held must be read from the maps again.
///
/// Compares everything.
pub fn plan(held: &mut Held, desired: &Desired) -> Plan {
    held.is_compared = true;
    let changes = Changes::between(held, desired);
    carry_out(held, desired, &changes)
}

/// As [`plan`], where only these ports and ClusterIPs can differ from what was planned last. What
/// nothing was planned for yet is compared as a whole.
pub fn plan_changed(
    held: &mut Held,
    desired: &Desired,
    ports: &BTreeSet<PortName>,
    cluster_ips: &BTreeSet<IpAddr>,
) -> Plan {
    if !held.is_compared {
        return plan(held, desired);
    }
    let changes = Changes::among(held, desired, ports, cluster_ips);
    carry_out(held, desired, &changes)
}

fn carry_out(held: &mut Held, desired: &Desired, changes: &Changes<'_>) -> Plan {
    let mut planner = Planner {
        giving_away: HashSet::new(),
        given_away: HashSet::new(),
        held,
        plan: Plan { ports: changes.ports(), ..Plan::default() },
        retired: Vec::new(),
        retired_ranges: BTreeSet::new(),
        stale: BTreeSet::new(),
    };
    (planner.given_away, planner.giving_away) = changes.given_away(planner.held);
    planner.remove_unwanted(desired, changes);
    planner.drop_ports(&changes.gone, false);
    // Who takes an address over goes before who gives it away, as far as they do not do both.
    for giving in [false, true] {
        for (name, port) in &changes.placed {
            if planner.is_giving_away(changes, name) == giving {
                planner.place(name, port);
            }
        }
    }
    planner.mark_cluster_ips(&changes.marked);
    planner.drop_ports(&changes.gone, true);
    planner.remove_retired_ranges();
    planner.renew_stale();
    for room in std::mem::take(&mut planner.retired) {
        planner.held.rest(room);
    }
    let mut plan = planner.plan;
    plan.shortages_changed = held.shortages.take_changed();
    // What was tried in vain, and needs more than was thought, leaves room to others too.
    plan.makes_room = (!plan.ops.is_empty() || plan.shortages_changed) && {
        let (ports, cluster_ips) = held.shortages.worth_a_try(held);
        !ports.is_empty() || !cluster_ips.is_empty()
    };
    plan
}

/// The entry that marks a ClusterIP as one.
pub fn whole_address_entry(key: &ServiceKey) -> ServiceEntry {
    sealed(key, ServiceEntry { flags: flags::WHOLE_ADDRESS, ..ServiceEntry::default() })
}

/// An address's kind and policies, as an entry carries them.
fn entry_flags(frontend: &Frontend) -> u32 {
    let mut bits = frontend.kind.to_flags();
    for (set, bit) in [
        (frontend.internal == Reach::Node, flags::INTERNAL_LOCAL),
        (frontend.external == Reach::Node, flags::EXTERNAL_LOCAL),
        (frontend.restricted, flags::SOURCE_RANGES),
        (frontend.kind == FrontendKind::LoopbackNodePort, flags::HOST_ONLY),
    ] {
        if set {
            bits |= bit;
        }
    }
    bits
}

fn sealed(key: &ServiceKey, mut entry: ServiceEntry) -> ServiceEntry {
    entry.sealed = entry.seal(key);
    entry
}

struct Planner<'a> {
    held: &'a mut Held,
    plan: Plan,
    /// Ids of which an address goes over to another port: their lists are read until that is done.
    giving_away: HashSet<u32>,
    /// These addresses.
    given_away: HashSet<ServiceKey>,
    /// What may rest only when every operation of this plan is done.
    retired: Vec<Room>,
    /// Source ranges that may go only then.
    retired_ranges: BTreeSet<RangeKey>,
    /// Ids that lead elsewhere than their flows think.
    stale: BTreeSet<u32>,
}

impl Planner<'_> {
    fn push(&mut self, op: Op) {
        self.plan.ops.push(op);
    }

    fn is_giving_away(&self, changes: &Changes<'_>, name: &PortName) -> bool {
        changes.id_of(name).is_some_and(|id| self.giving_away.contains(&id))
    }

    fn remove_entry(&mut self, key: ServiceKey) {
        if let Some(entry) = self.held.entries.remove(&key) {
            if key.is_whole_address() {
                self.held.cluster_ips.remove(&address::unmap(key.ip));
            } else {
                self.stale.insert(entry.id);
            }
            self.push(Op::RemoveService { key });
        }
    }

    /// Ports before the ClusterIPs they are on: what is on its way out refuses, and leaks nothing.
    fn remove_unwanted(&mut self, desired: &Desired, changes: &Changes<'_>) {
        let leftover = std::mem::take(&mut self.held.leftover);
        for (range, prefix_len) in leftover.ranges {
            self.held.source_ranges -= 1;
            self.push(Op::RemoveSourceRange { range, prefix_len });
        }
        self.retired.extend(leftover.rooms);
        let mut gone: Vec<ServiceKey> = (changes.unmarked.iter())
            .map(|ip| ServiceKey::whole_address(address::map(*ip)))
            .chain(changes.unwanted(self.held))
            .chain(leftover.keys.into_iter().filter(|key| {
                if key.is_whole_address() {
                    !desired.cluster_ips.contains(&address::unmap(key.ip))
                } else {
                    !changes.is_wanted(key)
                }
            }))
            .collect();
        gone.sort_by_key(|key| (key.is_whole_address(), *key));
        for key in gone {
            self.remove_entry(key);
        }
    }

    /// Forgets the ports that nobody wants: early those that no address refers to any more, late
    /// those whose addresses first had to be taken over.
    fn drop_ports(&mut self, gone: &[PortName], late: bool) {
        for name in gone {
            let Some(port) = self.held.ports.get(name) else {
                continue;
            };
            if !late && self.giving_away.contains(&port.id) {
                continue;
            }
            let Some(port) = self.held.ports.remove(name) else {
                continue;
            };
            self.stale.remove(&port.id);
            self.push(Op::Renew { id: port.id });
            if late && !port.source_ranges.is_empty() {
                // Whoever found the id a moment ago must still find the ranges.
                self.wait();
            }
            self.remove_ranges(&port.source_ranges);
            self.push(Op::RemoveName { id: port.id });
            self.held.ids.rest(port.id);
            self.held.rest(Room::Endpoints(port.endpoints));
            self.held.rest(Room::Endpoints(port.local));
            self.held.rest(Room::Maglev(port.maglev));
        }
    }

    fn remove_retired_ranges(&mut self) {
        let ranges = std::mem::take(&mut self.retired_ranges);
        if !ranges.is_empty() {
            self.wait();
            self.remove_ranges(&ranges);
        }
    }

    /// Those that lost an address, but not their list.
    fn renew_stale(&mut self) {
        for id in std::mem::take(&mut self.stale) {
            self.push(Op::Renew { id });
        }
    }

    /// What rests was given up by an operation before this one, and is free after it.
    fn wait(&mut self) {
        self.push(Op::WaitForReaders);
        self.held.spans.wake();
        self.held.maglev.wake();
        self.held.ids.wake();
    }

    fn mark_cluster_ips(&mut self, missing: &[IpAddr]) {
        for ip in missing {
            let key = ServiceKey::whole_address(address::map(*ip));
            let is_new = !self.held.entries.contains_key(&key);
            let is_full = is_new && self.held.room(Limit::Services) == 0;
            self.held.shortages.set_cluster_ip(*ip, is_full);
            if is_full {
                continue;
            }
            let entry = whole_address_entry(&key);
            self.held.entries.insert(key, entry);
            self.held.cluster_ips.insert(*ip);
            self.push(Op::SetService { key, entry });
        }
    }
}

/// The lists of a port by its name, for a summary of what is held.
pub fn port_names(held: &Held) -> BTreeMap<u32, &PortName> {
    held.ports.iter().map(|(name, port)| (port.id, name)).collect()
}
