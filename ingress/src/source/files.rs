//! Objects from a folder of YAML or JSON manifests, read again whenever something in it changes.
//!
//! A file that cannot be read keeps what it last said and becomes a problem; other files are not affected.

use super::Change;
use crate::objects::{Kind, Object, ObjectKey};
use crate::problem::Problem;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use serde_json::Value;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// Changes are looked for this often where the file system does not announce them.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// A burst of writes is read once it pauses.
const SETTLE_TIME: Duration = Duration::from_millis(20);

/// A folder and what its files last said.
struct Folder {
    path: PathBuf,
    hasher: RandomState,
    files: BTreeMap<PathBuf, ManifestFile>,
}

struct ManifestFile {
    /// Of its text. That itself would take more memory than all that is made of it.
    hash: u64,
    objects: Vec<Object>,
    problem: Option<Problem>,
}

/// Reads a folder and sends its objects, now and after every change, until nobody listens.
pub async fn watch(path: PathBuf, changes: mpsc::Sender<Change>) {
    let (wake, mut woken) = mpsc::channel::<()>(1);
    let _watcher = announce(&path, wake);
    let mut folder = Folder::new(path);
    let mut first = true;
    loop {
        let changed = tokio::task::block_in_place(|| folder.read());
        let changed = changed.unwrap_or_else(|error| {
            tracing::error!("reading manifests in {}: {error}", folder.path.display());
            false
        });
        if (changed || first) && changes.send(folder.everything()).await.is_err() {
            return;
        }
        first = false;
        match tokio::time::timeout(POLL_INTERVAL, woken.recv()).await {
            Ok(Some(())) => tokio::time::sleep(SETTLE_TIME).await,
            // Nothing announces changes: keep to the interval.
            Ok(None) => tokio::time::sleep(POLL_INTERVAL).await,
            Err(_) => {}
        }
        while woken.try_recv().is_ok() {}
    }
}

/// Whether a file was only looked at, as looking itself does: that must not be a reason to look
/// again. The end of a writer is an access too, and the only sure sign of a whole file.
fn is_look(event: EventKind) -> bool {
    matches!(event, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// Asks the file system to announce changes; without it polling alone finds them.
fn announce(path: &Path, wake: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if !event.is_ok_and(|event| is_look(event.kind)) {
            // A full channel means that a look is due already.
            let _ = wake.try_send(());
        }
    });
    let watching = watcher.and_then(|mut watcher| {
        watcher.watch(path, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    watching
        .inspect_err(|error| {
            let every = POLL_INTERVAL.as_secs();
            tracing::warn!(
                "watching manifests in {}: {error}; they are read every {every} s",
                path.display()
            );
        })
        .ok()
}

impl Folder {
    fn new(path: PathBuf) -> Folder {
        Folder { path, hasher: RandomState::new(), files: BTreeMap::new() }
    }

    /// Reads what is there; true if anything is different.
    fn read(&mut self) -> io::Result<bool> {
        let mut paths = Vec::new();
        list(&self.path, &mut paths)?;
        let before = self.files.len();
        self.files.retain(|path, _| paths.contains(path));
        let mut changed = self.files.len() != before;
        for path in paths {
            let text = match std::fs::read(&path) {
                Ok(text) => text,
                // Gone between listing and reading: the next look settles it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let hash = self.hasher.hash_one(&text);
            let old = self.files.remove(&path);
            if old.as_ref().is_none_or(|old| old.hash != hash) {
                changed = true;
                let file = ManifestFile { hash, ..ManifestFile::parse(&path, &text, old) };
                self.files.insert(path, file);
            } else if let Some(old) = old {
                self.files.insert(path, old);
            }
        }
        Ok(changed)
    }

    fn everything(&self) -> Change {
        let objects = self.files.values().flat_map(|file| file.objects.iter().cloned()).collect();
        Change::Everything(
            objects,
            self.files.values().filter_map(|file| file.problem.clone()).collect(),
        )
    }
}

impl ManifestFile {
    fn parse(path: &Path, text: &[u8], old: Option<ManifestFile>) -> ManifestFile {
        match parse_manifests(text) {
            Ok(mut objects) => {
                objects.shrink_to_fit();
                ManifestFile { hash: 0, objects, problem: None }
            }
            Err(why) => {
                let key = ObjectKey::new("", path.display().to_string());
                let kept = if old.is_some() { "; what it said before stays in effect" } else { "" };
                let problem = Problem::error(Kind::File, &key, "", format!("{why}{kept}"));
                ManifestFile {
                    hash: 0,
                    objects: old.map_or_else(Vec::new, |old| old.objects),
                    problem: Some(problem),
                }
            }
        }
    }
}

/// All objects of a file: several documents, and `List` objects opened.
pub fn parse_manifests(text: &[u8]) -> Result<Vec<Object>, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, limits()).map_err(|error| {
            format!("not valid YAML: {}", error.to_string().lines().next().unwrap_or_default())
        })?;
    let mut objects = Vec::new();
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        read_document(document, &mut objects)?;
    }
    Ok(objects)
}

/// The parser's own limits against hostile input, widened to a large cluster written into one file.
fn limits() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1_000_000,
            max_nodes: 100_000_000,
            max_events: 200_000_000,
        },
    }
}

