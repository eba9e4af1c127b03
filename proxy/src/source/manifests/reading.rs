//! One reading of the folder, and what differs from the one before.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, BufRead as _, BufReader},
    mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Endpoints, Node},
    networking::v1::ServiceCIDR,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::warn;

use crate::{
    index::{Change, local_node::OwnNode, object::SliceObject, slice::Slice},
    model::{ObjectName, Problem},
    source::{node, object_name},
};

/// Kind and name.
type Identity = (&'static str, ObjectName);

/// What a text or an object is recognised by.
type Sum = u64;

/// What is known of an object from one reading to the next.
#[derive(Clone, Debug)]
struct Known {
    file: Arc<Path>,
    /// Of the document it is from.
    document: Sum,
    /// Of itself.
    object: Sum,
    kept: Kept,
}

/// What is needed of an object itself. The index has Services and their endpoints.
#[derive(Clone, Debug)]
enum Kept {
    Nothing,
    OwnNode(OwnNode),
    ServiceCidr(Vec<IpNet>),
}

/// What one reading of the folder gave.
#[derive(Debug, Default)]
pub(super) struct Reading {
    objects: BTreeMap<Identity, Known>,
    /// Documents that could be read, by their file and sum: the objects in them.
    documents: HashMap<(Arc<Path>, Sum), Vec<Identity>>,
    pub problems: Vec<Problem>,
    /// Files with something unreadable in them.
    broken: Vec<Arc<Path>>,
}

/// A reading that is going on.
struct Reader<'a> {
    node_name: &'a str,
    /// The reading before this one.
    known: &'a Reading,
    now: Reading,
    changes: Vec<Change>,
    /// The document that is being read, and what was found in it.
    file: Arc<Path>,
    document: Sum,
    found: Vec<Identity>,
}

/// Reads all files, in the order of their names.
pub(super) fn read(folder: &Path, node_name: &str, known: &Reading) -> (Reading, Vec<Change>) {
    let mut reader = Reader {
        node_name,
        known,
        now: Reading::default(),
        changes: Vec::new(),
        file: Arc::from(folder),
        document: 0,
        found: Vec::new(),
    };
    match list(folder) {
        Ok(files) => {
            for file in files {
                reader.file = Arc::from(file);
                reader.add_file();
            }
        }
        Err(error) => {
            warn!("cannot list {}, the last state stays: {error}", folder.display());
            reader.now.objects.clone_from(&known.objects);
            reader.problem("", format!("cannot be listed: {error}"));
        }
    }
    reader.finish()
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
    pub(super) fn own_node(&self) -> Option<&OwnNode> {
        self.objects.values().find_map(|known| match &known.kept {
            Kept::OwnNode(node) => Some(node),
            _ => None,
        })
    }

    pub(super) fn service_cidrs(&self) -> Vec<IpNet> {
        let cidrs = |known| match known {
            &Known { kept: Kept::ServiceCidr(ref cidrs), .. } => cidrs.clone(),
            _ => Vec::new(),
        };
        self.objects.values().flat_map(cidrs).collect()
    }
}

