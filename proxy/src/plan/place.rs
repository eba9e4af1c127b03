//! One port: its lists, its table, its source ranges, then its addresses, then what it had before.

use std::{collections::BTreeSet, sync::Arc};

use podium_proxy_ebpf::{Endpoint, ServiceEntry, ServiceKey, Span, flags};

use super::{
    Limit, Op, Planner, entry_flags,
    held::{HeldPort, Room, blocks, frontend_of, wanted_slots},
    maglev,
    ranges::{self, RangeKey},
    sealed,
    shortages::Shortage,
};
use crate::model::{Frontend, PortName, ServicePort};

impl Planner<'_> {
    pub(super) fn place(&mut self, name: &PortName, port: &Arc<ServicePort>) {
        let old = self.held.ports.get(name).cloned();
        match self.prepare(name, port, old.as_ref()) {
            Ok((new, shortage)) => {
                self.held.shortages.set_port(name, shortage);
                self.swing(name, port, old, new);
            }
            Err(shortage) => {
                self.held.shortages.set_port(name, Some(shortage));
                self.keep_closed(name, port);
            }
        }
    }

    /// Makes everything ready that no entry refers to yet. A table there is no room for is a
    /// shortage, but no obstacle.
    fn prepare(
        &mut self,
        name: &PortName,
        port: &Arc<ServicePort>,
        old: Option<&HeldPort>,
    ) -> Result<(HeldPort, Option<Shortage>), Shortage> {
        let new_keys = (port.addresses.keys())
            .filter(|at| !self.held.entries.contains_key(&ServiceKey::new(at, name.protocol)))
            .count();
        if self.held.entries.len() + new_keys > self.held.limits.services as usize {
            return Err(Shortage::new(Limit::Services, new_keys));
        }
        // Whose the ranges are does not matter for their number.
        let ranges = ranges::wanted(old.map_or(0, |old| old.id), port);
        let new_ranges = new_ranges(&ranges, old);
        if new_ranges > self.held.room(Limit::SourceRanges) as usize {
            return Err(Shortage::new(Limit::SourceRanges, new_ranges));
        }
        let [endpoints, local] = self.lists(port, old)?;
        let id = match old {
            Some(old) => old.id,
            None => match self.name(name) {
                Some(id) => id,
                None => {
                    self.held.spans.give_back(endpoints);
                    self.held.spans.give_back(local);
                    // No id is free where there is room for entries, or the name is none: what may
                    // change that is found when everything is compared.
                    return Err(Shortage { limit: Limit::Services, need: u32::MAX });
                }
            },
        };
        let source_ranges = ranges::wanted(id, port);
        self.add_ranges(&source_ranges, old);
        let maglev = self.table(name, port, old);
        let shortage = maglev.err();
        let port = HeldPort {
            id,
            endpoints,
            local,
            maglev: maglev.unwrap_or_default(),
            source_ranges,
            content: Arc::clone(port),
            settled: shortage.is_none(),
        };
        Ok((port, shortage))
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
        if new_ranges(&wanted, Some(&old)) <= self.held.room(Limit::SourceRanges) as usize {
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

    /// Both lists of a port, the old ones if they are still the same. Where there is no room for
    /// both nothing is written.
    fn lists(&mut self, port: &ServicePort, old: Option<&HeldPort>) -> Result<[Span; 2], Shortage> {
        let same = |list: fn(&ServicePort) -> &Vec<Endpoint>| {
            old.filter(|old| list(&old.content) == list(port))
        };
        let lists = [
            (&port.endpoints, same(|port| &port.endpoints).map(|old| old.endpoints)),
            (&port.local, same(|port| &port.local).map(|old| old.local)),
        ];
        let mut spans = [Span::default(); 2];
        for index in 0..lists.len() {
            let (list, kept) = lists[index];
            let Some(span) = kept.or_else(|| self.allocate(list.len())) else {
                if index > 0 && lists[0].1.is_none() {
                    self.held.spans.give_back(spans[0]);
                }
                let new = lists.iter().filter(|(_, kept)| kept.is_none());
                return Err(Shortage::new(Limit::Endpoints, new.map(|(list, _)| list.len()).sum()));
            };
            spans[index] = span;
        }
        for ((list, kept), span) in lists.iter().zip(spans) {
            if kept.is_none() && span.len > 0 {
                self.push(Op::WriteEndpoints { start: span.start, endpoints: list.to_vec() });
            }
        }
        Ok(spans)
    }

    fn allocate(&mut self, len: usize) -> Option<Span> {
        let len = u32::try_from(len).ok()?;
        if len == 0 {
            return Some(Span::default());
        }
        if let Some(span) = self.held.spans.allocate(len) {
            return Some(span);
        }
        if !self.held.spans.is_resting() {
            return None;
        }
        self.wait();
        self.held.spans.allocate(len)
    }

    /// The table of a port, the old one if it still fits. Where there is no room for one the kernel
    /// chooses from the list itself.
    fn table(
        &mut self,
        name: &PortName,
        port: &ServicePort,
        old: Option<&HeldPort>,
    ) -> Result<Span, Shortage> {
        let slots = wanted_slots(port);
        if slots == 0 {
            return Ok(Span::default());
        }
        if let Some(old) = old
            && old.maglev.len == slots
            && (old.content.endpoints.iter().map(Endpoint::at))
                .eq(port.endpoints.iter().map(Endpoint::at))
        {
            return Ok(old.maglev);
        }
        let len = blocks(Span { start: 0, len: slots }).len;
        let mut span = self.held.maglev.allocate(len);
        if span.is_none() && self.held.maglev.is_resting() {
            self.wait();
            span = self.held.maglev.allocate(len);
        }
        let Some(span) = span else {
            return Err(Shortage { limit: Limit::Maglev, need: len });
        };
        let table = maglev::table(name, &port.endpoints);
        self.push(Op::WriteMaglev { start: span.start, slots: table });
        Ok(Span { start: span.start, len: slots })
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

/// How many ranges the trie does not hold for the port yet.
fn new_ranges(wanted: &BTreeSet<RangeKey>, old: Option<&HeldPort>) -> usize {
    match old {
        Some(old) => wanted.difference(&old.source_ranges).count(),
        None => wanted.len(),
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
