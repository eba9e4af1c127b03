//! Objects from a folder of YAML (or JSON) files, read again whenever one changes.
//!
//! A document that cannot be read is a problem of its own; the others of its file, and all other
//! files, count. As nobody can say which object the broken text was meant to be, what its file held
//! before and no longer shows stays until the file can be read again.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Endpoints, Node, Service},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceCIDR,
};
use notify::{
    EventKind, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{sync::mpsc, time};
use tracing::warn;

use super::{Event, Source, channel, node, object_name};
use crate::{
    index::{Change, local_node::OwnNode},
    model::{ObjectName, Problem},
};

/// How long the folder must be quiet before it is read: editors write in several steps.
const QUIET: Duration = Duration::from_millis(20);

/// A folder that is never quiet is read after this time all the same.
const UNQUIET_MAX: Duration = Duration::from_secs(1);

/// The folder is read this often even if no change was announced (network file systems).
const REREAD: Duration = Duration::from_secs(10);

/// An object of a kind that counts here.
#[derive(Clone, Debug, PartialEq)]
enum Object {
    Service(Box<Service>),
    Slice(Box<EndpointSlice>),
    Endpoints(Box<Endpoints>),
    Node(Box<Node>),
    ServiceCidr(Box<ServiceCIDR>),
}

/// Kind and name.
type Identity = (&'static str, ObjectName);

/// What one reading of the folder gave.
#[derive(Debug, Default)]
struct Reading {
    /// Objects by identity, with the file each is from.
    objects: BTreeMap<Identity, (PathBuf, Object)>,
    problems: Vec<Problem>,
    /// Files with something unreadable in them.
    broken: Vec<PathBuf>,
}

/// Starts to follow a folder, as the node with this name.
///
/// # Errors
/// If it cannot be read or watched.
pub fn follow(folder: PathBuf, node_name: String) -> io::Result<Source> {
    fs::read_dir(&folder)?;
    let (wake, woken) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| is_look(event.kind)) {
            return;
        }
        // One token is enough: the folder is read as a whole.
        let _ = wake.try_send(());
    })
    .map_err(io::Error::other)?;
    watcher.watch(&folder, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
    let (sender, events) = channel();
    tokio::spawn(async move {
        follow_changes(&folder, &node_name, woken, &sender).await;
        drop(watcher);
    });
    Ok(Source { events, streams: 1, problems: None })
}

