//! The status of a pod as upstream's kubelet reports it, from the pod, the runtime and the worker's
//! memory. Pure: time is an argument. What other parties wrote into the status is kept.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::memory::Memory;
use super::observed::{Life, Observed, PodRuntime};
use super::phase::phase;
use super::resources::Qos;
use super::{PodExt, is_sidecar};

/// All the status depends on.
pub(crate) struct Input<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) runtime: &'a PodRuntime,
    pub(crate) memory: &'a Memory,
    pub(crate) host_ips: &'a [String],
    /// Nothing of the pod will be started any more.
    pub(crate) ending: bool,
    pub(crate) now: Timestamp,
}

/// The status to report.
pub(crate) fn status(input: &Input<'_>) -> PodStatus {
    let spec = input.pod.podspec();
    let old = input.pod.status.clone().unwrap_or_default();
    let init: Vec<ContainerStatus> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| input.container(container, old.init_container_statuses.as_deref(), true))
        .collect();
    let main: Vec<ContainerStatus> = spec
        .containers
        .iter()
        .map(|container| input.container(container, old.container_statuses.as_deref(), false))
        .collect();
    let failed = input.memory.failed.as_ref();
    let phase = match old.phase.as_deref() {
        Some(terminal @ ("Succeeded" | "Failed")) => terminal,
        _ if failed.is_some() => "Failed",
        _ => phase(input.pod, &init, &main, input.ending),
    };
    let pod_ips = input.pod_ips(&old);
    let conditions = input.conditions(&old, phase, &init, &main);
    PodStatus {
        observed_generation: input.pod.metadata.generation,
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        reason: failed.map(|(reason, _)| reason.clone()).or(old.reason),
        message: failed.map(|(_, message)| message.clone()).or(old.message),
        host_ip: input.host_ips.first().cloned(),
        host_ips: Some(input.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: (!pod_ips.is_empty())
            .then(|| pod_ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect()),
        start_time: old.start_time.or(Some(Time(whole_second(input.now)))),
        qos_class: Some(old.qos_class.unwrap_or_else(|| Qos::of(input.pod).name().to_owned())),
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(main),
        ..PodStatus::default()
    }
}

/// Kubernetes' times have whole seconds.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn time(nanoseconds: i64) -> Option<Time> {
    (nanoseconds > 0)
        .then(|| Timestamp::from_second(nanoseconds / 1_000_000_000).ok().map(Time))
        .flatten()
}

fn container_id(observed: &Observed) -> String {
    format!("containerd://{}", observed.id)
}

fn terminated(observed: &Observed) -> ContainerState {
    let reason = match observed.reason.as_str() {
        "" if observed.exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(container_id(observed)),
            exit_code: observed.exit_code,
            reason: Some(reason.to_owned()),
            message: (!observed.message.is_empty()).then(|| observed.message.clone()),
            started_at: time(observed.started_at_ns),
            finished_at: time(observed.finished_at_ns),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    }
}

