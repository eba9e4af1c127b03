//! Deployment controller: executes the plan of a Deployment and writes its status.

mod limits;
mod plan;
mod revision;
mod rollout;
mod status;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use kube::ResourceExt as _;
use kube::api::Api;

use crate::Error;
use crate::informer::{Change, Key, controller_of};
use crate::queue::Controller;
use crate::selector;
use crate::write::{Context, failed};
use plan::Op;

const COMPONENT: &str = "deployment-controller";

pub(crate) struct Deployments(pub(crate) Context);

impl Controller for Deployments {
    const NAME: &'static str = "deployment";

    fn keys(&self, change: &Change) -> Vec<Key> {
        match change.kind {
            "Deployment" => vec![change.key.clone()],
            // Recreate waits for the end of old pods; their ReplicaSet's status tells of it.
            "ReplicaSet" => {
                let mut keys = change.owners("Deployment");
                if let Some(orphan) = change.new.as_ref().filter(|new| controller_of(new).is_none())
                {
                    let all = self.0.cache.deployments.list_in(&change.key.namespace);
                    let takers = all.iter().filter(|one| selects(one, orphan.labels.as_ref()));
                    keys.extend(takers.map(|one| Key::of(&one.metadata)));
                }
                keys
            }
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
        let sets = cache.replica_sets.list_in(&key.namespace);
        let takes = |set: &ReplicaSet| selects(&deployment, set.metadata.labels.as_ref());
        let sets = self.0.claim(&*deployment, &cache.replica_sets, sets, takes).await?;
        let alive = sets.iter().filter(|set| set.metadata.deletion_timestamp.is_none());
        let sets: Vec<ReplicaSet> = alive.map(|set| (**set).clone()).collect();
        let plan = plan::plan(&deployment, &sets, Timestamp::now());
        for op in plan.ops {
            self.execute(&deployment, op).await?;
        }
        self.write_status(&deployment, plan.status).await?;
        Ok(plan.again)
    }
}

fn selects(deployment: &Deployment, labels: Option<&selector::Labels>) -> bool {
    deployment.spec.as_ref().is_some_and(|spec| selector::matches(&spec.selector, labels))
}

impl Deployments {
    async fn execute(&self, deployment: &Deployment, op: Op) -> Result<(), Error> {
        let cache = &self.0.cache;
        match op {
            Op::Create(set) => self.create(deployment, &set).await?,
            Op::Update { old, new } => self.0.update(&cache.replica_sets, &*old, &*new).await?,
            Op::Delete(set) => self.0.delete(&cache.replica_sets, &*set).await?,
            Op::Annotate(new) => {
                self.0.update_status(&cache.deployments, deployment, &*new).await?;
            }
            Op::Event(message) => {
                self.0.events.normal(COMPONENT, deployment, "ScalingReplicaSet", message);
            }
        }
        Ok(())
    }

    async fn create(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<(), Error> {
        let Err(error) = self.0.create(&self.0.cache.replica_sets, set).await else {
            return Ok(());
        };
        let mut status = deployment.status.clone().unwrap_or_default();
        if error.code() == Some(409) {
            if self.is_same(deployment, set).await? {
                return Err(error);
            }
            // Another template has this hash, or another owner this name: the next one differs.
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        } else {
            let message =
                format!("Failed to create new replica set \"{}\": {error}", set.name_any());
            self.0.events.warning(COMPONENT, deployment, "FailedCreate", &message);
            let spec = deployment.spec.clone().unwrap_or_default();
            status = status::refused(&spec, status, &message, Timestamp::now());
        }
        self.write_status(deployment, status).await?;
        Err(error)
    }

    /// Whether the server has this very set already, which the cache then learns.
    async fn is_same(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<bool, Error> {
        let key = Key::of(&set.metadata);
        let api: Api<ReplicaSet> = Api::namespaced(self.0.client.clone(), &key.namespace);
        let live = api.get_opt(&key.name).await;
        let Some(live) = live.map_err(|source| failed::<ReplicaSet>("get", key, source))? else {
            return Ok(true);
        };
        let ours = controller_of(&live.metadata).map(|owner| &owner.uid)
            == deployment.metadata.uid.as_ref();
        let text =
            |set: &ReplicaSet| set.spec.as_ref()?.template.as_ref().map(revision::template_text);
        let same = ours && text(&live) == text(set);
        self.0.cache.replica_sets.put(live);
        Ok(same)
    }

    async fn write_status(
        &self,
        deployment: &Deployment,
        status: DeploymentStatus,
    ) -> Result<(), Error> {
        let store = &self.0.cache.deployments;
        let known = store.get(&Key::of(&deployment.metadata));
        // The annotations may just have been written; a change of the spec comes with its own turn.
        let old = known.as_deref().filter(|known| known.metadata.uid == deployment.metadata.uid);
        let old = old.unwrap_or(deployment);
        let mut new = old.clone();
        new.status = Some(status);
        self.0.update_status(store, old, &new).await
    }
}
