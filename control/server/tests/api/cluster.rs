//! A server for one test, and ways to ask it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::response::Parts;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use podium_server::{ApiServer, ClientService, Config, Identity};
use podium_store::{Embedded, Retention};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

/// A server of its own, with its store.
pub struct Cluster {
    pub server: ApiServer,
    pub store: Arc<Embedded>,
    pub directory: tempfile::TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::open(tempfile::tempdir().unwrap(), |_| {}).await
    }

    pub async fn configured(change: impl FnOnce(&mut Config)) -> Self {
        Self::open(tempfile::tempdir().unwrap(), change).await
    }

    async fn open(directory: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let path = directory.path().join("store.redb");
        let store = Arc::new(Embedded::open(&path, Retention::default()).unwrap());
        let mut config = Config::new(directory.path());
        config.bind_address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        change(&mut config);
        let server = ApiServer::start(config, store.clone()).await.unwrap();
        Self { server, store, directory }
    }

    /// The same cluster after a stop and a start.
    pub async fn restarted(self) -> Self {
        self.restarted_with(|_| {}).await
    }

    /// The same with other settings.
    pub async fn restarted_with(self, change: impl FnOnce(&mut Config)) -> Self {
        let Self { server, store, directory } = self;
        server.shutdown().await;
        drop(store);
        Self::open(directory, change).await
    }

    pub fn client(&self) -> ClientService {
        self.server.client_service(Identity::system("test"))
    }

    pub async fn send(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        self.send_as(method, path, "application/json", body).await
    }

    pub async fn send_as(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let (parts, body) = self.raw(method, path, content_type, text).await;
        (parts.status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Any bytes as the body.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> (Parts, Bytes) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .body(Full::<Bytes>::from(body.into()))
            .unwrap();
        let response = self.client().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts, body.collect().await.unwrap().to_bytes())
    }

    /// A watch read to its end: what its frames say.
    pub async fn watch(&self, path: &str) -> Vec<Value> {
        let (_, text) = self.raw("GET", path, "", Bytes::new()).await;
        let lines = text.split(|byte| *byte == b'\n');
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    pub async fn get(&self, path: &str) -> Value {
        self.send("GET", path, Value::Null).await.1
    }
}

pub const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const MERGE: &str = "application/merge-patch+json";

pub fn configmap(name: &str) -> Value {
    json!({ "metadata": { "name": name, "labels": { "a": name } }, "data": { "k": "v" } })
}

pub fn pod(name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
    })
}
