//! `cargo xtask setup`: brings what building and running needs, says what it installs, and is quick
//! when everything is there. Looking is in [`podium_tests::machine`]; packages, the sources of the
//! standard library, and tools for tests have a file each.

mod apt;
mod packages;
mod rust_src;

use std::path::PathBuf;

use anyhow::Context;
use podium_tests::machine;

use crate::Unusable;
use crate::build::{self, Project};

/// Links kernel programs; newer ones ask for a newer LLVM than this toolchain's.
const BPF_LINKER_VERSION: &str = "0.10.3";

/// kubectl releases for tests, and the Debian packages and suites they come from.
const KUBECTLS: [(&str, &str, &str); 3] = [
    ("1.20", "kubernetes-client", "bookworm"),
    ("1.32", "kubectl", "trixie"),
    ("1.36", "kubectl", "sid"),
];

/// The newest kubectl brought here.
pub const KUBECTL_NEWEST: &str = "1.36";

/// Checks the machine and brings what is missing.
pub fn run(project: &Project) -> anyhow::Result<()> {
    machine::check().map_err(Unusable)?;
    packages::ensure()?;
    rust_src::ensure(project)?;
    bpf_linker(project)?;
    for (version, package, suite) in KUBECTLS {
        kubectl(project, version, package, suite)?;
    }
    Ok(())
}

/// Brings the programs that benchmarks measure against.
pub fn peers() -> anyhow::Result<()> {
    machine::check().map_err(Unusable)?;
    packages::ensure_peers()
}

fn bpf_linker(project: &Project) -> anyhow::Result<()> {
    let installed = cargo_home().join("bin/bpf-linker");
    let version = build::output(project.command(&installed.to_string_lossy()).arg("--version"));
    if version.is_ok_and(|text| text.split_whitespace().any(|word| word == BPF_LINKER_VERSION)) {
        return Ok(());
    }
    eprintln!("==> installing bpf-linker {BPF_LINKER_VERSION} with cargo (about a minute)");
    let build_dir = project.target_dir().join("setup/bpf-linker");
    let mut cargo = project.command("cargo");
    cargo.args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION, "--locked", "--force"]);
    cargo.env("CARGO_TARGET_DIR", &build_dir);
    // What steers the build of this workspace would steer this one too.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let steers = ["RUSTC_BOOTSTRAP", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"].contains(&&*text)
            || text.starts_with("CARGO_UNSTABLE_")
            || text.starts_with("CARGO_RESOLVER_")
            || text.starts_with("CARGO_BUILD_")
            || text.starts_with("CARGO_PROFILE_");
        if steers {
            cargo.env_remove(&name);
        }
    }
    build::run(&mut cargo)?;
    std::fs::remove_dir_all(&build_dir).with_context(|| format!("remove {}", build_dir.display()))
}

fn cargo_home() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}

/// The binary is static, so that of any suite runs here; the system is not touched.
fn kubectl(project: &Project, version: &str, package: &str, suite: &str) -> anyhow::Result<()> {
    if project.binaries().kubectl(version).is_file() {
        return Ok(());
    }
    eprintln!("==> fetching kubectl {version} for tests (package {package} of Debian {suite})");
    let unpacked = project.target_dir().join(format!("tools/kubectl-{version}"));
    apt::Private::new(&project.target_dir().join("setup/apt"))?
        .unpack(suite, &format!("{package}={version}*"), &unpacked)
        .with_context(|| format!("fetch kubectl {version}"))
}
