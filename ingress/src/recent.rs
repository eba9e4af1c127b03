//! A map that keeps what was used of late and never grows beyond its size.
//!
//! Two generations: what is used moves to the young one; when that is full, the old one is forgotten
//! and the young one takes its place. That is close to forgetting the least recently used, for the price
//! of a hash map.

use std::collections::HashMap;
use std::hash::Hash;

/// The map.
#[derive(Debug)]
pub struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation_len_max: usize,
}

impl<K: Eq + Hash + Clone, V> Recent<K, V> {
    /// An empty one that holds at least half of `len_max` entries, and never more.
    pub fn new(len_max: usize) -> Recent<K, V> {
        let generation_len_max = (len_max / 2).max(1);
        Recent { young: HashMap::new(), old: HashMap::new(), generation_len_max }
    }

    /// The value of a key, which counts as used.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let value = self.old.remove(key)?;
            self.insert(key.clone(), value);
        }
        self.young.get_mut(key)
    }

    /// Adds or replaces an entry.
    pub fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.generation_len_max && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Forgets an entry.
    pub fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// How many entries there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_used_stays() {
        let mut recent = Recent::new(8);
        recent.insert(0, "used");
        for key in 1..1000 {
            recent.insert(key, "once");
            assert_eq!(recent.get(&0), Some(&mut "used"), "{key}");
        }
        assert_eq!(recent.get(&1), None);
        recent.remove(&0);
        assert_eq!(recent.get(&0), None);
    }

    proptest! {
        #[test]
        fn it_never_grows_beyond_its_size(
            len_max in 2usize..20,
            steps in prop::collection::vec((any::<bool>(), 0u8..40), 0..400),
        ) {
            let mut recent = Recent::new(len_max);
            for (insert, key) in steps {
                if insert {
                    recent.insert(key, key);
                    prop_assert_eq!(recent.get(&key), Some(&mut key.clone()));
                } else if let Some(value) = recent.get(&key) {
                    prop_assert_eq!(*value, key);
                }
                prop_assert!(recent.len() <= len_max);
            }
        }
    }
}
