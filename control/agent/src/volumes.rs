//! A pod's volumes: preparing each below the pod's folder, the mounts of a container, and taking all
//! down again. Contents are computed in [`payload`] and written in [`atomic`].

pub(crate) mod atomic;
pub(crate) mod payload;
pub(crate) mod token;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, Pod, Volume};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::Error;
use crate::pod::PodExt;
use crate::pod::env::{Referenced, expand};
use crate::pod::fields::NodeFacts;
use crate::quantity;
use token::Tokens;

/// What the contents of volumes come from.
pub(crate) struct Sources<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) facts: &'a NodeFacts,
    pub(crate) referenced: &'a Referenced,
    pub(crate) tokens: &'a Tokens,
}

/// The folder of a volume, named as upstream names it; a host path is itself.
pub(crate) fn path_of(pod_dir: &Path, volume: &Volume) -> PathBuf {
    let plugin = if let Some(source) = &volume.host_path {
        return PathBuf::from(&source.path);
    } else if volume.empty_dir.is_some() {
        "kubernetes.io~empty-dir"
    } else if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else {
        "kubernetes.io~projected"
    };
    pod_dir.join("volumes").join(plugin).join(&volume.name)
}

/// Prepares one volume, or brings its content up to date.
pub(crate) async fn set_up(
    pod_dir: &Path,
    volume: &Volume,
    sources: &Sources<'_>,
) -> Result<(), Error> {
    let path = path_of(pod_dir, volume);
    let fs_group =
        sources.pod.podspec().security_context.as_ref().and_then(|context| context.fs_group);
    if let Some(source) = &volume.host_path {
        return check_host_path(&path, source.type_.as_deref().unwrap_or_default());
    }
    if let Some(source) = &volume.empty_dir {
        return empty_dir(&path, source, fs_group);
    }
    let Some(payload) = payload::of_volume(volume, sources).await? else {
        let name = &volume.name;
        return Err(Error::Object(format!(
            "volume {name:?}: this kind of volume is not supported"
        )));
    };
    create_dir(&path)?;
    // Secrets never reach a disk.
    if (volume.secret.is_some() || volume.projected.is_some()) && !is_mounted(&path)? {
        mount_tmpfs(&path, None)?;
    }
    atomic::write(&path, &payload, fs_group)
}

fn create_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))
}

fn empty_dir(
    path: &Path,
    source: &EmptyDirVolumeSource,
    fs_group: Option<i64>,
) -> Result<(), Error> {
    if path.is_dir() && (source.medium.as_deref() != Some("Memory") || is_mounted(path)?) {
        return Ok(());
    }
    create_dir(path)?;
    if source.medium.as_deref() == Some("Memory") {
        mount_tmpfs(path, source.size_limit.as_ref().map(quantity::value))?;
    }
    set_mode(path, 0o777)?;
    if let Some(group) = fs_group {
        chown_group(path, group)?;
        set_mode(path, 0o2777)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|e| Error::io("set the mode of", path, e))
}

fn chown_group(path: &Path, group: i64) -> Result<(), Error> {
    let group = u32::try_from(group).map_err(|_| {
        Error::Object(format!("securityContext.fsGroup: {group} is not a group id"))
    })?;
    std::os::unix::fs::chown(path, None, Some(group))
        .map_err(|e| Error::io("set the group of", path, e))
}

fn mount_tmpfs(path: &Path, size_bytes: Option<i64>) -> Result<(), Error> {
    let options = size_bytes.filter(|bytes| *bytes > 0).map(|bytes| format!("size={bytes}"));
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        options.as_deref(),
    )
    .map_err(|e| Error::io("mount tmpfs at", path, e.into()))
}

fn is_mounted(path: &Path) -> Result<bool, Error> {
    let parent = path.parent().unwrap_or(path);
    let own = fs::metadata(path).map_err(|e| Error::io("look at", path, e))?;
    let above = fs::metadata(parent).map_err(|e| Error::io("look at", parent, e))?;
    Ok(own.dev() != above.dev())
}

/// `hostPath.type`, with upstream's messages.
fn check_host_path(path: &Path, kind: &str) -> Result<(), Error> {
    let found = fs::metadata(path).map(|metadata| metadata.file_type());
    let refuse = |what: &str| {
        let path = path.display();
        Err(Error::Object(format!("hostPath type check failed: {path} is not a {what}")))
    };
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if found.is_err() => create_dir(path),
        "FileOrCreate" if found.is_err() => {
            fs::File::create(path).map(|_| ()).map_err(|e| Error::io("create", path, e))
        }
        "Directory" | "DirectoryOrCreate" => match found {
            Ok(kind) if kind.is_dir() => Ok(()),
            _ => refuse("directory"),
        },
        "File" | "FileOrCreate" => match found {
            Ok(kind) if kind.is_file() => Ok(()),
            _ => refuse("file"),
        },
        "Socket" => match found {
            Ok(kind) if kind.is_socket() => Ok(()),
            _ => refuse("socket file"),
        },
        "CharDevice" => match found {
            Ok(kind) if kind.is_char_device() => Ok(()),
            _ => refuse("character device"),
        },
        "BlockDevice" => match found {
            Ok(kind) if kind.is_block_device() => Ok(()),
            _ => refuse("block device"),
        },
        other => Err(Error::Object(format!("hostPath.type: {other:?} is not known"))),
    }
}

