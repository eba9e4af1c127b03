//! The task of one pod. It goes round: look at the runtime, report the status, plan, act. Acting is a
//! task of its own, so that a probe's verdict reaches the API while an image is still being pulled.
//!
//! A worker is in one of these stages and only ever moves down the list:
//! - *running*: the pod is wanted; plans come from [`super::actions`].
//! - *ending*: the pod is being deleted, or the API no longer knows it: containers are ended within
//!   the grace period, a shorter grace period begins anew.
//! - *cleaning*: nothing runs any more; volumes, cgroup, containers and sandboxes are removed.
//! - *done*: the object is deleted from the API (grace period 0, this uid); the task ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::actions;
use super::executor::{self, Executor};
use super::memory::{Memory, ProbeState};
use super::observed::{self, Life, PodRuntime};
use super::status::{self, Input};
use super::{PodExt, all_containers, sandbox_config, termination};
use crate::error::{Error, is_conflict, is_not_found};
use crate::event::pod_reference;
use crate::host::Host;
use crate::probe::machine::Kind;
use crate::probe::prober::{Context, Prober, known_verdict};
use crate::volumes;
use crate::volumes::token::Tokens;

/// A round without any other reason: contents of volumes are brought up to date.
const REFRESH_PERIOD: Duration = Duration::from_secs(30);
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// What the supervisor wants of a worker.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    pub(crate) pod: Arc<Pod>,
    /// The API no longer knows this pod.
    pub(crate) gone: bool,
}

/// What a worker shares with its tasks and with the HTTPS server.
pub(crate) struct Shared {
    memory: Mutex<Memory>,
    wake: Notify,
    runtime_changed: AtomicBool,
    status: Mutex<Option<PodStatus>>,
    pub(crate) host_ips: Vec<String>,
    pub(crate) tokens: Tokens,
}

impl Shared {
    pub(crate) fn new(host: &Host) -> Self {
        Self {
            memory: Mutex::default(),
            wake: Notify::new(),
            runtime_changed: AtomicBool::new(true),
            status: Mutex::default(),
            host_ips: host.ips(),
            tokens: Tokens::new(host.client.clone()),
        }
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the worker go round.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Makes the worker go round and look at the runtime again.
    pub(crate) fn wake_for_runtime(&self) {
        self.runtime_changed.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// The status as last computed.
    pub(crate) fn status(&self) -> Option<PodStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Work under way in a task of its own.
struct InFlight {
    task: JoinHandle<Result<(), Error>>,
    /// The grace period, where it is the ending of the pod.
    ending: Option<Duration>,
}

/// A status as it was written last.
struct Sent {
    status: PodStatus,
    /// Revision of the pod that the write made.
    revision: Option<u64>,
}

/// One pod's worker.
pub(crate) struct Worker {
    host: Arc<Host>,
    shared: Arc<Shared>,
    desired: watch::Receiver<Desired>,
    runtime: PodRuntime,
    prober: Prober,
    in_flight: Option<InFlight>,
    sent: Option<Sent>,
    /// All containers have ended on behalf of a deletion.
    ended: bool,
    not_before: Instant,
    next_refresh: Instant,
    seeded: bool,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.task.abort();
        }
    }
}

impl Worker {
    pub(crate) fn new(
        host: Arc<Host>,
        shared: Arc<Shared>,
        desired: watch::Receiver<Desired>,
    ) -> Self {
        let now = Instant::now();
        Self {
            host,
            shared,
            desired,
            runtime: PodRuntime::default(),
            prober: Prober::default(),
            in_flight: None,
            sent: None,
            ended: false,
            not_before: now,
            next_refresh: now + REFRESH_PERIOD,
            seeded: false,
        }
    }

