//! A Kubernetes API in memory, as much of it as a node agent needs: objects by path, lists, watches,
//! merge patches. It accepts everything; checking objects is the real server's part.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Objects and their changes. Clones share them.
#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<(String, Value)>,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<String, Value>,
    /// Every change with its revision and kind, for watches that begin in the past.
    history: Vec<(u64, String, Value)>,
}

impl State {
    fn note(&mut self, changes: &broadcast::Sender<(String, Value)>, path: &str, change: Value) {
        self.history.push((self.revision, kind_of(path), change.clone()));
        // Nobody may be watching.
        let _ = changes.send((kind_of(path), change));
    }
}

impl Api {
    pub fn new() -> Self {
        Self { state: Arc::default(), changes: broadcast::channel(4096).0 }
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    pub fn list(&self, plural: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        let of_kind = state.objects.iter().filter(|(path, _)| kind_of(path) == plural);
        of_kind.map(|(_, object)| object.clone()).collect()
    }

    pub fn put(&self, path: &str, mut object: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        let revision = state.revision;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(revision.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{revision}"));
        }
        let known = state.objects.insert(path.to_owned(), object.clone()).is_some();
        let kind = if known { "MODIFIED" } else { "ADDED" };
        state.note(&self.changes, path, json!({"type": kind, "object": object}));
        object
    }

    pub fn delete(&self, path: &str) -> Option<Value> {
        let mut state = self.state.lock().unwrap();
        let object = state.objects.remove(path)?;
        state.revision += 1;
        state.note(&self.changes, path, json!({"type": "DELETED", "object": object}));
        Some(object)
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().trim_end_matches("/status").to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        let is_object = parts(&path).1.is_some();
        let found = match head.method {
            Method::GET if query.contains("watch=true") => {
                return self.watch(&kind_of(&path), &query);
            }
            Method::GET if is_object => self.get(&path),
            Method::GET => {
                let revision = self.state.lock().unwrap().revision.to_string();
                let items = self.list(&kind_of(&path));
                Some(json!({"metadata": {"resourceVersion": revision}, "items": items}))
            }
            Method::POST => {
                let name = sent["metadata"]["name"].as_str().unwrap_or_default();
                Some(self.put(&format!("{path}/{name}"), sent.clone()))
            }
            Method::PATCH => self.get(&path).map(|mut object| {
                merge(&mut object, &sent);
                self.put(&path, object)
            }),
            Method::DELETE => self.delete(&path),
            _ => None,
        };
        match found {
            Some(object) => reply(StatusCode::OK, &object),
            None => reply(
                StatusCode::NOT_FOUND,
                &json!({"status": "Failure", "reason": "NotFound", "code": 404, "message": path}),
            ),
        }
    }

    fn watch(&self, kind: &str, query: &str) -> Response<Body> {
        let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
        let from: u64 = from.and_then(|revision| revision.parse().ok()).unwrap_or(0);
        let state = self.state.lock().unwrap();
        let past = state.history.iter().filter(|(at, of, _)| *at > from && of == kind);
        let past: Vec<_> = past.map(|(_, _, change)| Ok(format!("{change}\n"))).collect();
        let (kind, changes) = (kind.to_owned(), self.changes.subscribe());
        drop(state);
        let lines = futures::stream::unfold(changes, move |mut changes| {
            let kind = kind.clone();
            async move {
                loop {
                    let (of, change) = changes.recv().await.ok()?;
                    if of == kind {
                        return Some((Ok::<_, Infallible>(format!("{change}\n")), changes));
                    }
                }
            }
        });
        Response::new(Body::from_stream(futures::stream::iter(past).chain(lines).boxed()))
    }
}

fn reply(code: StatusCode, object: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(object.to_string()));
    *response.status_mut() = code;
    response
}

/// The plural of a path's kind and, where it names an object, its name.
fn parts(path: &str) -> (String, Option<String>) {
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    let begin = if words.first() == Some(&"api") { 2 } else { 3 };
    let rest = words.get(begin..).unwrap_or_default();
    let rest =
        if rest.first() == Some(&"namespaces") && rest.len() > 2 { &rest[2..] } else { rest };
    (rest.first().unwrap_or(&"").to_string(), rest.get(1).map(ToString::to_string))
}

fn kind_of(path: &str) -> String {
    parts(path).0
}

fn merge(into: &mut Value, from: &Value) {
    match from {
        Value::Object(from) => {
            if !into.is_object() {
                *into = json!({});
            }
            for (key, value) in from {
                if value.is_null() {
                    into.as_object_mut().unwrap().remove(key);
                } else {
                    merge(&mut into[key], value);
                }
            }
        }
        other => *into = other.clone(),
    }
}
