//! The status of a Deployment: counts of its sets and the conditions Available, Progressing and
//! ReplicaFailure, with upstream's reasons and messages.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{
    DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rollout::{Rollout, available, replicas};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const FAILURE: &str = "ReplicaFailure";
const DONE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// The status after a step, and when the deadline of the progress is to be looked at again.
/// `rolling` is false when the step was one of scaling only, which says nothing about progress.
pub(super) fn status(
    rollout: &Rollout<'_>,
    rolling: bool,
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let before = rollout.deployment.status.clone().unwrap_or_default();
    let mut status = counts(rollout);
    let mut conditions = Conditions { list: before.conditions.clone().unwrap_or_default(), now };
    let deadline_s = deadline_s(rollout.spec);
    if deadline_s.is_some() {
        pause(rollout.spec, &mut conditions);
        announce(rollout, &mut conditions);
    }
    let minimum = rollout.limits.desired - rollout.limits.unavailable;
    if status.available_replicas.unwrap_or(0) >= minimum {
        let message = "Deployment has minimum availability.";
        conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", message);
    } else {
        let message = "Deployment does not have minimum availability.";
        conditions.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message);
    }
    let mut again = None;
    if rolling {
        match deadline_s {
            Some(deadline_s) => {
                again = progress(rollout, &before, &status, deadline_s, &mut conditions);
            }
            None => conditions.remove(PROGRESSING),
        }
        fail(rollout, &mut conditions);
    }
    status.conditions = Some(conditions.list).filter(|all| !all.is_empty());
    (status, again)
}

/// The status of a Deployment whose new set was refused by the server.
pub(super) fn refused(
    spec: &DeploymentSpec,
    mut status: DeploymentStatus,
    message: &str,
    now: Timestamp,
) -> DeploymentStatus {
    if deadline_s(spec).is_some() {
        let mut conditions = Conditions { list: status.conditions.unwrap_or_default(), now };
        conditions.set(PROGRESSING, "False", "ReplicaSetCreateError", message);
        status.conditions = Some(conditions.list);
    }
    status
}

fn counts(rollout: &Rollout<'_>) -> DeploymentStatus {
    let sum = |count: fn(&ReplicaSet) -> i32| rollout.sets.iter().map(count).sum::<i32>();
    let some = |count: i32| (count != 0).then_some(count);
    let serving = sum(available);
    let updated = rollout.current.map_or(0, |index| actual(&rollout.sets[index]));
    let before = rollout.deployment.status.as_ref();
    let status = |set: &ReplicaSet| set.status.clone().unwrap_or_default();
    let ready = rollout.sets.iter().map(|set| status(set).ready_replicas.unwrap_or(0)).sum();
    let ending: i32 =
        rollout.sets.iter().map(|set| status(set).terminating_replicas.unwrap_or(0)).sum();
    DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: some(sum(actual)),
        updated_replicas: some(updated),
        ready_replicas: some(ready),
        available_replicas: some(serving),
        unavailable_replicas: some((sum(replicas) - serving).max(0)),
        terminating_replicas: Some(ending),
        collision_count: before.and_then(|before| before.collision_count),
        conditions: None,
    }
}

fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// The largest number stands for none.
fn deadline_s(spec: &DeploymentSpec) -> Option<i32> {
    spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)
}

fn pause(spec: &DeploymentSpec, conditions: &mut Conditions) {
    let reason = conditions.reason(PROGRESSING);
    if reason == Some(TIMED_OUT) {
        return;
    }
    let (paused, was_paused) = (spec.paused == Some(true), reason == Some(PAUSED));
    if paused && !was_paused {
        conditions.set(PROGRESSING, "Unknown", PAUSED, "Deployment is paused");
    } else if !paused && was_paused {
        conditions.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed");
    }
}

fn announce(rollout: &Rollout<'_>, conditions: &mut Conditions) {
    let Some(index) = rollout.current else { return };
    let name = rollout.sets[index].metadata.name.as_deref().unwrap_or_default();
    if index >= rollout.before.len() {
        let message = format!("Created new replica set \"{name}\"");
        conditions.set(PROGRESSING, "True", "NewReplicaSetCreated", &message);
    } else if conditions.get(PROGRESSING).is_none() {
        let message = format!("Found new replica set \"{name}\"");
        conditions.set(PROGRESSING, "True", "FoundNewReplicaSet", &message);
    }
}