    /// Goes round until the pod is gone.
    pub(crate) async fn run(mut self) {
        loop {
            let desired = self.desired.borrow_and_update().clone();
            let pause = match self.round(&desired).await {
                Ok(Some(pause)) => pause,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(pod = desired.pod.display(), %error, "pod not synced");
                    self.shared.runtime_changed.store(true, Ordering::SeqCst);
                    RETRY_DELAY
                }
            };
            tokio::select! {
                changed = self.desired.changed() => if changed.is_err() { return },
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One round. Returns how long to wait for the next; `None`: the pod is gone.
    async fn round(&mut self, desired: &Desired) -> Result<Option<Duration>, Error> {
        let pod = &desired.pod;
        self.take_result(pod).await;
        if self.shared.runtime_changed.swap(false, Ordering::SeqCst) {
            self.look(pod).await?;
        }
        let ending = desired.gone || pod.metadata.deletion_timestamp.is_some();
        let context = Context {
            runtime: self.host.runtime.clone(),
            recorder: self.host.recorder.clone(),
            shared: self.shared.clone(),
        };
        self.prober.sync(&context, pod, &self.runtime, ending);
        let pause = if ending {
            self.end(desired);
            REFRESH_PERIOD
        } else {
            self.enforce_deadline(pod);
            self.act(pod)
        };
        if !desired.gone {
            self.report(pod, self.ended || pod.is_terminal()).await?;
        }
        if ending && self.ended && self.in_flight.is_none() {
            self.clean(desired).await?;
            return Ok(None);
        }
        Ok(Some(pause))
    }

    /// Takes the outcome of work that has ended.
    async fn take_result(&mut self, pod: &Pod) {
        if !self.in_flight.as_ref().is_some_and(|in_flight| in_flight.task.is_finished()) {
            return;
        }
        let Some(in_flight) = self.in_flight.take() else { return };
        let outcome = match in_flight.task.await {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::Object(format!("work on the pod was cut off: {error}"))),
        };
        self.shared.runtime_changed.store(true, Ordering::SeqCst);
        let mut memory = self.shared.memory();
        match outcome {
            Ok(()) => {
                memory.failures = 0;
                self.ended |= in_flight.ending.is_some();
            }
            Err(error) => {
                tracing::info!(pod = pod.display(), %error, "pod has to wait");
                memory.failures = memory.failures.saturating_add(1);
                self.not_before = Instant::now() + memory.failure_delay();
            }
        }
    }

    /// Reads the runtime's state of the pod.
    async fn look(&mut self, pod: &Pod) -> Result<(), Error> {
        let mut runtime = observed::read(&self.host.runtime, pod.uid(), &self.runtime)
            .await
            .inspect_err(|_| {
                self.shared.runtime_changed.store(true, Ordering::SeqCst);
            })?;
        executor::read_last_words(&self.host, pod, &mut runtime, &self.runtime);
        self.runtime = runtime;
        let mut memory = self.shared.memory();
        memory.retain_containers(|id| self.runtime.containers.iter().any(|c| c.id == id));
        if !std::mem::replace(&mut self.seeded, true) {
            seed_probes(&mut memory, pod, &self.runtime);
        }
        Ok(())
    }

    /// Plans and, if nothing is under way, begins to act. Returns when to go round again.
    fn act(&mut self, pod: &Arc<Pod>) -> Duration {
        let now = Instant::now();
        let plan = {
            let mut memory = self.shared.memory();
            let plan = actions::plan(pod, &self.runtime, &memory, Timestamp::now());
            for held in &plan.held_back {
                self.note_held_back(pod, &mut memory, held);
            }
            plan
        };
        let wait = plan.held_back.iter().map(|held| held.left).min().unwrap_or(REFRESH_PERIOD);
        let refresh_due = now >= self.next_refresh;
        if self.in_flight.is_some() {
            return wait;
        }
        if plan.actions.is_empty() && !refresh_due {
            return wait.min(self.next_refresh - now);
        }
        if now < self.not_before {
            return self.not_before - now;
        }
        if refresh_due {
            self.next_refresh = now + REFRESH_PERIOD;
        }
        let executor = Executor {
            host: self.host.clone(),
            shared: self.shared.clone(),
            pod: pod.clone(),
            runtime: self.runtime.clone(),
        };
        let refresh_only = plan.actions.is_empty();
        if refresh_only && (pod.is_terminal() || pod.podspec().volumes.is_none()) {
            return wait.min(REFRESH_PERIOD);
        }
        self.launch(None, async move {
            if refresh_only {
                return executor.prepare_volumes().await.map(|_| ());
            }
            executor.execute(plan.actions).await
        });
        wait
    }

    fn note_held_back(&self, pod: &Pod, memory: &mut Memory, held: &actions::HeldBack) {
        let (seconds, name) = (held.delay.as_secs(), &held.name);
        let delay = if seconds < 60 {
            format!("{seconds}s")
        } else {
            format!("{}m{}s", seconds / 60, seconds % 60)
        };
        let id = format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid());
        let message = format!("back-off {delay} restarting failed container={name} pod={id}");
        let already = memory.waiting.get(name).is_some_and(|waiting| waiting.message == message);
        if !already {
            let object = pod_reference(pod, Some((name, held.init)));
            let text = format!("Back-off restarting failed container {name} in pod {id}");
            self.host.recorder.warning(object, "BackOff", text);
        }
        memory.wait(name, "CrashLoopBackOff", message);
    }

