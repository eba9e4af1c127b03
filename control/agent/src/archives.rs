//! Images from a folder: every OCI archive (`*.tar`) in it is imported into the runtime's `k8s.io`
//! namespace at start and whenever one appears or changes. Needs no registry.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::command;
use crate::config::Config;
use crate::error::Error;

const RESCAN_PERIOD: Duration = Duration::from_secs(2);
const IMPORT_LIMIT: Duration = Duration::from_secs(600);
/// `index.json` and `manifest.json` of an archive are small; more is not an image archive.
const INDEX_BYTES_MAX: u64 = 4 << 20;

/// What makes an archive the same as when it was imported.
type Stamp = (SystemTime, u64);

/// The archives seen so far. Clones share their state.
#[derive(Clone)]
pub(crate) struct Archives {
    dir: Option<PathBuf>,
    ctr: PathBuf,
    socket: PathBuf,
    seen: Arc<Mutex<HashMap<PathBuf, Stamp>>>,
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl Archives {
    pub(crate) fn new(config: &Config) -> Self {
        let beside = config.containerd_binary.with_file_name("ctr");
        let ctr = if beside.is_file() { beside } else { PathBuf::from("ctr") };
        Self {
            dir: config.image_archive_dir.clone(),
            ctr,
            socket: config.runtime_socket(),
            seen: Arc::default(),
            names: Arc::default(),
        }
    }

    /// True where an archive supplied the image. Such an image is as fresh as its registry, the
    /// folder, can make it: `imagePullPolicy: Always` is satisfied with it.
    pub(crate) fn supply(&self, image: &str) -> bool {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.contains(&normalized(image))
    }

    /// Imports what is new. A broken archive is reported and does not stop the others.
    pub(crate) async fn import_new(&self) {
        let Some(dir) = &self.dir else { return };
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "image archive folder unreadable");
                return;
            }
        };
        let mut paths: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "tar"))
            .collect();
        paths.sort();
        for path in paths {
            let Ok(meta) = fs::metadata(&path) else { continue };
            let stamp = (meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len());
            if self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&path) == Some(&stamp) {
                continue;
            }
            match self.import(&path).await {
                Ok(names) => {
                    tracing::info!(archive = %path.display(), images = ?names, "images imported");
                    self.names.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
                }
                Err(error) => tracing::error!(%error, "image archive not imported"),
            }
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(path, stamp);
        }
    }

    async fn import(&self, path: &Path) -> Result<BTreeSet<String>, Error> {
        let names = names_in(path)?;
        let (socket, file) = (self.socket.to_string_lossy(), path.to_string_lossy());
        let args = ["--address", &socket, "--namespace", "k8s.io", "images", "import", &file];
        command::run(&self.ctr, &args, IMPORT_LIMIT).await?;
        Ok(names.iter().map(|name| normalized(name)).collect())
    }

    /// Imports archives as they appear, until shutdown.
    pub(crate) async fn watch(self, shutdown: CancellationToken) {
        if self.dir.is_none() {
            return;
        }
        while shutdown.run_until_cancelled(tokio::time::sleep(RESCAN_PERIOD)).await.is_some() {
            self.import_new().await;
        }
    }
}

/// The image names an archive declares, OCI layout or `docker save`.
fn names_in(path: &Path) -> Result<Vec<String>, Error> {
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut archive = tar::Archive::new(file);
    let mut names = Vec::new();
    for entry in archive.entries().map_err(|e| Error::io("read", path, e))? {
        let entry = entry.map_err(|e| Error::io("read", path, e))?;
        let name = entry.path().map(|path| path.into_owned()).unwrap_or_default();
        let name = name.strip_prefix(".").unwrap_or(&name).to_path_buf();
        if name != Path::new("index.json") && name != Path::new("manifest.json") {
            continue;
        }
        let mut text = String::new();
        entry
            .take(INDEX_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|e| Error::io("read index of", path, e))?;
        let index: serde_json::Value = serde_json::from_str(&text)
            .map_err(|e| Error::io("read index of", path, std::io::Error::other(e)))?;
        names.extend(names_of_index(&index));
    }
    Ok(names)
}

fn names_of_index(index: &serde_json::Value) -> Vec<String> {
    let docker = index.as_array().into_iter().flatten().filter_map(|image| image.get("RepoTags"));
    let docker = docker.filter_map(|tags| tags.as_array()).flatten();
    let oci = index.get("manifests").and_then(|m| m.as_array()).into_iter().flatten();
    let oci = oci.filter_map(|manifest| {
        let annotations = manifest.get("annotations")?;
        annotations
            .get("io.containerd.image.name")
            .or_else(|| annotations.get("org.opencontainers.image.ref.name"))
    });
    docker.chain(oci).filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// The full form of an image name: registry, repository and tag (the distribution reference rules).
pub(crate) fn normalized(image: &str) -> String {
    let (registry, rest) = match image.split_once('/') {
        Some((first, rest))
            if first.contains('.') || first.contains(':') || first == "localhost" =>
        {
            (first, rest.to_owned())
        }
        Some(_) => ("docker.io", image.to_owned()),
        None => ("docker.io", format!("library/{image}")),
    };
    let last = rest.rsplit('/').next().unwrap_or(&rest);
    if last.contains(':') || rest.contains('@') {
        format!("{registry}/{rest}")
    } else {
        format!("{registry}/{rest}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_get_their_full_form() {
        for (short, full) in [
            ("hello-world", "docker.io/library/hello-world:latest"),
            ("ml-serving:1.0", "docker.io/library/ml-serving:1.0"),
            ("user/app:2", "docker.io/user/app:2"),
            ("podium.local/pause:1", "podium.local/pause:1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("a@sha256:00", "docker.io/library/a@sha256:00"),
        ] {
            assert_eq!(normalized(short), full);
        }
    }

    #[test]
    fn names_come_from_both_index_forms() {
        let oci = serde_json::json!({"manifests": [
            {"annotations": {"io.containerd.image.name": "podium.local/pause:1"}}, {}]});
        assert_eq!(names_of_index(&oci), ["podium.local/pause:1"]);
        let docker = serde_json::json!([{"RepoTags": ["a:1", "b:2"]}]);
        assert_eq!(names_of_index(&docker), ["a:1", "b:2"]);
    }
}
