//! Job controller: runs pods until enough have succeeded or too many have failed. What to do is
//! decided by [`plan`]; here it is done, and pods are adopted and released.

mod back_off;
mod failure_policy;
mod indexes;
mod per_index;
mod plan;
mod pods;
mod scale;
mod tally;
mod template;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use self::plan::{Op, Plan, plan};
use self::pods::is_tracked;
use self::template::TRACKING;
use crate::informer::{Change, Key, controller_of};
use crate::queue::Controller;
use crate::replica_set::owner;
use crate::write::{Context, failed};
use crate::{Error, pod, selector};

const COMPONENT: &str = "job-controller";
const MANAGER: &str = "kubernetes.io/job-controller";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const OLD_JOB_NAME: &str = "job-name";

pub(crate) struct Jobs(pub(crate) Context);

impl Controller for Jobs {
    const NAME: &'static str = "job";

    fn keys(&self, change: &Change) -> Vec<Key> {
        match change.kind {
            "Job" => vec![change.key.clone()],
            "Pod" => {
                let mut keys = change.owners("Job");
                if let Some(orphan) = change.new.as_ref().filter(|new| controller_of(new).is_none())
                {
                    keys.extend(self.adopters(&change.key.namespace, orphan));
                }
                keys
            }
            _ => Vec::new(),
        }
    }

    fn all(&self) -> Vec<Key> {
        self.0.cache.jobs.keys()
    }

    async fn sync(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let job = self.0.cache.jobs.get(key);
        self.let_go(key, job.as_deref()).await?;
        let Some(job) = job else { return Ok(None) };
        let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if manager.is_some_and(|manager| manager != MANAGER) {
            return Ok(None);
        }
        let pods = self.claim(&job).await?;
        let plan = plan(&job, &pods, Timestamp::now());
        self.execute(&job, plan).await
    }
}

impl Jobs {
    /// The Jobs that an orphan may belong to.
    fn adopters(&self, namespace: &str, orphan: &ObjectMeta) -> Vec<Key> {
        let jobs = self.0.cache.jobs.list_in(namespace);
        let selecting = jobs.iter().filter(|job| selects(job, orphan.labels.as_ref()));
        let named = orphan.labels.iter().find_map(|labels| job_name(labels));
        let named = named.map(|name| Key::new(namespace, name));
        selecting.map(|job| Key::of(&job.metadata)).chain(named).collect()
    }

    /// Takes the finalizer from pods of a Job of this name that is no more: nobody will count them.
    async fn let_go(&self, key: &Key, job: Option<&Job>) -> Result<(), Error> {
        let uid = job.and_then(|job| job.metadata.uid.as_ref());
        let pods = self.0.cache.pods.list_in(&key.namespace);
        let left = pods.iter().filter(|pod| {
            is_tracked(pod)
                && match controller_of(&pod.metadata) {
                    Some(owner) => {
                        owner.kind == "Job" && owner.name == key.name && Some(&owner.uid) != uid
                    }
                    None => {
                        let labels = pod.metadata.labels.as_ref();
                        labels.and_then(job_name) == Some(&key.name)
                            && !job.is_some_and(|job| selects(job, labels))
                    }
                }
        });
        try_join_all(left.map(|pod| self.remove_finalizer(pod))).await?;
        Ok(())
    }

    /// The pods of the Job; adopts orphans the selector takes, releases those it takes no longer.
    async fn claim(&self, job: &Job) -> Result<Vec<Arc<Pod>>, Error> {
        let store = &self.0.cache.pods;
        let uid = job.metadata.uid.as_ref();
        let job_deleted = job.metadata.deletion_timestamp.is_some();
        let may_adopt = !job_deleted && !plan::is_finished(job);
        let mut claimed = Vec::new();
        for pod in store.list_in(job.metadata.namespace.as_deref().unwrap_or_default()) {
            let selected = selects(job, pod.metadata.labels.as_ref());
            match controller_of(&pod.metadata) {
                Some(owner) if Some(&owner.uid) != uid => {}
                Some(_) if selected || job_deleted || pod::is_terminating(&pod) => {
                    claimed.push(pod);
                }
                Some(_) => self.release(job, &pod).await?,
                None if selected && may_adopt && !pod::is_terminating(&pod) => {
                    claimed.extend(self.adopt(job, &pod).await?);
                }
                None => {}
            }
        }
        Ok(claimed)
    }

    async fn release(&self, job: &Job, pod: &Pod) -> Result<(), Error> {
        let mut released = pod.clone();
        let uid = job.metadata.uid.as_ref();
        released.owner_references_mut().retain(|owner| Some(&owner.uid) != uid);
        released.finalizers_mut().retain(|finalizer| finalizer != TRACKING);
        self.0.update(&self.0.cache.pods, pod, &released).await
    }

