//! From what the kernel holds to what it should hold: map operations, in order. Pure.
//!
//! The order is the point. After every single operation each service address leads to its old
//! endpoints or to its new ones: a list is written to a fresh span before an entry points at it,
//! the entry is swung in one update, and the old span rests until no program can be reading it.
//! What is to go goes first, to make room; what marks a ClusterIP as known comes last.

pub mod held;
pub mod spans;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use podium_proxy_ebpf::{
    Endpoint, FrontendKind, ServiceEntry, ServiceKey, ServiceName, SourceRange, Span, address,
    flags,
};

use crate::model::{Desired, Frontend, PortName, Problem, Reach, ServicePort};
use held::{Held, HeldPort};

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

/// What to do, and what could not be placed.
#[derive(Debug, Default)]
pub struct Plan {
    /// The operations, in the order they must be carried out.
    pub ops: Vec<Op>,
    /// Services for which a map has no room. Their old state stays.
    pub problems: Vec<Problem>,
}

/// The operations that lead from `held` to `desired`; `held` is then as it will be when all of them
/// have been carried out. Should one fail, what is held must be read from the maps again.
pub fn plan(held: &mut Held, desired: &Desired) -> Plan {
    let wanted = wanted_keys(desired);
    let mut planner = Planner {
        // An id whose address goes over to another port: its spans are read until that is done.
        giving_away: (wanted.iter())
            .filter_map(|(key, name)| {
                let id = held.entries.get(key)?.id;
                let owner = held.ports.get(*name).map(|port| port.id);
                (owner != Some(id)).then_some(id)
            })
            .collect(),
        held,
        plan: Plan::default(),
        retired: Vec::new(),
    };
    planner.remove_unwanted(desired, &wanted);
    planner.drop_ports(desired, false);
    for (name, port) in &desired.ports {
        planner.place(name, port);
    }
    planner.mark_cluster_ips(desired);
    planner.drop_ports(desired, true);
    let retired = std::mem::take(&mut planner.retired);
    for span in retired.into_iter().chain(std::mem::take(&mut planner.held.leftover)) {
        planner.held.spans.rest(span);
    }
    planner.plan
}

fn wanted_keys(desired: &Desired) -> HashMap<ServiceKey, &PortName> {
    (desired.ports.iter())
        .flat_map(|(name, port)| {
            let keys = port.addresses.keys();
            keys.map(move |address| (ServiceKey::new(address, name.protocol), name))
        })
        .collect()
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
    giving_away: HashSet<u32>,
    /// Spans that may rest only when every operation of this plan is done.
    retired: Vec<Span>,
}

