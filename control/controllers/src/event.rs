//! Event recorder (`core/v1`): the same event again raises the count of the first one, as upstream's
//! recorder does. Recording never waits for the API server; events are best effort.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;

const QUEUE_LENGTH_MAX: usize = 4096;
const REMEMBERED_MAX: usize = 4096;

/// Takes events and hands them to a task of its own.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
}

#[derive(Debug)]
struct Note {
    component: &'static str,
    object: ObjectReference,
    kind: &'static str,
    reason: String,
    message: String,
    at: Timestamp,
}

impl Recorder {
    /// A recorder whose task ends with its last clone.
    pub fn start(client: Client) -> Self {
        let (queue, notes) = mpsc::channel(QUEUE_LENGTH_MAX);
        tokio::spawn(write_all(client, notes));
        Self { queue }
    }

    /// Records an event of type Normal.
    pub fn normal<K: Resource<DynamicType = ()>>(
        &self,
        component: &'static str,
        object: &K,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.note(component, reference(object), "Normal", reason, message.into());
    }

    /// Records an event of type Warning.
    pub fn warning<K: Resource<DynamicType = ()>>(
        &self,
        component: &'static str,
        object: &K,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.note(component, reference(object), "Warning", reason, message.into());
    }

    fn note(
        &self,
        component: &'static str,
        object: ObjectReference,
        kind: &'static str,
        reason: &str,
        message: String,
    ) {
        let (reason, at) = (reason.to_owned(), Timestamp::now());
        let note = Note { component, object, kind, reason, message, at };
        if self.queue.try_send(note).is_err() {
            tracing::debug!("event dropped: the queue is full");
        }
    }
}

/// A reference to an object.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let metadata = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: None,
    }
}

async fn write_all(client: Client, mut notes: mpsc::Receiver<Note>) {
    let mut known: HashMap<String, (String, i32)> = HashMap::new();
    while let Some(note) = notes.recv().await {
        let namespace = note.object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let identity = format!(
            "{:?} {:?} {} {}",
            note.object.kind, note.object.uid, note.reason, note.message
        );
        if let Some((name, count)) = known.get_mut(&identity) {
            *count += 1;
            let patch = json!({"count": *count, "lastTimestamp": Time(note.at)});
            if api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok() {
                continue;
            }
            known.remove(&identity);
        }
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        let event = first(note, &namespace);
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                known.insert(identity, (event.metadata.name.unwrap_or_default(), 1));
            }
            Err(error) => tracing::debug!(%error, "event not written"),
        }
    }
}

fn first(note: Note, namespace: &str) -> Event {
    let name = format!(
        "{}.{:x}",
        note.object.name.as_deref().unwrap_or("object"),
        note.at.as_nanosecond()
    );
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: note.object,
        type_: Some(note.kind.to_owned()),
        reason: Some(note.reason),
        message: Some(note.message),
        count: Some(1),
        first_timestamp: Some(Time(note.at)),
        last_timestamp: Some(Time(note.at)),
        source: Some(EventSource { component: Some(note.component.to_owned()), host: None }),
        reporting_component: Some(note.component.to_owned()),
        ..Event::default()
    }
}
