//! Events (`core/v1`) about pods and the node, counted as upstream does: the same event again raises
//! the count of the first one. Recording never waits for the API server.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;

/// Events waiting to be written; more are dropped, they are best effort.
const QUEUE_LENGTH_MAX: usize = 1024;
/// Events remembered for counting.
const REMEMBERED_MAX: usize = 4096;

/// Takes events and hands them to a task of its own.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Noted>,
}

struct Noted {
    object: ObjectReference,
    warning: bool,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

impl Recorder {
    pub(crate) fn start(client: kube::Client, node_name: &str) -> Self {
        let (queue, notes) = mpsc::channel(QUEUE_LENGTH_MAX);
        tokio::spawn(write_all(client, node_name.to_owned(), notes));
        Self { queue }
    }

    pub(crate) fn normal(
        &self,
        object: ObjectReference,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.note(object, false, reason, message.into());
    }

    pub(crate) fn warning(
        &self,
        object: ObjectReference,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.note(object, true, reason, message.into());
    }

    fn note(&self, object: ObjectReference, warning: bool, reason: &'static str, message: String) {
        tracing::debug!(object = object.name, reason, message, "event");
        let note = Noted { object, warning, reason, message, at: Timestamp::now() };
        if self.queue.try_send(note).is_err() {
            tracing::debug!(reason, "event dropped: the queue is full");
        }
    }
}

/// The reference of a pod, or of one of its containers, in an event.
pub(crate) fn pod_reference(pod: &Pod, container: Option<(&str, bool)>) -> ObjectReference {
    let field_path = container.map(|(name, init)| {
        format!("spec.{}{{{name}}}", if init { "initContainers" } else { "containers" })
    });
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path,
    }
}

/// The reference of the node in an event; upstream uses the node's name for the uid.
pub(crate) fn node_reference(node_name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(node_name.to_owned()),
        uid: Some(node_name.to_owned()),
        api_version: Some(<Node as k8s_openapi::Resource>::API_VERSION.to_owned()),
        ..ObjectReference::default()
    }
}

async fn write_all(client: kube::Client, node_name: String, mut notes: mpsc::Receiver<Noted>) {
    let mut written: HashMap<String, (String, i32)> = HashMap::new();
    while let Some(note) = notes.recv().await {
        if written.len() > REMEMBERED_MAX {
            written.clear();
        }
        if let Err(error) = write(&client, &node_name, &note, &mut written).await {
            tracing::debug!(reason = note.reason, %error, "event not written");
        }
    }
}

async fn write(
    client: &kube::Client,
    node_name: &str,
    note: &Noted,
    written: &mut HashMap<String, (String, i32)>,
) -> Result<(), kube::Error> {
    let namespace = note.object.namespace.as_deref().unwrap_or("default");
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let key = [
        namespace.to_owned(),
        text(&note.object.kind),
        text(&note.object.name),
        text(&note.object.uid),
        text(&note.object.field_path),
        note.reason.to_owned(),
        note.message.clone(),
    ]
    .join("\0");
    if let Some((name, count)) = written.get_mut(&key) {
        let patch = json!({"count": *count + 1, "lastTimestamp": Time(note.at)});
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => {
                *count += 1;
                return Ok(());
            }
            // Its time is over on the server: begin again.
            Err(error) if crate::error::is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let object_name = text(&note.object.name);
    let name = format!("{object_name}.{:x}", note.at.as_nanosecond());
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: note.object.clone(),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(note.reason.to_owned()),
        message: Some(note.message.clone()),
        count: Some(1),
        first_timestamp: Some(Time(note.at)),
        last_timestamp: Some(Time(note.at)),
        source: Some(EventSource {
            component: Some("kubelet".to_owned()),
            host: Some(node_name.to_owned()),
        }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node_name.to_owned()),
        ..Event::default()
    };
    api.create(&PostParams::default(), &event).await?;
    written.insert(key, (name, 1));
    Ok(())
}