fn progress(
    rollout: &Rollout<'_>,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    deadline_s: i32,
    conditions: &mut Conditions,
) -> Option<Duration> {
    let number = |count: Option<i32>| count.unwrap_or(0);
    let done = conditions.reason(PROGRESSING) == Some(DONE);
    if done && status.replicas == status.updated_replicas {
        return None;
    }
    let subject = match rollout.current.and_then(|index| rollout.sets[index].metadata.name.clone())
    {
        Some(name) => format!("ReplicaSet \"{name}\""),
        None => {
            let name = rollout.deployment.metadata.name.as_deref().unwrap_or_default();
            format!("Deployment \"{name}\"")
        }
    };
    let desired = rollout.limits.desired;
    let complete = [status.updated_replicas, status.replicas, status.available_replicas]
        .into_iter()
        .all(|count| number(count) == desired);
    let old = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    let progressed = number(status.updated_replicas) > number(before.updated_replicas)
        || old(status) < old(before)
        || number(status.ready_replicas) > number(before.ready_replicas)
        || number(status.available_replicas) > number(before.available_replicas);
    if complete {
        let message = format!("{subject} has successfully progressed.");
        conditions.set(PROGRESSING, "True", DONE, &message);
    } else if progressed {
        let message = format!("{subject} is progressing.");
        conditions.replace(PROGRESSING, "True", "ReplicaSetUpdated", &message);
    } else if conditions.is_late(deadline_s) {
        let message = format!("{subject} has timed out progressing.");
        conditions.set(PROGRESSING, "False", TIMED_OUT, &message);
    }
    conditions.until_late(deadline_s)
}

/// A set that cannot make its pods shows on the Deployment; the new set goes first.
fn fail(rollout: &Rollout<'_>, conditions: &mut Conditions) {
    let current = rollout.current.map(|index| &rollout.sets[index]);
    let failure = current.into_iter().chain(&rollout.sets).find_map(|set| {
        let all = set.status.as_ref()?.conditions.as_ref()?;
        all.iter().find(|condition| condition.type_ == FAILURE)
    });
    match failure {
        Some(failure) => {
            let (reason, message) = (failure.reason.as_deref(), failure.message.as_deref());
            let (reason, message) = (reason.unwrap_or_default(), message.unwrap_or_default());
            conditions.set(FAILURE, &failure.status, reason, message);
        }
        None => conditions.remove(FAILURE),
    }
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == kind)
    }

    fn reason(&self, kind: &str) -> Option<&str> {
        self.get(kind)?.reason.as_deref()
    }

    fn remove(&mut self, kind: &str) {
        self.list.retain(|condition| condition.type_ != kind);
    }

    /// Nothing happens if the condition has this value for this reason already.
    fn set(&mut self, kind: &str, value: &str, reason: &str, message: &str) {
        let same = self.get(kind).is_some_and(|old| old.status == value);
        if !same || self.reason(kind) != Some(reason) {
            self.replace(kind, value, reason, message);
        }
    }

    fn replace(&mut self, kind: &str, value: &str, reason: &str, message: &str) {
        let mut new = DeploymentCondition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        };
        if let Some(old) = self.get(kind).filter(|old| old.status == value) {
            new.last_transition_time.clone_from(&old.last_transition_time);
        }
        self.remove(kind);
        self.list.push(new);
    }

    fn late_at(&self, deadline_s: i32) -> Option<Timestamp> {
        let since = self.get(PROGRESSING)?.last_update_time.as_ref()?.0;
        since.checked_add(SignedDuration::from_secs(deadline_s.into())).ok()
    }

    fn is_late(&self, deadline_s: i32) -> bool {
        match self.reason(PROGRESSING) {
            Some(DONE) | None => false,
            Some(TIMED_OUT) => true,
            Some(_) => self.late_at(deadline_s).is_some_and(|late| late < self.now),
        }
    }

    fn until_late(&self, deadline_s: i32) -> Option<Duration> {
        if matches!(self.reason(PROGRESSING), Some(DONE | TIMED_OUT) | None) {
            return None;
        }
        let left = self.late_at(deadline_s)?.duration_since(self.now);
        Some(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1))
    }
}
