//! What several objects want and one can have, and who that is.

use std::{collections::HashMap, hash::Hash};

/// What somebody wants a key for. The least claim wins: one to an own address before one to
/// somebody's else, then the older, then the one whose name comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim<N> {
    /// Whether the key could be another's: an external address must not capture the traffic of
    /// another Service's ClusterIP (CVE-2020-8554).
    pub foreign: bool,
    /// When who claims it was created.
    pub created_unix_ms: i64,
    /// Who claims it.
    pub name: N,
}

/// All claims, by what they are for.
#[derive(Debug)]
pub struct Claims<K, N> {
    /// Sorted; never empty.
    by_key: HashMap<K, Vec<Claim<N>>>,
}

impl<K, N> Default for Claims<K, N> {
    fn default() -> Self {
        Self { by_key: HashMap::new() }
    }
}

impl<K: Eq + Hash, N: Ord> Claims<K, N> {
    /// Adds one. The others of the key may win or lose by that.
    pub fn add(&mut self, key: K, claim: Claim<N>) {
        let claims = self.by_key.entry(key).or_default();
        if let Err(at) = claims.binary_search(&claim) {
            // Nearly always the only one.
            claims.reserve_exact(1);
            claims.insert(at, claim);
        }
    }

    /// Takes one back.
    pub fn remove(&mut self, key: &K, claim: &Claim<N>) {
        if let Some(claims) = self.by_key.get_mut(key) {
            claims.retain(|known| known != claim);
            if claims.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    /// Who has it.
    pub fn owner(&self, key: &K) -> Option<&N> {
        self.by_key.get(key).and_then(|claims| claims.first()).map(|claim| &claim.name)
    }

    /// Who wants it.
    pub fn claimants(&self, key: &K) -> impl Iterator<Item = &N> {
        self.by_key.get(key).into_iter().flatten().map(|claim| &claim.name)
    }
}
