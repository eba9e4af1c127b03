//! The sources of the standard library, from which `core` is built for the kernel programs: from
//! rustup where it can download, else from Debian's package of the same release.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::build::{self, Project};
use crate::setup::apt;

/// As in `rust-toolchain.toml`.
const TOOLCHAIN: &str = "1.95.0";
/// The suite whose package has this release.
const SUITE: &str = "trixie-backports";
/// rustup waits long for a network that does not answer.
const RUSTUP_LIMIT: Duration = Duration::from_secs(20);

/// Brings them where they are missing.
pub fn ensure(project: &Project) -> anyhow::Result<()> {
    let sysroot = build::output(project.command("rustc").args(["--print", "sysroot"]))?;
    let library = PathBuf::from(sysroot.trim()).join("lib/rustlib/src/rust/library");
    if has_core(&library) {
        return Ok(());
    }
    eprintln!("==> installing rust-src {TOOLCHAIN} with rustup");
    match from_rustup(project) {
        Ok(()) if has_core(&library) => return Ok(()),
        Ok(()) => eprintln!("    rustup succeeded without bringing it"),
        Err(error) => eprintln!("    {error:#}"),
    }
    eprintln!("==> installing rust-src {TOOLCHAIN} from Debian {SUITE}'s package");
    from_debian(project, &library)
        .with_context(|| format!("rust-src {TOOLCHAIN} is needed: rustup component add rust-src"))
}

fn has_core(library: &Path) -> bool {
    library.join("core/src/lib.rs").is_file()
}

fn from_rustup(project: &Project) -> anyhow::Result<()> {
    let mut command = project.command("rustup");
    command.args(["component", "add", "rust-src", "--toolchain", TOOLCHAIN]);
    let mut child = command.stdin(Stdio::null()).spawn().context("run rustup")?;
    let started = Instant::now();
    while started.elapsed() < RUSTUP_LIMIT {
        if let Some(status) = child.try_wait().context("wait for rustup")? {
            return if status.success() { Ok(()) } else { bail!("rustup ended with {status}") };
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // It may end between the last look and this; both are fine.
    let _ended = child.kill();
    child.wait().context("wait for rustup")?;
    bail!("rustup did not finish within {} s", RUSTUP_LIMIT.as_secs())
}

fn from_debian(project: &Project, library: &Path) -> anyhow::Result<()> {
    let setup = project.target_dir().join("setup");
    let unpacked = setup.join("rust-src");
    let package = format!("rust-src={TOOLCHAIN}*");
    apt::Private::new(&setup.join("apt"))?.unpack(SUITE, &package, &unpacked)?;
    let source = unpacked.join(format!("usr/src/rustc-{TOOLCHAIN}/library"));
    let parent = library.parent().context("the sysroot has no folder for sources")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    // The toolchain may lie on another file system: copied. Renamed once it is whole, so that an
    // interrupted copy is not taken for the sources.
    let partial = parent.join("library.partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    build::run(Command::new("cp").arg("-a").arg(&source).arg(&partial))?;
    fs::rename(&partial, library)
        .with_context(|| format!("rename {} to {}", partial.display(), library.display()))?;
    fs::remove_dir_all(&unpacked).with_context(|| format!("remove {}", unpacked.display()))?;
    if !has_core(library) {
        bail!("the package has no core sources at {}", source.display());
    }
    Ok(())
}
