//! What to do for a Job: which pods to make and to remove, which finished pods to count, whether it
//! is over, and its status. Pure; a plan takes one step, and the writes of one lead to the next.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::failure_policy::{Verdict, judge};
use super::pods::{is_failed, is_tracked};
use super::scale::Scale;
use super::tally::{self, Tally};
use super::{indexes, pods};
use crate::pod;

/// Something to do before the status is written.
pub(super) enum Op {
    Create(Box<Pod>),
    /// The pod counts as failed if it does not succeed while it goes.
    Delete(Arc<Pod>),
    /// The pod goes without being counted.
    Discard(Arc<Pod>),
    /// The Job has outlived its time to live.
    RemoveJob,
}

/// An event about the Job.
pub(super) struct Event {
    pub(super) warning: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

#[derive(Default)]
pub(super) struct Plan {
    pub(super) ops: Vec<Op>,
    pub(super) status: JobStatus,
    /// Pods the new status has counted: once it is written they lose the tracking finalizer.
    pub(super) counted: Vec<Arc<Pod>>,
    /// To be said once the status is written.
    pub(super) events: Vec<Event>,
    /// When to look again although nothing has changed.
    pub(super) requeue: Option<Duration>,
}

impl Plan {
    pub(super) fn requeue_in(&mut self, wait: Duration) {
        self.requeue = Some(self.requeue.map_or(wait, |other| other.min(wait)));
    }

    fn event(&mut self, warning: bool, reason: &str, message: &str) {
        let (reason, message) = (reason.to_owned(), message.to_owned());
        self.events.push(Event { warning, reason, message });
    }
}

/// What the Job has come to, before its last pods are gone.
struct Outcome {
    success: bool,
    reason: String,
    message: String,
}

impl Outcome {
    fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self { success: false, reason: reason.to_owned(), message: message.into() }
    }

    fn success(reason: &str, message: impl Into<String>) -> Self {
        Self { success: true, reason: reason.to_owned(), message: message.into() }
    }
}

/// `pods` are those the Job controls.
pub(super) fn plan(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let status = job.status.clone().unwrap_or_default();
    let mut plan = Plan { status, ..Plan::default() };
    let Some(spec) = &job.spec else { return plan };
    if let Some(finished) = finished_at(&plan.status) {
        plan.counted = pods.iter().filter(|pod| is_tracked(pod)).cloned().collect();
        if job.metadata.deletion_timestamp.is_none() {
            expire(&mut plan, spec, finished, now);
        }
        return plan;
    }
    tally::settle(&mut plan.status, pods);
    if plan.status.start_time.is_none() && !is_suspended(spec) {
        plan.status.start_time = Some(Time(now));
    }
    let tally = Tally::of(spec, &plan.status, pods);
    let decided = decided(&plan.status);
    let was_decided = decided.is_some();
    let mut outcome = decided.or_else(|| verdict(&mut plan, spec, &tally, pods, now));
    let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| pod::is_active(pod)).cloned().collect();
    let mut running = active.len();
    if outcome.is_some() {
        plan.ops.extend(active.iter().cloned().map(Op::Delete));
        running = 0;
    } else {
        let managed = job.metadata.deletion_timestamp.is_none();
        if managed {
            let scale = Scale { job, spec, tally: &tally, pods, active: &active, now };
            running = scale.plan(&mut plan);
        }
        let enough = match spec.completions {
            None => tally.succeeded > 0,
            Some(wanted) => tally.succeeded >= wanted,
        };
        if enough && running == 0 {
            let message = "Reached expected number of succeeded pods";
            outcome = Some(Outcome::success("CompletionsReached", message));
        } else if managed {
            suspend_or_resume(&mut plan, spec, now);
        }
    }
    count_pods(&mut plan.status, pods, running);
    let failing = outcome.as_ref().is_some_and(|outcome| !outcome.success);
    let all = outcome.is_some() || job.metadata.deletion_timestamp.is_some();
    plan.counted = tally.record(&mut plan.status, spec, pods, all, failing);
    if let Some(outcome) = outcome {
        conclude(&mut plan, spec, &outcome, was_decided, now);
    }
    plan
}

pub(super) fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

fn finished_at(status: &JobStatus) -> Option<Timestamp> {
    let last = ["Complete", "Failed"].into_iter().find_map(|kind| condition(status, kind))?;
    last.last_transition_time.as_ref().map(|time| time.0)
}

/// Complete or Failed.
pub(super) fn is_finished(job: &Job) -> bool {
    job.status.as_ref().and_then(finished_at).is_some()
}

/// Removes a finished Job when its time to live is over.
fn expire(plan: &mut Plan, spec: &JobSpec, finished: Timestamp, now: Timestamp) {
    let Some(ttl_s) = spec.ttl_seconds_after_finished else { return };
    let ttl = SignedDuration::from_secs(ttl_s.into());
    match Duration::try_from(ttl.saturating_sub(now.duration_since(finished))) {
        Ok(left) if !left.is_zero() => plan.requeue_in(left),
        _ => plan.ops.push(Op::RemoveJob),
    }
}

/// What an earlier plan decided.
fn decided(status: &JobStatus) -> Option<Outcome> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    if let Some(met) = condition(status, "SuccessCriteriaMet") {
        return Some(Outcome::success(&text(&met.reason), text(&met.message)));
    }
    let target = condition(status, "FailureTarget")?;
    Some(Outcome::failure(&text(&target.reason), text(&target.message)))
}