    /// Owner and finalizer in one write: a pod that has only one of them would never be counted, or
    /// never be let go.
    async fn adopt(&self, job: &Job, pod: &Pod) -> Result<Option<Arc<Pod>>, Error> {
        if !self.0.is_alive(job).await? {
            return Ok(None);
        }
        let mut adopted = pod.clone();
        adopted.owner_references_mut().extend(owner(job));
        if !is_tracked(&adopted) {
            adopted.finalizers_mut().push(TRACKING.to_owned());
        }
        self.0.update(&self.0.cache.pods, pod, &adopted).await?;
        Ok(self.0.cache.pods.get(&Key::of(&pod.metadata)))
    }

    async fn execute(&self, job: &Arc<Job>, mut plan: Plan) -> Result<Option<Duration>, Error> {
        let mut creations = Vec::new();
        for op in plan.ops {
            match op {
                Op::Create(pod) => creations.push(pod),
                Op::Delete(pod) => self.delete(job, &pod).await?,
                Op::Discard(pod) => {
                    self.remove_finalizer(&pod).await?;
                    self.delete(job, &pod).await?;
                }
                Op::RemoveJob => self.0.delete(&self.0.cache.jobs, &**job).await?,
            }
        }
        let (missing, created) = self.create(job, &creations).await;
        let active = plan.status.active.unwrap_or(0) - plan::number(missing);
        plan.status.active = Some(active).filter(|active| *active > 0);
        let mut new = (**job).clone();
        new.status = Some(plan.status);
        self.0.update_status(&self.0.cache.jobs, &**job, &new).await?;
        for event in plan.events {
            if event.warning {
                self.0.events.warning(COMPONENT, &**job, &event.reason, event.message);
            } else {
                self.0.events.normal(COMPONENT, &**job, &event.reason, event.message);
            }
        }
        try_join_all(plan.counted.iter().map(|pod| self.remove_finalizer(pod))).await?;
        created.map(|()| plan.requeue)
    }

    /// Creates pods in batches of 1, 2, 4, …: a template that is refused is refused few times. Says
    /// how many were not made, and why.
    async fn create(&self, job: &Job, pods: &[Box<Pod>]) -> (usize, Result<(), Error>) {
        let (mut left, mut batch) = (pods, 1);
        while !left.is_empty() {
            let (now, later) = left.split_at(batch.min(left.len()));
            let made = join_all(now.iter().map(|pod| self.0.create(&self.0.cache.pods, &**pod)));
            let (mut refused, mut why) = (0, None);
            for made in made.await {
                match made {
                    Ok(pod) => {
                        let message = format!("Created pod: {}", pod.name_any());
                        self.0.events.normal(COMPONENT, job, "SuccessfulCreate", message);
                    }
                    Err(error) => {
                        let message = format!("Error creating: {}", answer(&error));
                        self.0.events.warning(COMPONENT, job, "FailedCreate", message);
                        refused += 1;
                        why = Some(error);
                    }
                }
            }
            if let Some(error) = why {
                return (refused + later.len(), Err(error));
            }
            (left, batch) = (later, batch * 2);
        }
        (0, Ok(()))
    }

    async fn delete(&self, job: &Job, pod: &Arc<Pod>) -> Result<(), Error> {
        self.0.delete(&self.0.cache.pods, &**pod).await?;
        let message = format!("Deleted pod: {}", pod.name_any());
        self.0.events.normal(COMPONENT, job, "SuccessfulDelete", message);
        Ok(())
    }

    /// Takes the tracking finalizer away, whatever else the pod has become meanwhile.
    async fn remove_finalizer(&self, pod: &Arc<Pod>) -> Result<(), Error> {
        if !is_tracked(pod) {
            return Ok(());
        }
        let key = Key::of(&pod.metadata);
        let api: Api<Pod> = Api::namespaced(self.0.client.clone(), &key.namespace);
        let patch = json!({"metadata": {
            "uid": pod.metadata.uid,
            "$deleteFromPrimitiveList/finalizers": [TRACKING],
        }});
        match api.patch(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(patched) => {
                // With its last finalizer a pod that is being deleted may have gone, and only the
                // watch may say so.
                if patched.meta().deletion_timestamp.is_none() {
                    self.0.cache.pods.put(patched);
                }
                Ok(())
            }
            // Gone, or another one of its name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(source) => Err(failed::<Pod>("remove the tracking finalizer of", key, source)),
        }
    }
}

fn selects(job: &Job, labels: Option<&selector::Labels>) -> bool {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selector::matches(selector, labels))
}

fn job_name(labels: &selector::Labels) -> Option<&String> {
    labels.get(JOB_NAME).or_else(|| labels.get(OLD_JOB_NAME))
}

/// What the server said, without the request it said it about.
fn answer(error: &Error) -> String {
    match error {
        Error::Api { source, .. } => match &**source {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}
