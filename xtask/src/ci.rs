//! `cargo xtask ci`: every check a change has to pass, the cheap ones first.

use crate::build::{self, Project};
use crate::{setup, test, tidy};

/// Runs all checks; gives whether all hold.
pub fn run(project: &Project) -> anyhow::Result<bool> {
    setup::run(project)?;
    let mut failed = Vec::new();
    let mut check = |name: &'static str, result: anyhow::Result<()>| {
        if let Err(error) = result {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    };
    eprintln!("==> house style");
    check("house style", tidy::run(project));
    eprintln!("==> formatting");
    check("formatting", build::run(&mut project.cargo(&["fmt", "--all", "--check"])));
    eprintln!("==> clippy");
    check("clippy", clippy(project));
    eprintln!("==> length of functions");
    check("length of functions", function_lengths(project));
    eprintln!("==> clippy for kernel programs");
    check("clippy for kernel programs", clippy_bpf(project));
    if !test::run(project, &test::Choice::default())? {
        failed.push("tests");
    }
    if failed.is_empty() {
        println!("every check holds");
    } else {
        println!("failed: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}

fn clippy(project: &Project) -> anyhow::Result<()> {
    let args = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    build::run(&mut project.cargo(&args))
}

/// The threshold is in `clippy.toml`. Tests may be longer: a table of cases is one function.
fn function_lengths(project: &Project) -> anyhow::Result<()> {
    let args = ["clippy", "--workspace", "--", "-D", "clippy::too_many_lines"];
    build::run(&mut project.cargo(&args))
}

/// Host clippy does not see code under `cfg(target_arch = "bpf")`.
fn clippy_bpf(project: &Project) -> anyhow::Result<()> {
    let mut cargo = project.cargo(&["clippy", "--package", "podium-proxy-ebpf", "--bin", "lb"]);
    cargo.args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--", "-D", "warnings"]);
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_TARGET_DIR", project.target_dir().join("bpf-clippy"));
    build::run(&mut cargo)
}
