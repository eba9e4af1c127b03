//! Retries counted for each index by itself: `spec.backoffLimitPerIndex` (KEP-3850). How often an
//! index has failed is written on its pods; the last failed pod of an index therefore stays
//! uncounted until another one has taken its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::failure_policy::{Verdict, judge};
use super::indexes::{self, Indexes};
use super::pods::{is_failed, is_tracked};
use crate::pod;

const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// How often an index had failed before a pod of it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Failures {
    pub(super) counted: i32,
    pub(super) ignored: i32,
}

impl Failures {
    fn before(pod: &Pod) -> Self {
        let read = |key| pod.annotations().get(key).and_then(|text| text.parse().ok());
        Self { counted: read(FAILURES).unwrap_or(0), ignored: read(IGNORED).unwrap_or(0) }
    }

    /// Those of the pod that takes the place of this one.
    pub(super) fn after(spec: &JobSpec, pod: &Pod) -> Self {
        let mut failures = Self::before(pod);
        match judge(spec, pod) {
            Verdict::Ignore => failures.ignored += 1,
            _ => failures.counted += 1,
        }
        failures
    }

    pub(super) fn total(self) -> i32 {
        self.counted.saturating_add(self.ignored)
    }

    /// Writes the counts on a new pod.
    pub(super) fn note(self, pod: &mut Pod) {
        let annotations = pod.annotations_mut();
        annotations.insert(FAILURES.to_owned(), self.counted.to_string());
        if self.ignored > 0 {
            annotations.insert(IGNORED.to_owned(), self.ignored.to_string());
        }
    }
}

/// The indexes of pods after whose failure none is tried again.
pub(super) fn given_up(spec: &JobSpec, pods: &[Arc<Pod>], count: i32) -> Indexes {
    let Some(limit) = spec.backoff_limit_per_index else { return Indexes::new() };
    let failed = pods.iter().filter(|pod| is_tracked(pod) && is_failed(spec, pod));
    let last = failed.filter(|pod| match judge(spec, pod) {
        Verdict::FailIndex => true,
        Verdict::Ignore => false,
        _ => Failures::before(pod).counted >= limit,
    });
    last.filter_map(|pod| indexes::of(pod, count)).collect()
}

/// The last failed pod of each index that waits for another pod. `over` are the indexes that need
/// none any more.
pub(super) fn waiting<'a>(
    spec: &JobSpec,
    pods: &'a [Arc<Pod>],
    over: &Indexes,
    count: i32,
) -> BTreeMap<i32, &'a Arc<Pod>> {
    let mut waiting: BTreeMap<i32, &Arc<Pod>> = BTreeMap::new();
    if spec.backoff_limit_per_index.is_none() {
        return waiting;
    }
    for pod in pods.iter().filter(|pod| is_tracked(pod) && is_failed(spec, pod)) {
        let Some(index) = indexes::of(pod, count).filter(|index| !over.contains(index)) else {
            continue;
        };
        let before = waiting.entry(index).or_insert(pod);
        if Failures::before(before) < Failures::before(pod) {
            *before = pod;
        }
    }
    for pod in pods.iter().filter(|pod| pod::is_active(pod)) {
        if let Some(index) = indexes::of(pod, count) {
            waiting.remove(&index);
        }
    }
    waiting
}
