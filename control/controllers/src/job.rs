//! Job controller: runs pods until enough have succeeded or too many have failed.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use crate::informer::{Change, Key, controller_of};
use crate::queue::Controller;
use crate::replica_set::{new_pod, owner};
use crate::write::Context;
use crate::{Error, pod};

const COMPONENT: &str = "job-controller";

pub(crate) struct Jobs(pub(crate) Context);

impl Controller for Jobs {
    const NAME: &'static str = "job";

    fn keys(&self, change: &Change) -> Vec<Key> {
        match change.kind {
            "Job" => vec![change.key.clone()],
            "Pod" => change.owners("Job"),
            _ => Vec::new(),
        }
    }

    fn all(&self) -> Vec<Key> {
        self.0.cache.jobs.keys()
    }

    async fn sync(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let cache = &self.0.cache;
        let Some(job) = cache.jobs.get(key) else { return Ok(None) };
        if job.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let pods = cache.pods.list_in(&key.namespace).into_iter().filter(|pod| {
            controller_of(&pod.metadata).is_some_and(|owner| Some(&owner.uid) == job.uid().as_ref())
        });
        let pods: Vec<Arc<Pod>> = pods.collect();
        let plan = plan(&job, &pods, Timestamp::now());
        let Some(spec) = &job.spec else { return Ok(None) };
        for _ in 0..plan.create {
            let one = new_pod(&spec.template, &job.name_any(), job.namespace(), owner(&*job));
            let made = self.0.create(&cache.pods, &one).await?;
            let message = format!("Created pod: {}", made.name_any());
            self.0.events.normal(COMPONENT, &*job, "SuccessfulCreate", message);
        }
        for victim in &plan.delete {
            self.0.delete(&cache.pods, &**victim).await?;
            let message = format!("Deleted pod: {}", victim.name_any());
            self.0.events.normal(COMPONENT, &*job, "SuccessfulDelete", message);
        }
        if plan.remove {
            self.0.delete(&cache.jobs, &*job).await?;
            return Ok(None);
        }
        let mut new = (*job).clone();
        new.status = Some(plan.status);
        self.0.update_status(&cache.jobs, &*job, &new).await?;
        Ok(plan.again)
    }
}

#[derive(Default)]
struct Plan {
    create: usize,
    delete: Vec<Arc<Pod>>,
    /// Its time to live is over.
    remove: bool,
    status: JobStatus,
    again: Option<Duration>,
}

fn plan(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let spec = job.spec.clone().unwrap_or_default();
    let mut plan = Plan { status: job.status.clone().unwrap_or_default(), ..Plan::default() };
    if let Some(finished) = finished_at(&plan.status) {
        if let Some(ttl_s) = spec.ttl_seconds_after_finished {
            let left_s = i64::from(ttl_s) - now.duration_since(finished).as_secs();
            plan.remove = left_s <= 0;
            plan.again = u64::try_from(left_s).ok().map(Duration::from_secs);
        }
        return plan;
    }
    let count = |test: &dyn Fn(&Pod) -> bool| pods.iter().filter(|pod| test(pod)).count();
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let some = |count: usize| (count != 0).then_some(number(count));
    let succeeded = count(&|pod| pod::phase(pod) == "Succeeded");
    let failed = count(&|pod| pod::phase(pod) == "Failed");
    let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| pod::is_active(pod)).cloned().collect();
    let suspended = spec.suspend == Some(true);
    if !suspended && plan.status.start_time.is_none() {
        plan.status.start_time = Some(Time(now));
    }
    let started = plan.status.start_time.as_ref().map(|time| time.0);
    let ran_s = started.map_or(0, |started| now.duration_since(started).as_secs());
    let late = spec.active_deadline_seconds.is_some_and(|limit_s| ran_s >= limit_s);
    let wanted = spec.completions.map(|count| usize::try_from(count).unwrap_or(0));
    let enough = wanted.map_or(succeeded > 0 && active.is_empty(), |wanted| succeeded >= wanted);
    let limit = usize::try_from(spec.backoff_limit.unwrap_or(6)).unwrap_or(usize::MAX);
    plan.status.succeeded = some(succeeded);
    plan.status.failed = some(failed);
    plan.status.ready = Some(number(count(&|pod| pod::is_active(pod) && pod::is_ready(pod))));
    let mut running = active.len();
    if enough {
        finish(
            &mut plan.status,
            "SuccessCriteriaMet",
            "Complete",
            "CompletionsReached",
            "Reached expected number of succeeded pods",
            now,
        );
        plan.status.completion_time = Some(Time(now));
        plan.delete = active;
        running = 0;
    } else if late || failed > limit {
        let (reason, message) = if late {
            ("DeadlineExceeded", "Job was active longer than specified deadline")
        } else {
            ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
        };
        finish(&mut plan.status, "FailureTarget", "Failed", reason, message, now);
        plan.delete = active;
        running = 0;
    } else if suspended {
        plan.delete = active;
        running = 0;
    } else {
        let parallelism = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
        let left = wanted.map_or(parallelism, |wanted| wanted - succeeded);
        let may_start = wanted.is_some() || succeeded == 0;
        plan.create = if may_start { parallelism.min(left).saturating_sub(running) } else { 0 };
        if let Some(wait) = back_off(pods, failed, now).filter(|_| plan.create > 0) {
            plan.create = 0;
            plan.again = Some(wait);
        }
        running += plan.create;
        let deadline = spec.active_deadline_seconds.and_then(|s| u64::try_from(s - ran_s).ok());
        let deadline = deadline.map(Duration::from_secs);
        plan.again = plan.again.into_iter().chain(deadline).min();
    }
    plan.status.active = some(running);
    plan
}

/// 10 s after the first failure, doubled for each further one, at most 10 minutes.
fn back_off(pods: &[Arc<Pod>], failed: usize, now: Timestamp) -> Option<Duration> {
    let failed_pods = pods.iter().filter(|pod| pod::phase(pod) == "Failed");
    let last = failed_pods.filter_map(|pod| {
        pod::condition(pod, "Ready")?.last_transition_time.as_ref().map(|time| time.0)
    });
    let since_s = now.duration_since(last.max()?).as_secs();
    let wait_s = (10_i64 << failed.saturating_sub(1).min(6)).min(600);
    u64::try_from(wait_s - since_s).ok().filter(|left| *left > 0).map(Duration::from_secs)
}

fn finished_at(status: &JobStatus) -> Option<Timestamp> {
    let mut conditions = status.conditions.iter().flatten();
    let last = conditions
        .find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    last.last_transition_time.as_ref().map(|time| time.0)
}

fn finish(
    status: &mut JobStatus,
    first: &str,
    last: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    status.ready = Some(0);
    for kind in [first, last] {
        status.conditions.get_or_insert_default().push(JobCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(Time(now)),
            last_transition_time: Some(Time(now)),
        });
    }
}
