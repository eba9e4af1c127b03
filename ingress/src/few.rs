//! A map of which there are thousands, most of them with one entry or a few: those lie side by side, and
//! only of many entries a table is made.

use std::collections::HashMap;
use std::hash::Hash;

/// More entries are worth a table.
const FEW_MAX: usize = 8;

/// The map.
#[derive(Debug)]
pub enum FewMap<K, V> {
    /// In no order.
    Few(Vec<(K, V)>),
    /// Many.
    #[expect(
        clippy::box_collection,
        reason = "it is seldom there, and would make all of them larger"
    )]
    Many(Box<HashMap<K, V>>),
}

impl<K, V> Default for FewMap<K, V> {
    fn default() -> FewMap<K, V> {
        FewMap::Few(Vec::new())
    }
}

impl<K: Eq + Hash, V> FewMap<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        match self {
            FewMap::Few(few) => few.iter().find(|(other, _)| other == key).map(|(_, value)| value),
            FewMap::Many(many) => many.get(key),
        }
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self {
            FewMap::Few(few) => {
                few.iter_mut().find(|(other, _)| other == key).map(|(_, value)| value)
            }
            FewMap::Many(many) => many.get_mut(key),
        }
    }

    /// Whether there is an entry.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key, which from now on has one.
    pub fn get_or_default(&mut self, key: &K) -> &mut V
    where
        K: Clone,
        V: Default,
    {
        if let FewMap::Few(few) = self
            && few.len() == FEW_MAX
            && !few.iter().any(|(other, _)| other == key)
        {
            *self = FewMap::Many(Box::new(few.drain(..).collect()));
        }
        match self {
            FewMap::Few(few) => {
                let at = few.iter().position(|(other, _)| other == key).unwrap_or_else(|| {
                    few.reserve_exact(1);
                    few.push((key.clone(), V::default()));
                    few.len() - 1
                });
                &mut few[at].1
            }
            FewMap::Many(many) => many.entry(key.clone()).or_default(),
        }
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &K) {
        match self {
            FewMap::Few(few) => few.retain(|(other, _)| other != key),
            FewMap::Many(many) => drop(many.remove(key)),
        }
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        let (few, many) = match self {
            FewMap::Few(few) => (Some(few), None),
            FewMap::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flatten().map(|(key, _)| key);
        few.chain(many.into_iter().flat_map(|many| many.keys()))
    }

    /// All values, in no order, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let (few, many) = match self {
            FewMap::Few(few) => (Some(few), None),
            FewMap::Many(many) => (None, Some(many)),
        };
        let few = few.into_iter().flatten().map(|(_, value)| value);
        few.chain(many.into_iter().flat_map(|many| many.values_mut()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_hash_map(
            steps in proptest::collection::vec((0u8..14, any::<bool>()), 0..80)
        ) {
            let (mut map, mut model) = (FewMap::default(), HashMap::new());
            for (at, (key, remove)) in steps.into_iter().enumerate() {
                if remove {
                    map.remove(&key);
                    model.remove(&key);
                } else {
                    *map.get_or_default(&key) = at;
                    model.insert(key, at);
                }
                prop_assert!((0..14).all(|key| map.get(&key) == model.get(&key)));
                prop_assert!((0..14).all(|k| map.get_mut(&k).copied() == model.get(&k).copied()));
                let mut keys: Vec<_> = map.keys().copied().collect();
                keys.sort_unstable();
                let mut expected: Vec<_> = model.keys().copied().collect();
                expected.sort_unstable();
                prop_assert_eq!(keys, expected);
                let sum: usize = map.values_mut().map(|value| *value).sum();
                prop_assert_eq!(sum, model.values().sum::<usize>());
            }
        }
    }
}
