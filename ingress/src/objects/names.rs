//! Names that many objects have in common, each kept once: namespaces, Services named by Ingresses and by
//! slices, hosts, paths, annotations and most of their values.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Longer texts than a DNS name are seldom the same.
const LEN_MAX: usize = 253;
/// As many are kept before the first look for those nobody has any more.
const PRUNE_MIN: usize = 1024;

/// The texts in use, and how many there may be before the others are dropped.
#[derive(Default)]
struct Pool {
    texts: HashSet<Arc<str>>,
    limit: usize,
}

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Mutex::default);

/// The text, shared with all who have the same.
pub fn shared(text: &str) -> Arc<str> {
    if text.len() > LEN_MAX {
        return text.into();
    }
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = pool.texts.get(text) {
        return known.clone();
    }
    if pool.texts.len() >= pool.limit {
        pool.texts.retain(|text| Arc::strong_count(text) > 1);
        pool.limit = pool.texts.len() * 2 + PRUNE_MIN;
    }
    let new: Arc<str> = text.into();
    pool.texts.insert(new.clone());
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_there_once_and_gone_when_unused() {
        let one = shared("names.example");
        assert!(Arc::ptr_eq(&one, &shared("names.example")));
        assert!(!Arc::ptr_eq(&one, &shared("other.example")));
        let long = "n".repeat(LEN_MAX + 1);
        assert!(!Arc::ptr_eq(&shared(&long), &shared(&long)));
        let kept: Vec<_> = (0..100).map(|at| shared(&format!("kept-{at}"))).collect();
        (0..100_000).for_each(|at| drop(shared(&format!("dropped-{at}"))));
        let pool = POOL.lock().unwrap();
        assert!(pool.texts.len() < 50_000, "{} texts", pool.texts.len());
        assert!(kept.iter().all(|text| Arc::ptr_eq(pool.texts.get(text).unwrap(), text)));
    }
}
