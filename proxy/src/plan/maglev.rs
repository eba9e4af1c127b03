//! The table for the consistent choice: that of Maglev (Eisenbud et al., NSDI 2016, section 3.4).
//! Pure: every node and every build makes the same one from the same list.
//!
//! Each endpoint has an order of preference over all slots, a permutation made from its address and
//! the service port's name. In turn each takes the first slot of its order that is still free. When
//! an endpoint goes, the others take the same slots as before, but for few.

use podium_proxy_ebpf::{AddressPort, Endpoint, choice};

use crate::model::PortName;

/// A slot that nobody took: more than any offset ([`choice::SPAN_LEN_MAX`]).
const FREE: u16 = u16::MAX;

/// The table of a service port: for each slot the offset into `endpoints`, which are sorted. Empty
/// where none is needed.
pub fn table(name: &PortName, endpoints: &[Endpoint]) -> Vec<u16> {
    let slots = slots(endpoints);
    if slots == 0 {
        return Vec::new();
    }
    let seed = seed(name);
    let mut orders: Vec<Order> = (endpoints.iter())
        .take(choice::SPAN_LEN_MAX as usize)
        .map(|endpoint| Order::new(seed, &endpoint.at(), slots))
        .collect();
    let mut table = vec![FREE; slots as usize];
    let mut left = slots;
    loop {
        for (order, offset) in orders.iter_mut().zip(0_u16..) {
            let slot = order.next_free(&table);
            table[slot] = offset;
            left -= 1;
            if left == 0 {
                return table;
            }
        }
    }
}

/// How many slots the table of a list has.
pub fn slots(endpoints: &[Endpoint]) -> u32 {
    choice::maglev_slots(u32::try_from(endpoints.len()).unwrap_or(u32::MAX))
}

/// An endpoint's order of preference: `(first + n * step) mod slots`, which meets every slot, as
/// their number is a prime.
struct Order {
    next: usize,
    step: usize,
    slots: usize,
}

impl Order {
    fn new(seed: u64, at: &AddressPort, slots: u32) -> Self {
        let (high, low, port) = at.order();
        let hash = mix(mix(mix(seed ^ high) ^ low) ^ u64::from(port));
        Self {
            next: scaled(hash >> 32, slots),
            step: 1 + scaled(hash & 0xffff_ffff, slots - 1),
            slots: slots as usize,
        }
    }

    fn next_free(&mut self, table: &[u16]) -> usize {
        loop {
            let slot = self.next;
            self.next += self.step;
            if self.next >= self.slots {
                self.next -= self.slots;
            }
            if table[slot] == FREE {
                return slot;
            }
        }
    }
}

/// From 32 random bits to a number below `below`.
const fn scaled(bits: u64, below: u32) -> usize {
    ((bits * below as u64) >> 32) as usize
}

/// What makes one service's table differ from that of another with the same endpoints: FNV-1a over
/// the name, its parts apart.
fn seed(name: &PortName) -> u64 {
    let parts = [&name.service.namespace, &name.service.name, &name.port];
    let kind = [name.protocol as u8, name.family as u8];
    let bytes = parts.into_iter().flat_map(|part| part.bytes().chain([0])).chain(kind);
    mix(bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}

/// The finalizer of splitmix64: every bit of the input reaches every bit of the output.
const fn mix(mut sum: u64) -> u64 {
    sum = (sum ^ (sum >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    sum = (sum ^ (sum >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    sum ^ (sum >> 31)
}

#[cfg(test)]
mod tests;
