//! How long a Job waits before it makes new pods after pods have failed. It is read from the pods
//! themselves, so that it survives a restart of the controller.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::pod;

const FIRST_S: i64 = 10;
const MAX_S: i64 = 360;

/// What is left of the wait after these failures; nothing when there is none.
///
/// The wait doubles with each failure since the last success.
pub(super) fn left<'a>(
    failed: impl Iterator<Item = &'a Pod>,
    succeeded: impl Iterator<Item = &'a Pod>,
    now: Timestamp,
) -> Option<Duration> {
    let success = succeeded.map(finished_at).max();
    let failures: Vec<Timestamp> =
        failed.map(finished_at).filter(|at| success.is_none_or(|success| *at > success)).collect();
    let last = failures.iter().max()?;
    left_of(failures.len(), *last, now)
}

/// What is left of the wait after so many failures, the last of them at this time.
pub(super) fn left_of(failures: usize, last: Timestamp, now: Timestamp) -> Option<Duration> {
    let doublings = failures.saturating_sub(1).min(6);
    let wait = SignedDuration::from_secs((FIRST_S << doublings).min(MAX_S));
    let left = wait.saturating_sub(now.duration_since(last));
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

/// When the pod came to its end, as well as it can be told.
pub(super) fn finished_at(pod: &Pod) -> Timestamp {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let ends: Option<Vec<Timestamp>> = containers.and_then(|containers| {
        containers
            .iter()
            .map(|container| {
                let terminated = container.state.as_ref()?.terminated.as_ref()?;
                Some(terminated.finished_at.as_ref()?.0)
            })
            .collect()
    });
    let unready = || {
        pod::condition(pod, "Ready").filter(|c| c.status == "False")?.last_transition_time.clone()
    };
    let deleted = || {
        let deadline = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace_s = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        Some(deadline.saturating_sub(SignedDuration::from_secs(grace_s)).unwrap_or(deadline))
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    ends.and_then(|ends| ends.into_iter().max())
        .or_else(|| unready().map(|time| time.0))
        .or_else(deleted)
        .or_else(created)
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended(at_s: i64) -> Pod {
        let at = Timestamp::from_second(at_s).unwrap();
        let status = json!({"containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 1, "finishedAt": at}},
        }]});
        serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap()
    }

    #[test]
    fn doubles_with_each_failure_since_the_last_success() {
        let cases: [(&[i64], &[i64], i64, u64); 8] = [
            (&[], &[], 100, 0),
            (&[100], &[], 100, 10),
            (&[100], &[], 104, 6),
            (&[100], &[], 110, 0),
            (&[80, 100], &[], 100, 20),
            (&[60, 80, 100], &[70], 100, 20),
            (&[60, 80], &[100], 100, 0),
            (&[1, 2, 3, 4, 5, 6, 7, 8, 9], &[], 9, 360),
        ];
        for (failed, succeeded, now_s, wait_s) in cases {
            let failed: Vec<Pod> = failed.iter().copied().map(ended).collect();
            let succeeded: Vec<Pod> = succeeded.iter().copied().map(ended).collect();
            let now = Timestamp::from_second(now_s).unwrap();
            let wait = left(failed.iter(), succeeded.iter(), now).unwrap_or_default();
            assert_eq!(wait.as_secs(), wait_s, "{failed:?}");
        }
    }
}