    fn launch(
        &mut self,
        ending: Option<Duration>,
        work: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) {
        let shared = self.shared.clone();
        let task = tokio::spawn(async move {
            let outcome = work.await;
            shared.wake_for_runtime();
            outcome
        });
        self.in_flight = Some(InFlight { task, ending });
        // The wake-up may come before the task counts as finished: look once more soon after.
        let shared = self.shared.clone();
        if let Some(in_flight) = &self.in_flight {
            let handle = in_flight.task.abort_handle();
            tokio::spawn(async move {
                while !handle.is_finished() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                shared.wake();
            });
        }
    }

    /// Begins to end the pod, or begins anew where the grace period has become shorter.
    fn end(&mut self, desired: &Desired) {
        if self.ended || Instant::now() < self.not_before {
            return;
        }
        let grace = grace_of(desired);
        if let Some(in_flight) = &self.in_flight {
            if in_flight.ending.is_some_and(|current| current <= grace) {
                return;
            }
            in_flight.task.abort();
        }
        let (host, pod, before) = (self.host.clone(), desired.pod.clone(), self.runtime.clone());
        self.launch(Some(grace), async move {
            // What was aborted may have made a container meanwhile.
            let runtime = observed::read(&host.runtime, pod.uid(), &before).await?;
            termination::stop_all(&host, &pod, &runtime, Some(grace)).await
        });
    }

    fn enforce_deadline(&self, pod: &Pod) {
        let Some(seconds) = pod.podspec().active_deadline_seconds else { return };
        let start = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let Some(start) = start else { return };
        let over = Timestamp::now().duration_since(start.0) >= SignedDuration::from_secs(seconds);
        let mut memory = self.shared.memory();
        if over && memory.failed.is_none() && !pod.is_terminal() {
            let message = "Pod was active on the node longer than the specified deadline";
            memory.failed = Some(("DeadlineExceeded".to_owned(), message.to_owned()));
            self.host.recorder.normal(pod_reference(pod, None), "DeadlineExceeded", message);
        }
    }

