//! Deployment controller: executes the plan of a Deployment and writes its status.

mod plan;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;

use crate::Error;
use crate::informer::{Change, Key, controller_of};
use crate::queue::Controller;
use crate::write::Context;
use plan::Op;

const COMPONENT: &str = "deployment-controller";

pub(crate) struct Deployments(pub(crate) Context);

impl Controller for Deployments {
    const NAME: &'static str = "deployment";

    fn keys(&self, change: &Change) -> Vec<Key> {
        match change.kind {
            "Deployment" => vec![change.key.clone()],
            "ReplicaSet" => change.owners("Deployment"),
            // Recreate waits for the end of old pods; their ReplicaSet's status tells of it.
            _ => Vec::new(),
        }
    }

    fn all(&self) -> Vec<Key> {
        self.0.cache.deployments.keys()
    }

    async fn sync(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let cache = &self.0.cache;
        let Some(deployment) = cache.deployments.get(key) else { return Ok(None) };
        if deployment.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let sets = cache.replica_sets.list_in(&key.namespace).into_iter().filter(|set| {
            set.metadata.deletion_timestamp.is_none()
                && controller_of(&set.metadata)
                    .is_some_and(|owner| Some(&owner.uid) == deployment.metadata.uid.as_ref())
        });
        let sets: Vec<_> = sets.map(|set| (*set).clone()).collect();
        let plan = plan::plan(&deployment, &sets, Timestamp::now());
        for op in plan.ops {
            self.execute(&deployment, op).await?;
        }
        let mut current =
            cache.deployments.get(key).map_or_else(|| (*deployment).clone(), |d| (*d).clone());
        let old = current.clone();
        current.status = Some(plan.status);
        self.0.update_status(&cache.deployments, &old, &current).await?;
        Ok(plan.again)
    }
}

impl Deployments {
    async fn execute(&self, deployment: &Deployment, op: Op) -> Result<(), Error> {
        let cache = &self.0.cache;
        match op {
            Op::Create(set) => {
                self.0.create(&cache.replica_sets, &*set).await?;
            }
            Op::Update(old, new) => self.0.update(&cache.replica_sets, &old, &new).await?,
            Op::Delete(set) => self.0.delete(&cache.replica_sets, &*set).await?,
            Op::Annotate(new) => self.0.update(&cache.deployments, deployment, &new).await?,
            Op::Event(message) => {
                self.0.events.normal(COMPONENT, deployment, "ScalingReplicaSet", message);
            }
        }
        Ok(())
    }
}
