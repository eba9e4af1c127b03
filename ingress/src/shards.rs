//! A hash map made for snapshots: a copy shares everything with its original, and a change copies the few
//! entries beside it only.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Entries of a shard when it is split.
const SHARD_LEN_MAX: usize = 64;

/// The map: as many ordinary ones as it takes to keep each of them small.
#[derive(Clone)]
pub struct Shards<K, V> {
    /// None, or a power of two.
    shards: Vec<Arc<HashMap<K, V>>>,
    len: usize,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Shards<K, V> {
        Shards { shards: Vec::new(), len: 0 }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Shards<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shards.iter().flat_map(|shard| shard.iter())).finish()
    }
}

impl<K, V> Shards<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Shards<K, V> {
    /// The value of a key.
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.shards.get(self.place(key))?.get(key)
    }

    /// Adds or replaces an entry.
    pub fn insert(&mut self, key: K, value: V) {
        if self.len >= self.shards.len() * SHARD_LEN_MAX {
            self.split();
        }
        let place = self.place(&key);
        if let Some(shard) = self.shards.get_mut(place)
            && Arc::make_mut(shard).insert(key, value).is_none()
        {
            self.len += 1;
        }
    }

    /// Removes an entry.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let place = self.place(key);
        // Looked for first: what is not there is no reason for a copy.
        let shard = self.shards.get_mut(place).filter(|shard| shard.contains_key(key))?;
        self.len -= 1;
        Arc::make_mut(shard).remove(key)
    }

    fn place<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        if self.shards.len() <= 1 {
            return 0;
        }
        let mut hasher = Fnv::default();
        key.hash(&mut hasher);
        // The upper bits of this hash are mixed best.
        let hash = hasher.finish();
        usize::try_from(hash >> 32).unwrap_or(0) & (self.shards.len() - 1)
    }

    fn split(&mut self) {
        let count = if self.shards.is_empty() { 1 } else { self.shards.len() * 4 };
        let old = std::mem::replace(&mut self.shards, vec![Arc::default(); count]);
        for shard in old {
            for (key, value) in Arc::unwrap_or_clone(shard) {
                let place = self.place(&key);
                if let Some(shard) = self.shards.get_mut(place) {
                    Arc::make_mut(shard).insert(key, value);
                }
            }
        }
    }
}

/// FNV-1a: quick for short keys. It only chooses the shard, within which the hash is a keyed one.
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_hash_map(
            steps in proptest::collection::vec((0u16..400, any::<bool>()), 0..1200)
        ) {
            let (mut map, mut model) = (Shards::default(), HashMap::new());
            let mut earlier = Vec::new();
            for (at, (key, remove)) in steps.into_iter().enumerate() {
                if remove {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                } else {
                    map.insert(key, at);
                    model.insert(key, at);
                }
                if at % 300 == 0 {
                    earlier.push((map.clone(), model.clone()));
                }
            }
            earlier.push((map, model));
            for (map, model) in earlier {
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(&map.iter().map(|(k, v)| (*k, *v)).collect::<HashMap<_, _>>(), &model);
                prop_assert!((0..400).all(|key| map.get(&key) == model.get(&key)));
            }
        }
    }

    #[test]
    fn a_copy_shares_all_but_the_shard_of_a_change() {
        let mut map = Shards::default();
        (0..10_000).for_each(|key| map.insert(key, key));
        let before = map.clone();
        map.insert(5_000, 0);
        let pairs = before.shards.iter().zip(&map.shards);
        assert_eq!(pairs.filter(|(old, new)| !Arc::ptr_eq(old, new)).count(), 1);
        let longest = map.shards.iter().map(|shard| shard.len()).max().unwrap();
        assert!(longest <= 2 * SHARD_LEN_MAX, "a shard of {longest} entries");
    }
}
