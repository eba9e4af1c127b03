//! Tells of problems where people look for them: in Kubernetes Events on the objects concerned.

use std::fmt::Debug;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{core::v1::Service, discovery::v1::EndpointSlice},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
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
    let reporter =
        Reporter { controller: CONTROLLER.to_owned(), instance: node_name.map(str::to_owned) };
    let recorder = Recorder::new(client.clone(), reporter);
    tokio::spawn(async move {
        while let Some(problem) = problems.recv().await {
            if let Err(error) = tell(&client, &recorder, &problem).await {
                debug!("cannot create an Event of {problem}: {error}");
            }
        }
    });
    sender
}

async fn tell(client: &Client, recorder: &Recorder, problem: &Problem) -> Result<(), kube::Error> {
    let Some((kind, (namespace, name))) = (problem.object.split_once(' '))
        .and_then(|(kind, name)| Some((kind, name.split_once('/')?)))
    else {
        return Ok(());
    };
    match kind {
        "Service" => tell_of::<Service>(client, recorder, namespace, name, problem).await,
        "EndpointSlice" => {
            tell_of::<EndpointSlice>(client, recorder, namespace, name, problem).await
        }
        _ => Ok(()),
    }
}

/// `kubectl describe` finds Events by the uid of their object, which a problem does not carry.
async fn tell_of<K>(
    client: &Client,
    recorder: &Recorder,
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
    if object.meta().deletion_timestamp.is_some() || object.uid().is_none() {
        return Ok(());
    }
    let mut note = if problem.field.is_empty() {
        problem.message.clone()
    } else {
        format!("{}: {}", problem.field, problem.message)
    };
    note.truncate(note.floor_char_boundary(NOTE_LEN_MAX));
    let event = Event {
        type_: EventType::Warning,
        reason: "NotServed".to_owned(),
        note: Some(note),
        action: "Translate".to_owned(),
        secondary: None,
    };
    recorder.publish(&event, &object.object_ref(&())).await
}