/// Whether the Job ends although it still has pods to run.
fn verdict(
    plan: &mut Plan,
    spec: &JobSpec,
    tally: &Tally,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> Option<Outcome> {
    let failed = pods.iter().filter(|pod| is_failed(spec, pod));
    let fatal = failed.into_iter().find_map(|pod| match judge(spec, pod) {
        Verdict::FailJob(message) => Some(message),
        _ => None,
    });
    if let Some(message) = fatal {
        return Some(Outcome::failure("PodFailurePolicy", message));
    }
    let limit = match spec.backoff_limit_per_index {
        Some(_) => spec.backoff_limit.unwrap_or(i32::MAX),
        None => spec.backoff_limit.unwrap_or(6),
    };
    if tally.failed > limit || pods::restarted_too_often(spec, pods, limit) {
        let message = "Job has reached the specified backoff limit";
        return Some(Outcome::failure("BackoffLimitExceeded", message));
    }
    if let Some(limit_s) = spec.active_deadline_seconds.filter(|_| !is_suspended(spec)) {
        let start = plan.status.start_time.as_ref().map_or(now, |time| time.0);
        let left = SignedDuration::from_secs(limit_s).saturating_sub(now.duration_since(start));
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => plan.requeue_in(left),
            _ => {
                let message = "Job was active longer than specified deadline";
                return Some(Outcome::failure("DeadlineExceeded", message));
            }
        }
    }
    failed_indexes(spec, tally).or_else(|| success_policy(spec, tally))
}

/// `spec.maxFailedIndexes` and the end of a Job whose indexes fail one by one.
fn failed_indexes(spec: &JobSpec, tally: &Tally) -> Option<Outcome> {
    let failed = number(tally.failed_indexes.len());
    if spec.max_failed_indexes.is_some_and(|max| failed > max) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(Outcome::failure("MaxFailedIndexesExceeded", message));
    }
    let over = failed.saturating_add(tally.succeeded) >= spec.completions.unwrap_or(0);
    (failed > 0 && over).then(|| Outcome::failure("FailedIndexes", "Job has failed indexes"))
}

/// `spec.successPolicy` (KEP-3998).
fn success_policy(spec: &JobSpec, tally: &Tally) -> Option<Outcome> {
    let succeeded = tally.indexes.as_ref()?;
    let completions = spec.completions.unwrap_or(0);
    let rules = spec.success_policy.iter().flat_map(|policy| &policy.rules);
    let met = rules.enumerate().find(|(_, rule)| {
        let wanted_count = rule.succeeded_count.and_then(|count| usize::try_from(count).ok());
        let Some(wanted) = &rule.succeeded_indexes else {
            return wanted_count.is_some_and(|count| succeeded.len() >= count);
        };
        let wanted = indexes::parse(wanted, completions);
        let reached = wanted.intersection(succeeded).count();
        !wanted.is_empty() && reached >= wanted_count.unwrap_or(wanted.len())
    });
    let (position, _) = met?;
    Some(Outcome::success("SuccessPolicy", format!("Matched rules at index {position}")))
}

fn suspend_or_resume(plan: &mut Plan, spec: &JobSpec, now: Timestamp) {
    if is_suspended(spec) {
        if set(&mut plan.status, "Suspended", true, "JobSuspended", "Job suspended", now) {
            plan.event(false, "Suspended", "Job suspended");
        }
    } else if condition(&plan.status, "Suspended").is_some() {
        set(&mut plan.status, "Suspended", false, "JobResumed", "Job resumed", now);
        plan.event(false, "Resumed", "Job resumed");
        plan.status.start_time = Some(Time(now));
    }
}

fn count_pods(status: &mut JobStatus, pods: &[Arc<Pod>], running: usize) {
    let gone = |pod: &&Arc<Pod>| pod::is_terminating(pod) && !pod::is_finished(pod);
    let active = pods.iter().filter(|pod| pod::is_active(pod));
    let (count, ready) = active
        .fold((0, 0), |(count, ready), pod| (count + 1, ready + usize::from(pod::is_ready(pod))));
    // Fewer than there are: the plan removes some, those that are not ready first.
    let removed = usize::saturating_sub(count, running);
    status.active = (running > 0).then(|| number(running));
    status.ready = Some(number(ready.min(running)));
    status.terminating = Some(number(pods.iter().filter(gone).count() + removed));
}

/// Says first that the Job will be over, and that it is when every pod is counted and gone.
fn conclude(plan: &mut Plan, spec: &JobSpec, outcome: &Outcome, was_decided: bool, now: Timestamp) {
    let Outcome { success, reason, message } = outcome;
    let (first, last) =
        if *success { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") };
    set(&mut plan.status, first, true, reason, message, now);
    let uncounted = plan.status.uncounted_terminated_pods.clone().unwrap_or_default();
    let waiting = uncounted.succeeded.is_some() || uncounted.failed.is_some();
    let going = plan.status.terminating.unwrap_or(0) > 0 || !plan.counted.is_empty();
    if !was_decided || waiting || going {
        return;
    }
    set(&mut plan.status, last, true, reason, message, now);
    if !success {
        plan.event(true, reason, message);
        return;
    }
    plan.status.completion_time = Some(Time(now));
    if spec.completions.is_some_and(|wanted| plan.status.succeeded.unwrap_or(0) > wanted) {
        let message = "Too many succeeded pods running after completion count reached";
        plan.event(true, "TooManySucceededPods", message);
    }
    plan.event(false, "Completed", "Job completed");
}

fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Sets a condition; says whether that changed it.
fn set(
    status: &mut JobStatus,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let new = JobCondition {
        type_: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(old) if old.status == new.status => return false,
        Some(old) => *old = new,
        None => conditions.push(new),
    }
    true
}

/// A count as statuses hold it.
pub(super) fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
