//! The arithmetic of choosing an endpoint from a span, without touching a map.

use crate::{AddressPort, Endpoint, Span};

/// Rounds of [`find`]: enough for any span of at most [`SPAN_LEN_MAX`] elements.
const FIND_ROUNDS: u32 = 17;

/// Longest list of endpoints one service port may have. Kubernetes is tested to 5,000 a Service.
pub const SPAN_LEN_MAX: u32 = (1 << (FIND_ROUNDS - 1)) - 1;

/// The index of the endpoint that `random` stands for: every endpoint equally likely, without a
/// division. `None` for an empty span.
#[inline(always)]
pub const fn pick(span: Span, random: u32) -> Option<u32> {
    if span.len == 0 {
        return None;
    }
    // The product of two 32-bit numbers, shifted down by 32: always less than `len`.
    let offset = (random as u64).wrapping_mul(span.len as u64) >> 32;
    Some(span.start.wrapping_add(offset as u32))
}

/// Slots of the table of a service port with this many endpoints, for the consistent choice.
///
/// A prime, as Maglev needs (Eisenbud et al., NSDI 2016, 3.4), and at least ten slots an endpoint,
/// so that their shares differ little. The same number on every node, or nodes would not agree;
/// two classes only, as all flows move when a list crosses from one to the other.
///
/// Small lists have no smaller class, though 2,000 tables fill 16 MiB: with 1,021 slots the share of
/// flows that move beyond the least possible when one of N endpoints leaves is twice as large, 2.5 %
/// instead of 1.1 % for N = 10 and 5.0 % instead of 2.4 % for N = 50, and shares of 100 endpoints
/// differ by a tenth. Memory can be added (`--max-maglev-blocks`), slots of a service cannot.
pub const fn maglev_slots(endpoints: u32) -> u32 {
    match endpoints {
        0 | 1 => 0,
        2..=400 => 4093,
        _ => 65_521,
    }
}

/// Slots in one element of the `maglev` array, whose elements are multiples of 8 bytes.
pub const SLOTS_PER_BLOCK: u32 = 4;

/// Blocks that hold so many slots.
pub const fn maglev_blocks(slots: u32) -> u32 {
    slots.div_ceil(SLOTS_PER_BLOCK)
}

/// The slot that a flow's hash leads to.
#[inline(always)]
pub const fn slot(slots: u32, hash: u32) -> u32 {
    ((hash as u64).wrapping_mul(slots as u64) >> 32) as u32
}

/// A hash of what is the same for a flow on every node: client and protocol, not the address of
/// the service, which for a node port is a different one on each node.
#[inline(always)]
pub const fn flow_hash(client: &AddressPort, protocol: u8) -> u32 {
    let (high, low, port) = client.order();
    let mut sum = high ^ low.rotate_left(29) ^ (((port as u64) << 8) | protocol as u64);
    // The finalizer of splitmix64: every bit of the input reaches every bit of the output.
    sum = (sum ^ (sum >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    sum = (sum ^ (sum >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((sum ^ (sum >> 31)) >> 32) as u32
}

/// The element of the sorted span at the address `wanted`, by binary search; `read` returns the
/// element at an index of the array.
#[inline(always)]
pub fn find(
    span: Span,
    wanted: &AddressPort,
    read: impl Fn(u32) -> Option<Endpoint>,
) -> Option<Endpoint> {
    let wanted = wanted.order();
    let (mut low, mut high) = (0, span.len);
    // A bounded loop, for the verifier.
    for _ in 0..FIND_ROUNDS {
        if low >= high {
            return None;
        }
        let middle = low + ((high - low) >> 1);
        let element = read(span.start.wrapping_add(middle))?;
        let found = element.at().order();
        if found == wanted {
            return Some(element);
        }
        if found < wanted {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    None
}
