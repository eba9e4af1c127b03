//! Builds the kernel programs for `bpfel-unknown-none` and leaves the object in `OUT_DIR/lb`, where
//! `datapath::kernel` includes it.
//!
//! A nested cargo with a target folder of its own: the outer one holds the lock of the usual one.
//! Stable Rust does it with `-Z build-std=core`, given rust-src and bpf-linker (`cargo xtask setup`).

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "podium-proxy-ebpf";

fn main() -> Result<()> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let manifest_dir =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?);
    let programs = manifest_dir.with_file_name("proxy-ebpf");
    println!("cargo::rerun-if-changed={}", programs.join("src").display());
    println!("cargo::rerun-if-changed={}", programs.join("Cargo.toml").display());

    let target_dir = out_dir.join("programs");
    let mut cargo = Command::new(env::var_os("CARGO").context("CARGO is not set")?);
    cargo
        .args(["build", "--release", "--package", PACKAGE, "--bin", "lb"])
        .args(["-Z", "build-std=core", "--target", TARGET, "--manifest-path"])
        .arg(programs.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTC_BOOTSTRAP", "1")
        // bpf-linker optimises the whole program itself.
        .env("CARGO_PROFILE_RELEASE_LTO", "off");
    // What the outer cargo set for the host, and what would bring the user half's features along.
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        if matches!(
            text,
            "RUSTC" | "RUSTC_WRAPPER" | "RUSTC_WORKSPACE_WRAPPER" | "RUSTFLAGS" | "TARGET"
        ) || text.starts_with("CARGO_ENCODED_")
            || text.starts_with("CARGO_UNSTABLE_")
            || text.starts_with("CARGO_RESOLVER_")
            || text.starts_with("CARGO_BUILD_")
        {
            cargo.env_remove(&name);
        }
    }
    let output = cargo.output().with_context(|| format!("cannot run {cargo:?}"))?;
    if !output.status.success() {
        bail!(
            "the kernel programs do not build ({}); `cargo xtask setup` installs rust-src and \
             bpf-linker, which they need:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let object = target_dir.join(TARGET).join("release").join("lb");
    fs::copy(&object, out_dir.join("lb"))
        .with_context(|| format!("cannot copy {}", object.display()))?;
    Ok(())
}
