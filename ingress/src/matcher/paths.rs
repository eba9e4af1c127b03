//! Exact and Prefix rules of one host: a hash look-up for the path and for each of its prefixes that can be
//! the path of a rule.

use super::PathType;
use crate::shards::Shards;
use std::sync::Arc;

/// More rules are worth a table.
const FEW_MAX: usize = 8;

/// Exact and Prefix rules.
#[derive(Clone, Debug)]
pub struct PathMatcher<R> {
    rules: Rules<R>,
    /// The most elements of a Prefix rule: longer prefixes need not be looked up.
    elements_max: usize,
}

/// A text and its rules.
type Text<R> = (Arc<[u8]>, ByType<R>);

/// Rules by their text. Most hosts have a few: to compare with each takes less than one look-up.
#[derive(Clone, Debug)]
enum Rules<R> {
    Few(Arc<[Text<R>]>),
    Many(Shards<Arc<[u8]>, ByType<R>>),
}

impl<R: Clone> Rules<R> {
    fn get(&self, key: &[u8]) -> Option<&ByType<R>> {
        match self {
            Rules::Few(few) => few.iter().find(|(own, _)| **own == *key).map(|(_, rules)| rules),
            Rules::Many(many) => many.get(key),
        }
    }

    /// Sets or removes the rules of a text.
    fn set(&mut self, key: Arc<[u8]>, rules: Option<ByType<R>>) {
        match self {
            Rules::Many(many) => match rules {
                Some(rules) => many.insert(key, rules),
                None => drop(many.remove(&*key)),
            },
            Rules::Few(few) => {
                let others = few.iter().filter(|(own, _)| *own != key).cloned();
                let all: Vec<_> = others.chain(rules.map(|rules| (key.clone(), rules))).collect();
                if all.len() <= FEW_MAX {
                    *few = all.into();
                    return;
                }
                let mut many = Shards::default();
                all.into_iter().for_each(|(key, rules)| many.insert(key, rules));
                *self = Rules::Many(many);
            }
        }
    }
}

/// The rules for one text.
#[derive(Clone, Debug)]
struct ByType<R> {
    exact: Option<R>,
    prefix: Option<R>,
}

impl<R> Default for PathMatcher<R> {
    fn default() -> PathMatcher<R> {
        PathMatcher { rules: Rules::Few(Arc::default()), elements_max: 0 }
    }
}

impl<R: Clone> PathMatcher<R> {
    /// Sets or removes the rule of a path; that of a Prefix comes as its `prefix_key`.
    pub fn set(&mut self, path_type: PathType, path: &Arc<str>, rule: Option<R>) {
        let key: Arc<[u8]> = path.clone().into();
        let mut rules =
            self.rules.get(&key).cloned().unwrap_or(ByType { exact: None, prefix: None });
        if path_type == PathType::Prefix && rule.is_some() {
            self.elements_max = self.elements_max.max(elements(&key));
        }
        match path_type {
            PathType::Exact => rules.exact = rule,
            PathType::Prefix => rules.prefix = rule,
        }
        let wanted = rules.exact.is_some() || rules.prefix.is_some();
        self.rules.set(key, wanted.then_some(rules));
    }

    /// The rule for a path: Exact, else the longest Prefix.
    pub fn find(&self, path: &[u8]) -> Option<&R> {
        if let Rules::Few(few) = &self.rules {
            return find_among(few, path);
        }
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

/// The rule for a path among a few.
fn find_among<'a, R>(few: &'a [Text<R>], path: &[u8]) -> Option<&'a R> {
    let mut longest: Option<(usize, &R)> = None;
    for (key, rules) in few {
        let rest = if **key == *b"/" { Some(path) } else { path.strip_prefix(&**key) };
        let Some(rest) = rest else {
            continue;
        };
        if **key == *path
            && let Some(exact) = &rules.exact
        {
            return Some(exact);
        }
        let whole = **key == *b"/" || rest.first().is_none_or(|byte| *byte == b'/');
        if let Some(prefix) = rules.prefix.as_ref().filter(|_| whole)
            && longest.is_none_or(|(length, _)| length < key.len())
        {
            longest = Some((key.len(), prefix));
        }
    }
    longest.map(|(_, rule)| rule)
}

/// The elements of a key: `/a/b` has two, `/` none.
fn elements(key: &[u8]) -> usize {
    if key == b"/" { 0 } else { key.iter().filter(|byte| **byte == b'/').count() }
}
