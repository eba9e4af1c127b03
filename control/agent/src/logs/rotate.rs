//! Rotation of container logs: a log over its limit is renamed, the runtime opens a new one, the
//! oldest go.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::host::Host;
use crate::pod::container_config::log_path;
use crate::pod::sandbox_config::log_directory_name;
use crate::supervisor::{Entry, Registry};

const CHECK_PERIOD: Duration = Duration::from_secs(10);
const LOG_BYTES_MAX: u64 = 10 << 20;
/// The log being written counts as one.
const FILES_MAX: usize = 5;

/// Looks after the logs of running containers until shutdown.
pub(crate) async fn keep(host: Arc<Host>, registry: Registry, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(CHECK_PERIOD)).await.is_some() {
        for entry in registry.list() {
            for (id, path) in running_logs(&host, &entry) {
                if let Err(error) = rotate(&host, &id, &path).await {
                    tracing::warn!(%error, "log not rotated");
                }
            }
        }
    }
}

/// The ids of a pod's running containers with their logs.
fn running_logs(host: &Host, entry: &Entry) -> Vec<(String, PathBuf)> {
    let dir = host.config.logs_dir().join(log_directory_name(&entry.pod));
    let status = entry.shared.status().unwrap_or_default();
    let lists = [status.init_container_statuses, status.container_statuses];
    let statuses = lists.into_iter().flatten().flatten();
    let running =
        statuses.filter(|s| s.state.as_ref().is_some_and(|state| state.running.is_some()));
    running
        .filter_map(|status| {
            let id = status.container_id.as_deref()?.strip_prefix("containerd://")?.to_owned();
            let count = u32::try_from(status.restart_count).ok()?;
            Some((id, dir.join(log_path(&status.name, count))))
        })
        .collect()
}

async fn rotate(host: &Host, id: &str, path: &Path) -> Result<(), Error> {
    if fs::metadata(path).map_or(0, |metadata| metadata.len()) < LOG_BYTES_MAX {
        return Ok(());
    }
    let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let rotated = PathBuf::from(format!("{}.{stamp}", path.display()));
    fs::rename(path, &rotated).map_err(|e| Error::io("rename", path, e))?;
    if let Err(error) = host.runtime.reopen_log(id).await {
        // The runtime still writes to the renamed file: give it its name back.
        fs::rename(&rotated, path).map_err(|e| Error::io("rename back", path, e))?;
        return Err(error);
    }
    remove_oldest(path)
}

/// The rotated files of a log, oldest first.
pub(crate) fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let prefix = format!("{}.", name.to_string_lossy());
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

fn remove_oldest(path: &Path) -> Result<(), Error> {
    let files = rotated(path);
    let excess = files.len().saturating_sub(FILES_MAX - 1);
    for file in files.iter().take(excess) {
        fs::remove_file(file).map_err(|e| Error::io("remove", file, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        fs::write(&log, "").unwrap();
        fs::write(dir.path().join("1.log"), "").unwrap();
        for stamp in 1..=7 {
            fs::write(dir.path().join(format!("0.log.{stamp}")), "").unwrap();
        }
        remove_oldest(&log).unwrap();
        let names: Vec<_> = rotated(&log)
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["0.log.4", "0.log.5", "0.log.6", "0.log.7"]);
    }
}