impl Planner<'_> {
    fn push(&mut self, op: Op) {
        self.plan.ops.push(op);
    }

    /// Ports before the ClusterIPs they are on: what is on its way out refuses, and leaks nothing.
    fn remove_unwanted(&mut self, desired: &Desired, wanted: &HashMap<ServiceKey, &PortName>) {
        let mut gone: Vec<ServiceKey> = (self.held.entries.keys())
            .filter(|key| {
                if key.is_whole_address() {
                    !desired.cluster_ips.contains(&address::unmap(key.ip))
                } else {
                    !wanted.contains_key(*key)
                }
            })
            .copied()
            .collect();
        gone.sort_by_key(|key| (key.is_whole_address(), *key));
        for key in gone {
            self.held.entries.remove(&key);
            self.push(Op::RemoveService { key });
        }
    }

    /// Forgets the ports that nobody wants: early those that no address refers to any more, late
    /// those whose addresses first had to be taken over.
    fn drop_ports(&mut self, desired: &Desired, late: bool) {
        let gone: Vec<PortName> = (self.held.ports.iter())
            .filter(|(name, port)| {
                !desired.ports.contains_key(*name) && (late || !self.giving_away.contains(&port.id))
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(port) = self.held.ports.remove(&name) {
                self.push(Op::RemoveName { id: port.id });
                self.held.ids.rest(port.id);
                self.held.spans.rest(port.endpoints);
                self.held.spans.rest(port.local);
            }
        }
    }

    fn place(&mut self, name: &PortName, port: &Arc<ServicePort>) {
        let old = self.held.ports.get(name).cloned();
        if let Some(old) = &old
            && (Arc::ptr_eq(&old.content, port) || old.content == *port)
            && self.is_in_place(old.id, port)
        {
            // The same in content: keep the newer Arc, the next comparison is by pointer.
            if let Some(held) = self.held.ports.get_mut(name) {
                held.content = Arc::clone(port);
            }
            return;
        }
        match self.prepare(name, port, old.as_ref()) {
            Ok(new) => self.swing(name, port, old, new),
            Err(full) => self.plan.problems.push(Problem {
                object: format!("Service {}", name.service),
                field: String::new(),
                message: full.to_owned(),
            }),
        }
    }

    fn is_in_place(&self, id: u32, port: &ServicePort) -> bool {
        port.addresses.keys().all(|address| {
            let key = ServiceKey::new(address, port.name.protocol);
            self.held.entries.get(&key).is_some_and(|entry| entry.id == id)
        })
    }

    /// Makes everything ready that no entry refers to yet.
    fn prepare(
        &mut self,
        name: &PortName,
        port: &Arc<ServicePort>,
        old: Option<&HeldPort>,
    ) -> Result<HeldPort, &'static str> {
        let new_keys = (port.addresses.keys())
            .filter(|at| !self.held.entries.contains_key(&ServiceKey::new(at, name.protocol)))
            .count();
        if self.held.entries.len() + new_keys > self.held.limits.services as usize {
            return Err("the services map is full: raise --max-services; its old state stays");
        }
        const ENDPOINTS_FULL: &str =
            "the endpoints array is full: raise --max-endpoints; its old state stays";
        let endpoints = match old {
            Some(old) if old.content.endpoints == port.endpoints => old.endpoints,
            _ => self.write(&port.endpoints).ok_or(ENDPOINTS_FULL)?,
        };
        let local = match old {
            Some(old) if old.content.local == port.local => old.local,
            _ => match self.write(&port.local) {
                Some(local) => local,
                None => {
                    if old.is_none_or(|old| old.endpoints != endpoints) {
                        self.held.spans.rest(endpoints);
                    }
                    return Err(ENDPOINTS_FULL);
                }
            },
        };
        let id = match old {
            Some(old) => old.id,
            None => match self.name(name) {
                Some(id) => id,
                None => {
                    self.held.spans.rest(endpoints);
                    self.held.spans.rest(local);
                    return Err("no service id is left: raise --max-services; not served");
                }
            },
        };
        Ok(HeldPort { id, endpoints, local, content: Arc::clone(port) })
    }

    /// Points every address of the port at what was prepared.
    fn swing(
        &mut self,
        name: &PortName,
        port: &Arc<ServicePort>,
        old: Option<HeldPort>,
        new: HeldPort,
    ) {
        for (address, frontend) in &port.addresses {
            let key = ServiceKey::new(address, name.protocol);
            let entry = sealed(
                &key,
                ServiceEntry {
                    id: new.id,
                    flags: entry_flags(frontend),
                    affinity_secs: port.affinity_secs,
                    endpoints: new.endpoints,
                    local: new.local,
                    maglev: Span::default(),
                    sealed: 0,
                },
            );
            if self.held.entries.insert(key, entry) != Some(entry) {
                self.push(Op::SetService { key, entry });
            }
        }
        if let Some(old) = old {
            for (before, after) in [(old.endpoints, new.endpoints), (old.local, new.local)] {
                if before == after {
                    continue;
                }
                if self.giving_away.contains(&old.id) {
                    self.retired.push(before);
                } else {
                    self.held.spans.rest(before);
                }
            }
        }
        self.held.ports.insert(name.clone(), new);
    }

    fn write(&mut self, endpoints: &[Endpoint]) -> Option<Span> {
        let len = u32::try_from(endpoints.len()).ok()?;
        if len == 0 {
            return Some(Span::default());
        }
        let span = match self.held.spans.allocate(len) {
            Some(span) => span,
            None => {
                self.wake();
                self.held.spans.allocate(len)?
            }
        };
        self.push(Op::WriteEndpoints { start: span.start, endpoints: endpoints.to_vec() });
        Some(span)
    }

    fn name(&mut self, name: &PortName) -> Option<u32> {
        let abi = Box::new(name.to_abi()?);
        let id = match self.held.ids.allocate() {
            Some(id) => id,
            None => {
                self.wake();
                self.held.ids.allocate()?
            }
        };
        self.push(Op::ResetCounter { id });
        self.push(Op::SetName { id, name: abi });
        Some(id)
    }

    /// Every span and id that rests was given up by an operation before this one.
    fn wake(&mut self) {
        if self.held.spans.is_resting() || self.held.ids.is_resting() {
            self.push(Op::WaitForReaders);
            self.held.spans.wake();
            self.held.ids.wake();
        }
    }

    fn mark_cluster_ips(&mut self, desired: &Desired) {
        for ip in &desired.cluster_ips {
            let key = ServiceKey::whole_address(address::map(*ip));
            let entry = whole_address_entry(&key);
            if self.held.entries.get(&key) == Some(&entry) {
                continue;
            }
            if self.held.entries.len() >= self.held.limits.services as usize {
                self.plan.problems.push(Problem {
                    object: format!("ClusterIP {ip}"),
                    field: String::new(),
                    message: "the services map is full: raise --max-services; its unknown ports \
                              are not refused"
                        .to_owned(),
                });
                continue;
            }
            self.held.entries.insert(key, entry);
            self.push(Op::SetService { key, entry });
        }
    }
}

/// The lists of a port by its name, for a summary of what is held.
pub fn port_names(held: &Held) -> BTreeMap<u32, &PortName> {
    held.ports.iter().map(|(name, port)| (port.id, name)).collect()
}
