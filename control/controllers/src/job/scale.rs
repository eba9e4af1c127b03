//! How many pods of a Job run at a time, which go when there are too many, and which indexes the new
//! ones work on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

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

/// A Job that goes on, and its pods.
pub(super) struct Scale<'a> {
    pub(super) job: &'a Job,
    pub(super) spec: &'a JobSpec,
    pub(super) tally: &'a Tally,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) active: &'a [Arc<Pod>],
    pub(super) now: Timestamp,
}

impl Scale<'_> {
    /// Plans which pods go and come; says how many will run then.
    pub(super) fn plan(&self, plan: &mut Plan) -> usize {
        let running = self.active.len();
        let wanted = self.wanted();
        let victims = victims(self.spec, self.active, running.saturating_sub(wanted));
        if !victims.is_empty() {
            let left = running - victims.len();
            plan.ops.extend(victims.into_iter().map(Op::Discard));
            return left;
        }
        let missing = wanted.saturating_sub(running + self.occupied()).min(BURST_MAX);
        let new = match indexes::count(self.spec) {
            _ if missing == 0 => Vec::new(),
            Some(count) if self.spec.backoff_limit_per_index.is_some() => {
                self.retries(plan, count, missing)
            }
            count => self.replacements(plan, count, missing),
        };
        let running = running + new.len();
        plan.ops.extend(new.into_iter().map(|pod| Op::Create(Box::new(pod))));
        running
    }

    fn wanted(&self) -> usize {
        if is_suspended(self.spec) {
            return 0;
        }
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let succeeded = self.tally.succeeded;
        let wanted = match self.spec.completions {
            Some(completions) => completions.saturating_sub(succeeded).min(parallelism),
            // A work queue: after the first success the other pods end by themselves.
            None if succeeded > 0 => return self.active.len(),
            None => parallelism,
        };
        usize::try_from(wanted).unwrap_or(0)
    }

    /// Places of pods that are going and are replaced only when they are gone.
    fn occupied(&self) -> usize {
        if !only_failed_replaced(self.spec) {
            return 0;
        }
        let going = |pod: &&Arc<Pod>| pod::is_terminating(pod) && !pod::is_finished(pod);
        self.pods.iter().filter(going).count()
    }

    /// New pods where the whole Job waits after failures.
    fn replacements(&self, plan: &mut Plan, count: Option<i32>, missing: usize) -> Vec<Pod> {
        // A pod that was discarded has lost its finalizer before it was deleted.
        let failed = self.pods.iter().filter(|pod| {
            is_failed(self.spec, pod) && (is_tracked(pod) || !pod::is_terminating(pod))
        });
        let succeeded = self.pods.iter().filter(|pod| is_succeeded(pod));
        let failed = failed.map(|pod| &**pod);
        if let Some(wait) = back_off::left(failed, succeeded.map(|pod| &**pod), self.now) {
            plan.requeue_in(wait);
            return Vec::new();
        }
        match count {
            None => (0..missing).map(|_| template::pod(self.job, None)).collect(),
            Some(count) => {
                let free = self.free(count).take(missing);
                free.map(|index| template::pod(self.job, Some(index))).collect()
            }
        }
    }

    /// New pods where each index waits for itself.
    fn retries(&self, plan: &mut Plan, count: i32, missing: usize) -> Vec<Pod> {
        let failed = per_index::waiting(self.spec, self.pods, &self.tally.over(), count);
        let mut new = Vec::new();
        for index in self.free(count) {
            if new.len() == missing {
                break;
            }
            let mut failures = Failures::default();
            if let Some(last) = failed.get(&index) {
                failures = Failures::after(self.spec, last);
                let times = usize::try_from(failures.total()).unwrap_or(usize::MAX);
                let ended = back_off::finished_at(last);
                if let Some(wait) = back_off::left_of(times, ended, self.now) {
                    plan.requeue_in(wait);
                    continue;
                }
            }
            let mut pod = template::pod(self.job, Some(index));
            failures.note(&mut pod);
            new.push(pod);
        }
        new
    }

    /// Indexes that need a pod.
    fn free(&self, count: i32) -> impl Iterator<Item = i32> + use<> {
        let mut taken = self.tally.over();
        let patient = only_failed_replaced(self.spec);
        let holding = self
            .pods
            .iter()
            .filter(|pod| !pod::is_finished(pod) && (patient || !pod::is_terminating(pod)));
        taken.extend(holding.filter_map(|pod| indexes::of(pod, count)));
        (0..count).filter(move |index| !taken.contains(index))
    }
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
