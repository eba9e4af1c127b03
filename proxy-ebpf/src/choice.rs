//! The arithmetic of choosing an endpoint from a span, without touching a map.

use crate::{AddressPort, Span};

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

/// Whether `wanted` is an element of the sorted span, by binary search; `read` returns the
/// element at an index of the array.
#[inline(always)]
pub fn find(span: Span, wanted: &AddressPort, read: impl Fn(u32) -> Option<AddressPort>) -> bool {
    let wanted = wanted.order();
    let (mut low, mut high) = (0, span.len);
    // A bounded loop, for the verifier.
    for _ in 0..FIND_ROUNDS {
        if low >= high {
            return false;
        }
        let middle = low + ((high - low) >> 1);
        let Some(found) = read(span.start.wrapping_add(middle)) else {
            return false;
        };
        let found = found.order();
        if found == wanted {
            return true;
        }
        if found < wanted {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    false
}
