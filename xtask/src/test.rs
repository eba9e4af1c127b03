//! `cargo xtask test`: builds, runs every test of the workspace, and adds up what they say.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::Context;

use crate::build::{self, Project};
use crate::setup;

/// Which tests to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Choice {
    skips: Vec<String>,
    filter: Option<String>,
}

impl Choice {
    /// From the command line.
    pub fn parse(args: &[&str]) -> Result<Self, String> {
        let mut choice = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--skip" => {
                    let name = args.next().ok_or("--skip needs the name of a test")?;
                    choice.skips.push((*name).to_owned());
                }
                flag if flag.starts_with('-') => return Err(format!("{flag:?} is no option")),
                name if choice.filter.is_none() => choice.filter = Some(name.to_owned()),
                name => return Err(format!("{name:?}: one NAME is enough")),
            }
        }
        Ok(choice)
    }

    fn libtest_args(&self) -> Vec<&str> {
        let skips = self.skips.iter().flat_map(|name| ["--skip", name.as_str()]);
        self.filter.as_deref().into_iter().chain(skips).collect()
    }
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
    filtered_out: usize,
}

impl Counts {
    /// From the line libtest ends with.
    fn parse(line: &str) -> Option<Self> {
        let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut counts = Self::default();
        for part in numbers.split(';') {
            let Some((number, what)) = part.trim().split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse() else { continue };
            match what {
                "passed" => counts.passed = number,
                "failed" => counts.failed = number,
                "ignored" => counts.ignored = number,
                "filtered out" => counts.filtered_out = number,
                _ => {}
            }
        }
        Some(counts)
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.filtered_out += other.filtered_out;
    }
}

/// The targets of the workspace in the order they are run; the second kind needs the machine to
/// itself, so one test at a time.
const STAGES: [(&[&str], &[&str]); 3] =
    [(&["--lib", "--bins"], &[]), (&["--test", "*"], &["--test-threads=1"]), (&["--doc"], &[])];

/// Sets up, builds, runs; the last line is the summary. Gives whether nothing failed.
pub fn run(project: &Project, choice: &Choice) -> anyhow::Result<bool> {
    setup::run(project)?;
    build::everything(project)?;
    let mut total = Counts::default();
    for (targets, extra) in STAGES {
        eprintln!("==> cargo test --workspace {}", targets.join(" "));
        let mut args = choice.libtest_args();
        args.extend(extra);
        total.add(run_stage(project, targets, &args)?);
    }
    let skipped = total.ignored + skipped_by_name(project, choice, total)?;
    println!("{} passed, {} failed, {skipped} skipped", total.passed, total.failed);
    Ok(total.failed == 0)
}

fn run_stage(project: &Project, targets: &[&str], args: &[&str]) -> anyhow::Result<Counts> {
    let mut cargo = project.cargo(&["test", "--workspace", "--no-fail-fast"]);
    cargo.args(targets).arg("--").args(args).stdout(Stdio::piped());
    let mut child = cargo.spawn().context("run cargo test")?;
    let stdout = child.stdout.take().context("cargo test without output")?;
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("read the output of cargo test")?;
        println!("{line}");
        if let Some(found) = Counts::parse(&line) {
            counts.add(found);
        }
    }
    let status = child.wait().context("wait for cargo test")?;
    if !status.success() && counts.failed == 0 {
        println!("cargo test ended with {status}: counted as one failed test");
        counts.failed = 1;
    }
    Ok(counts)
}

/// libtest does not tell tests left out by `--skip` from those a filter did not choose; with both,
/// the chosen ones are listed to find out.
fn skipped_by_name(project: &Project, choice: &Choice, total: Counts) -> anyhow::Result<usize> {
    let Some(filter) = choice.filter.as_deref() else {
        return Ok(total.filtered_out);
    };
    if choice.skips.is_empty() {
        return Ok(0);
    }
    let mut cargo = project.cargo(&["test", "--workspace", "--quiet", "--", filter, "--list"]);
    let list = build::output(&mut cargo)?;
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.filter(|name| choice.skips.iter().any(|skip| name.contains(skip.as_str()))).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_what_libtest_says() {
        let line = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; \
                    4 filtered out; finished in 0.01s";
        let counts = Counts { passed: 3, failed: 1, ignored: 2, filtered_out: 4 };
        assert_eq!(Counts::parse(line), Some(counts));
        assert_eq!(Counts::parse("test a::b ... ok"), None);
    }

    #[test]
    fn reads_the_command_line() {
        let choice = Choice::parse(&["--skip", "a", "net", "--skip", "b"]).unwrap();
        assert_eq!(choice.libtest_args(), ["net", "--skip", "a", "--skip", "b"]);
        for wrong in [&["--skip"][..], &["--frob"], &["a", "b"]] {
            assert!(Choice::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
