//! The checks of house style that no other tool makes: sizes of files, their opening lines, names of
//! modules, work left undone, and traces of one machine. Lengths of functions are clippy's.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use crate::build::{self, Project};

/// Lines a file may have without its tests.
const LINES_MAX: usize = 800;
/// Names that say nothing about what a module holds.
const EMPTY_NAMES: [&str; 7] = ["util", "utils", "helper", "helpers", "common", "misc", "manager"];
/// Marks of work left undone, which belong to an issue: named with its number they may stay.
const UNDONE: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
/// Traces of one machine, and hosts that a mirror may stand in for. Split, so that this file passes.
const TRACES: [&str; 5] = [
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
    concat!("deb.", "debian.org"),
    concat!("static.", "rust-lang.org"),
    concat!("index.", "crates.io"),
];

/// Checks every file git knows or would add.
pub fn run(project: &Project) -> anyhow::Result<()> {
    let mut git = project.command("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let list = build::output(&mut git)?;
    let mut problems = Vec::new();
    for path in list.lines().filter(|path| *path != "Cargo.lock") {
        let full = project.root().join(path);
        if !full.is_file() {
            continue;
        }
        let bytes = fs::read(&full).with_context(|| format!("read {path}"))?;
        // What is not text has no style.
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        problems.extend(problems_of(Path::new(path), &text));
    }
    if problems.is_empty() {
        return Ok(());
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    bail!("{} problems", problems.len())
}

fn problems_of(path: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut problem = |line: usize, what: String| {
        problems.push(format!("{}:{line}: {what}", path.display()));
    };
    for (number, line) in text.lines().enumerate() {
        for trace in TRACES.iter().filter(|trace| line.contains(**trace)) {
            problem(number + 1, format!("contains {trace:?}"));
        }
    }
    let is_source = path.extension().is_some_and(|extension| extension == "rs");
    for (number, line) in text.lines().enumerate().filter(|_| is_source) {
        for mark in UNDONE.iter().filter(|mark| line.contains(**mark) && !line.contains("(#")) {
            problem(
                number + 1,
                format!("{mark} without the issue it belongs to, as in {mark}(#12)"),
            );
        }
    }
    if !is_source {
        return problems;
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    if stem == "mod" {
        problem(1, "name the file after its module instead of mod.rs".to_owned());
    }
    if EMPTY_NAMES.contains(&&*stem) {
        problem(1, format!("{stem:?} does not say what the module holds"));
    }
    if !text.starts_with("//!") {
        problem(1, "does not open with `//!`".to_owned());
    }
    let lines = lines_without_tests(path, text);
    if lines > LINES_MAX {
        problem(1, format!("{lines} lines without tests; at most {LINES_MAX}"));
    }
    problems
}

/// Tests stand at the end of a file or in files of their own.
fn lines_without_tests(path: &Path, text: &str) -> usize {
    let is_test = path.file_stem().is_some_and(|stem| stem == "tests")
        || path.iter().rev().skip(1).any(|part| part == "tests") && !path.starts_with("tests/src");
    if is_test {
        return 0;
    }
    let mut before_tests = text.lines().take_while(|line| *line != "#[cfg(test)]");
    before_tests.by_ref().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_the_style_forbids() {
        for (path, text, count) in [
            ("a/src/route.rs", "//! Routes.\n".to_owned(), 0),
            ("a/src/mod.rs", "//! Routes.\n".to_owned(), 1),
            ("a/src/utils.rs", "fn main() {}\n".to_owned(), 2),
            ("a/src/long.rs", "//! x\n".repeat(LINES_MAX + 1), 1),
            ("a/src/long/tests.rs", "//! x\n".repeat(LINES_MAX + 1), 0),
            ("a/src/tested.rs", format!("//! x\n#[cfg(test)]\n{}", "x\n".repeat(LINES_MAX)), 0),
            ("a/src/undone.rs", format!("//! x\n// {}: later\n", UNDONE[0]), 1),
            ("a/src/planned.rs", format!("//! x\n// {}(#12): later\n", UNDONE[0]), 0),
            ("a.md", format!("see {}x", TRACES[0]), 1),
        ] {
            let found = problems_of(Path::new(path), &text);
            assert_eq!(found.len(), count, "{path}: {found:?}");
        }
    }
}