impl Reader<'_> {
    fn finish(mut self) -> (Reading, Vec<Change>) {
        for (identity, known) in &self.known.objects {
            if self.now.broken.contains(&known.file) && !self.now.objects.contains_key(identity) {
                self.now.objects.insert(identity.clone(), known.clone());
            }
        }
        let gone = (self.known.objects.keys())
            .filter(|identity| !self.now.objects.contains_key(*identity))
            .filter_map(|(kind, name)| match *kind {
                "Service" => Some(Change::Service(name.clone(), None)),
                "EndpointSlice" => Some(Change::Slice(name.clone(), None)),
                "Endpoints" => Some(Change::Endpoints(name.clone(), None)),
                _ => None,
            });
        self.changes.extend(gone);
        (self.now, self.changes)
    }

    fn problem(&mut self, field: &str, message: String) {
        self.now.problems.push(Problem {
            object: self.file.display().to_string(),
            field: field.to_owned(),
            message,
        });
    }

    fn broken(&mut self, field: &str, message: String) {
        self.problem(field, message);
        self.now.broken.push(Arc::clone(&self.file));
    }

    fn add_file(&mut self) {
        let mut number = 0;
        let file = Arc::clone(&self.file);
        match each_document(&file, |text| {
            number += 1;
            self.add_document(number, text);
        }) {
            // Gone between listing and reading: as if it had not been listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.broken("", format!("cannot be read: {error}")),
            Ok(()) => {}
        }
    }

    fn add_document(&mut self, number: usize, text: &str) {
        self.document = sum(text.as_bytes());
        if self.add_unchanged() {
            return;
        }
        let problems = self.now.problems.len();
        match serde_saphyr::from_str::<Value>(text) {
            Ok(Value::Null) => {}
            Ok(value) => self.add(value),
            Err(error) => {
                let first_line = error.to_string().lines().next().unwrap_or("").to_owned();
                self.broken(
                    &format!("document {number}"),
                    format!("is no YAML: {first_line}; skipped"),
                );
            }
        }
        let found = mem::take(&mut self.found);
        if self.now.problems.len() == problems {
            self.now.documents.insert((Arc::clone(&self.file), self.document), found);
        }
    }

    /// Takes the objects of a document over, if it is as it was and they are from there.
    fn add_unchanged(&mut self) -> bool {
        let at = (Arc::clone(&self.file), self.document);
        let Some(found) = self.known.documents.get(&at) else {
            return false;
        };
        let is_from_here = |identity: &Identity| {
            let known = self.known.objects.get(identity);
            known.is_some_and(|known| known.file == self.file && known.document == self.document)
                && !self.now.objects.contains_key(identity)
        };
        if !found.iter().all(is_from_here) {
            return false;
        }
        let objects =
            found.iter().filter_map(|identity| self.known.objects.get_key_value(identity));
        self.now.objects.extend(objects.map(|(identity, known)| (identity.clone(), known.clone())));
        self.now.documents.insert(at, found.clone());
        true
    }

    fn add(&mut self, value: Value) {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        let (version, kind) = (text("/apiVersion"), text("/kind"));
        match (version, kind) {
            ("v1", "List") => {
                if let Value::Object(mut list) = value
                    && let Some(Value::Array(items)) = list.remove("items")
                {
                    items.into_iter().for_each(|item| self.add(item));
                }
            }
            ("v1", "Service") => self
                .add_change("Service", value, |name, service| Change::Service(name, Some(service))),
            ("v1", "Endpoints") => {
                let node_name = self.node_name;
                self.add_change("Endpoints", value, |name, object: Box<Endpoints>| {
                    Change::Endpoints(name, Some(Slice::from_endpoints(&object, Some(node_name))))
                });
            }
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                let node_name = self.node_name;
                self.add_change("EndpointSlice", value, |name, object: Box<SliceObject>| {
                    let slice = Slice::from_object(&object, Some(node_name));
                    Change::Slice(name, Some(Box::new(slice)))
                });
            }
            ("v1", "Node") => {
                let node_name = self.node_name;
                self.add_kept("Node", value, |object: &Node| {
                    match object.metadata.name.as_deref() == Some(node_name) {
                        true => Kept::OwnNode(node::own_node(object)),
                        false => Kept::Nothing,
                    }
                });
            }
            ("networking.k8s.io/v1", "ServiceCIDR") => {
                self.add_kept("ServiceCIDR", value, |object: &ServiceCIDR| {
                    Kept::ServiceCidr(node::cidrs(object))
                });
            }
            (_, "") => self.broken("kind", "is missing, so this is no object; skipped".to_owned()),
            // Deployments and the like may lie in the same files.
            _ => {}
        }
    }

    fn add_change<T: DeserializeOwned + kube::Resource<DynamicType = ()>>(
        &mut self,
        kind: &'static str,
        value: Value,
        change: impl FnOnce(ObjectName, Box<T>) -> Change,
    ) {
        let object_sum = sum(value.to_string().as_bytes());
        let Some((name, object)) = self.parse::<T>(kind, value) else {
            return;
        };
        let before = self.known.objects.get(&(kind, name.clone()));
        if before.is_none_or(|known| known.object != object_sum) {
            self.changes.push(change(name.clone(), Box::new(object)));
        }
        self.know((kind, name), object_sum, Kept::Nothing);
    }

    fn add_kept<T: DeserializeOwned + kube::Resource<DynamicType = ()>>(
        &mut self,
        kind: &'static str,
        value: Value,
        keep: impl FnOnce(&T) -> Kept,
    ) {
        if let Some((name, object)) = self.parse::<T>(kind, value) {
            self.know((kind, name), 0, keep(&object));
        }
    }

    fn know(&mut self, identity: Identity, object: Sum, kept: Kept) {
        let known = Known { file: Arc::clone(&self.file), document: self.document, object, kept };
        self.found.push(identity.clone());
        self.now.objects.insert(identity, known);
    }

    /// An object, unless something is wrong with it.
    fn parse<T: DeserializeOwned + kube::Resource<DynamicType = ()>>(
        &mut self,
        kind: &'static str,
        value: Value,
    ) -> Option<(ObjectName, T)> {
        let shown = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("?");
        let shown = format!("{kind} {shown}");
        let mut object = match serde_json::from_value::<T>(value) {
            Ok(object) => object,
            Err(error) => {
                self.broken(&shown, format!("{error}; skipped"));
                return None;
            }
        };
        let name = object_name(object.meta_mut());
        if name.name.is_empty() {
            self.broken(&shown, "metadata.name is missing; skipped".to_owned());
            return None;
        }
        object.meta_mut().namespace = Some(name.namespace.clone());
        if let Some(other) = self.now.objects.get(&(kind, name.clone())) {
            let message = format!("is in {} already; that one counts", other.file.display());
            self.problem(&shown, message);
            return None;
        }
        Some((name, object))
    }
}