/// Whether a file was only looked at, as reading the folder does: that must not be a reason to read
/// it again. The end of a writer is an access too, and the only sure sign of a whole file.
fn is_look(event: EventKind) -> bool {
    matches!(event, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

async fn follow_changes(
    folder: &Path,
    node_name: &str,
    mut woken: mpsc::Receiver<()>,
    sender: &mpsc::Sender<Event>,
) {
    let mut known = Reading::default();
    let mut synced = false;
    loop {
        let reading = read(folder, &known);
        let changes = differences(&known, &reading);
        let mut events = Vec::new();
        let own_node = reading.own_node(node_name);
        if own_node != known.own_node(node_name) {
            events.push(Event::Node(own_node));
        }
        let cidrs = reading.service_cidrs();
        if cidrs != known.service_cidrs() {
            events.push(Event::ServiceCidrs(cidrs));
        }
        if reading.problems != known.problems {
            events.push(Event::Problems(reading.problems.clone()));
        }
        if !changes.is_empty() {
            events.push(Event::Changes(changes));
        }
        if !std::mem::replace(&mut synced, true) {
            events.push(Event::Synced);
        }
        for event in events {
            if sender.send(event).await.is_err() {
                return;
            }
        }
        known = reading;
        tokio::select! {
            token = woken.recv() => if token.is_none() { return },
            () = time::sleep(REREAD) => {}
        }
        let unquiet_until = time::Instant::now() + UNQUIET_MAX;
        while time::timeout(QUIET, woken.recv()).await.is_ok_and(|token| token.is_some())
            && time::Instant::now() < unquiet_until
        {}
    }
}

fn differences(known: &Reading, now: &Reading) -> Vec<Change> {
    let gone = (known.objects.keys())
        .filter(|identity| !now.objects.contains_key(*identity))
        .filter_map(|(kind, name)| match *kind {
            "Service" => Some(Change::Service(name.clone(), None)),
            "EndpointSlice" => Some(Change::Slice(name.clone(), None)),
            "Endpoints" => Some(Change::Endpoints(name.clone(), None)),
            _ => None,
        });
    let changed = (now.objects.iter())
        .filter(|(identity, (_, object))| {
            known.objects.get(*identity).is_none_or(|(_, old)| old != object)
        })
        .filter_map(|((_, name), (_, object))| match object.clone() {
            Object::Service(object) => Some(Change::Service(name.clone(), Some(object))),
            Object::Slice(object) => Some(Change::Slice(name.clone(), Some(object))),
            Object::Endpoints(object) => Some(Change::Endpoints(name.clone(), Some(object))),
            Object::Node(_) | Object::ServiceCidr(_) => None,
        });
    gone.chain(changed).collect()
}

/// Reads all files, in the order of their names.
fn read(folder: &Path, known: &Reading) -> Reading {
    let mut reading = Reading::default();
    let files = match list(folder) {
        Ok(files) => files,
        Err(error) => {
            warn!("cannot list {}, the last state stays: {error}", folder.display());
            reading.objects.clone_from(&known.objects);
            reading.problem(folder, "", format!("cannot be listed: {error}"));
            return reading;
        }
    };
    for file in files {
        match fs::read_to_string(&file) {
            Ok(text) => reading.add_file(&file, &text),
            // Gone between listing and reading: as if it had not been listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => reading.broken(&file, "", format!("cannot be read: {error}")),
        }
    }
    for (identity, (file, object)) in &known.objects {
        if reading.broken.contains(file) && !reading.objects.contains_key(identity) {
            reading.objects.insert(identity.clone(), (file.clone(), object.clone()));
        }
    }
    reading
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

impl Reading {
    fn own_node(&self, node_name: &str) -> Option<OwnNode> {
        self.objects.values().find_map(|(_, object)| match object {
            Object::Node(object) if object.metadata.name.as_deref() == Some(node_name) => {
                Some(node::own_node(object))
            }
            _ => None,
        })
    }

    fn service_cidrs(&self) -> Vec<IpNet> {
        let cidrs = |object: &Object| match object {
            Object::ServiceCidr(object) => node::cidrs(object),
            _ => Vec::new(),
        };
        self.objects.values().flat_map(|(_, object)| cidrs(object)).collect()
    }

    fn problem(&mut self, file: &Path, field: &str, message: String) {
        self.problems.push(Problem {
            object: file.display().to_string(),
            field: field.to_owned(),
            message,
        });
    }

    fn broken(&mut self, file: &Path, field: &str, message: String) {
        self.problem(file, field, message);
        self.broken.push(file.to_owned());
    }

    fn add_file(&mut self, file: &Path, text: &str) {
        for (index, document) in documents(text).into_iter().enumerate() {
            match serde_saphyr::from_str::<Value>(&document) {
                Ok(Value::Null) => {}
                Ok(value) => self.add(file, value),
                Err(error) => {
                    let first_line = error.to_string().lines().next().unwrap_or("").to_owned();
                    let place = format!("document {}", index + 1);
                    self.broken(file, &place, format!("is no YAML: {first_line}; skipped"));
                }
            }
        }
    }

    fn add(&mut self, file: &Path, value: Value) {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        let (version, kind) = (text("/apiVersion").to_owned(), text("/kind").to_owned());
        match (version.as_str(), kind.as_str()) {
            ("v1", "List") => {
                let items = value.get("items").and_then(Value::as_array).cloned();
                for item in items.unwrap_or_default() {
                    self.add(file, item);
                }
            }
            ("v1", "Service") => self.add_object(file, "Service", value, Object::Service),
            ("v1", "Endpoints") => self.add_object(file, "Endpoints", value, Object::Endpoints),
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                self.add_object(file, "EndpointSlice", value, Object::Slice);
            }
            ("v1", "Node") => self.add_object(file, "Node", value, Object::Node),
            ("networking.k8s.io/v1", "ServiceCIDR") => {
                self.add_object(file, "ServiceCIDR", value, Object::ServiceCidr);
            }
            (_, "") => {
                self.broken(file, "kind", "is missing, so this is no object; skipped".to_owned());
            }
            // Deployments and the like may lie in the same files.
            _ => {}
        }
    }

    fn add_object<T: DeserializeOwned + kube::Resource<DynamicType = ()>>(
        &mut self,
        file: &Path,
        kind: &'static str,
        value: Value,
        wrap: impl FnOnce(Box<T>) -> Object,
    ) {
        let shown = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("?");
        let shown = format!("{kind} {shown}");
        let mut object = match serde_json::from_value::<T>(value) {
            Ok(object) => object,
            Err(error) => {
                self.broken(file, &shown, format!("{error}; skipped"));
                return;
            }
        };
        let name = object_name(object.meta_mut());
        if name.name.is_empty() {
            self.broken(file, &shown, "metadata.name is missing; skipped".to_owned());
            return;
        }
        object.meta_mut().namespace = Some(name.namespace.clone());
        if let Some((other, _)) = self.objects.get(&(kind, name.clone())) {
            let message = format!("is in {} already; that one counts", other.display());
            self.problem(file, &shown, message);
            return;
        }
        self.objects.insert((kind, name), (file.to_owned(), wrap(Box::new(object))));
    }
}

/// Splits at lines that begin with `---`, as kubectl does.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line.starts_with("---") {
            documents.push(String::new());
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    let only_comments = |document: &String| {
        document.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    };
    documents.retain(|document| !only_comments(document));
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: good\n";

    fn names(reading: &Reading) -> Vec<String> {
        reading.objects.keys().map(|(kind, name)| format!("{kind} {name}")).collect()
    }

    #[test]
    fn a_bad_document_leaves_the_others_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), format!("a: [\n---\n{GOOD}")).unwrap();
        fs::write(folder.path().join("b.yml"), "kind: Deployment\napiVersion: apps/v1\n").unwrap();
        fs::write(folder.path().join("notes.txt"), "not read").unwrap();
        let reading = read(folder.path(), &Reading::default());
        assert_eq!(names(&reading), ["Service default/good"]);
        assert_eq!(reading.problems.len(), 1, "{:?}", reading.problems);
        assert_eq!(reading.problems[0].field, "document 1");
    }

    #[test]
    fn what_a_broken_file_held_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, GOOD).unwrap();
        let before = read(folder.path(), &Reading::default());
        fs::write(&file, "apiVersion: v1\nkind: [").unwrap();
        let broken = read(folder.path(), &before);
        assert_eq!(names(&broken), ["Service default/good"]);
        assert!(differences(&before, &broken).is_empty());
        fs::remove_file(&file).unwrap();
        let gone = read(folder.path(), &broken);
        assert_eq!(differences(&broken, &gone).len(), 1);
    }

    #[test]
    fn problems_name_the_object_and_the_field() {
        let folder = tempfile::tempdir().unwrap();
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: odd}\nspec: {ports: 80}\n";
        fs::write(folder.path().join("a.yaml"), text).unwrap();
        let reading = read(folder.path(), &Reading::default());
        assert_eq!(reading.problems[0].field, "Service odd");
        assert!(reading.objects.is_empty());
    }

    #[test]
    fn the_own_node_and_service_cidrs_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let zone = "labels: {topology.kubernetes.io/zone: a}";
        let text = format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: node-a, {zone}}}}}\n---\n\
             {{apiVersion: v1, kind: Node, metadata: {{name: node-b}}}}\n---\n\
             {{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {{name: a}}, \
             spec: {{cidrs: [10.96.0.0/16, 'fd00::/108']}}}}\n"
        );
        fs::write(folder.path().join("a.yaml"), text).unwrap();
        let reading = read(folder.path(), &Reading::default());
        assert_eq!(reading.own_node("node-a").unwrap().zone.as_deref(), Some("a"));
        assert_eq!(reading.own_node("node-b").unwrap().zone, None);
        assert_eq!(reading.own_node("node-c"), None);
        assert_eq!(reading.service_cidrs().len(), 2);
        assert!(differences(&Reading::default(), &reading).is_empty());
    }

    #[test]
    fn lists_and_repeated_objects() {
        let folder = tempfile::tempdir().unwrap();
        let item = "{apiVersion: v1, kind: Service, metadata: {name: good}}";
        let text = format!("apiVersion: v1\nkind: List\nitems: [{item}, {item}]\n");
        fs::write(folder.path().join("a.yaml"), text).unwrap();
        let reading = read(folder.path(), &Reading::default());
        assert_eq!(names(&reading), ["Service default/good"]);
        assert!(reading.problems[0].message.contains("already"));
    }
}
