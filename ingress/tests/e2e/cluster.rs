//! As much of a Kubernetes API as an ingress controller sees: lists, watches, single objects that are
//! written against their resource version (Leases, Events), and status patches.

use crate::harness::wait_until;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The API server of a test.
pub struct Cluster {
    pub address: SocketAddr,
    state: Arc<State>,
    stopped: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    /// Every change in order; the resource version is the number of changes so far.
    changes: Mutex<Vec<Stored>>,
    /// Requests other than GET: method, path, body.
    writes: Mutex<Vec<(String, String, Value)>>,
    /// Objects that are written one by one, by their path.
    single: Mutex<BTreeMap<String, Value>>,
    /// Collections this API does not have.
    absent: Mutex<Vec<String>>,
    /// Request targets of all GETs.
    reads: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Stored {
    collection: String,
    kind: &'static str,
    object: Value,
}

impl Cluster {
    pub fn start() -> Cluster {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (state, stopped) = (Arc::new(State::default()), Arc::new(AtomicBool::new(false)));
        accept(listener, state.clone(), stopped.clone());
        Cluster { address, state, stopped }
    }

    /// Goes away for a moment; everything stored stays.
    pub fn restart(&mut self, away: Duration, meanwhile: impl FnOnce(&Cluster)) {
        self.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        thread::sleep(away);
        meanwhile(self);
        let mut listener = None;
        wait_until("the API port is free again", || {
            listener = TcpListener::bind(self.address).ok();
            listener.is_some()
        });
        self.stopped = Arc::new(AtomicBool::new(false));
        accept(listener.unwrap(), self.state.clone(), self.stopped.clone());
    }

    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: \
             \"http://{}\"}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n",
            self.address
        )
    }

    /// Creates or replaces the objects of a manifest.
    pub fn apply(&self, manifests: &str) {
        let documents: Vec<Value> = serde_saphyr::from_multiple(manifests).unwrap();
        for document in documents {
            self.change("MODIFIED", document);
        }
    }

    pub fn delete(&self, manifest: &str) {
        let documents: Vec<Value> = serde_saphyr::from_multiple(manifest).unwrap();
        self.change("DELETED", documents.into_iter().next().unwrap());
    }

    fn change(&self, kind: &'static str, mut object: Value) {
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let (version, plural) = (text(&object["apiVersion"]), text(&object["kind"]).to_lowercase());
        let plural =
            if plural.ends_with('s') { format!("{plural}es") } else { format!("{plural}s") };
        let root = if version == "v1" { "/api".to_string() } else { "/apis".to_string() };
        let mut changes = self.state.changes.lock().unwrap();
        object["metadata"]["namespace"] = json!("default");
        object["metadata"]["resourceVersion"] = json!((changes.len() + 1).to_string());
        object["metadata"]["uid"] = json!(format!("uid-{}", object["metadata"]["name"]));
        changes.push(Stored { collection: format!("{root}/{version}/{plural}"), kind, object });
    }

    /// An API too old (or too new) for a collection answers 404.
    pub fn lacks(&self, collection: &str) {
        self.state.absent.lock().unwrap().push(collection.into());
    }

    pub fn writes(&self) -> Vec<(String, String, Value)> {
        self.state.writes.lock().unwrap().clone()
    }

    /// Writes of a method to targets that hold a text.
    pub fn writes_to(&self, method: &str, target: &str) -> Vec<Value> {
        let all = self.writes().into_iter();
        all.filter(|(m, t, _)| m == method && t.contains(target)).map(|(_, _, body)| body).collect()
    }

    /// An object as it is now.
    pub fn object(&self, collection: &str, name: &str) -> Option<Value> {
        let single =
            self.state.single.lock().unwrap().get(&format!("{collection}/{name}")).cloned();
        single.or_else(|| current(&self.state, collection, name))
    }

    pub fn reads(&self) -> Vec<String> {
        self.state.reads.lock().unwrap().clone()
    }
}

fn accept(listener: TcpListener, state: Arc<State>, stopped: Arc<AtomicBool>) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if stopped.load(Ordering::SeqCst) {
                return;
            }
            let (state, stopped) = (state.clone(), stopped.clone());
            thread::spawn(move || drop(serve(stream, &state, &stopped)));
        }
    });
}

fn serve(stream: TcpStream, state: &State, stopped: &AtomicBool) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if input.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let lower = head.to_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
        input.read_exact(&mut body)?;
        if stopped.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if method != "GET" {
            let body: Value = serde_json::from_slice(&body).unwrap();
            state.writes.lock().unwrap().push((method.into(), target.into(), body.clone()));
            match write(state, method, target, body) {
                Ok(written) => respond(&mut out, 200, &written)?,
                Err(code) => respond(&mut out, code, &failure(code))?,
            }
            continue;
        }
        state.reads.lock().unwrap().push(target.into());
        let query = Query::parse(target);
        if state.absent.lock().unwrap().contains(&query.collection) {
            respond(&mut out, 404, &failure(404))?;
            continue;
        }
        if let Some((collection, name)) = query.single() {
            let object = state.single.lock().unwrap().get(&query.collection).cloned();
            match object.or_else(|| current(state, collection, name)) {
                Some(object) => respond(&mut out, 200, &object)?,
                None => respond(&mut out, 404, &failure(404))?,
            }
            continue;
        }
        if query.watch {
            return watch(&mut out, state, stopped, &query);
        }
        respond(&mut out, 200, &list(state, &query))?;
    }
}

