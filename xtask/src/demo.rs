//! `cargo xtask demo`: brings a cluster up on this machine, applies `examples/ml-platform`, measures,
//! and stays until Ctrl-C, or verifies and ends. What is measured has a file each.

mod bring_up;
mod forward;
mod https;
mod look_around;
mod measure;
mod outside;
mod pods;
mod section;

use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use podium_tests::cluster::Cluster;
use podium_tests::kubectl::Kubectl;
use podium_tests::wait;

use crate::build::{self, Project};
use crate::demo::section::Section;
use crate::setup;

/// Whether the demo stays up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Until Ctrl-C.
    Stay,
    /// Only to verify.
    Check,
}

/// What the measurements work with.
struct Demo {
    cluster: Cluster,
    kubectl: Kubectl,
    started: Instant,
}

impl Demo {
    /// A line with the time since the start.
    fn say(&self, what: &str) {
        say(self.started, what);
    }
}

fn say(started: Instant, what: &str) {
    println!("[{:5.1} s] {what}", started.elapsed().as_secs_f64());
}

/// Runs the demo; gives whether every point holds.
pub fn run(project: &Project, mode: Mode) -> anyhow::Result<bool> {
    setup::run(project)?;
    build::everything(project)?;
    catch_signals()?;
    let started = Instant::now();
    let mut demo = bring_up::start(project, started)?;
    let result = present(project, &mut demo, mode);
    if result.is_err() && !wait::interrupted() {
        bring_up::describe(&demo);
    }
    say(started, "taking everything down");
    let stopped = demo.cluster.stop();
    let holds = result?;
    stopped.context("take the demo down; `cargo xtask down` tries again")?;
    Ok(holds)
}

fn present(project: &Project, demo: &mut Demo, mode: Mode) -> anyhow::Result<bool> {
    bring_up::deploy(project, demo)?;
    let mut holds = true;
    for measure in measure::ALL {
        let section: Section = measure(demo)?;
        section.print();
        holds &= section.holds();
    }
    demo.cluster.check_alive()?;
    println!();
    demo.say(if holds { "every point holds" } else { "some points do not hold: see ✗ above" });
    if mode == Mode::Stay {
        look_around::offer(demo)?;
        while !wait::interrupted() {
            std::thread::sleep(Duration::from_millis(100));
        }
        println!();
    }
    Ok(holds)
}

extern "C" fn on_signal(_: libc::c_int) {
    wait::interrupt();
}

/// Ctrl-C ends every wait, so that what was started is taken down in order.
fn catch_signals() -> anyhow::Result<()> {
    // Restarting system calls lets a command under way finish; the next wait then ends.
    let action =
        SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("catch {signal}"))?;
    }
    Ok(())
}
