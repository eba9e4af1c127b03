//! Choosing a rule of one host by path: pure, built once per change, read by every request.
//!
//! Two modes, as in ingress-nginx. Normally paths are Exact, Prefix (by element) or
//! ImplementationSpecific (by character); the cost of a look-up grows with the length of the path and
//! the logarithm of the number of rules. In regex mode every path of the host is an expression.

use regex::bytes::{Regex, RegexBuilder};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// How a rule's path is compared (Ingress v1 path types).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathType {
    /// Byte for byte.
    Exact,
    /// Whole path elements; a trailing slash does not matter.
    Prefix,
    /// As ingress-nginx does it: a prefix of characters, so `/foo` matches `/foobar`.
    ImplementationSpecific,
}

/// The rules of one host in the order of their precedence.
#[derive(Debug)]
pub enum Matcher<R> {
    /// No rule of the host asked for expressions.
    Paths(PathMatcher<R>),
    /// Some rule has `use-regex` or a rewrite: all paths are expressions, longest text first.
    Regex(Vec<(Arc<Regex>, R)>),
}

impl<R> Matcher<R> {
    /// The rule for a normalised path.
    pub fn find(&self, path: &[u8]) -> Option<&R> {
        match self {
            Matcher::Paths(paths) => paths.find(path),
            Matcher::Regex(rules) => {
                rules.iter().find(|(regex, _)| regex.is_match(path)).map(|(_, rule)| rule)
            }
        }
    }
}

/// Compiles a rule's path as nginx's `~*` would: case-insensitive, bytes, not anchored by itself.
pub fn compile(path: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(path).case_insensitive(true).unicode(false).size_limit(1 << 20).build()
}

/// Sorts the paths of a host in regex mode: longest first, then in reverse order of text, the order in
/// which ingress-nginx writes its locations.
pub fn sort_for_regex<R>(rules: &mut [(String, R)]) {
    rules.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| b.cmp(a)));
}

/// Exact and prefix rules of one host.
#[derive(Debug)]
pub struct PathMatcher<R> {
    exact: HashMap<Box<[u8]>, R>,
    /// Sorted by key. The longest stored prefix of a path is the path's predecessor or one of the
    /// predecessor's own stored prefixes, which `parent` links.
    prefixes: Box<[PrefixNode<R>]>,
}

#[derive(Debug)]
struct PrefixNode<R> {
    key: Box<[u8]>,
    rules: ByKind<R>,
    parent: Option<usize>,
}

/// The rules for one text: one of type Prefix, one of type ImplementationSpecific.
#[derive(Debug)]
struct ByKind<R> {
    by_element: Option<R>,
    by_character: Option<R>,
}

impl<R> Default for ByKind<R> {
    fn default() -> ByKind<R> {
        ByKind { by_element: None, by_character: None }
    }
}

impl<R> PathMatcher<R> {
    /// Builds from rules in order of age: of two rules that compare alike the first stays.
    pub fn new(rules: impl IntoIterator<Item = (PathType, String, R)>) -> PathMatcher<R> {
        let mut exact = HashMap::new();
        let mut nodes: BTreeMap<Box<[u8]>, ByKind<R>> = BTreeMap::new();
        for (path_type, path, rule) in rules {
            match path_type {
                PathType::Exact => {
                    exact.entry(path.into_bytes().into_boxed_slice()).or_insert(rule);
                }
                PathType::Prefix => {
                    let ByKind { by_element, .. } =
                        nodes.entry(prefix_key(&path).as_bytes().into()).or_default();
                    by_element.get_or_insert(rule);
                }
                PathType::ImplementationSpecific => {
                    let ByKind { by_character, .. } =
                        nodes.entry(path.into_bytes().into()).or_default();
                    by_character.get_or_insert(rule);
                }
            }
        }
        let mut prefixes: Vec<PrefixNode<R>> = Vec::with_capacity(nodes.len());
        for (key, rules) in nodes {
            let mut parent = prefixes.len().checked_sub(1);
            while let Some(at) = parent
                && !key.starts_with(&prefixes[at].key)
            {
                parent = prefixes[at].parent;
            }
            prefixes.push(PrefixNode { key, rules, parent });
        }
        PathMatcher { exact, prefixes: prefixes.into() }
    }

    /// The rule for a path: Exact, else the longest prefix.
    pub fn find(&self, path: &[u8]) -> Option<&R> {
        if let Some(rule) = self.exact.get(path) {
            return Some(rule);
        }
        let mut at = self.prefixes.partition_point(|node| *node.key <= *path).checked_sub(1);
        while let Some(index) = at {
            let node = &self.prefixes[index];
            if path.starts_with(&node.key) {
                let whole_element =
                    matches!(path.get(node.key.len()), None | Some(b'/')) || *node.key == *b"/";
                if let Some(rule) = &node.rules.by_element
                    && whole_element
                {
                    return Some(rule);
                }
                if let Some(rule) = &node.rules.by_character {
                    return Some(rule);
                }
            }
            at = node.parent;
        }
        None
    }
}

/// The form under which a Prefix path is stored: `/foo` and `/foo/` are the same.
pub fn prefix_key(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    }
}

#[cfg(test)]
mod tests;