struct Query {
    collection: String,
    namespace: Option<String>,
    name: Option<String>,
    watch: bool,
    since: usize,
}

impl Query {
    fn parse(target: &str) -> Query {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let value = |key: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(k, _)| *k == key)
                .map(|(_, v)| v)
        };
        let (mut collection, mut namespace) = (path.to_string(), None);
        if let Some((root, rest)) = path.split_once("/namespaces/") {
            let (in_namespace, plural) = rest.split_once('/').unwrap();
            namespace = Some(in_namespace.to_string());
            collection = format!("{root}/{plural}");
        }
        let name =
            value("fieldSelector").map(|s| s.trim_start_matches("metadata.name%3D").to_string());
        Query {
            collection,
            namespace,
            name,
            watch: value("watch") == Some("true"),
            since: value("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0),
        }
    }

    /// The collection and the name of the one object that is asked for.
    fn single(&self) -> Option<(&str, &str)> {
        let depth =
            self.collection.split('/').count() - usize::from(self.collection.starts_with("/apis/"));
        self.collection.rsplit_once('/').filter(|_| depth > 4)
    }

    fn selects(&self, stored: &Stored) -> bool {
        let meta = &stored.object["metadata"];
        stored.collection == self.collection
            && self.namespace.as_ref().is_none_or(|namespace| meta["namespace"] == **namespace)
            && self.name.as_ref().is_none_or(|name| meta["name"] == **name)
    }
}

/// An object of a collection as it is now.
fn current(state: &State, collection: &str, name: &str) -> Option<Value> {
    let changes = state.changes.lock().unwrap();
    let last = changes.iter().rfind(|stored| {
        stored.collection == collection && stored.object["metadata"]["name"] == name
    })?;
    (last.kind != "DELETED").then(|| last.object.clone())
}

fn failure(code: u16) -> Value {
    let reason = if code == 409 { "Conflict" } else { "NotFound" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
        "message": "the request failed", "code": code})
}

/// Writes one object. An update of another version than the stored one is a conflict.
fn write(state: &State, method: &str, target: &str, mut body: Value) -> Result<Value, u16> {
    let path = Query::parse(target).collection;
    if let Some(path) = path.strip_suffix("/status") {
        return patch_status(state, path, &body);
    }
    static VERSIONS: AtomicUsize = AtomicUsize::new(1);
    let version = VERSIONS.fetch_add(1, Ordering::SeqCst).to_string();
    let mut single = state.single.lock().unwrap();
    let (path, stored) = match method {
        "POST" => {
            let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
            let stored = single.get(&path).cloned();
            (path, stored)
        }
        _ => (path.clone(), single.get(&path).cloned()),
    };
    match (method, stored) {
        ("POST", Some(_)) => return Err(409),
        ("POST", None) => {}
        (_, None) => return Err(404),
        ("PUT", Some(stored)) => {
            if body["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"] {
                return Err(409);
            }
        }
        (_, Some(mut stored)) => {
            merge(&mut stored, &body);
            body = stored;
        }
    }
    body["metadata"]["resourceVersion"] = json!(version);
    single.insert(path, body.clone());
    Ok(body)
}

fn patch_status(state: &State, path: &str, patch: &Value) -> Result<Value, u16> {
    let (collection, name) = path.rsplit_once('/').unwrap();
    let mut object = current(state, collection, name).ok_or(404_u16)?;
    merge(&mut object, patch);
    let mut changes = state.changes.lock().unwrap();
    object["metadata"]["resourceVersion"] = json!((changes.len() + 1).to_string());
    let (collection, kind) = (collection.to_string(), "MODIFIED");
    changes.push(Stored { collection, kind, object: object.clone() });
    Ok(object)
}

/// A JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(name)),
            value => merge(&mut target[name], value),
        }
    }
}

fn list(state: &State, query: &Query) -> Value {
    let changes = state.changes.lock().unwrap();
    let mut items: Vec<Value> = Vec::new();
    for stored in changes.iter().filter(|stored| query.selects(stored)) {
        items.retain(|item| item["metadata"]["name"] != stored.object["metadata"]["name"]);
        if stored.kind != "DELETED" {
            let mut item = stored.object.clone();
            // Items of a list carry no kind of their own.
            item.as_object_mut()
                .unwrap()
                .retain(|field, _| field != "kind" && field != "apiVersion");
            items.push(item);
        }
    }
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": changes.len().to_string()}, "items": items})
}

fn watch(
    out: &mut TcpStream,
    state: &State,
    stopped: &AtomicBool,
    query: &Query,
) -> std::io::Result<()> {
    out.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    let mut seen = query.since;
    while !stopped.load(Ordering::SeqCst) {
        let fresh: Vec<Stored> = state.changes.lock().unwrap()[seen..].to_vec();
        seen += fresh.len();
        for stored in fresh.iter().filter(|stored| query.selects(stored)) {
            let line = format!("{}\n", json!({"type": stored.kind, "object": stored.object}));
            write!(out, "{:x}\r\n{line}\r\n", line.len())?;
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn respond(out: &mut TcpStream, status: u16, body: &Value) -> std::io::Result<()> {
    let text = body.to_string();
    write!(
        out,
        "HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    )
}
