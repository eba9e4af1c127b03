//! Finding the programs under test. Nothing is built here: `cargo xtask test` and `cargo xtask demo`
//! build first and say where by [`BIN_DIR_ENV`].

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// Folder of the built programs.
pub const BIN_DIR_ENV: &str = "PODIUM_BIN_DIR";

/// The programs, and the folders beside them.
#[derive(Clone, Debug)]
pub struct Binaries {
    bin_dir: PathBuf,
}

impl Binaries {
    /// Programs in a known folder.
    pub fn at(bin_dir: &Path) -> Self {
        Self { bin_dir: bin_dir.to_path_buf() }
    }

    /// Programs where the environment says.
    ///
    /// # Errors
    /// When it says nothing: the test was not started by `cargo xtask test`.
    pub fn from_env() -> anyhow::Result<Self> {
        let dir = std::env::var_os(BIN_DIR_ENV).with_context(|| {
            format!(
                "{BIN_DIR_ENV} is not set: run this test with `cargo xtask test NAME`, which \
                     builds what it needs"
            )
        })?;
        Ok(Self { bin_dir: PathBuf::from(dir) })
    }

    /// Path of one program.
    ///
    /// # Errors
    /// When it was not built.
    pub fn find(&self, program: &str) -> anyhow::Result<PathBuf> {
        let path = self.bin_dir.join(program);
        ensure!(
            path.is_file(),
            "{} is missing: `cargo xtask test` and `cargo xtask demo` build it",
            path.display()
        );
        Ok(path)
    }

    /// The target folder of cargo.
    pub fn target_dir(&self) -> &Path {
        self.bin_dir.parent().unwrap_or(&self.bin_dir)
    }

    /// The statically linked test server, the content of every test image.
    pub fn static_testserver(&self) -> PathBuf {
        self.target_dir().join("static/debug/testserver")
    }

    /// Folder of the work folders of tests; `cargo xtask down` looks there.
    pub fn tests_dir(&self) -> PathBuf {
        self.target_dir().join("podium-tests")
    }

    /// Folder of the archive of test images.
    pub fn images_dir(&self) -> PathBuf {
        self.target_dir().join("images")
    }

    /// kubectl of one minor release, such as `1.36`, as `cargo xtask setup` unpacks it.
    pub fn kubectl(&self, version: &str) -> PathBuf {
        self.target_dir().join(format!("tools/kubectl-{version}/usr/bin/kubectl"))
    }
}
