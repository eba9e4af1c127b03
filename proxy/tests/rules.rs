//! The table of `docs/service-proxy.md` keeps its word: every row names tests, and all of them exist.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const DOCUMENT: &str = "docs/service-proxy.md";
/// Where tests of the proxy and of what feeds it are.
const SOURCES: [&str; 4] = ["proxy", "proxy-ebpf", "tests/tests", "control/controllers/src"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Names of the test functions below a folder.
fn collect(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(tests_in(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The names after a `#[test]`; tests that are not run by themselves do not count.
fn tests_in(text: &str) -> BTreeSet<String> {
    let mut is_test = false;
    let mut names = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.starts_with("#[ignore") {
            is_test = false;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            names.extend(rest.split_once('(').map(|(name, _)| name.to_owned()));
            is_test = false;
        }
    }
    names
}

/// What stands in backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The rows of the document's tables, as (first cell, last cell).
fn rows(document: &str) -> Vec<(&str, &str)> {
    document
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| {
            let cells = line.trim_matches('|');
            let (first, last) =
                (cells.split_once(" | ").unwrap(), cells.rsplit_once(" | ").unwrap());
            (first.0.trim(), last.1.trim())
        })
        .filter(|(_, tests)| *tests != "tests")
        .collect()
}

#[test]
fn every_rule_names_tests_that_exist() {
    let document = fs::read_to_string(root().join(DOCUMENT)).unwrap();
    let mut known = BTreeSet::new();
    SOURCES.iter().for_each(|dir| collect(&root().join(dir), &mut known));
    let rows = rows(&document);
    assert!(rows.len() > 40, "only {} rows were found", rows.len());
    let mut problems = Vec::new();
    for (area, tests) in rows {
        let named = quoted(tests);
        if named.is_empty() {
            problems.push(format!("{area}: names no test"));
        }
        let missing = named.into_iter().filter(|name| !known.contains(*name));
        problems.extend(missing.map(|name| format!("{area}: there is no test {name}")));
    }
    assert!(problems.is_empty(), "{DOCUMENT}:\n{}", problems.join("\n"));
}
