//! One port: its lists, its table, its source ranges, then its addresses, then what it had before.

use std::{collections::BTreeSet, sync::Arc};

use podium_proxy_ebpf::{Endpoint, ServiceEntry, ServiceKey, Span, flags};

use super::{
    Limit, Op, Planner, entry_flags,
    held::{HeldPort, Room, blocks, frontend_of, wanted_slots},
    maglev,
    ranges::{self, RangeKey},
    sealed,
};
use crate::model::{Frontend, PortName, ServicePort};

impl Planner<'_> {
    pub(super) fn place(&mut self, name: &PortName, port: &Arc<ServicePort>) {
        let old = self.held.ports.get(name).cloned();
        match self.prepare(name, port, old.as_ref()) {
            Ok(new) => self.swing(name, port, old, new),
            Err(limit) => {
                self.keep_closed(name, port);
                let what = match limit {
                    Limit::Services => "the services map",
                    Limit::Endpoints => "the endpoints array",
                    Limit::Maglev => "the array of tables",
                    Limit::SourceRanges => "the map of source ranges",
                };
                let message =
                    format!("{what} is full: raise {}; its old state stays", limit.flag());
                self.problem(limit, format!("Service {}", name.service), message);
            }
        }
    }

    /// Makes everything ready that no entry refers to yet.
    fn prepare(
        &mut self,
        name: &PortName,
        port: &Arc<ServicePort>,
        old: Option<&HeldPort>,
    ) -> Result<HeldPort, Limit> {
        let new_keys = (port.addresses.keys())
            .filter(|at| !self.held.entries.contains_key(&ServiceKey::new(at, name.protocol)))
            .count();
        if self.held.entries.len() + new_keys > self.held.limits.services as usize {
            return Err(Limit::Services);
        }
        // Whose the ranges are does not matter for their number.
        let ranges = ranges::wanted(old.map_or(0, |old| old.id), port);
        if !self.has_room_for(&ranges, old) {
            return Err(Limit::SourceRanges);
        }
        let endpoints = match old {
            Some(old) if old.content.endpoints == port.endpoints => old.endpoints,
            _ => self.write(&port.endpoints).ok_or(Limit::Endpoints)?,
        };
        let give_up = |planner: &mut Self, written: Span, before: Option<Span>| {
            if before != Some(written) {
                planner.held.rest(Room::Endpoints(written));
            }
        };
        let local = match old {
            Some(old) if old.content.local == port.local => old.local,
            _ => match self.write(&port.local) {
                Some(local) => local,
                None => {
                    give_up(self, endpoints, old.map(|old| old.endpoints));
                    return Err(Limit::Endpoints);
                }
            },
        };
        let id = match old {
            Some(old) => old.id,
            None => match self.name(name) {
                Some(id) => id,
                None => {
                    give_up(self, endpoints, None);
                    give_up(self, local, None);
                    return Err(Limit::Services);
                }
            },
        };
        let source_ranges = ranges::wanted(id, port);
        self.add_ranges(&source_ranges, old);
        let maglev = self.table(name, port, old);
        Ok(HeldPort {
            id,
            endpoints,
            local,
            maglev: maglev.unwrap_or_default(),
            source_ranges,
            content: Arc::clone(port),
            settled: maglev.is_some(),
        })
    }

    /// Points every address of the port at what was prepared: first those it has already, so that
    /// ranges it is to lose are gone before it takes others over.
    fn swing(
        &mut self,
        name: &PortName,
        port: &Arc<ServicePort>,
        old: Option<HeldPort>,
        new: HeldPort,
    ) {
        let (own, taken): (Vec<_>, Vec<_>) = (port.addresses.iter())
            .map(|(at, frontend)| (ServiceKey::new(at, name.protocol), frontend))
            .partition(|(key, _)| {
                self.held.entries.get(key).is_some_and(|entry| entry.id == new.id)
            });
        let mut is_opened = false;
        for (key, frontend) in own {
            is_opened |= self.set(key, frontend, &new);
        }
        if let Some(old) = &old {
            let takes_restricted = taken.iter().any(|(_, frontend)| frontend.restricted);
            self.end_ranges(old, &new, is_opened, takes_restricted);
        }
        for (key, frontend) in taken {
            self.set(key, frontend, &new);
        }
        if self.stale.remove(&new.id) {
            self.push(Op::Renew { id: new.id });
        }
        if let Some(old) = old {
            self.end(&old, &new);
        }
        self.held.ports.insert(name.clone(), new);
    }

    /// Points one address at the lists of a port; tells whether it let in only some before.
    fn set(&mut self, key: ServiceKey, frontend: &Frontend, port: &HeldPort) -> bool {
        let entry = sealed(
            &key,
            ServiceEntry {
                id: port.id,
                flags: entry_flags(frontend),
                affinity_secs: port.content.affinity_secs,
                endpoints: port.endpoints,
                local: port.local,
                maglev: port.maglev,
                sealed: 0,
            },
        );
        let before = self.held.entries.insert(key, entry);
        if before == Some(entry) {
            return false;
        }
        self.push(Op::SetService { key, entry });
        let Some(before) = before else {
            return false;
        };
        if leads_elsewhere(&before, &entry) {
            self.stale.insert(before.id);
        }
        before.flags & !entry.flags & flags::SOURCE_RANGES != 0
    }

    fn end_ranges(
        &mut self,
        old: &HeldPort,
        new: &HeldPort,
        is_opened: bool,
        takes_restricted: bool,
    ) {
        let ended: BTreeSet<RangeKey> =
            old.source_ranges.difference(&new.source_ranges).copied().collect();
        if self.giving_away.contains(&old.id) && !takes_restricted {
            self.retired_ranges.extend(ended);
        } else if !ended.is_empty() {
            if is_opened {
                // Whoever found the entry a moment ago must still find the ranges.
                self.wait();
            }
            self.remove_ranges(&ended);
        }
    }

    /// Gives up what the port does not refer to any more.
    fn end(&mut self, old: &HeldPort, new: &HeldPort) {
        for (before, after, room) in [
            (old.endpoints, new.endpoints, Room::Endpoints(old.endpoints)),
            (old.local, new.local, Room::Endpoints(old.local)),
            (old.maglev, new.maglev, Room::Maglev(old.maglev)),
        ] {
            if before == after {
                continue;
            }
            if self.giving_away.contains(&old.id) {
                self.retired.push(room);
            } else {
                self.held.rest(room);
            }
        }
    }

    /// There is no room for what the port should become. It stays as it is, but nobody gets in who
    /// is to be kept out from now on; and addresses that it was to take over from others lead
    /// nowhere, as the others do not want them any more.
    fn keep_closed(&mut self, name: &PortName, port: &ServicePort) {
        let old = self.held.ports.get(name).cloned();
        let id = old.as_ref().map(|old| old.id);
        for address in port.addresses.keys() {
            let key = ServiceKey::new(address, name.protocol);
            if self.held.entries.get(&key).is_some_and(|entry| Some(entry.id) != id) {
                self.remove_entry(key);
            }
        }
        let Some(mut old) = old else {
            return;
        };
        let mut content = ServicePort::clone(&old.content);
        let wanted = ranges::wanted(old.id, port);
        if self.has_room_for(&wanted, Some(&old)) {
            self.add_ranges(&wanted, Some(&old));
            old.source_ranges.extend(wanted);
            content.source_ranges = old.source_ranges.iter().filter_map(ranges::from_abi).collect();
        }
        for (address, frontend) in &port.addresses {
            let key = ServiceKey::new(address, name.protocol);
            let Some(before) = self.held.entries.get(&key).copied() else {
                continue;
            };
            // Where an interrupted change left it with other lists, it gets those of the rest.
            let mut entry = ServiceEntry {
                affinity_secs: content.affinity_secs,
                endpoints: old.endpoints,
                local: old.local,
                maglev: old.maglev,
                ..before
            };
            if frontend.restricted {
                entry.flags |= flags::SOURCE_RANGES;
            }
            let Some(as_it_is) = frontend_of(entry.flags) else {
                self.remove_entry(key);
                continue;
            };
            content.addresses.insert(*address, as_it_is);
            let entry = sealed(&key, entry);
            if entry != before {
                self.held.entries.insert(key, entry);
                self.push(Op::SetService { key, entry });
                self.stale.insert(old.id);
            }
        }
        old.content = Arc::new(content);
        old.settled = false;
        self.held.ports.insert(name.clone(), old);
    }

    fn write(&mut self, endpoints: &[Endpoint]) -> Option<Span> {
        let len = u32::try_from(endpoints.len()).ok()?;
        if len == 0 {
            return Some(Span::default());
        }
        let span = match self.held.spans.allocate(len) {
            Some(span) => span,
            None if self.held.spans.is_resting() => {
                self.wait();
                self.held.spans.allocate(len)?
            }
            None => return None,
        };
        self.push(Op::WriteEndpoints { start: span.start, endpoints: endpoints.to_vec() });
        Some(span)
    }

    /// The table of a port, the old one if it still fits; `None`: it needs one, and there is no
    /// room. The kernel then chooses from the list itself.
    fn table(
        &mut self,
        name: &PortName,
        port: &ServicePort,
        old: Option<&HeldPort>,
    ) -> Option<Span> {
        let slots = wanted_slots(port);
        if slots == 0 {
            return Some(Span::default());
        }
        if let Some(old) = old
            && old.maglev.len == slots
            && (old.content.endpoints.iter().map(Endpoint::at))
                .eq(port.endpoints.iter().map(Endpoint::at))
        {
            return Some(old.maglev);
        }
        let len = blocks(Span { start: 0, len: slots }).len;
        let mut span = self.held.maglev.allocate(len);
        if span.is_none() && self.held.maglev.is_resting() {
            self.wait();
            span = self.held.maglev.allocate(len);
        }
        let Some(span) = span else {
            let message = format!(
                "no room for its table of the consistent choice: raise {}; until then more flows \
                 from outside than need to move when its endpoints change",
                Limit::Maglev.flag()
            );
            self.problem(Limit::Maglev, format!("Service {}", name.service), message);
            return None;
        };
        let table = maglev::table(name, &port.endpoints);
        self.push(Op::WriteMaglev { start: span.start, slots: table });
        Some(Span { start: span.start, len: slots })
    }

    fn name(&mut self, name: &PortName) -> Option<u32> {
        let abi = Box::new(name.to_abi()?);
        let id = match self.held.ids.allocate() {
            Some(id) => id,
            None if self.held.ids.is_resting() => {
                self.wait();
                self.held.ids.allocate()?
            }
            None => return None,
        };
        self.push(Op::ResetCounter { id });
        self.push(Op::SetName { id, name: abi });
        Some(id)
    }

    fn has_room_for(&self, wanted: &BTreeSet<RangeKey>, old: Option<&HeldPort>) -> bool {
        let new = match old {
            Some(old) => wanted.difference(&old.source_ranges).count(),
            None => wanted.len(),
        };
        self.held.source_ranges as usize + new <= self.held.limits.source_ranges as usize
    }

    fn add_ranges(&mut self, wanted: &BTreeSet<RangeKey>, old: Option<&HeldPort>) {
        if let Some(old) = old
            && self.giving_away.contains(&old.id)
            && !wanted.is_subset(&old.source_ranges)
        {
            self.close_given_away(old);
        }
        for (range, prefix_len) in wanted {
            if old.is_some_and(|old| old.source_ranges.contains(&(*range, *prefix_len))) {
                continue;
            }
            self.held.source_ranges += 1;
            self.push(Op::AddSourceRange { range: *range, prefix_len: *prefix_len });
        }
    }

    /// Two ports exchange addresses, and more sources are to be let in to one of them: not to the
    /// address that it still has. That leads nowhere until its new owner takes it.
    fn close_given_away(&mut self, old: &HeldPort) {
        for address in old.content.addresses.keys() {
            let key = ServiceKey::new(address, old.content.name.protocol);
            let is_restricted = (self.held.entries.get(&key))
                .is_some_and(|entry| entry.id == old.id && entry.flags & flags::SOURCE_RANGES != 0);
            if is_restricted && self.given_away.contains(&key) {
                self.remove_entry(key);
            }
        }
    }

    pub(super) fn remove_ranges(&mut self, ended: &BTreeSet<RangeKey>) {
        for (range, prefix_len) in ended {
            self.held.source_ranges -= 1;
            self.push(Op::RemoveSourceRange { range: *range, prefix_len: *prefix_len });
        }
    }
}

/// Whether flows that follow one entry may have to look for another endpoint by the other.
fn leads_elsewhere(before: &ServiceEntry, after: &ServiceEntry) -> bool {
    const POLICIES: u32 = flags::INTERNAL_LOCAL | flags::EXTERNAL_LOCAL | flags::SOURCE_RANGES;
    before.id != after.id
        || before.endpoints != after.endpoints
        || before.local != after.local
        || (before.flags ^ after.flags) & POLICIES != 0
}
