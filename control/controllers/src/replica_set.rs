//! ReplicaSet controller: keeps as many pods as asked for, adopts and releases by labels, and writes
//! the status.

mod plan;
mod status;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt as _};

use crate::informer::{Change, Key, controller_of};
use crate::queue::Controller;
use crate::write::Context;
use crate::{Error, pod, selector};
use status::Failure;

const COMPONENT: &str = "replicaset-controller";

pub(crate) struct ReplicaSets(pub(crate) Context);

impl Controller for ReplicaSets {
    const NAME: &'static str = "replicaset";

    fn keys(&self, change: &Change) -> Vec<Key> {
        match change.kind {
            "ReplicaSet" => vec![change.key.clone()],
            "Pod" => {
                let owners = change.owners("ReplicaSet");
                let orphan = change.new.as_ref().is_some_and(|new| controller_of(new).is_none());
                if !orphan {
                    return owners;
                }
                let sets = self.0.cache.replica_sets.list_in(&change.key.namespace);
                let labels = change.new.as_ref().and_then(|new| new.labels.as_ref());
                let adopters = sets.iter().filter(|set| selects(set, labels));
                owners.into_iter().chain(adopters.map(|set| Key::of(&set.metadata))).collect()
            }
            _ => Vec::new(),
        }
    }

    fn all(&self) -> Vec<Key> {
        self.0.cache.replica_sets.keys()
    }

    async fn sync(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let store = &self.0.cache.pods;
        let Some(set) = self.0.cache.replica_sets.get(key) else { return Ok(None) };
        let mine = |pod: &Pod| {
            controller_of(&pod.metadata).map(|owner| &owner.uid) == set.metadata.uid.as_ref()
        };
        let pods = store.list_in(&key.namespace).into_iter();
        let pods = pods.filter(|pod| mine(pod) || pod::is_active(pod)).collect();
        let takes = |pod: &Pod| selects(&set, pod.metadata.labels.as_ref());
        let pods = self.0.claim(&*set, store, pods, takes).await?;
        let mut result = Ok(());
        if set.metadata.deletion_timestamp.is_none() {
            let plan = plan::plan(&set, &pods, &self.siblings(&set), Timestamp::now());
            result = self.create(&set, plan.create).await;
            if result.is_ok() {
                result = self.delete(&set, &plan.delete).await;
            }
        }
        // Read again: what was just made and deleted counts.
        let pods: Vec<_> = store.list_in(&key.namespace).into_iter().filter(|p| mine(p)).collect();
        let failure = result.as_ref().err();
        let now = Timestamp::now();
        let (status, again) = status::status(&set, &pods, failure, now);
        let mut new = (*set).clone();
        new.status = Some(status);
        self.0.update_status(&self.0.cache.replica_sets, &*set, &new).await?;
        result.map_err(|failure| failure.error)?;
        Ok(again)
    }
}

impl ReplicaSets {
    /// Active pods of all sets with the same owner: a node that holds many of them gives one first.
    fn siblings(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let cache = &self.0.cache;
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let uid_of = |metadata: &ObjectMeta| controller_of(metadata).map(|owner| owner.uid.clone());
        let parent = uid_of(&set.metadata);
        let sets = cache.replica_sets.list_in(namespace).into_iter().filter(|other| {
            other.metadata.uid == set.metadata.uid
                || parent.is_some() && uid_of(&other.metadata) == parent
        });
        let uids: HashSet<String> = sets.filter_map(|other| other.uid()).collect();
        let pods = cache.pods.list_in(namespace).into_iter();
        pods.filter(|pod| pod::is_active(pod))
            .filter(|pod| uid_of(&pod.metadata).is_some_and(|uid| uids.contains(&uid)))
            .collect()
    }

    /// Creates pods in growing batches: a template that is refused is refused few times.
    async fn create(&self, set: &ReplicaSet, count: usize) -> Result<(), Failure> {
        let Some(template) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else {
            return Ok(());
        };
        let one = new_pod(template, &set.name_any(), set.namespace(), owner(set));
        for batch in plan::batches(count) {
            let made = join_all((0..batch).map(|_| self.0.create(&self.0.cache.pods, &one))).await;
            let mut failure = None;
            for made in made {
                match made {
                    Ok(pod) => {
                        let message = format!("Created pod: {}", pod.name_any());
                        self.0.events.normal(COMPONENT, set, "SuccessfulCreate", message);
                    }
                    Err(error) => {
                        let message = format!("Error creating: {error}");
                        self.0.events.warning(COMPONENT, set, "FailedCreate", message);
                        failure = Some(Failure { reason: "FailedCreate", error });
                    }
                }
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
        }
        Ok(())
    }

    async fn delete(&self, set: &ReplicaSet, victims: &[Arc<Pod>]) -> Result<(), Failure> {
        let store = &self.0.cache.pods;
        let ends = join_all(victims.iter().map(|pod| self.0.delete(store, &**pod))).await;
        let mut result = Ok(());
        for (pod, end) in victims.iter().zip(ends) {
            match end {
                Ok(()) => {
                    let message = format!("Deleted pod: {}", pod.name_any());
                    self.0.events.normal(COMPONENT, set, "SuccessfulDelete", message);
                }
                Err(error) => {
                    let message = format!("Error deleting: {error}");
                    self.0.events.warning(COMPONENT, set, "FailedDelete", message);
                    result = Err(Failure { reason: "FailedDelete", error });
                }
            }
        }
        result
    }
}

fn selects(set: &ReplicaSet, labels: Option<&selector::Labels>) -> bool {
    set.spec.as_ref().is_some_and(|spec| selector::matches(&spec.selector, labels))
}

/// The reference of a controlling owner that foreground deletion waits behind.
pub(crate) fn owner<K: Resource<DynamicType = ()>>(object: &K) -> Option<OwnerReference> {
    let mut owner = object.controller_owner_ref(&())?;
    owner.block_owner_deletion = Some(true);
    Some(owner)
}

/// A pod of a template, named after its owner.
pub(crate) fn new_pod(
    template: &PodTemplateSpec,
    owner_name: &str,
    namespace: Option<String>,
    owner: Option<OwnerReference>,
) -> Pod {
    let metadata = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{owner_name}-")),
            namespace,
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