impl Input<'_> {
    fn container(
        &self,
        spec: &Container,
        old: Option<&[ContainerStatus]>,
        init: bool,
    ) -> ContainerStatus {
        let old = old.and_then(|list| list.iter().find(|status| status.name == spec.name));
        let image = spec.image.clone().unwrap_or_default();
        let Some(latest) = self.runtime.latest(&spec.name) else {
            return self.absent_container(spec, old, init);
        };
        let mut status = ContainerStatus {
            name: spec.name.clone(),
            image: if latest.image.is_empty() { image } else { latest.image.clone() },
            image_id: latest.image_id.clone(),
            container_id: Some(container_id(latest)),
            restart_count: i32::try_from(latest.restart_count).unwrap_or(i32::MAX),
            last_state: self
                .runtime
                .previous(&spec.name)
                .map(terminated)
                .or_else(|| old.and_then(|old| old.last_state.clone())),
            started: Some(false),
            ..ContainerStatus::default()
        };
        match latest.life {
            Life::Running => {
                status.state = Some(ContainerState {
                    running: Some(ContainerStateRunning { started_at: time(latest.started_at_ns) }),
                    ..ContainerState::default()
                });
                let started = self.has_started(spec, latest);
                status.started = Some(started);
                status.ready =
                    started && (!init || is_sidecar(spec)) && self.is_ready(spec, latest);
            }
            Life::Exited => {
                status.ready = init && latest.exit_code == 0 && !is_sidecar(spec);
                match self.memory.waiting.get(&spec.name).filter(|_| !self.ending) {
                    Some(why) => {
                        status.last_state = Some(terminated(latest));
                        status.state = Some(waiting(why.reason, Some(why.message.clone())));
                    }
                    None => status.state = Some(terminated(latest)),
                }
            }
            Life::Created | Life::Unknown => {
                status.state = Some(self.default_waiting(spec, init));
            }
        }
        status
    }

    /// A container the runtime does not hold: not made yet, or removed by somebody.
    fn absent_container(
        &self,
        spec: &Container,
        old: Option<&ContainerStatus>,
        init: bool,
    ) -> ContainerStatus {
        let old_state = old.and_then(|old| old.state.as_ref());
        if let Some(old) = old
            && old_state.is_some_and(|state| state.terminated.is_some())
            && (self.ending || self.pod.is_terminal())
        {
            return old.clone();
        }
        let was_running = old_state.is_some_and(|state| state.running.is_some());
        let state = if was_running && self.ending {
            ContainerState {
                terminated: Some(ContainerStateTerminated {
                    exit_code: 137,
                    reason: Some("ContainerStatusUnknown".to_owned()),
                    message: Some(
                        "The container could not be located when the pod was terminated".to_owned(),
                    ),
                    ..ContainerStateTerminated::default()
                }),
                ..ContainerState::default()
            }
        } else {
            self.default_waiting(spec, init)
        };
        ContainerStatus {
            name: spec.name.clone(),
            image: spec.image.clone().unwrap_or_default(),
            restart_count: old.map_or(0, |old| old.restart_count),
            last_state: old.and_then(|old| old.last_state.clone()),
            started: Some(false),
            state: Some(state),
            ..ContainerStatus::default()
        }
    }

    fn default_waiting(&self, spec: &Container, init: bool) -> ContainerState {
        if let Some(why) = self.memory.waiting.get(&spec.name) {
            return waiting(why.reason, Some(why.message.clone()));
        }
        let has_init = self.pod.podspec().init_containers.as_ref().is_some_and(|l| !l.is_empty());
        waiting(if init || has_init { "PodInitializing" } else { "ContainerCreating" }, None)
    }

    fn has_started(&self, spec: &Container, observed: &Observed) -> bool {
        let probes = self.memory.probes.get(&observed.id).copied().unwrap_or_default();
        let hook_done = !self.memory.post_start.contains_key(&observed.id);
        hook_done && (spec.startup_probe.is_none() || probes.startup == Some(true))
    }

    fn is_ready(&self, spec: &Container, observed: &Observed) -> bool {
        let probes = self.memory.probes.get(&observed.id).copied().unwrap_or_default();
        spec.readiness_probe.is_none() || probes.readiness == Some(true)
    }

    /// The pod's addresses; a pod that is over keeps those it had.
    fn pod_ips(&self, old: &PodStatus) -> Vec<String> {
        if self.pod.host_network() {
            return self.host_ips.to_vec();
        }
        let sandbox = self.runtime.sandboxes.first();
        match sandbox.map(|sandbox| sandbox.ips.clone()).filter(|ips| !ips.is_empty()) {
            Some(ips) => ips,
            None => old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
        }
    }

    fn conditions(
        &self,
        old: &PodStatus,
        phase: &str,
        init: &[ContainerStatus],
        main: &[ContainerStatus],
    ) -> Vec<PodCondition> {
        let old = old.conditions.as_deref().unwrap_or_default();
        let has_network = self
            .runtime
            .ready_sandbox()
            .is_some_and(|sandbox| self.pod.host_network() || !sandbox.ips.is_empty());
        let network = if has_network { Verdict::yes() } else { Verdict::no("", String::new()) };
        let containers_ready = self.containers_ready(phase, init, main);
        let ready = self.pod_ready(&containers_ready, old);
        let mut conditions = vec![
            self.condition("PodReadyToStartContainers", network, old),
            self.condition("Initialized", self.initialized(phase, init, main), old),
            self.condition("Ready", ready, old),
            self.condition("ContainersReady", containers_ready, old),
            self.condition("PodScheduled", Verdict::yes(), old),
        ];
        let foreign = |condition: &&PodCondition| {
            !conditions.iter().any(|ours| ours.type_ == condition.type_)
        };
        let foreign: Vec<PodCondition> = old.iter().filter(foreign).cloned().collect();
        conditions.extend(foreign);
        conditions
    }

    fn initialized(
        &self,
        phase: &str,
        init: &[ContainerStatus],
        main: &[ContainerStatus],
    ) -> Verdict {
        let began = main.iter().any(|status| {
            status.state.as_ref().is_some_and(|state| state.running.is_some())
                || status.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
        });
        if phase == "Succeeded" {
            return Verdict {
                yes: true,
                reason: "PodCompleted".to_owned(),
                message: String::new(),
            };
        }
        if began {
            return Verdict::yes();
        }
        let specs = self.pod.podspec().init_containers.iter().flatten();
        let incomplete: Vec<&str> = specs
            .zip(init)
            .filter(|(spec, status)| {
                let done =
                    if is_sidecar(spec) { status.started == Some(true) } else { status.ready };
                !done
            })
            .map(|(spec, _)| spec.name.as_str())
            .collect();
        if incomplete.is_empty() {
            return Verdict::yes();
        }
        let names = incomplete.join(" ");
        let message = format!("containers with incomplete status: [{names}]");
        Verdict::no("ContainersNotInitialized", message)
    }

    fn containers_ready(
        &self,
        phase: &str,
        init: &[ContainerStatus],
        main: &[ContainerStatus],
    ) -> Verdict {
        match phase {
            "Succeeded" => return Verdict::no("PodCompleted", String::new()),
            "Failed" => return Verdict::no("PodFailed", String::new()),
            _ => {}
        }
        let specs = self.pod.podspec().init_containers.iter().flatten();
        let sidecars = specs.zip(init).filter(|(spec, _)| is_sidecar(spec)).map(|(_, s)| s);
        let unready: Vec<&str> = sidecars
            .chain(main)
            .filter(|status| !status.ready)
            .map(|status| status.name.as_str())
            .collect();
        if unready.is_empty() {
            return Verdict::yes();
        }
        let message = format!("containers with unready status: [{}]", unready.join(" "));
        Verdict::no("ContainersNotReady", message)
    }

    /// Ready: the containers are, and so is every readiness gate.
    fn pod_ready(&self, containers: &Verdict, conditions: &[PodCondition]) -> Verdict {
        if !containers.yes {
            return containers.clone();
        }
        let gates = self.pod.podspec().readiness_gates.iter().flatten();
        let unmet: Vec<String> = gates
            .filter_map(|gate| {
                let name = &gate.condition_type;
                match conditions.iter().find(|condition| condition.type_ == *name) {
                    None => Some(format!(
                        "corresponding condition of pod readiness gate {name:?} does not exist."
                    )),
                    Some(condition) if condition.status != "True" => Some(format!(
                        "the status of pod readiness gate {name:?} is not \"True\", but {}",
                        condition.status
                    )),
                    Some(_) => None,
                }
            })
            .collect();
        if unmet.is_empty() {
            return Verdict::yes();
        }
        Verdict::no("ReadinessGatesNotReady", unmet.join(", "))
    }

    fn condition(&self, kind: &str, verdict: Verdict, old: &[PodCondition]) -> PodCondition {
        let status = if verdict.yes { "True" } else { "False" };
        let old = old.iter().find(|condition| condition.type_ == kind);
        let same = old.filter(|condition| condition.status == status);
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: (!verdict.reason.is_empty()).then_some(verdict.reason),
            message: (!verdict.message.is_empty()).then_some(verdict.message),
            last_transition_time: same
                .and_then(|condition| condition.last_transition_time.clone())
                .or(Some(Time(whole_second(self.now)))),
            last_probe_time: None,
            observed_generation: self.pod.metadata.generation,
        }
    }
}

/// The outcome of one condition.
#[derive(Clone, Debug)]
struct Verdict {
    yes: bool,
    reason: String,
    message: String,
}

impl Verdict {
    fn yes() -> Self {
        Self { yes: true, reason: String::new(), message: String::new() }
    }

    fn no(reason: &str, message: String) -> Self {
        Self { yes: false, reason: reason.to_owned(), message }
    }
}

#[cfg(test)]
mod tests;