fn read_document(mut document: Value, objects: &mut Vec<Object>) -> Result<(), String> {
    let is_list =
        document.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    if let Some(items) = document.get_mut("items").filter(|_| is_list).and_then(Value::as_array_mut)
    {
        return items.drain(..).try_for_each(|item| read_document(item, objects));
    }
    objects.extend(Object::parse(document).map_err(|error| error.to_string())?);
    Ok(())
}

/// All manifest files of a folder and of those within it.
pub fn list(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden {
            list(&path, paths)?;
        } else if !hidden
            && path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
        {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";

    #[test]
    fn documents_and_lists_are_read() {
        let text = format!("{SERVICE}---\n---\n{SERVICE}");
        assert_eq!(parse_manifests(text.as_bytes()).unwrap().len(), 2);
        let list = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"}}]}"#;
        assert_eq!(parse_manifests(list.as_bytes()).unwrap().len(), 1);
        let many = SERVICE.to_string() + &format!("---\n{SERVICE}").repeat(5_000);
        assert_eq!(parse_manifests(many.as_bytes()).unwrap().len(), 5_001);
        assert!(parse_manifests(b"a: [").is_err());
        assert!(parse_manifests(b"kind: Service\n").is_err());
    }

    #[tokio::test]
    async fn only_writing_is_announced() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), SERVICE).unwrap();
        let (wake, mut woken) = mpsc::channel(1);
        let _watcher = announce(folder.path(), wake);
        std::fs::read(folder.path().join("a.yaml")).unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(200), woken.recv()).await;
        assert!(waited.is_err(), "reading woke the reader");
        std::fs::write(folder.path().join("a.yaml"), "").unwrap();
        assert_eq!(woken.recv().await, Some(()));
    }

    #[test]
    fn a_broken_file_keeps_what_it_said_and_harms_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.yaml", SERVICE);
        write("b.yaml", &SERVICE.replace("web", "api"));
        let mut read = Folder::new(folder.path().into());
        assert!(read.read().unwrap());
        assert!(!read.read().unwrap());
        write("a.yaml", "{broken");
        assert!(read.read().unwrap());
        let Change::Everything(objects, problems) = read.everything() else {
            panic!("not everything")
        };
        assert_eq!((objects.len(), problems.len()), (2, 1));
        assert!(problems[0].to_string().contains("a.yaml: not valid YAML"), "{}", problems[0]);
        std::fs::remove_file(folder.path().join("a.yaml")).unwrap();
        assert!(read.read().unwrap());
        let Change::Everything(objects, problems) = read.everything() else {
            panic!("not everything")
        };
        assert_eq!((objects.len(), problems.len()), (1, 0));
    }
}