/// The mounts of a container's volumes.
pub(crate) fn mounts(
    pod_dir: &Path,
    pod: &Pod,
    container: &Container,
    environment: &[(String, String)],
) -> Result<Vec<cri::Mount>, Error> {
    let variables: HashMap<String, String> = environment.iter().cloned().collect();
    let volumes = pod.podspec().volumes.as_deref().unwrap_or_default();
    let mut mounts = Vec::new();
    for volume_mount in container.volume_mounts.iter().flatten() {
        let name = &volume_mount.name;
        let volume = volumes
            .iter()
            .find(|volume| volume.name == *name)
            .ok_or_else(|| Error::Object(format!("volume {name:?} is not part of the pod")))?;
        let base = path_of(pod_dir, volume);
        let sub_path = match (&volume_mount.sub_path, &volume_mount.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => Some(path.clone()),
            (_, Some(expression)) if !expression.is_empty() => Some(expand(expression, &variables)),
            _ => None,
        };
        let host_path = match sub_path {
            Some(sub_path) => inside(&base, &sub_path)?,
            None => base,
        };
        let propagation = match volume_mount.mount_propagation.as_deref() {
            Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
            _ => cri::MountPropagation::PropagationPrivate,
        };
        let written_by_us = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some();
        mounts.push(cri::Mount {
            container_path: absolute(&volume_mount.mount_path),
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: volume_mount.read_only == Some(true) || written_by_us,
            propagation: propagation.into(),
            ..cri::Mount::default()
        });
    }
    Ok(mounts)
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// A path inside a volume. Links that lead out of it are refused: the pod may have made them.
fn inside(base: &Path, sub_path: &str) -> Result<PathBuf, Error> {
    let wanted = base.join(sub_path);
    let escapes = || Error::Object(format!("subPath {sub_path:?} leads out of its volume"));
    if Path::new(sub_path).is_absolute() || sub_path.split('/').any(|part| part == "..") {
        return Err(escapes());
    }
    let base = base.canonicalize().map_err(|e| Error::io("resolve", base, e))?;
    // The deepest part that exists decides where creating the rest would land.
    let existing = wanted.ancestors().find(|path| path.exists()).unwrap_or(&base);
    let real = existing.canonicalize().map_err(|e| Error::io("resolve", existing, e))?;
    if !real.starts_with(&base) {
        return Err(escapes());
    }
    if !wanted.exists() {
        create_dir(&wanted)?;
    }
    wanted.canonicalize().map_err(|e| Error::io("resolve", &wanted, e))
}

/// Takes down everything below a folder of ours: mounts first, then files.
pub(crate) fn tear_down(dir: &Path) -> Result<(), Error> {
    unmount_below(dir)?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", dir, error))
        }
        _ => Ok(()),
    }
}

/// Unmounts whatever is mounted at or below a folder, innermost first.
pub(crate) fn unmount_below(dir: &Path) -> Result<(), Error> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(|e| Error::io("read", table, e))?;
    let mut points: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|point| point.starts_with(dir))
        .collect();
    points.reverse();
    for point in points {
        umount2(&point, MntFlags::MNT_DETACH)
            .map_err(|e| Error::io("unmount", &point, e.into()))?;
    }
    Ok(())
}

/// The mount table writes blanks and backslashes in octal.
fn unescape(field: &str) -> PathBuf {
    let mut text = field.to_owned();
    for (code, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(code, plain);
    }
    PathBuf::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("volume");
        fs::create_dir(&base).unwrap();
        std::os::unix::fs::symlink("/etc", base.join("out")).unwrap();
        assert!(inside(&base, "a/b").unwrap().ends_with("volume/a/b"));
        for bad in ["../x", "/etc", "out", "out/deeper", "a/../../x"] {
            assert!(inside(&base, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_path_types() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        assert!(check_host_path(&file, "").is_ok());
        assert!(check_host_path(&file, "File").is_err());
        assert!(check_host_path(&file, "FileOrCreate").is_ok());
        assert!(check_host_path(&file, "File").is_ok());
        let error = check_host_path(&file, "Directory").unwrap_err().to_string();
        assert!(error.starts_with("hostPath type check failed:"), "{error}");
        assert!(check_host_path(&dir.path().join("new"), "DirectoryOrCreate").is_ok());
    }
}
