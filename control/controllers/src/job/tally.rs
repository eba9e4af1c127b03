//! Counting finished pods so that none is lost and none is counted twice (KEP-2307): a pod's uid goes
//! into `status.uncountedTerminatedPods`, then the pod loses its finalizer, then the uid becomes one
//! more in `status.succeeded` or `status.failed`. Indexed Jobs need no uids for successes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::failure_policy::{Verdict, judge};
use super::indexes::{self, Indexes};
use super::per_index;
use super::plan::number;
use super::pods::{is_failed, is_succeeded, is_tracked};

/// More uids than this a status does not take at a time.
const UNCOUNTED_MAX: usize = 500;

/// Turns uids of pods without finalizer, or without pod, into counts.
pub(super) fn settle(status: &mut JobStatus, pods: &[Arc<Pod>]) {
    let tracked: HashSet<String> =
        pods.iter().filter(|pod| is_tracked(pod)).filter_map(|pod| pod.uid()).collect();
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    let settle = |uids: &mut Option<Vec<String>>, count: &mut Option<i32>| {
        let Some(list) = uids else { return };
        let before = list.len();
        list.retain(|uid| tracked.contains(uid));
        let settled = number(before - list.len());
        if settled > 0 {
            *count = Some(count.unwrap_or(0) + settled);
        }
        uids.take_if(|list| list.is_empty());
    };
    settle(&mut uncounted.succeeded, &mut status.succeeded);
    settle(&mut uncounted.failed, &mut status.failed);
}

/// The pods that have come to an end, counted already or not.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    /// The indexes that have succeeded, if the Job is Indexed.
    pub(super) indexes: Option<Indexes>,
    /// The indexes that are not tried again.
    pub(super) failed_indexes: Indexes,
}

impl Tally {
    /// The status must be settled.
    pub(super) fn of(spec: &JobSpec, status: &JobStatus, pods: &[Arc<Pod>]) -> Self {
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let (succeeded, failed) =
            (uncounted.succeeded.unwrap_or_default(), uncounted.failed.unwrap_or_default());
        let count = indexes::count(spec);
        let new = |uids: &[String], test: &dyn Fn(&Pod) -> bool| {
            let new = pods.iter().filter(|pod| {
                is_tracked(pod)
                    && pod.uid().is_none_or(|uid| !uids.contains(&uid))
                    && count.is_none_or(|count| indexes::of(pod, count).is_some())
                    && test(pod)
            });
            number(new.count() + uids.len())
        };
        let fails = |pod: &Pod| is_failed(spec, pod) && judge(spec, pod) != Verdict::Ignore;
        let failed = status.failed.unwrap_or(0) + new(&failed, &fails);
        let Some(count) = count else {
            let succeeded = status.succeeded.unwrap_or(0) + new(&succeeded, &is_succeeded);
            return Self { succeeded, failed, ..Self::default() };
        };
        let mut done = indexes::parse(status.completed_indexes.as_deref().unwrap_or(""), count);
        let finished = pods.iter().filter(|pod| is_tracked(pod) && is_succeeded(pod));
        done.extend(finished.filter_map(|pod| indexes::of(pod, count)));
        let text = status.failed_indexes.as_deref().unwrap_or("");
        let mut failed_indexes = indexes::parse(text, count);
        failed_indexes.extend(per_index::given_up(spec, pods, count));
        Self { succeeded: number(done.len()), failed, indexes: Some(done), failed_indexes }
    }

    /// Indexes that need no pod any more.
    pub(super) fn over(&self) -> Indexes {
        self.indexes.iter().flatten().chain(&self.failed_indexes).copied().collect()
    }

    /// Writes what is to be counted into the status and says which pods that settles. `all` takes the
    /// unfinished ones, too; if the Job is `failing`, they count as failed.
    pub(super) fn record(
        &self,
        status: &mut JobStatus,
        spec: &JobSpec,
        pods: &[Arc<Pod>],
        all: bool,
        failing: bool,
    ) -> Vec<Arc<Pod>> {
        let count = indexes::count(spec);
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        let mut succeeded = uncounted.succeeded.take().unwrap_or_default();
        let mut failed = uncounted.failed.take().unwrap_or_default();
        let waiting = match count {
            Some(count) if !all => per_index::waiting(spec, pods, &self.over(), count),
            _ => BTreeMap::new(),
        };
        let mut counted = Vec::new();
        for pod in pods.iter().filter(|pod| is_tracked(pod)) {
            if succeeded.len() + failed.len() >= UNCOUNTED_MAX {
                break;
            }
            let fails = is_failed(spec, pod);
            if !(fails || all || is_succeeded(pod)) {
                continue;
            }
            if waiting.values().any(|waiting| Arc::ptr_eq(waiting, pod)) {
                continue;
            }
            counted.push(pod.clone());
            let uid = pod.uid().unwrap_or_default();
            let indexed = count.is_some_and(|count| indexes::of(pod, count).is_some());
            if failed.contains(&uid) || succeeded.contains(&uid) {
                continue;
            }
            if is_succeeded(pod) {
                if count.is_none() {
                    succeeded.push(uid);
                }
            } else if (fails || failing)
                && (count.is_none() || indexed)
                && judge(spec, pod) != Verdict::Ignore
            {
                failed.push(uid);
            }
        }
        let some = |uids: Vec<String>| Some(uids).filter(|uids| !uids.is_empty());
        (uncounted.succeeded, uncounted.failed) = (some(succeeded), some(failed));
        if let Some(done) = &self.indexes {
            status.completed_indexes = Some(indexes::format(done)).filter(|text| !text.is_empty());
            status.succeeded = Some(self.succeeded).filter(|count| *count > 0);
            status.failed_indexes = (spec.backoff_limit_per_index.is_some())
                .then(|| indexes::format(&self.failed_indexes));
        }
        counted
    }
}
