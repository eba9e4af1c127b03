//! Exact and Prefix rules of one host: a hash look-up for the path and for each of its prefixes that can be
//! the path of a rule.

use super::PathType;
use crate::shards::Shards;
use std::sync::Arc;

/// Exact and Prefix rules.
#[derive(Clone, Debug)]
pub struct PathMatcher<R> {
    rules: Shards<Arc<[u8]>, ByType<R>>,
    /// The most elements of a Prefix rule: longer prefixes need not be looked up.
    elements_max: usize,
}

/// The rules for one text.
#[derive(Clone, Debug)]
struct ByType<R> {
    exact: Option<R>,
    prefix: Option<R>,
}

impl<R> Default for PathMatcher<R> {
    fn default() -> PathMatcher<R> {
        PathMatcher { rules: Shards::default(), elements_max: 0 }
    }
}

impl<R: Clone> PathMatcher<R> {
    /// Sets or removes the rule of a path; that of a Prefix comes as its `prefix_key`.
    pub fn set(&mut self, path_type: PathType, path: &Arc<str>, rule: Option<R>) {
        let key: Arc<[u8]> = path.clone().into();
        let mut rules =
            self.rules.get(&*key).cloned().unwrap_or(ByType { exact: None, prefix: None });
        if path_type == PathType::Prefix && rule.is_some() {
            self.elements_max = self.elements_max.max(elements(&key));
        }
        match path_type {
            PathType::Exact => rules.exact = rule,
            PathType::Prefix => rules.prefix = rule,
        }
        if rules.exact.is_none() && rules.prefix.is_none() {
            self.rules.remove(&*key);
        } else {
            self.rules.insert(key, rules);
        }
    }

    /// The rule for a path: Exact, else the longest Prefix.
    pub fn find(&self, path: &[u8]) -> Option<&R> {
        let exact = self.rules.get(path).and_then(|rules| rules.exact.as_ref());
        exact.or_else(|| self.prefixes(path).find_map(|key| self.rules.get(key)?.prefix.as_ref()))
    }

    /// The keys a Prefix rule for a path can have, longest first.
    pub(super) fn prefixes<'p>(&self, path: &'p [u8]) -> impl Iterator<Item = &'p [u8]> {
        let mut end = path.len();
        let mut slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        if let Some((at, _)) = slashes.nth(self.elements_max) {
            end = at;
        } else if path.last() == Some(&b'/') {
            end -= 1;
        }
        let mut rest = Some(&path[..end]);
        std::iter::from_fn(move || {
            let key = rest?;
            if key.len() <= 1 {
                rest = None;
                return Some(b"/".as_slice());
            }
            rest = key.iter().rposition(|byte| *byte == b'/').map(|at| &key[..at]);
            Some(key)
        })
    }
}

/// The elements of a key: `/a/b` has two, `/` none.
fn elements(key: &[u8]) -> usize {
    if key == b"/" { 0 } else { key.iter().filter(|byte| **byte == b'/').count() }
}
