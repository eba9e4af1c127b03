//! What to do for a Deployment: which ReplicaSets to make, size and remove, in what order, what to
//! say about it, and the status. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::rollout::{Rollout, replicas};
use super::{revision, status};

/// One write, or one event of reason `ScalingReplicaSet`.
pub(super) enum Op {
    Create(Box<ReplicaSet>),
    Update { old: Box<ReplicaSet>, new: Box<ReplicaSet> },
    Delete(Box<ReplicaSet>),
    Annotate(Box<Deployment>),
    Event(String),
}

/// Operations in their order, and the status once they are done.
pub(super) struct Plan {
    pub(super) ops: Vec<Op>,
    pub(super) status: DeploymentStatus,
    pub(super) again: Option<Duration>,
}

/// `sets` are the ReplicaSets the Deployment controls.
pub(super) fn plan(deployment: &Deployment, sets: &[ReplicaSet], now: Timestamp) -> Plan {
    let spec = deployment.spec.clone().unwrap_or_default();
    let mut rollout = Rollout::new(deployment, &spec, sets);
    let paused = spec.paused == Some(true);
    let rolling = !paused && !rollout.was_scaled();
    if !rolling {
        rollout.scale();
        if paused {
            rollout.forget();
        }
    } else if rollout.limits.recreate {
        rollout.recreate();
    } else {
        rollout.roll();
    }
    let (status, again) = status::status(&rollout, rolling, now);
    Plan { ops: ops(&rollout), status, again }
}

fn ops(rollout: &Rollout<'_>) -> Vec<Op> {
    let mut ops = Vec::new();
    let others = (0..rollout.sets.len()).filter(|index| Some(*index) != rollout.current);
    for index in rollout.current.into_iter().chain(others) {
        let new = &rollout.sets[index];
        let name = new.metadata.name.as_deref().unwrap_or_default();
        let old = rollout.before.get(index);
        let (from, to) = (old.map_or(0, replicas), replicas(new));
        match old {
            None => ops.push(Op::Create(Box::new(new.clone()))),
            Some(old) if old != new => {
                let (old, new) = (Box::new(old.clone()), Box::new(new.clone()));
                ops.push(Op::Update { old, new });
            }
            Some(_) => {}
        }
        if from != to {
            let way = if to > from { "up" } else { "down" };
            ops.push(Op::Event(format!("Scaled {way} replica set {name} from {from} to {to}")));
        }
    }
    for index in &rollout.forgotten {
        ops.push(Op::Delete(Box::new(rollout.sets[*index].clone())));
    }
    let number = rollout.current.map(|index| revision::of(&rollout.sets[index].metadata));
    if let Some(number) = number
        && number != revision::of(&rollout.deployment.metadata)
    {
        let mut new = rollout.deployment.clone();
        let annotations = new.metadata.annotations.get_or_insert_default();
        annotations.insert(revision::REVISION.to_owned(), number.to_string());
        ops.push(Op::Annotate(Box::new(new)));
    }
    ops
}

#[cfg(test)]
mod tests;
