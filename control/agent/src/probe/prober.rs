//! One task for each probe of each running container of a pod. A task ends with its container;
//! verdicts go into the worker's memory, and the worker is woken at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::task::AbortHandle;

use super::attempt::{self, Target};
use super::machine::{Kind, Machine, Timing};
use crate::cri::Runtime;
use crate::event::{Recorder, pod_reference};
use crate::pod::memory::ProbeState;
use crate::pod::observed::{Life, Observed, PodRuntime};
use crate::pod::worker::Shared;
use crate::pod::{PodExt, all_containers};

/// The probes that are running, by container id and kind.
#[derive(Default)]
pub(crate) struct Prober {
    tasks: BTreeMap<(String, Kind), AbortHandle>,
}

/// What every probe task of a pod needs.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) runtime: Runtime,
    pub(crate) recorder: Recorder,
    pub(crate) shared: Arc<Shared>,
}

impl Prober {
    /// Starts the probes of containers that run, and ends those of containers that do not.
    pub(crate) fn sync(
        &mut self,
        context: &Context,
        pod: &Arc<Pod>,
        runtime: &PodRuntime,
        terminating: bool,
    ) {
        self.tasks.retain(|(id, kind), task| {
            let alive = runtime.containers.iter().any(|c| c.id == *id && c.life == Life::Running);
            // A container that is being ended is not restarted for its liveness.
            let keep = alive && !(terminating && *kind != Kind::Readiness);
            if !keep {
                task.abort();
            }
            keep
        });
        for (spec, _) in all_containers(pod.podspec()) {
            let latest = runtime.latest(&spec.name).filter(|c| c.life == Life::Running);
            let Some(observed) = latest else { continue };
            for (kind, probe) in probes_of(spec) {
                let task = (observed.id.clone(), kind);
                let wanted = !terminating && !self.tasks.contains_key(&task);
                if wanted && self.may_run(context, spec, observed, kind) {
                    let known = known_verdict(pod, spec, observed, kind);
                    let run = Run::new(context, pod, spec, observed, runtime, kind, probe, known);
                    self.tasks.insert(task, tokio::spawn(run.repeat()).abort_handle());
                }
            }
        }
    }

    /// Readiness and liveness begin once the startup probe has succeeded, and it ends there.
    fn may_run(
        &self,
        context: &Context,
        spec: &Container,
        observed: &Observed,
        kind: Kind,
    ) -> bool {
        let state = context.shared.memory().probes.get(&observed.id).copied().unwrap_or_default();
        match kind {
            Kind::Startup => state.startup.is_none(),
            _ => spec.startup_probe.is_none() || state.startup == Some(true),
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
    }
}

fn probes_of(spec: &Container) -> impl Iterator<Item = (Kind, &Probe)> {
    let startup = spec.startup_probe.as_ref().map(|probe| (Kind::Startup, probe));
    let readiness = spec.readiness_probe.as_ref().map(|probe| (Kind::Readiness, probe));
    let liveness = spec.liveness_probe.as_ref().map(|probe| (Kind::Liveness, probe));
    startup.into_iter().chain(readiness).chain(liveness)
}

/// What the API last heard of this very container: an agent that was restarted must not make a
/// ready pod unready until it has probed it again.
pub(crate) fn known_verdict(
    pod: &Pod,
    spec: &Container,
    observed: &Observed,
    kind: Kind,
) -> Option<bool> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let mut all = lists.into_iter().flatten().flatten();
    let known = all.find(|known| {
        known.name == spec.name
            && known.container_id.as_deref() == Some(&format!("containerd://{}", observed.id))
    })?;
    let good = match kind {
        Kind::Startup => known.started == Some(true),
        Kind::Readiness => known.ready,
        Kind::Liveness => false,
    };
    good.then_some(true)
}

struct Run {
    context: Context,
    pod: Arc<Pod>,
    spec: Container,
    probe: Probe,
    kind: Kind,
    machine: Machine,
    timing: Timing,
    target: Target,
    started_at: Timestamp,
    init: bool,
}

impl Run {
    #[expect(clippy::too_many_arguments, reason = "one place gathers what a probe task needs")]
    fn new(
        context: &Context,
        pod: &Arc<Pod>,
        spec: &Container,
        observed: &Observed,
        runtime: &PodRuntime,
        kind: Kind,
        probe: &Probe,
        known: Option<bool>,
    ) -> Self {
        let timing = Timing::of(probe);
        let sandbox_ip =
            runtime.ready_sandbox().and_then(|sandbox| sandbox.ips.first()?.parse().ok());
        let host_ip = context.shared.host_ips.first().and_then(|ip| ip.parse().ok());
        let pod_ip = if pod.host_network() { host_ip } else { sandbox_ip };
        let started_at = Timestamp::from_nanosecond(observed.started_at_ns.into());
        Self {
            context: context.clone(),
            pod: pod.clone(),
            spec: spec.clone(),
            probe: probe.clone(),
            kind,
            machine: Machine::new(kind, timing, known),
            timing,
            target: Target { container_id: observed.id.clone(), pod_ip },
            started_at: started_at.unwrap_or(Timestamp::UNIX_EPOCH),
            init: all_containers(pod.podspec()).any(|(c, init)| init && c.name == spec.name),
        }
    }

    fn age(&self) -> Duration {
        Duration::try_from(Timestamp::now().duration_since(self.started_at)).unwrap_or_default()
    }

    async fn repeat(mut self) {
        tokio::time::sleep(self.timing.initial_delay.saturating_sub(self.age())).await;
        loop {
            let outcome = attempt::probe(
                &self.context.runtime,
                &self.spec,
                &self.probe,
                &self.target,
                self.timing.timeout,
            )
            .await;
            let step = self.machine.step(outcome.is_ok(), self.age());
            if let Some(verdict) = step.changed {
                self.record(verdict);
            }
            if let (Err(why), true) = (outcome, step.report) {
                let object = pod_reference(&self.pod, Some((&self.spec.name, self.init)));
                let message = format!("{} probe failed: {why}", self.kind.name());
                self.context.recorder.warning(object, "Unhealthy", message);
            }
            if self.kind == Kind::Startup && step.changed.is_some() {
                return;
            }
            tokio::time::sleep(step.pause).await;
        }
    }

    fn record(&self, verdict: bool) {
        let mut memory = self.context.shared.memory();
        let state: &mut ProbeState =
            memory.probes.entry(self.target.container_id.clone()).or_default();
        match self.kind {
            Kind::Startup => state.startup = Some(verdict),
            Kind::Readiness => state.readiness = Some(verdict),
            Kind::Liveness => state.liveness = Some(verdict),
        }
        drop(memory);
        self.context.shared.wake();
    }
}
