//! The matcher against the table of the Ingress documentation and against a naive one.

use super::*;
use PathType::{Exact, ImplementationSpecific, Prefix};
use proptest::prelude::*;

type Rule = (PathType, &'static str);

fn find(rules: &[Rule], path: &str) -> Option<usize> {
    let rules = rules.iter().enumerate().map(|(at, (kind, path))| (*kind, path.to_string(), at));
    PathMatcher::new(rules).find(path.as_bytes()).copied()
}

/// "Examples" and "Multiple matches" of <https://kubernetes.io/docs/concepts/services-networking/ingress/>.
#[test]
fn table_of_the_ingress_documentation() {
    let cases: &[(&[Rule], &str, Option<usize>)] = &[
        (&[(Prefix, "/")], "/", Some(0)),
        (&[(Prefix, "/")], "/any/path", Some(0)),
        (&[(Exact, "/foo")], "/foo", Some(0)),
        (&[(Exact, "/foo")], "/bar", None),
        (&[(Exact, "/foo")], "/foo/", None),
        (&[(Exact, "/foo/")], "/foo", None),
        (&[(Prefix, "/foo")], "/foo", Some(0)),
        (&[(Prefix, "/foo")], "/foo/", Some(0)),
        (&[(Prefix, "/foo/")], "/foo", Some(0)),
        (&[(Prefix, "/foo/")], "/foo/", Some(0)),
        (&[(Prefix, "/aaa/bb")], "/aaa/bbb", None),
        (&[(Prefix, "/aaa/bbb")], "/aaa/bbb", Some(0)),
        (&[(Prefix, "/aaa/bbb/")], "/aaa/bbb", Some(0)),
        (&[(Prefix, "/aaa/bbb")], "/aaa/bbb/", Some(0)),
        (&[(Prefix, "/aaa/bbb")], "/aaa/bbb/ccc", Some(0)),
        (&[(Prefix, "/aaa/bbb")], "/aaa/bbbxyz", None),
        (&[(Prefix, "/"), (Prefix, "/aaa")], "/aaa/ccc", Some(1)),
        (&[(Prefix, "/"), (Prefix, "/aaa")], "/ccc", Some(0)),
        (&[(Prefix, "/"), (Prefix, "/aaa"), (Prefix, "/aaa/bbb")], "/aaa/bbb", Some(2)),
        (&[(Prefix, "/"), (Prefix, "/aaa"), (Prefix, "/aaa/bbb")], "/ccc", Some(0)),
        (&[(Prefix, "/aaa")], "/ccc", None),
        (&[(Prefix, "/foo"), (Exact, "/foo")], "/foo", Some(1)),
        (&[(Prefix, "/foo"), (Exact, "/foo")], "/foo/", Some(0)),
    ];
    for (rules, path, expected) in cases {
        assert_eq!(find(rules, path), *expected, "{rules:?} with {path}");
    }
}

#[test]
fn implementation_specific_is_a_prefix_of_characters() {
    assert_eq!(find(&[(ImplementationSpecific, "/foo")], "/foobar"), Some(0));
    assert_eq!(find(&[(ImplementationSpecific, "/foo")], "/fo"), None);
    // The longer text wins over the kind; of equal text the stricter kind wins where it matches.
    let both = &[(ImplementationSpecific, "/foo"), (Prefix, "/foo")];
    assert_eq!(find(both, "/foo/x"), Some(1));
    assert_eq!(find(both, "/foobar"), Some(0));
    assert_eq!(find(&[(ImplementationSpecific, "/f"), (Prefix, "/foo")], "/foobar"), Some(0));
}

#[test]
fn the_older_of_two_equal_rules_wins() {
    assert_eq!(find(&[(Prefix, "/a"), (Prefix, "/a/")], "/a/b"), Some(0));
    assert_eq!(find(&[(Exact, "/a"), (Exact, "/a")], "/a"), Some(0));
}

#[test]
fn expressions_go_longest_first_and_ignore_case() {
    let mut rules: Vec<(String, usize)> = ["/foo/.*", "/foo/bar", "/foo/bar/.+", "/foo/bar/bar"]
        .iter()
        .map(|p| p.to_string())
        .zip(0..)
        .collect();
    sort_for_regex(&mut rules);
    let order: Vec<&str> = rules.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(order, ["/foo/bar/bar", "/foo/bar/.+", "/foo/bar", "/foo/.*"]);
    let compiled = rules
        .into_iter()
        .map(|(path, at)| (Arc::new(compile(&format!("^{path}")).unwrap()), at))
        .collect();
    let matcher = Matcher::Regex(compiled);
    for (path, expected) in [
        ("/foo/bar/1", Some(2)),
        ("/foo/BAR", Some(1)),
        ("/foo/barn", Some(1)),
        ("/x/foo/bar", None),
    ] {
        assert_eq!(matcher.find(path.as_bytes()).copied(), expected, "{path}");
    }
}

/// The specification read literally: look at every rule, keep the best.
fn naive(rules: &[(PathType, String)], path: &str) -> Option<usize> {
    let elements =
        |p: &str| p.split('/').filter(|e| !e.is_empty()).map(str::to_string).collect::<Vec<_>>();
    let mut best: Option<((bool, usize, bool), usize)> = None;
    for (at, (kind, rule)) in rules.iter().enumerate() {
        let (matches, length) = match kind {
            Exact => (rule == path, usize::MAX),
            Prefix => (elements(path).starts_with(&elements(rule)), prefix_key(rule).len()),
            ImplementationSpecific => (path.starts_with(rule.as_str()), rule.len()),
        };
        let rank = (*kind == Exact, length, *kind == Prefix);
        if matches && best.is_none_or(|(best, _)| rank > best) {
            best = Some((rank, at));
        }
    }
    best.map(|(_, at)| at)
}

fn any_path() -> impl Strategy<Value = String> {
    "(/(a|ab|b|abc)){0,4}/?".prop_map(|path| if path.is_empty() { "/".into() } else { path })
}

proptest! {
    #[test]
    fn agrees_with_the_naive_matcher(
        rules in proptest::collection::vec(
            (prop_oneof![Just(Exact), Just(Prefix), Just(ImplementationSpecific)], any_path()), 0..12),
        paths in proptest::collection::vec(any_path(), 1..8),
    ) {
        let matcher = PathMatcher::new(rules.iter().cloned().enumerate().map(|(at, (k, p))| (k, p, at)));
        for path in paths {
            prop_assert_eq!(matcher.find(path.as_bytes()).copied(), naive(&rules, &path), "{} in {:?}", path, rules);
        }
    }
}
