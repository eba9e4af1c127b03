//! The tables of `docs/ingress.md` keep their word: a row for each annotation and each option, its state as
//! the code has it, and tests that exist. With `UPDATE_EXPECT=1` the rows are written anew: tests whose
//! names begin with the annotation's are found by themselves, others stay as long as they exist.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const DOCUMENT: &str = "docs/ingress.md";
/// What shows rows that do nothing.
const HARMLESS: &str = "every_harmless_annotation_is_no_problem_whatever_it_says";
const REFUSED: &str = "every_refused_annotation_is_named_with_what_to_use_instead";
const OPTION_READ: &str = "every_option_of_its_own_is_read_and_checked";
const OPTION_OFF: &str =
    "every_harmless_option_is_no_problem_and_every_refused_one_says_what_to_use";
const OPTION_DEFAULT: &str = "options_are_defaults_of_annotations_and_change_while_running";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

/// The names of all tests of the crate.
fn tests() -> BTreeSet<String> {
    fn read(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let lines: Vec<&str> = text.lines().map(str::trim).collect();
                for (at, line) in lines.iter().enumerate() {
                    let is_test = line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                    let name = lines[at..].iter().take(4).find_map(|line| {
                        line.trim_start_matches("async ").strip_prefix("fn ")?.split('(').next()
                    });
                    found.extend(name.filter(|_| is_test).map(str::to_owned));
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    for folder in ["src", "tests"] {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    }
    found
}

/// The rows of a section: the name, and the tests it names.
fn rows(document: &str, section: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let text = between(document, section);
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, state, tests] = cells[..] else {
            panic!("not three cells: {row}");
        };
        let tests = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (name.trim_matches('`').to_string(), (state.to_string(), tests))
    })
    .collect()
}

fn between<'a>(document: &'a str, section: &str) -> &'a str {
    let start = format!("<!-- {section} -->\n");
    let after = document.split_once(&start).expect("the section is there").1;
    after.split_once("<!-- end -->").expect("the section ends").0
}

/// Tests for a row: those with the annotation's name in theirs, and what shows rows of its state.
fn found(
    name: &str,
    state: &str,
    names: &[&str],
    all: &BTreeSet<String>,
    option: bool,
) -> Vec<String> {
    let own = snake(name);
    let longer: Vec<String> = names
        .iter()
        .map(|other| snake(other))
        .filter(|other| other.len() > own.len() && names_it(other, &own))
        .collect();
    let about = |test: &&String| {
        // What names only a longer one is about that.
        let rest = longer.iter().fold((*test).clone(), |rest, other| rest.replace(other, ""));
        names_it(&rest, &own)
    };
    let mut tests: Vec<String> = all.iter().filter(about).cloned().collect();
    let general = match (option, state.split(':').next().unwrap()) {
        (false, "harmless") => Some(HARMLESS),
        (false, "refused") => Some(REFUSED),
        (false, _) => None,
        (true, "honoured") => Some(OPTION_READ),
        (true, _) => Some(OPTION_OFF),
    };
    tests.extend(general.map(str::to_owned));
    tests
}

fn snake(name: &str) -> String {
    name.rsplit('/').next().unwrap().replace('-', "_")
}

/// Whether a test's name holds another name as whole words; one of a single word has to begin it.
fn names_it(test: &str, name: &str) -> bool {
    let begins = |text: &str| {
        text.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    };
    if !name.contains('_') {
        return begins(test);
    }
    let words = test.match_indices('_').map(|(at, _)| &test[at + 1..]);
    begins(test) || words.into_iter().any(begins)
}

fn write_rows(document: &str, section: &str, known: &[(&str, String)], option: bool) -> String {
    let all = tests();
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let annotations = ingress_annotations();
    let old = rows(document, section);
    let mut text = String::from("\n| name | state | tests |\n|---|---|---|\n");
    for (name, state) in known {
        let mut tests = found(name, state, &names, &all, option);
        if option && annotations.contains(*name) {
            tests.retain(|test| test != OPTION_READ && test != OPTION_OFF);
            tests.push(OPTION_DEFAULT.into());
        }
        let kept = old.get(*name).into_iter().flat_map(|(_, tests)| tests);
        let kept = kept.filter(|test| all.contains(*test) && !is_general(test));
        tests.extend(kept.cloned());
        tests.sort();
        tests.dedup();
        let tests: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
        writeln!(text, "| `{name}` | {state} | {} |", tests.join(", ")).unwrap();
    }
    text.push('\n');
    let old = between(document, section);
    document.replacen(
        &format!("<!-- {section} -->\n{old}"),
        &format!("<!-- {section} -->\n{text}"),
        1,
    )
}

fn is_general(test: &str) -> bool {
    [HARMLESS, REFUSED, OPTION_READ, OPTION_OFF, OPTION_DEFAULT].contains(&test)
}

fn ingress_annotations() -> BTreeSet<&'static str> {
    podium_ingress::known_annotations().into_iter().map(|(name, _)| name).collect()
}

fn check(section: &str, known: &[(&str, String)], document: &str) {
    let (all, rows) = (tests(), rows(document, section));
    let mut wrong = String::new();
    for (name, state) in known {
        match rows.get(*name) {
            None => writeln!(wrong, "{name}: has no row").unwrap(),
            Some((written, _)) if written != state => {
                writeln!(wrong, "{name}: the row says {written:?}, the code {state:?}").unwrap();
            }
            Some((_, tests)) if tests.is_empty() => {
                writeln!(wrong, "{name}: names no test").unwrap()
            }
            Some((_, tests)) => {
                for test in tests.iter().filter(|test| !all.contains(*test)) {
                    writeln!(wrong, "{name}: there is no test {test}").unwrap();
                }
            }
        }
    }
    for name in rows.keys().filter(|name| !known.iter().any(|(known, _)| known == name)) {
        writeln!(wrong, "{name}: is in no table of the code").unwrap();
    }
    assert!(wrong.is_empty(), "{DOCUMENT}, {section}:\n{wrong}");
}

#[test]
fn every_annotation_and_option_has_a_row_with_its_state_and_its_tests() {
    let path = root().join(DOCUMENT);
    let mut document = std::fs::read_to_string(&path).unwrap();
    let (annotations, options) =
        (podium_ingress::known_annotations(), podium_ingress::known_options());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        document = write_rows(&document, "annotations", &annotations, false);
        document = write_rows(&document, "options", &options, true);
        std::fs::write(&path, &document).unwrap();
    }
    check("annotations", &annotations, &document);
    check("options", &options, &document);
}
