//! `cargo xtask test`: builds, runs every test of the workspace, and adds up what they say.

use std::io::{Read, Write};
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

/// What a stage led to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    counts: Counts,
    /// The tests that failed, by name.
    failed: Vec<String>,
}

impl Outcome {
    fn take(&mut self, line: &str) {
        if let Some(counts) = Counts::parse(line) {
            self.counts.add(counts);
        }
        let name = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"));
        self.failed.extend(name.map(str::to_owned));
    }
}

/// What runs in which order: a name, cargo's targets, and what libtest is told. Those of the second
/// kind need the machine to themselves, so one at a time.
const STAGES: [(&str, &[&str], &[&str]); 3] = [
    ("every module by itself", &["--lib", "--bins"], &[]),
    (
        "real programs, kernel and clusters; several minutes",
        &["--test", "*"],
        &["--test-threads=1"],
    ),
    ("examples in the documentation", &["--doc"], &[]),
];

/// Sets up, builds, runs; the last line is the summary. Gives whether nothing failed.
pub fn run(project: &Project, choice: &Choice) -> anyhow::Result<bool> {
    setup::run(project)?;
    build::everything(project)?;
    let mut total = Counts::default();
    let mut failed = Vec::new();
    for (number, (what, targets, extra)) in (1..).zip(STAGES) {
        eprintln!("==> tests {number}/{}: {what}", STAGES.len());
        let mut args = choice.libtest_args();
        args.extend(extra);
        let outcome = run_stage(project, targets, &args)?;
        total.add(outcome.counts);
        failed.extend(outcome.failed);
    }
    for name in &failed {
        println!("failed: {name}");
    }
    let skipped = total.ignored + skipped_by_name(project, choice, total)?;
    println!("{} passed, {} failed, {skipped} skipped", total.passed, total.failed);
    Ok(total.failed == 0)
}

fn run_stage(project: &Project, targets: &[&str], args: &[&str]) -> anyhow::Result<Outcome> {
    let mut cargo = project.cargo(&["test", "--workspace", "--no-fail-fast"]);
    cargo.args(targets).arg("--").args(args).stdout(Stdio::piped());
    let mut child = cargo.spawn().context("run cargo test")?;
    let stdout = child.stdout.take().context("cargo test without output")?;
    let mut outcome = read_outcome(stdout, std::io::stdout().lock())?;
    let status = child.wait().context("wait for cargo test")?;
    if !status.success() && outcome.counts.failed == 0 {
        outcome.counts.failed = 1;
        outcome.failed.push(format!("cargo test {} ended with {status}", targets.join(" ")));
    }
    Ok(outcome)
}

/// Passes everything on as it comes: the name of a test that is running stands on a line that is
/// not finished yet.
fn read_outcome(mut from: impl Read, mut to: impl Write) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let length = from.read(&mut chunk).context("read the output of cargo test")?;
        if length == 0 {
            return Ok(outcome);
        }
        to.write_all(&chunk[..length]).and_then(|()| to.flush()).context("pass output on")?;
        for byte in &chunk[..length] {
            if *byte == b'\n' {
                outcome.take(&String::from_utf8_lossy(&std::mem::take(&mut line)));
            } else {
                line.push(*byte);
            }
        }
    }
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
    fn passes_output_on_and_remembers_failures() {
        let output = "test a::b ... ok\ntest a::c ... FAILED\n\n\
                      test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let mut passed_on = Vec::new();
        let outcome = read_outcome(output.as_bytes(), &mut passed_on).unwrap();
        assert_eq!(passed_on, output.as_bytes());
        let counts = Counts { passed: 1, failed: 1, ..Counts::default() };
        assert_eq!(outcome, Outcome { counts, failed: vec!["a::c".to_owned()] });
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
