//! How many pods of a Job run at a time, which go when there are too many, and which indexes the new
//! ones work on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::per_index::{self, Failures};
use super::plan::{Op, Plan, is_suspended};
use super::pods::{is_failed, is_succeeded, is_tracked, only_failed_replaced};
use super::tally::Tally;
use super::{back_off, indexes, template};
use crate::pod;

/// More pods are not made or removed at a time.
const BURST_MAX: usize = 500;

/// Plans the pods of a Job that goes on; says how many will run then.
pub(super) fn scale(
    plan: &mut Plan,
    job: &Job,
    spec: &JobSpec,
    tally: &Tally,
    pods: &[Arc<Pod>],
    active: &[Arc<Pod>],
    now: Timestamp,
) -> usize {
    let wanted = wanted(spec, tally, active.len());
    let victims = victims(spec, active, active.len().saturating_sub(wanted));
    if !victims.is_empty() {
        let left = active.len() - victims.len();
        plan.ops.extend(victims.into_iter().map(Op::Discard));
        return left;
    }
    let going = pods.iter().filter(|pod| pod::is_terminating(pod) && !pod::is_finished(pod));
    let occupied = if only_failed_replaced(spec) { going.count() } else { 0 };
    let missing = wanted.saturating_sub(active.len() + occupied).min(BURST_MAX);
    if missing == 0 {
        return active.len();
    }
    let new = match indexes::count(spec) {
        Some(count) if spec.backoff_limit_per_index.is_some() => {
            retries(plan, job, spec, tally, pods, count, missing, now)
        }
        count => {
            if let Some(wait) = wait(spec, pods, now) {
                plan.requeue_in(wait);
                return active.len();
            }
            match count {
                None => (0..missing).map(|_| template::pod(job, None)).collect(),
                Some(count) => {
                    let free = free(spec, tally, pods, count).take(missing);
                    free.map(|index| template::pod(job, Some(index))).collect()
                }
            }
        }
    };
    let running = active.len() + new.len();
    plan.ops.extend(new.into_iter().map(|pod| Op::Create(Box::new(pod))));
    running
}

/// How long the whole Job waits after failures.
fn wait(spec: &JobSpec, pods: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    // A pod that was discarded has lost its finalizer before it was deleted.
    let failed = pods
        .iter()
        .filter(|pod| is_failed(spec, pod) && (is_tracked(pod) || !pod::is_terminating(pod)));
    let succeeded = pods.iter().filter(|pod| is_succeeded(pod));
    back_off::left(failed.map(|pod| &**pod), succeeded.map(|pod| &**pod), now)
}

/// New pods where each index waits for itself.
#[expect(clippy::too_many_arguments, reason = "they are what `scale` was given")]
fn retries(
    plan: &mut Plan,
    job: &Job,
    spec: &JobSpec,
    tally: &Tally,
    pods: &[Arc<Pod>],
    count: i32,
    missing: usize,
    now: Timestamp,
) -> Vec<Pod> {
    let failed = per_index::waiting(spec, pods, &tally.over(), count);
    let mut new = Vec::new();
    for index in free(spec, tally, pods, count) {
        if new.len() == missing {
            break;
        }
        let mut failures = Failures::default();
        if let Some(last) = failed.get(&index) {
            failures = Failures::after(spec, last);
            let times = usize::try_from(failures.total()).unwrap_or(usize::MAX);
            if let Some(wait) = back_off::left_of(times, back_off::finished_at(last), now) {
                plan.requeue_in(wait);
                continue;
            }
        }
        let mut pod = template::pod(job, Some(index));
        failures.note(&mut pod);
        new.push(pod);
    }
    new
}

fn wanted(spec: &JobSpec, tally: &Tally, active: usize) -> usize {
    if is_suspended(spec) {
        return 0;
    }
    let parallelism = spec.parallelism.unwrap_or(1);
    let wanted = match spec.completions {
        Some(completions) => completions.saturating_sub(tally.succeeded).min(parallelism),
        // A work queue: after the first success the other pods end by themselves.
        None if tally.succeeded > 0 => return active,
        None => parallelism,
    };
    usize::try_from(wanted).unwrap_or(0)
}

/// Indexes that need a pod.
fn free(
    spec: &JobSpec,
    tally: &Tally,
    pods: &[Arc<Pod>],
    count: i32,
) -> impl Iterator<Item = i32> + use<> {
    let mut taken = tally.over();
    let holding = pods.iter().filter(|pod| {
        !pod::is_finished(pod) && (!pod::is_terminating(pod) || only_failed_replaced(spec))
    });
    taken.extend(holding.filter_map(|pod| indexes::of(pod, count)));
    (0..count).filter(move |index| !taken.contains(index))
}

/// At least as many pods as given: those that work on no index or on that of another pod, then those
/// that have come the least far.
fn victims(spec: &JobSpec, active: &[Arc<Pod>], at_least: usize) -> Vec<Arc<Pod>> {
    let mut ranked: Vec<Arc<Pod>> = active.to_vec();
    ranked.sort_by_cached_key(|pod| progress(pod));
    let mut victims = Vec::new();
    if let Some(count) = indexes::count(spec) {
        let mut best: BTreeMap<i32, &Arc<Pod>> = BTreeMap::new();
        for pod in &ranked {
            if let Some(index) = indexes::of(pod, count) {
                best.insert(index, pod);
            }
        }
        let keep: HashSet<String> = best.values().map(|pod| pod.name_any()).collect();
        let (left, surplus) = ranked.into_iter().partition(|pod| keep.contains(&pod.name_any()));
        (ranked, victims) = (left, surplus);
    }
    let more = at_least.saturating_sub(victims.len());
    victims.extend(ranked.into_iter().take(more));
    victims.truncate(BURST_MAX);
    victims
}

type Progress = (bool, u8, bool, Reverse<Option<Timestamp>>, Reverse<Option<Timestamp>>, String);

fn progress(pod: &Pod) -> Progress {
    let phase = match pod::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (
        pod::node_name(pod).is_some(),
        phase,
        pod::is_ready(pod),
        Reverse(pod::ready_since(pod)),
        Reverse(created),
        pod.name_any(),
    )
}
