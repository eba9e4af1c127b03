//! A set of numbers, some taken. The lowest ones are left for those who ask for a certain number
//! (KEP-3070, KEP-3668): unasked, one is taken from above, and from there only when all else is gone.

use std::collections::BTreeSet;

use rand::Rng as _;

/// So many random tries before looking for a free number in order.
const RANDOM_TRIES: usize = 16;

/// Numbers from 0 up to a size.
pub(super) struct Pool {
    size: u128,
    reserved: u128,
    taken: BTreeSet<u128>,
}

impl Pool {
    pub(super) fn new(size: u128, reserved: u128) -> Self {
        Self { size, reserved: reserved.min(size), taken: BTreeSet::new() }
    }

    pub(super) fn size(&self) -> u128 {
        self.size
    }

    /// Takes a certain number; false if it is taken or there is no such number.
    pub(super) fn take(&mut self, number: u128) -> bool {
        number < self.size && self.taken.insert(number)
    }

    pub(super) fn release(&mut self, number: u128) {
        self.taken.remove(&number);
    }

    /// Takes any number, from above the reserved ones while there is one.
    pub(super) fn take_any(&mut self) -> Option<u128> {
        let number =
            self.free_in(self.reserved, self.size).or_else(|| self.free_in(0, self.reserved))?;
        self.taken.insert(number);
        Some(number)
    }

    fn free_in(&self, from: u128, to: u128) -> Option<u128> {
        if from >= to {
            return None;
        }
        let mut random = rand::rng();
        let tried = (0..RANDOM_TRIES)
            .map(|_| random.random_range(from..to))
            .find(|number| !self.taken.contains(number));
        tried.or_else(|| {
            // The first gap: where the taken numbers are no longer consecutive.
            let mut next = from;
            for number in self.taken.range(from..to) {
                if *number != next {
                    break;
                }
                next += 1;
            }
            (next < to).then_some(next)
        })
    }
}
