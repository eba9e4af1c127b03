//! Objects from a Kubernetes API: one watch a kind, one for each Secret or ConfigMap that is named, never
//! all of them.
//!
//! Watches resume by themselves after the API was away; what was known stays in effect meanwhile.

use super::Change;
use crate::objects::{Kind, ObjectKey, Read};
use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Error};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The kinds watched from the start. Endpoints are not among them: the API mirrors them to slices.
pub const WATCHED: [Kind; 4] =
    [Kind::Ingress, Kind::IngressClass, Kind::Service, Kind::EndpointSlice];

/// How many objects one answer of the API holds: they take a hundred times what is kept of them.
const PAGE: u32 = 100;

/// The watches of a cluster.
pub struct ApiSource {
    client: Client,
    changes: mpsc::Sender<Change>,
    namespace: Option<String>,
    named: BTreeMap<(Kind, ObjectKey), JoinHandle<()>>,
}

impl ApiSource {
    /// Starts watching; `namespace` limits it to one.
    pub fn start(
        client: Client,
        namespace: Option<String>,
        changes: mpsc::Sender<Change>,
    ) -> ApiSource {
        for kind in WATCHED {
            let (client, namespace, changes) = (client.clone(), namespace.clone(), changes.clone());
            tokio::spawn(async move {
                let resource = served_resource(&client, kind).await;
                let scope = namespace.as_deref().filter(|_| kind != Kind::IngressClass);
                let api = match scope {
                    Some(namespace) => Api::namespaced_with(client, namespace, &resource),
                    None => Api::all_with(client, &resource),
                };
                follow(api, kind, resource, None, changes).await;
            });
        }
        ApiSource { client, changes, namespace, named: BTreeMap::new() }
    }

    /// Watches exactly these Secrets and ConfigMaps. Returns the ones that were not watched before.
    pub fn watch_named(
        &mut self,
        wanted: &BTreeSet<(Kind, ObjectKey)>,
    ) -> BTreeSet<(Kind, ObjectKey)> {
        self.named.retain(|key, task| {
            let keep = wanted.contains(key);
            if !keep {
                task.abort();
            }
            keep
        });
        let mut added = BTreeSet::new();
        for named in wanted {
            let (kind, key) = named;
            let allowed =
                self.namespace.as_ref().is_none_or(|namespace| **namespace == *key.namespace);
            if self.named.contains_key(named) || !allowed {
                continue;
            }
            let resource = resource(*kind, "v1");
            let api = Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
            let task = follow(api, *kind, resource, Some(key.clone()), self.changes.clone());
            self.named.insert(named.clone(), tokio::spawn(task));
            added.insert(named.clone());
        }
        added
    }
}

fn resource(kind: Kind, version: &str) -> ApiResource {
    let group = match kind {
        Kind::Ingress if version.starts_with("extensions/") => "extensions",
        Kind::Ingress | Kind::IngressClass => "networking.k8s.io",
        Kind::EndpointSlice => "discovery.k8s.io",
        Kind::Service | Kind::Secret | Kind::ConfigMap | Kind::File => "",
    };
    let plural = match kind {
        Kind::Ingress => "ingresses".to_string(),
        Kind::IngressClass => "ingressclasses".to_string(),
        other => format!("{}s", other.as_str().to_ascii_lowercase()),
    };
    let version = version.rsplit('/').next().unwrap_or(version);
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(group, version, kind.as_str()),
        &plural,
    )
}

/// The version of a kind that this API serves: v1, or the older ones of Ingress.
async fn served_resource(client: &Client, kind: Kind) -> ApiResource {
    if kind != Kind::Ingress {
        return resource(kind, "v1");
    }
    let mut wait = Duration::from_millis(100);
    loop {
        for version in ["networking.k8s.io/v1", "networking.k8s.io/v1beta1", "extensions/v1beta1"] {
            let resource = resource(kind, version);
            let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
            match api.list(&ListParams::default().limit(1)).await {
                Err(Error::Api(status)) if status.code == 404 => {}
                // Forbidden for the whole cluster may be allowed for one namespace: the watch will tell.
                Ok(_) | Err(Error::Api(_)) => return resource,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "asking the API for Ingresses; trying again");
                    break;
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}

/// Turns the events of a watch into changes until nobody listens.
async fn follow(
    api: Api<DynamicObject>,
    kind: Kind,
    resource: ApiResource,
    only: Option<ObjectKey>,
    changes: mpsc::Sender<Change>,
) {
    let config = watcher::Config::default().page_size(PAGE);
    let config = match &only {
        Some(key) => config.fields(&format!("metadata.name={}", key.name)),
        None => config,
    };
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                listed.extend(value(object, &resource).map(|value| Read::of(kind, value)));
                continue;
            }
            Ok(Event::InitDone) => Change::Replace(kind, only.clone(), std::mem::take(&mut listed)),
            Ok(Event::Apply(object)) => match value(object, &resource) {
                Some(value) => Change::Apply(kind, value),
                None => continue,
            },
            Ok(Event::Delete(object)) => {
                let key = ObjectKey::new(
                    object.metadata.namespace.unwrap_or_else(|| "default".into()),
                    object.metadata.name.unwrap_or_default(),
                );
                Change::Delete(kind, key)
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "watching objects of kind {}; trying again", kind.as_str());
                continue;
            }
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

/// An object as JSON. Items of a list come without their kind.
fn value(object: DynamicObject, resource: &ApiResource) -> Option<Value> {
    let mut value = serde_json::to_value(object).ok()?;
    value["apiVersion"] = json!(resource.api_version);
    value["kind"] = json!(resource.kind);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_the_paths_of_the_api() {
        for (kind, version, api_version, plural) in [
            (Kind::Ingress, "networking.k8s.io/v1", "networking.k8s.io/v1", "ingresses"),
            (Kind::Ingress, "extensions/v1beta1", "extensions/v1beta1", "ingresses"),
            (Kind::IngressClass, "v1", "networking.k8s.io/v1", "ingressclasses"),
            (Kind::EndpointSlice, "v1", "discovery.k8s.io/v1", "endpointslices"),
            (Kind::Service, "v1", "v1", "services"),
            (Kind::Secret, "v1", "v1", "secrets"),
        ] {
            let resource = resource(kind, version);
            assert_eq!(
                (resource.api_version.as_str(), resource.plural.as_str()),
                (api_version, plural)
            );
        }
    }
}
