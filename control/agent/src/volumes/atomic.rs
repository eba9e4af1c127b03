//! Files that change all at once: they lie in a dated folder, `..data` is a link to it, and each
//! visible name is a link through `..data`. Swinging `..data` changes them together, as upstream's
//! atomic writer does it.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::payload::{File, Payload};
use crate::error::Error;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Makes the folder hold exactly this payload; does nothing where it does already.
pub(crate) fn write(dir: &Path, payload: &Payload, group: Option<i64>) -> Result<(), Error> {
    for path in payload.keys() {
        let hostile = path.is_empty()
            || path.starts_with('/')
            || path.split('/').any(|part| part.is_empty() || part == ".." || part == ".")
            || path.starts_with("..");
        if hostile {
            return Err(Error::Object(format!("path {path:?} is not allowed in a volume")));
        }
    }
    let current = fs::read_link(dir.join(DATA)).ok().map(|target| dir.join(target));
    if let Some(current) = &current
        && holds(current, payload).unwrap_or(false)
    {
        return Ok(());
    }
    swap(dir, payload, group).map_err(|e| Error::io("write volume", dir, e))?;
    if let Some(old) = current {
        fs::remove_dir_all(&old).map_err(|e| Error::io("remove old content", &old, e))?;
    }
    Ok(())
}

fn swap(dir: &Path, payload: &Payload, group: Option<i64>) -> io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let dated = dated_name(Timestamp::now());
    let fresh = dir.join(&dated);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        write_file(&fresh, path, file, group)?;
    }
    let next = dir.join(DATA_NEXT);
    remove_if_there(&next)?;
    symlink(&dated, &next)?;
    fs::rename(&next, dir.join(DATA))?;
    let visible: std::collections::BTreeSet<&str> =
        payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &visible {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !visible.contains(name.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write_file(dir: &Path, path: &str, file: &File, group: Option<i64>) -> io::Result<()> {
    let target: PathBuf = dir.join(path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&target, &file.content)?;
    let mut mode = file.mode;
    if let Some(group) = group.and_then(|group| u32::try_from(group).ok()) {
        std::os::unix::fs::chown(&target, None, Some(group))?;
        mode |= 0o040;
    }
    fs::set_permissions(&target, fs::Permissions::from_mode(mode))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `..2026_11_21_13_37_00.123456789`, upstream's form.
fn dated_name(now: Timestamp) -> String {
    now.strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string()
}

/// True where a folder holds these files and no other, whatever their modes.
fn holds(dir: &Path, payload: &Payload) -> io::Result<bool> {
    let mut count = 0;
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
            match payload.get(&name) {
                Some(file) if fs::read(&path)? == file.content => count += 1,
                _ => return Ok(false),
            }
        }
    }
    Ok(count == payload.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |content: &str| File { content: content.into(), mode: 0o640 };
        files.iter().map(|(path, content)| ((*path).to_owned(), file(content))).collect()
    }

    #[test]
    fn swaps_whole_contents() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let first = fs::read_link(dir.join(DATA)).unwrap();
        write(dir, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), first, "nothing changed");
        write(dir, &payload(&[("c", "3")]), None).unwrap();
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("..2"))
            .collect();
        names.sort();
        assert_eq!(names, ["..data", "c"]);
        assert!(!dir.join(first).exists());
    }

    #[test]
    fn refuses_paths_that_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["../x", "/x", "a//b", "a/../b", "..data", ""] {
            assert!(write(dir.path(), &payload(&[(bad, "1")]), None).is_err(), "{bad}");
        }
    }
}
