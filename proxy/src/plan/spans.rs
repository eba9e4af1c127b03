//! Room in the endpoints array and ids, both with a rest between two owners.
//!
//! A program that looked up an entry just before it was replaced may still follow it. What it could
//! reach is not given out again before [`Spans::wake`], which the plan precedes with a wait.

use std::collections::{BTreeMap, BTreeSet};

use podium_proxy_ebpf::Span;

/// The endpoints array, as free and resting spans; all else is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spans {
    /// Start → length; neighbours are joined.
    free: BTreeMap<u32, u32>,
    /// Of all these together.
    free_len: u32,
    resting: Vec<Span>,
    /// Of all these together.
    resting_len: u32,
}

impl Spans {
    /// An array of `len` elements, all free.
    pub fn new(len: u32) -> Self {
        let free = if len == 0 { BTreeMap::new() } else { BTreeMap::from([(0, len)]) };
        Self { free, free_len: len, resting: Vec::new(), resting_len: 0 }
    }

    /// The first gap with room for `len` elements.
    pub fn allocate(&mut self, len: u32) -> Option<Span> {
        let (start, room) = (self.free.iter())
            .find(|(_, room)| **room >= len)
            .map(|(start, room)| (*start, *room))?;
        self.free.remove(&start);
        if room > len {
            self.free.insert(start + len, room - len);
        }
        self.free_len -= len;
        Some(Span { start, len })
    }

    /// Takes a span that is in use already; `false` if not all of it is free.
    pub fn reserve(&mut self, span: Span) -> bool {
        if span.len == 0 {
            return true;
        }
        let Some(end) = span.start.checked_add(span.len) else {
            return false;
        };
        let Some((start, room)) =
            self.free.range(..=span.start).next_back().map(|(start, room)| (*start, *room))
        else {
            return false;
        };
        if start + room < end {
            return false;
        }
        self.free.remove(&start);
        if start < span.start {
            self.free.insert(start, span.start - start);
        }
        if end < start + room {
            self.free.insert(end, start + room - end);
        }
        self.free_len -= span.len;
        true
    }

    /// Gives a span up; it is not free before the next [`Spans::wake`].
    pub fn rest(&mut self, span: Span) {
        if span.len > 0 {
            self.resting.push(span);
            self.resting_len += span.len;
        }
    }

    /// Whether anything rests.
    pub const fn is_resting(&self) -> bool {
        !self.resting.is_empty()
    }

    /// Frees what rests: no program can be reading it any more.
    pub fn wake(&mut self) {
        self.resting_len = 0;
        for span in std::mem::take(&mut self.resting) {
            self.give_back(span);
        }
    }

    /// Frees a span that no entry ever referred to.
    pub fn give_back(&mut self, span: Span) {
        let Span { mut start, mut len } = span;
        if len == 0 {
            return;
        }
        self.free_len += len;
        if let Some((before, room)) =
            self.free.range(..start).next_back().map(|(before, room)| (*before, *room))
            && before + room == start
        {
            self.free.remove(&before);
            start = before;
            len += room;
        }
        if let Some(room) = self.free.remove(&(start + len)) {
            len += room;
        }
        self.free.insert(start, len);
    }

    /// Elements that are not in use, though they may rest.
    pub const fn unused_len(&self) -> u32 {
        self.free_len + self.resting_len
    }

    /// The most that there may be room for in one piece: what rests may join what is free.
    pub fn gap_max(&self) -> u32 {
        if self.is_resting() {
            return self.unused_len();
        }
        self.free.values().copied().max().unwrap_or(0)
    }

    /// Elements that are neither in use nor resting.
    pub const fn free_len(&self) -> u32 {
        self.free_len
    }
}

/// Ids below a limit: indexes of counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    limit: u32,
    /// The lowest that was never used.
    fresh: u32,
    free: BTreeSet<u32>,
    resting: BTreeSet<u32>,
}

impl Ids {
    /// Ids from 0 to `limit`, all free.
    pub const fn new(limit: u32) -> Self {
        Self { limit, fresh: 0, free: BTreeSet::new(), resting: BTreeSet::new() }
    }

    /// A free id.
    pub fn allocate(&mut self) -> Option<u32> {
        if let Some(id) = self.free.pop_first() {
            return Some(id);
        }
        let id = self.fresh;
        (id < self.limit).then(|| {
            self.fresh += 1;
            id
        })
    }

    /// Takes an id that is in use already; `false` if it is not free.
    pub fn reserve(&mut self, id: u32) -> bool {
        if id >= self.limit {
            return false;
        }
        while self.fresh <= id {
            self.free.insert(self.fresh);
            self.fresh += 1;
        }
        self.free.remove(&id)
    }

    /// Gives an id up; it is not free before the next [`Ids::wake`].
    pub fn rest(&mut self, id: u32) {
        self.resting.insert(id);
    }

    /// Whether any id rests.
    pub fn is_resting(&self) -> bool {
        !self.resting.is_empty()
    }

    /// Frees what rests.
    pub fn wake(&mut self) {
        self.free.append(&mut self.resting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_rest_before_they_are_given_out_again() {
        let mut spans = Spans::new(10);
        let first = spans.allocate(6).unwrap();
        let second = spans.allocate(4).unwrap();
        assert_eq!(spans.allocate(1), None);
        spans.rest(first);
        assert_eq!(spans.allocate(1), None);
        spans.wake();
        assert_eq!(spans.allocate(2), Some(Span { start: 0, len: 2 }));
        spans.rest(second);
        spans.wake();
        assert_eq!(spans.allocate(8), Some(Span { start: 2, len: 8 }), "neighbours are joined");
    }

    #[test]
    fn spans_in_use_are_reserved_once() {
        let mut spans = Spans::new(10);
        assert!(spans.reserve(Span { start: 3, len: 4 }));
        assert!(!spans.reserve(Span { start: 6, len: 2 }));
        assert!(!spans.reserve(Span { start: 9, len: 2 }));
        assert!(!spans.reserve(Span { start: u32::MAX, len: 2 }));
        assert!(spans.reserve(Span { start: 7, len: 3 }));
        assert_eq!(spans.free_len(), 3);
    }

    #[test]
    fn ids_rest_too() {
        let mut ids = Ids::new(3);
        assert!(ids.reserve(1));
        assert!(!ids.reserve(1));
        assert!(!ids.reserve(3));
        assert_eq!((ids.allocate(), ids.allocate(), ids.allocate()), (Some(0), Some(2), None));
        ids.rest(0);
        assert_eq!(ids.allocate(), None);
        ids.wake();
        assert_eq!(ids.allocate(), Some(0));
    }
}
