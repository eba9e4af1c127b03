//! The matchers against the table of the Ingress documentation, against naive ones, and how much they
//! look at.

use super::expression::{Expression, build};
use super::*;
use PathType::{Exact, Prefix};
use proptest::prelude::*;
use std::sync::Arc;

type Rule = (PathType, &'static str);

fn matcher<'a>(rules: impl IntoIterator<Item = (PathType, &'a str)>) -> PathMatcher<usize> {
    let mut matcher = PathMatcher::default();
    for (at, (path_type, path)) in rules.into_iter().enumerate() {
        let path = if path_type == Prefix { prefix_key(path) } else { path };
        matcher.set(path_type, &path.into(), Some(at));
    }
    matcher
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
        let found = matcher(rules.iter().copied()).find(path.as_bytes()).copied();
        assert_eq!(found, *expected, "{rules:?} with {path}");
    }
}

#[test]
fn a_rule_can_go_again() {
    let mut matcher = matcher([(Prefix, "/a"), (Exact, "/a"), (Prefix, "/a/b")]);
    matcher.set(Exact, &"/a".into(), None);
    assert_eq!(matcher.find(b"/a"), Some(&0));
    matcher.set(Prefix, &"/a".into(), None);
    assert_eq!(matcher.find(b"/a"), None);
    assert_eq!(matcher.find(b"/a/b/c"), Some(&2));
}

fn expressions<'a>(texts: impl IntoIterator<Item = &'a str>) -> ExpressionMatcher<usize> {
    let mut matcher = ExpressionMatcher::default();
    for (at, text) in texts.into_iter().enumerate() {
        let expression = Arc::new(Expression::compile(text, build).unwrap());
        matcher.set(&text.into(), &expression.clone(), [(expression, at)]);
    }
    matcher
}

#[test]
fn expressions_go_longest_first_and_ignore_case() {
    let mut matcher = expressions(["/foo/.*", "/foo/bar", "/foo/bar/.+", "/foo/bar/bar"]);
    for (path, expected) in [
        ("/foo/bar/1", Some(2)),
        ("/foo/BAR", Some(1)),
        ("/foo/barn", Some(1)),
        ("/foo/bar/bar", Some(3)),
        ("/x/foo/bar", None),
    ] {
        assert_eq!(matcher.find(path.as_bytes()).copied(), expected, "{path}");
    }
    matcher.set(&"/foo/bar".into(), &Expression::compile("/foo/bar", build).unwrap(), []);
    assert_eq!(matcher.find(b"/foo/barn"), Some(&0));
}

/// The specification read literally: look at every rule, keep the best.
fn naive(rules: &[(PathType, String)], path: &str) -> Option<usize> {
    let elements =
        |p: &str| p.split('/').filter(|e| !e.is_empty()).map(str::to_string).collect::<Vec<_>>();
    let mut best: Option<(usize, usize)> = None;
    for (at, (kind, rule)) in rules.iter().enumerate() {
        let (matches, rank) = match kind {
            Exact => (rule == path, usize::MAX),
            Prefix => (elements(path).starts_with(&elements(rule)), elements(rule).len()),
        };
        // Of two equal rules the last is in effect here; who may set one is decided elsewhere.
        if matches && best.is_none_or(|(best, _)| rank >= best) {
            best = Some((rank, at));
        }
    }
    best.map(|(_, at)| at)
}

/// nginx read literally: sort, then try every expression.
fn naive_expressions(texts: &[String], path: &str) -> Option<String> {
    let mut texts = texts.to_vec();
    texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| b.cmp(a)));
    texts.into_iter().find(|text| {
        let regex = regex::RegexBuilder::new(&format!("^{text}")).case_insensitive(true).build();
        regex.unwrap().is_match(path)
    })
}

fn any_path() -> impl Strategy<Value = String> {
    "(/(a|ab|b|abc)){0,4}/?".prop_map(|path| if path.is_empty() { "/".into() } else { path })
}

fn any_expression() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![
            4 => Just("/a"), 4 => Just("/ab"), 2 => Just("/B"),
            1 => Just("(/|$)(.*)"), 1 => Just(".*"), 1 => Just("[ab]+"), 1 => Just("b?"),
            1 => Just("|/b"), 1 => Just("$"), 1 => Just("(?-i:A)"),
        ],
        1..5,
    )
    .prop_map(|parts| format!("/{}", parts.concat().trim_start_matches('/')))
}

proptest! {
    #[test]
    fn agrees_with_the_naive_matcher(
        rules in proptest::collection::vec((prop_oneof![Just(Exact), Just(Prefix)], any_path()), 0..12),
        paths in proptest::collection::vec(any_path(), 1..8),
    ) {
        let matcher = matcher(rules.iter().map(|(kind, path)| (*kind, path.as_str())));
        for path in paths {
            prop_assert_eq!(matcher.find(path.as_bytes()).copied(), naive(&rules, &path), "{} in {:?}", path, rules);
        }
    }

    #[test]
    fn expressions_agree_with_the_naive_matcher(
        texts in proptest::collection::btree_set(any_expression(), 0..12),
        gone in proptest::collection::vec(any::<proptest::sample::Index>(), 0..3),
        paths in proptest::collection::vec("(/(a|ab|b|A|aB)){1,4}/?", 1..8),
    ) {
        let mut texts: Vec<String> = texts.into_iter().collect();
        let mut matcher = ExpressionMatcher::default();
        for text in &texts {
            let expression = Arc::new(Expression::compile(text, build).unwrap());
            matcher.set(&text.as_str().into(), &expression.clone(), [(expression, text.clone())]);
        }
        for gone in gone {
            if !texts.is_empty() {
                let text = texts.remove(gone.index(texts.len()));
                matcher.set(&text.as_str().into(), &Expression::compile(&text, build).unwrap(), []);
            }
        }
        for path in paths {
            let found = matcher.find(path.as_bytes()).cloned();
            prop_assert_eq!(found, naive_expressions(&texts, &path), "{} in {:?}", path, texts);
        }
    }
}

/// What a look-up touches must not grow with the number of rules.
#[test]
fn look_ups_are_flat() {
    let (mut probes, mut tried) = (Vec::new(), Vec::new());
    for count in [10, 100, 10_000] {
        let paths: Vec<String> = (0..count).map(|at| format!("/api/v1/item-{at}")).collect();
        let matcher = matcher(paths.iter().map(|path| (Prefix, path.as_str())));
        assert_eq!(matcher.find(b"/api/v1/item-7/x/y/z"), Some(&7));
        probes.push(matcher.prefixes(b"/api/v1/item-7/x/y/z").count());

        let texts: Vec<String> = paths.iter().map(|path| format!("{path}(/|$)(.*)")).collect();
        let matcher = expressions(texts.iter().map(String::as_str).chain(["/(.*)"]));
        for (path, rule) in [("/api/v1/item-7/x", 7), ("/API/v1/item-9", 9), ("/other", count)] {
            assert_eq!(matcher.find(path.as_bytes()), Some(&rule), "{path}");
            tried.push(matcher.find_counting(path.as_bytes()).1);
        }
    }
    assert_eq!(probes, [4; 3]);
    assert_eq!(tried, [1; 9]);
}