fn sum(bytes: &[u8]) -> Sum {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Hands out what lies between lines that begin with `---`, as for kubectl, and is more than
/// comments. A file may be large: one document at a time is in memory.
fn each_document(file: &Path, mut each: impl FnMut(&str)) -> io::Result<()> {
    let mut lines = BufReader::new(File::open(file)?);
    let (mut text, mut has_content) = (String::new(), false);
    loop {
        let start = text.len();
        let is_end = lines.read_line(&mut text)? == 0;
        let line = &text[start..];
        if is_end || line.starts_with("---") {
            text.truncate(start);
            if mem::take(&mut has_content) {
                each(&text);
            }
            text.clear();
        } else {
            let line = line.trim();
            has_content |= !line.is_empty() && !line.starts_with('#');
        }
        if is_end {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: good\n";

    fn names(reading: &Reading) -> Vec<String> {
        reading.objects.keys().map(|(kind, name)| format!("{kind} {name}")).collect()
    }

    fn read_as_a(folder: &tempfile::TempDir, known: &Reading) -> (Reading, Vec<String>) {
        let (reading, changes) = read(folder.path(), "node-a", known);
        let shown = changes.into_iter().map(|change| match change {
            Change::Service(name, object) => (object.is_some(), "Service", name),
            Change::Slice(name, object) => (object.is_some(), "EndpointSlice", name),
            Change::Endpoints(name, object) => (object.is_some(), "Endpoints", name),
        });
        let sign = |is_there| if is_there { '+' } else { '-' };
        (reading, shown.map(|(is, kind, name)| format!("{}{kind} {name}", sign(is))).collect())
    }

    fn read_first(folder: &tempfile::TempDir) -> Reading {
        read_as_a(folder, &Reading::default()).0
    }

    #[test]
    fn a_bad_document_leaves_the_others_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), format!("a: [\n---\n{GOOD}")).unwrap();
        fs::write(folder.path().join("b.yml"), "kind: Deployment\napiVersion: apps/v1\n").unwrap();
        fs::write(folder.path().join("notes.txt"), "not read").unwrap();
        let reading = read_first(&folder);
        assert_eq!(names(&reading), ["Service default/good"]);
        assert_eq!(reading.problems.len(), 1, "{:?}", reading.problems);
        assert_eq!(reading.problems[0].field, "document 1");
        let (again, changes) = read_as_a(&folder, &reading);
        assert_eq!((again.problems, changes.len()), (reading.problems, 0), "it is still wrong");
    }

    #[test]
    fn what_a_broken_file_held_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, GOOD).unwrap();
        let before = read_first(&folder);
        fs::write(&file, "apiVersion: v1\nkind: [").unwrap();
        let (broken, changes) = read_as_a(&folder, &before);
        assert_eq!(names(&broken), ["Service default/good"]);
        assert!(changes.is_empty(), "{changes:?}");
        fs::remove_file(&file).unwrap();
        let (_, changes) = read_as_a(&folder, &broken);
        assert_eq!(changes, ["-Service default/good"]);
    }

    #[test]
    fn only_what_is_another_object_counts_as_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let other = GOOD.replace("good", "other");
        fs::write(&file, format!("{GOOD}---\n{other}")).unwrap();
        let before = read_first(&folder);
        fs::write(&file, format!("# moved\n{other}---\n{GOOD}spec: {{clusterIP: 10.0.0.1}}\n"))
            .unwrap();
        let (reading, changes) = read_as_a(&folder, &before);
        assert_eq!(changes, ["+Service default/good"]);
        fs::write(folder.path().join("b.yaml"), &other).unwrap();
        let (both, changes) = read_as_a(&folder, &reading);
        assert!(changes.is_empty() && both.problems[0].message.contains("already"));
        // The one in the other file counts from now on, and says the same.
        fs::write(&file, GOOD).unwrap();
        let (_, changes) = read_as_a(&folder, &both);
        assert_eq!(changes, ["+Service default/good"]);
    }

    #[test]
    fn problems_name_the_object_and_the_field() {
        let folder = tempfile::tempdir().unwrap();
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: odd}\nspec: {ports: 80}\n";
        fs::write(folder.path().join("a.yaml"), text).unwrap();
        let reading = read_first(&folder);
        assert_eq!(reading.problems[0].field, "Service odd");
        assert!(reading.objects.is_empty());
    }

    #[test]
    fn the_own_node_and_service_cidrs_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let zone = "labels: {topology.kubernetes.io/zone: a}";
        let text = format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: node-b}}}}\n---\n\
             {{apiVersion: v1, kind: Node, metadata: {{name: node-a, {zone}}}}}\n---\n\
             {{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {{name: a}}, \
             spec: {{cidrs: [10.96.0.0/16, 'fd00::/108']}}}}\n"
        );
        fs::write(folder.path().join("a.yaml"), text).unwrap();
        let (reading, changes) = read_as_a(&folder, &Reading::default());
        assert_eq!(reading.own_node().unwrap().zone.as_deref(), Some("a"));
        assert_eq!(reading.service_cidrs().len(), 2);
        assert!(changes.is_empty());
        let again = read_as_a(&folder, &reading).0;
        assert_eq!(again.own_node(), reading.own_node());
        assert_eq!(read(folder.path(), "node-c", &Reading::default()).0.own_node(), None);
    }

    #[test]
    fn lists_and_repeated_objects() {
        let folder = tempfile::tempdir().unwrap();
        let item = "{apiVersion: v1, kind: Service, metadata: {name: good}}";
        let text = format!("apiVersion: v1\nkind: List\nitems: [{item}, {item}]\n");
        fs::write(folder.path().join("a.yaml"), text).unwrap();
        let reading = read_first(&folder);
        assert_eq!(names(&reading), ["Service default/good"]);
        assert!(reading.problems[0].message.contains("already"));
    }
}
