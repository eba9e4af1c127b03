//! Building: the workspace with one feature set, the static test server, the test images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use podium_tests::binaries::{BIN_DIR_ENV, Binaries};
use podium_tests::image;

/// Where the sources and the built programs are.
pub struct Project {
    root: PathBuf,
    bin_dir: PathBuf,
}

impl Project {
    /// Finds both: the sources from where this program was compiled, the target folder from where
    /// it lies.
    pub fn find() -> anyhow::Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().context("xtask lies at the root of the file system")?;
        let program = std::env::current_exe().context("find the xtask program")?;
        let bin_dir = program.parent().context("the xtask program lies nowhere")?;
        Ok(Self { root: root.to_path_buf(), bin_dir: bin_dir.to_path_buf() })
    }

    /// Root of the sources.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The programs and folders the harness uses.
    pub fn binaries(&self) -> Binaries {
        Binaries::at(&self.bin_dir)
    }

    /// Cargo's target folder.
    pub fn target_dir(&self) -> &Path {
        self.bin_dir.parent().unwrap_or(&self.bin_dir)
    }

    /// A command to be run at the root of the sources.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// `cargo`, building into the same target folder and telling tests where the programs are.
    pub fn cargo(&self, args: &[&str]) -> Command {
        let mut command = self.command("cargo");
        command.args(args);
        command.env("CARGO_TARGET_DIR", self.target_dir()).env(BIN_DIR_ENV, &self.bin_dir);
        command
    }
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started or fails; it has said why itself.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = describe(command);
    let status = command.status().with_context(|| format!("run {line}"))?;
    if !status.success() {
        bail!("{line} ended with {status}");
    }
    Ok(())
}

/// Runs a command and gives what it printed; its standard error goes into the error.
///
/// # Errors
/// When it cannot be started or fails.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let line = describe(command);
    let output = command.output().with_context(|| format!("run {line}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{line} ended with {}: {}", output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn describe(command: &Command) -> String {
    let args = command.get_args().map(|arg| arg.to_string_lossy());
    let words: Vec<_> =
        std::iter::once(command.get_program().to_string_lossy()).chain(args).collect();
    words.join(" ")
}

/// Builds every program, the static test server and the archive of images.
pub fn everything(project: &Project) -> anyhow::Result<()> {
    let started = Instant::now();
    eprintln!("==> building the workspace (the first time takes several minutes)");
    run(&mut project.cargo(&["build", "--workspace"]))?;
    images(project)?;
    eprintln!("    built in {} s", started.elapsed().as_secs());
    Ok(())
}

/// Builds what is shipped as it is shipped, and the clients of the benchmarks.
pub fn optimised(project: &Project) -> anyhow::Result<Binaries> {
    let started = Instant::now();
    eprintln!("==> building optimised programs (the first time takes several minutes)");
    let mut cargo = project.cargo(&["build", "--release"]);
    cargo.args([
        "-p",
        "podium-proxy",
        "-p",
        "podium-ingress",
        "-p",
        "podium-tests",
        "-p",
        "podium",
    ]);
    run(&mut cargo)?;
    eprintln!("    built in {} s", started.elapsed().as_secs());
    Ok(Binaries::at(&project.target_dir().join("release")))
}

/// The test server runs in containers that hold nothing else, so it is linked statically. It has a
/// target folder of its own: the flag would otherwise rebuild what it shares with the workspace.
fn images(project: &Project) -> anyhow::Result<()> {
    let static_dir = project.target_dir().join("static");
    let mut cargo = project.cargo(&["rustc", "--quiet", "--package", "podium-tests"]);
    cargo.args(["--bin", "testserver", "--target-dir"]).arg(&static_dir);
    cargo.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]);
    run(&mut cargo)?;
    let binaries = project.binaries();
    let program = binaries.static_testserver();
    let archive = binaries.images_dir().join("podium-images.tar");
    let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    // The archive depends on the program and on this program, which lists the images.
    let this = std::env::current_exe().ok().and_then(|path| modified(&path));
    let newest = modified(&program).max(this);
    if modified(&archive) > newest {
        return Ok(());
    }
    eprintln!("==> writing the container images to {}", archive.display());
    image::write_archive(&archive, &program, image::IMAGES)
}
