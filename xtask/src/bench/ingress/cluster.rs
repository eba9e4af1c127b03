//! As much of a Kubernetes API as an ingress controller sees: lists in pages, and watches that tell a
//! change at once. What is written to it is accepted and forgotten.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Context;
use podium_tests::netns::Netns;
use serde_json::{Value, json};

/// The API.
#[derive(Clone)]
pub struct Cluster {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    stored: Mutex<Stored>,
    changed: Condvar,
}

#[derive(Default)]
struct Stored {
    /// By collection, then by namespace and name.
    collections: BTreeMap<String, BTreeMap<String, Value>>,
    /// What happened: collection, kind of event, object. The resource version counts them.
    events: Vec<(String, &'static str, Value)>,
}

impl Cluster {
    /// Serves these objects inside of a namespace, until the program ends.
    pub fn start(
        netns: &Netns,
        address: SocketAddr,
        objects: Vec<Value>,
    ) -> anyhow::Result<Cluster> {
        let listener = netns.run(|| TcpListener::bind(address))?;
        let listener = listener.with_context(|| format!("listen on {address}"))?;
        let cluster = Cluster { address, state: Arc::default() };
        for object in objects {
            cluster.apply(object);
        }
        let state = cluster.state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                // A client that went away is its own loss.
                thread::spawn(move || drop(serve(stream, &state)));
            }
        });
        Ok(cluster)
    }

    /// What its clients need.
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"http://{}\"}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             users: [{{name: u, user: {{}}}}]\n",
            self.address
        )
    }

    /// Creates or replaces an object.
    pub fn apply(&self, object: Value) {
        self.change(object, false);
    }

    /// Deletes an object.
    pub fn delete(&self, object: Value) {
        self.change(object, true);
    }

    fn change(&self, mut object: Value, deleted: bool) {
        let collection = collection_of(&object);
        let key = format!("{}/{}", object["metadata"]["namespace"], object["metadata"]["name"]);
        let mut stored = lock(&self.state);
        object["metadata"]["resourceVersion"] = json!((stored.events.len() + 1).to_string());
        let objects = stored.collections.entry(collection.clone()).or_default();
        let before = if deleted {
            objects.remove(&key);
            None
        } else {
            objects.insert(key, object.clone())
        };
        let event = match (deleted, before) {
            (true, _) => "DELETED",
            (false, None) => "ADDED",
            (false, Some(_)) => "MODIFIED",
        };
        stored.events.push((collection, event, object));
        drop(stored);
        self.state.changed.notify_all();
    }
}

fn lock(state: &State) -> MutexGuard<'_, Stored> {
    state.stored.lock().unwrap_or_else(PoisonError::into_inner)
}

fn collection_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, plural) = (text(&object["apiVersion"]), text(&object["kind"]).to_lowercase());
    let end = if plural.ends_with('s') { "es" } else { "s" };
    let root = if version == "v1" { "/api" } else { "/apis" };
    format!("{root}/{version}/{plural}{end}")
}

fn serve(stream: TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
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
        let mut body = vec![0; length.and_then(|text| text.trim().parse().ok()).unwrap_or(0)];
        input.read_exact(&mut body)?;
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let query = Query::parse(target);
        match method {
            "GET" if query.watch => return watch(&mut out, state, &query),
            "GET" if query.is_collection() => respond(&mut out, 200, &list(state, &query))?,
            "GET" => respond(
                &mut out,
                404,
                &json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
                    "message": "not found", "code": 404,
                }),
            )?,
            _ => {
                let mut body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
                body["metadata"]["resourceVersion"] = json!("1");
                respond(&mut out, if method == "POST" { 201 } else { 200 }, &body)?;
            }
        }
    }
}

/// What is asked for.
struct Query {
    collection: String,
    namespace: Option<String>,
    name: Option<String>,
    watch: bool,
    since: usize,
    limit: usize,
    skip: usize,
}