    /// Writes the status if it differs from what was written last.
    async fn report(&mut self, pod: &Pod, ending: bool) -> Result<(), Error> {
        if pod.is_terminal() && self.runtime.is_empty() {
            return Ok(());
        }
        let status = {
            let memory = self.shared.memory();
            status::status(&Input {
                pod,
                runtime: &self.runtime,
                memory: &memory,
                host_ips: &self.shared.host_ips,
                ending,
                now: Timestamp::now(),
            })
        };
        let status = keep_times(status, self.sent.as_ref().map(|sent| &sent.status));
        *self.shared.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status.clone());
        // Others write statuses too: of a node that was silent, all pods are marked as not ready.
        let overwritten = |sent: &&Sent| revision(pod) > sent.revision;
        let sent = self.sent.as_ref().filter(|sent| !overwritten(sent));
        let known = sent.map(|sent| &sent.status).or(pod.status.as_ref());
        if known == Some(&status) {
            return Ok(());
        }
        let api: Api<Pod> = Api::namespaced(self.host.client.clone(), pod.namespace());
        // The uid is a precondition: never the status of one pod on another of the same name.
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": status}));
        match api.patch_status(pod.name(), &PatchParams::default(), &patch).await {
            Ok(written) => self.sent = Some(Sent { status, revision: revision(&written) }),
            // The watch tells what became of the pod.
            Err(error) if is_not_found(&error) => self.sent = None,
            Err(error) => {
                self.sent = None;
                let object = format!("Pod {}", pod.display());
                return Err(Error::api("update status of", object, error));
            }
        }
        Ok(())
    }

    /// Removes all that is left of an ended pod, from the node and then from the API.
    async fn clean(&mut self, desired: &Desired) -> Result<(), Error> {
        let (host, pod) = (&self.host, &desired.pod);
        for container in &self.runtime.containers {
            host.runtime.remove_container(&container.id).await?;
        }
        for sandbox in &self.runtime.sandboxes {
            host.runtime.stop_sandbox(&sandbox.id).await?;
            host.runtime.remove_sandbox(&sandbox.id).await?;
        }
        let config = &host.config;
        volumes::tear_down(&config.pod_dir(pod.uid()))?;
        volumes::tear_down(&config.logs_dir().join(sandbox_config::log_directory_name(pod)))?;
        host.hierarchies.remove(&config.pod_cgroup(pod.uid()))?;
        if desired.gone {
            return Ok(());
        }
        let api: Api<Pod> = Api::namespaced(host.client.clone(), pod.namespace());
        let parameters = DeleteParams::default().grace_period(0).preconditions(Preconditions {
            uid: Some(pod.uid().to_owned()),
            resource_version: None,
        });
        match api.delete(pod.name(), &parameters).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(error) => Err(Error::api("delete", format!("Pod {}", pod.display()), error)),
        }
    }
}

/// The grace period of a pod that ends.
fn grace_of(desired: &Desired) -> Duration {
    let pod = &desired.pod;
    let given = pod.metadata.deletion_grace_period_seconds;
    let seconds = given.or(pod.podspec().termination_grace_period_seconds).unwrap_or(30);
    // Upstream: at least a second, so that a container can say goodbye.
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
}

/// What the API last heard of containers that run already holds until they are probed again.
fn seed_probes(memory: &mut Memory, pod: &Pod, runtime: &PodRuntime) {
    for (spec, _) in all_containers(pod.podspec()) {
        let Some(observed) = runtime.latest(&spec.name).filter(|c| c.life == Life::Running) else {
            continue;
        };
        let state = ProbeState {
            startup: known_verdict(pod, spec, observed, Kind::Startup),
            readiness: known_verdict(pod, spec, observed, Kind::Readiness),
            liveness: None,
        };
        memory.probes.entry(observed.id.clone()).or_insert(state);
    }
}

fn revision(pod: &Pod) -> Option<u64> {
    pod.metadata.resource_version.as_deref()?.parse().ok()
}

/// The pod this worker sees may be older than what it wrote: times it wrote stay as they are.
fn keep_times(mut status: PodStatus, sent: Option<&PodStatus>) -> PodStatus {
    let Some(sent) = sent else { return status };
    status.start_time = sent.start_time.clone().or(status.start_time);
    for condition in status.conditions.iter_mut().flatten() {
        let same = sent
            .conditions
            .iter()
            .flatten()
            .find(|old| old.type_ == condition.type_ && old.status == condition.status);
        if let Some(same) = same {
            condition.last_transition_time = same.last_transition_time.clone();
        }
    }
    status
}
