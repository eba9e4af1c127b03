//! What a pod's worker keeps in memory beside the API's and the runtime's truth: back-offs, why a
//! container is waiting, probe results. Losing it with the agent costs nothing but a delay.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::backoff::BackOff;

/// Why a container does not run, as its `waiting` state shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What the probes found about one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProbeState {
    /// `None`: no such probe, or no result yet.
    pub(crate) startup: Option<bool>,
    pub(crate) readiness: Option<bool>,
    pub(crate) liveness: Option<bool>,
}

/// The worker's own memory of a pod.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Restarts by container name, pulls by `pull/` and image.
    pub(crate) backoff: BackOff,
    /// By container name; the failure of the last attempt to start it.
    pub(crate) waiting: BTreeMap<String, Waiting>,
    /// By image: the failure of its last pull and when that was.
    pub(crate) pull_failures: BTreeMap<String, (Timestamp, String)>,
    /// By container id.
    pub(crate) probes: BTreeMap<String, ProbeState>,
    /// By container id: its postStart hook is still running, or failed.
    pub(crate) post_start: BTreeMap<String, PostStart>,
    /// The pod was refused or has failed as a whole: reason and message.
    pub(crate) failed: Option<(String, String)>,
    /// Consecutive rounds that ended in an error.
    pub(crate) failures: u32,
}

/// How a postStart hook stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PostStart {
    Running,
    Failed,
}

impl Memory {
    /// How long to wait before the next round after one that failed.
    pub(crate) fn failure_delay(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => Duration::from_millis(500)
                .saturating_mul(2u32.saturating_pow((failures - 1).min(5)))
                .min(Duration::from_secs(10)),
        }
    }

    pub(crate) fn wait(&mut self, container: &str, reason: &'static str, message: String) {
        self.waiting.insert(container.to_owned(), Waiting { reason, message });
    }

    /// Forgets about containers that are no longer there.
    pub(crate) fn retain_containers(&mut self, exists: impl Fn(&str) -> bool) {
        self.probes.retain(|id, _| exists(id));
        self.post_start.retain(|id, _| exists(id));
    }
}
