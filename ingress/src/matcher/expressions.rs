//! Expressions of one host, tried in ingress-nginx's order: longest text first, then in reverse order of
//! text. Only those are tried whose literal beginning is also the beginning of the path.

use super::expression::Expression;
use crate::shards::Shards;
use std::cmp::Ordering;
use std::sync::Arc;

/// Beginnings are indexed up to this length; one bit of `lengths` stands for each.
const LITERAL_LEN_MAX: usize = 127;

/// All expressions of a host.
#[derive(Clone, Debug)]
pub struct ExpressionMatcher<R> {
    /// By the hash of their beginning, in the order in which they are tried. Two beginnings with one
    /// hash only make more candidates.
    buckets: Shards<u64, Arc<[Candidate<R>]>>,
    /// The lengths beginnings have.
    lengths: u128,
}

#[derive(Clone, Debug)]
struct Candidate<R> {
    text: Arc<str>,
    /// Of several with the same text.
    place: usize,
    expression: Arc<Expression>,
    rule: R,
}

impl<R> Candidate<R> {
    fn order(&self, other: &Candidate<R>) -> Ordering {
        let (own, others) = (&self.text, &other.text);
        let by_text = others.len().cmp(&own.len()).then_with(|| others.cmp(own));
        by_text.then(self.place.cmp(&other.place))
    }
}

impl<R> Default for ExpressionMatcher<R> {
    fn default() -> ExpressionMatcher<R> {
        ExpressionMatcher { buckets: Shards::default(), lengths: 0 }
    }
}

impl<R: Clone> ExpressionMatcher<R> {
    /// Sets the rules of a text, in their order, none to remove it. `expression` is that of the text; the
    /// rules' own ones begin like it.
    pub fn set(
        &mut self,
        text: &Arc<str>,
        expression: &Expression,
        rules: impl IntoIterator<Item = (Arc<Expression>, R)>,
    ) {
        let literal = expression.literal();
        let literal = &literal[..literal.len().min(LITERAL_LEN_MAX)];
        let hash = literal.iter().fold(HASH_OF_NOTHING, |hash, byte| extend(hash, *byte));
        let old = self.buckets.get(&hash).map(|bucket| &**bucket).unwrap_or_default();
        let mut bucket: Vec<_> = old.iter().filter(|old| old.text != *text).cloned().collect();
        let at = bucket.partition_point(|old| (old.text.len(), &old.text) > (text.len(), text));
        let rules = rules.into_iter().enumerate();
        let new = rules.map(|(place, (expression, rule))| Candidate {
            text: text.clone(),
            place,
            expression,
            rule,
        });
        bucket.splice(at..at, new);
        if bucket.is_empty() {
            self.buckets.remove(&hash);
        } else {
            self.lengths |= 1 << literal.len();
            self.buckets.insert(hash, bucket.into());
        }
    }

    /// The rule for a path: the first in order that matches.
    pub fn find(&self, path: &[u8]) -> Option<&R> {
        self.find_counting(path).0
    }

    /// The same, and how many expressions were tried.
    pub(super) fn find_counting(&self, path: &[u8]) -> (Option<&R>, usize) {
        let mut tried = 0;
        let mut best: Option<&Candidate<R>> = None;
        // Long beginnings first: they belong to long texts, which come early in the order.
        let mut hashes = [0; LITERAL_LEN_MAX + 1];
        let mut lengths = self.hash_beginnings(path, &mut hashes);
        while lengths != 0 {
            let length = 127 - lengths.leading_zeros();
            lengths ^= 1 << length;
            let hash = hashes[usize::try_from(length).unwrap_or(0)];
            for candidate in self.buckets.get(&hash).into_iter().flat_map(|bucket| bucket.iter()) {
                if best.is_some_and(|best| candidate.order(best) == Ordering::Greater) {
                    break;
                }
                tried += 1;
                if candidate.expression.is_match(path) {
                    best = Some(candidate);
                    break;
                }
            }
        }
        (best.map(|best| &best.rule), tried)
    }

    /// Hashes the beginnings of a path that have the length of one in the index; returns these lengths.
    fn hash_beginnings(&self, path: &[u8], hashes: &mut [u64; LITERAL_LEN_MAX + 1]) -> u128 {
        let longest = usize::try_from(127 - self.lengths.leading_zeros().min(127)).unwrap_or(0);
        let mut hash = HASH_OF_NOTHING;
        hashes[0] = hash;
        let mut within = 1;
        for (at, byte) in path.iter().take(longest).enumerate() {
            hash = extend(hash, byte.to_ascii_lowercase());
            hashes[at + 1] = hash;
            within |= 1 << (at + 1);
        }
        self.lengths & within
    }
}

/// FNV-1a, byte by byte.
const HASH_OF_NOTHING: u64 = 0xcbf2_9ce4_8422_2325;

fn extend(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}
