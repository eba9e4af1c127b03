//! `cargo xtask`: set-up, demo, tests, checks. The command line only; each command has its file.

mod bench;
mod build;
mod ci;
mod demo;
mod down;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Context;

use crate::build::Project;

const USAGE: &str = "\
cargo xtask setup                       install what building and running needs
cargo xtask demo [--check]              two nodes, real pods, real traffic; --check verifies and ends
cargo xtask test [--skip NAME]... [NAME]  every test, or those whose name contains NAME
cargo xtask bench [latency|sync|ingress|all] [--quick]  measures against peers; --quick only shows that it works
cargo xtask ci                          formatting, clippy, house style, every test
cargo xtask down                        remove whatever a demo or a test left behind
";

/// What is wrong with the machine or the command line, as opposed to a failure at work.
#[derive(Debug)]
pub struct Unusable(pub String);

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            let unusable = error.downcast_ref::<Unusable>().is_some();
            ExitCode::from(if unusable { 2 } else { 1 })
        }
    }
}

/// Gives whether everything asked for is in order.
fn run(args: &[String]) -> anyhow::Result<bool> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let project = Project::find()?;
    match args.as_slice() {
        ["setup"] => setup::run(&project).map(|()| true),
        ["demo"] => demo::run(&project, demo::Mode::Stay),
        ["demo", "--check"] => demo::run(&project, demo::Mode::Check),
        ["test", rest @ ..] => {
            let choice = test::Choice::parse(rest).map_err(Unusable).context("test")?;
            test::run(&project, &choice)
        }
        ["bench", rest @ ..] => {
            let choice = bench::Choice::parse(rest).map_err(Unusable).context("bench")?;
            bench::run(&project, &choice)
        }
        ["ci"] => ci::run(&project),
        ["down"] => down::run(&project).map(|()| true),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(true)
        }
        _ => {
            Err(Unusable(format!("{:?} is no command; there are:\n{USAGE}", args.join(" "))).into())
        }
    }
}
