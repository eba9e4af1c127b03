//! Tells of problems where people look for them: in Kubernetes Events on the objects concerned.
//!
//! Every node finds the same problem. Its Event has the same name on each, so that the API server
//! takes the first and refuses all others.

use std::fmt::Debug;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{core::v1::Service, discovery::v1::EndpointSlice, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, Resource, ResourceExt as _, api::PostParams};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tracing::debug;

use crate::model::Problem;

/// Who says it.
const CONTROLLER: &str = "podium-proxy";

/// Problems that may wait to be told of; the log has them all.
const QUEUE_LEN: usize = 256;

/// Longest note the API takes, in bytes.
const NOTE_LEN_MAX: usize = 1024;

/// Starts to tell. Ends when the sender is dropped.
pub fn start(client: Client, node_name: Option<&str>) -> mpsc::Sender<Problem> {
    let (sender, mut problems) = mpsc::channel(QUEUE_LEN);
    let node_name = node_name.unwrap_or(CONTROLLER).to_owned();
    tokio::spawn(async move {
        while let Some(problem) = problems.recv().await {
            if let Err(error) = tell(&client, &node_name, &problem).await {
                debug!("cannot create an Event of {problem}: {error}");
            }
        }
    });
    sender
}

async fn tell(client: &Client, node_name: &str, problem: &Problem) -> Result<(), kube::Error> {
    let Some((kind, (namespace, name))) = (problem.object.split_once(' '))
        .and_then(|(kind, name)| Some((kind, name.split_once('/')?)))
    else {
        return Ok(());
    };
    match kind {
        "Service" => tell_of::<Service>(client, node_name, namespace, name, problem).await,
        "EndpointSlice" => {
            tell_of::<EndpointSlice>(client, node_name, namespace, name, problem).await
        }
        _ => Ok(()),
    }
}

/// `kubectl describe` finds Events by the uid of their object, which a problem does not carry.
async fn tell_of<K>(
    client: &Client,
    node_name: &str,
    namespace: &str,
    name: &str,
    problem: &Problem,
) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
    K: DeserializeOwned,
{
    let Some(object) = Api::<K>::namespaced(client.clone(), namespace).get_opt(name).await? else {
        return Ok(());
    };
    let Some(uid) = object.uid().filter(|_| object.meta().deletion_timestamp.is_none()) else {
        return Ok(());
    };
    let mut note = if problem.field.is_empty() {
        problem.message.clone()
    } else {
        format!("{}: {}", problem.field, problem.message)
    };
    note.truncate(note.floor_char_boundary(NOTE_LEN_MAX));
    let event = Event {
        metadata: ObjectMeta {
            name: Some(event_name(name, &uid, &note)),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(jiff::Timestamp::now())),
        type_: Some("Warning".to_owned()),
        reason: Some("NotServed".to_owned()),
        action: Some("Translate".to_owned()),
        note: Some(note),
        regarding: Some(object.object_ref(&())),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(node_name.to_owned()),
        ..Event::default()
    };
    match Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &event).await {
        // Another node was first.
        Err(kube::Error::Api(refusal)) if refusal.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

/// The same on every node: FNV-1a over the object and what is wrong with it.
fn event_name(object_name: &str, uid: &str, note: &str) -> String {
    let bytes = uid.bytes().chain([0]).chain(note.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // A name in the API has 253 bytes at most; those of objects are ASCII.
    let object_name: String = object_name.chars().take(230).collect();
    format!("{object_name}.{hash:016x}")
}
