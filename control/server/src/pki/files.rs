//! Reading and writing the files of the PKI: whole or not at all, private ones with mode 0600.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::pki::PkiError;

const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;
const DIRECTORY: u32 = 0o700;

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::File { operation, path, source }
}

pub(super) fn create_directory(path: &Path) -> Result<(), PkiError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY)
        .create(path)
        .map_err(failed("create directory", path))
}

pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(failed("read", path))
}

pub(super) fn write_public(path: &Path, content: &str) -> Result<(), PkiError> {
    write(path, content, PUBLIC)
}

/// Writes a file that holds a secret.
pub(super) fn write_private(path: &Path, content: &str) -> Result<(), PkiError> {
    write(path, content, PRIVATE)
}

/// Through a file beside it and a rename, so that a crash leaves the old file or the new one.
fn write(path: &Path, content: &str, mode: u32) -> Result<(), PkiError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        // A file left by a crash may have another mode, which opening it would keep.
        if temporary.exists() {
            std::fs::remove_file(&temporary)?;
        }
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(failed("write", path))
}
