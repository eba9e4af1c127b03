//! `cargo xtask bench`: everything in one run, contenders in turns, ratios first. Each part has a file; so
//! has what they share: samples (`stats`), the same services for everybody (`workload`), the namespaces
//! (`site`), tables and plots (`report`, `plot`).

mod ingress;
mod latency;
mod packets;
mod plot;
mod rate;
mod report;
mod site;
mod stats;
mod sync;
mod workload;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use podium_tests::binaries::Binaries;
use podium_tests::workdir::Workdir;
use serde_json::{Value, json};

use crate::build::Project;
use crate::down::BENCH_DIRS;
use crate::setup;
use report::Report;

/// Prefix of the benchmark's namespaces and cgroups; the process id follows, so that several checkouts
/// can be measured on one machine, if not at the same time.
const PREFIX: &str = "podium-bench";

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// One part, or all.
    part: Option<String>,
    /// A smoke run.
    quick: bool,
    /// Programs built before, to be measured as they are: nothing is set up or built.
    programs: Option<PathBuf>,
}

type Part = fn(&Bench, &mut Report) -> anyhow::Result<()>;

/// In the order in which they run.
const PARTS: [(&str, Part); 5] = [
    ("latency", latency::measure),
    ("packets", packets::measure),
    ("rate", rate::measure),
    ("sync", sync::measure),
    ("ingress", ingress::measure),
];

impl Choice {
    /// From the command line.
    pub fn parse(args: &[&str]) -> Result<Choice, String> {
        let mut choice = Choice { part: None, quick: false, programs: None };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--quick" => choice.quick = true,
                "--programs" => {
                    let folder = args.next().ok_or("--programs: want a folder")?;
                    choice.programs = Some(PathBuf::from(folder));
                }
                "all" => choice.part = None,
                part if PARTS.iter().any(|(name, _)| *name == part) => {
                    choice.part = Some(part.to_owned())
                }
                other => {
                    return Err(format!(
                        "{other:?}: want {} or all, --quick, --programs DIR",
                        PARTS.map(|(name, _)| name).join(", ")
                    ));
                }
            }
        }
        Ok(choice)
    }
}

/// What every part works with.
struct Bench<'a> {
    project: &'a Project,
    workdir: Workdir,
    /// What is shipped, as it is shipped; of a smoke run what is there already, which is slower in user
    /// space and the same in the kernel.
    binaries: Binaries,
    /// A smoke run: small sizes, few repetitions.
    quick: bool,
}

/// Sets up, builds, measures, writes. Gives whether no promise was broken.
pub fn run(project: &Project, choice: &Choice) -> anyhow::Result<bool> {
    let binaries = programs(project, choice)?;
    let started = Instant::now();
    let workdir = Workdir::create(
        &project.target_dir().join(BENCH_DIRS[0]),
        &format!("{PREFIX}-{}", std::process::id()),
    )?;
    let bench = Bench { project, workdir, binaries, quick: choice.quick };
    let mut report = Report::default();
    let wanted = |part: &str| choice.part.as_deref().is_none_or(|chosen| chosen == part);
    let mut parts = PARTS.iter().filter(|(name, _)| wanted(name));
    let result = parts.try_for_each(|(name, measure)| {
        measure(&bench, &mut report).with_context(|| format!("measure {name}"))
    });
    podium_tests::down::down(bench.workdir.path()).context("take the benchmark down")?;
    let folder = project.target_dir().join("bench");
    report.write(&folder, &machine())?;
    report.print();
    // What was found until then is worth having.
    result?;
    println!("\n{} s; report and plots in {}", started.elapsed().as_secs(), folder.display());
    let broken: Vec<_> = report.broken(choice.quick).map(|promise| &*promise.what).collect();
    for what in &broken {
        eprintln!("missed: {what}");
    }
    Ok(broken.is_empty())
}

/// The programs to measure, built unless they are there.
fn programs(project: &Project, choice: &Choice) -> anyhow::Result<Binaries> {
    if let Some(folder) = &choice.programs {
        return Ok(Binaries::at(folder));
    }
    setup::run(project)?;
    if let Ok(built) = Binaries::from_env() {
        // Who runs this as a test has built them.
        return Ok(built);
    }
    if choice.quick {
        crate::build::everything(project)?;
        return Ok(project.binaries());
    }
    crate::build::optimised(project)
}

/// What the figures depend on.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpu": model.map(|(_, name)| name),
        "cpus": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "loadBefore": read("/proc/loadavg"),
    })
}

/// A line that tells how far a part is.
struct Progress {
    what: &'static str,
    done: usize,
    all: usize,
    started: Instant,
}

impl Progress {
    fn new(what: &'static str, all: usize) -> Progress {
        Progress { what, done: 0, all, started: Instant::now() }
    }

    fn step(&mut self) {
        self.done += 1;
        let mut out = std::io::stderr();
        if out.is_terminal() {
            let filled = self.done * 30 / self.all.max(1);
            let bar = format!("{}{}", "█".repeat(filled), "·".repeat(30 - filled));
            let seconds = self.started.elapsed().as_secs();
            // A terminal that went away stops no measurement.
            let _told =
                write!(out, "\r{} {bar} {}/{} {seconds} s ", self.what, self.done, self.all);
            if self.done == self.all {
                let _told = writeln!(out);
            }
        } else if self.done.is_multiple_of((self.all / 10).max(1)) {
            let _told = writeln!(out, "{}: {} of {}", self.what, self.done, self.all);
        }
    }
}