impl Query {
    fn parse(target: &str) -> Query {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let value = |key: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(found, _)| *found == key).map(|(_, value)| value)
        };
        let number = |key: &str| value(key).and_then(|text| text.parse().ok());
        let (mut collection, mut namespace) = (path.to_owned(), None);
        if let Some((root, rest)) = path.split_once("/namespaces/")
            && let Some((of, plural)) = rest.split_once('/')
        {
            namespace = Some(of.to_owned());
            collection = format!("{root}/{plural}");
        }
        let name = value("fieldSelector").map(|text| text.replace("metadata.name%3D", ""));
        Query {
            collection,
            namespace,
            name,
            watch: value("watch") == Some("true"),
            since: number("resourceVersion").unwrap_or(0),
            limit: number("limit").unwrap_or(usize::MAX),
            skip: number("continue").unwrap_or(0),
        }
    }

    /// Whether a collection is asked for, not an object of one.
    fn is_collection(&self) -> bool {
        let parts = self.collection.split('/').count();
        parts <= if self.collection.starts_with("/apis/") { 5 } else { 4 }
    }

    fn selects(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        self.namespace.as_ref().is_none_or(|namespace| metadata["namespace"] == **namespace)
            && self.name.as_ref().is_none_or(|name| metadata["name"] == **name)
    }
}

fn list(state: &State, query: &Query) -> Value {
    let stored = lock(state);
    let objects = stored.collections.get(&query.collection);
    let selected = objects.into_iter().flat_map(BTreeMap::values).filter(|o| query.selects(o));
    let mut items: Vec<Value> =
        selected.skip(query.skip).take(query.limit.saturating_add(1)).cloned().collect();
    let mut metadata = json!({ "resourceVersion": stored.events.len().to_string() });
    if items.len() > query.limit {
        items.truncate(query.limit);
        metadata["continue"] = json!((query.skip + query.limit).to_string());
    }
    json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items })
}

fn watch(out: &mut TcpStream, state: &State, query: &Query) -> io::Result<()> {
    out.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    let mut seen = query.since;
    loop {
        let mut lines = String::new();
        {
            let mut stored = lock(state);
            if stored.events.len() <= seen {
                stored = state.changed.wait(stored).unwrap_or_else(PoisonError::into_inner);
            }
            for (collection, event, object) in stored.events.get(seen..).unwrap_or_default() {
                if *collection == query.collection && query.selects(object) {
                    lines += &format!("{}\n", json!({ "type": event, "object": object }));
                }
            }
            seen = seen.max(stored.events.len());
        }
        if !lines.is_empty() {
            out.write_all(format!("{:x}\r\n{lines}\r\n", lines.len()).as_bytes())?;
        }
    }
}

fn respond(out: &mut TcpStream, status: u16, body: &Value) -> io::Result<()> {
    let text = body.to_string();
    let length = text.len();
    let head = format!(
        "HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    out.write_all((head + &text).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_a_client() {
        let query = Query::parse("/apis/networking.k8s.io/v1/ingresses?&limit=500&continue=500");
        assert!(query.is_collection() && !query.watch);
        assert_eq!((query.limit, query.skip), (500, 500));
        let query = Query::parse(
            "/api/v1/namespaces/bench/secrets?watch=true&resourceVersion=7&fieldSelector=metadata.name%3Dtls",
        );
        assert_eq!(query.collection, "/api/v1/secrets");
        assert_eq!((query.since, query.name.as_deref()), (7, Some("tls")));
        assert!(query.selects(&json!({ "metadata": { "name": "tls", "namespace": "bench" } })));
        assert!(!query.selects(&json!({ "metadata": { "name": "tls", "namespace": "other" } })));
        assert!(
            !Query::parse("/apis/coordination.k8s.io/v1/namespaces/a/leases/b").is_collection()
        );
    }

    #[test]
    fn lists_come_in_pages() {
        let cluster = Cluster { address: ([127, 0, 0, 1], 1).into(), state: Arc::default() };
        for name in ["a", "b", "c"] {
            cluster.apply(
                json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name } }),
            );
        }
        let first = list(&cluster.state, &Query::parse("/api/v1/services?limit=2"));
        assert_eq!(first["items"].as_array().map(Vec::len), Some(2));
        assert_eq!(first["metadata"]["continue"], "2");
        let rest = list(&cluster.state, &Query::parse("/api/v1/services?limit=2&continue=2"));
        assert_eq!(rest["items"].as_array().map(Vec::len), Some(1));
        assert!(rest["metadata"]["continue"].is_null());
    }
}
