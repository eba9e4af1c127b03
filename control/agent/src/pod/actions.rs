//! Desired pod and observed runtime in, actions out. Pure: time is an argument. The rules are those
//! of upstream's kubelet (`computePodActions`), sidecar containers (KEP-753) included.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::memory::{Memory, PostStart};
use super::observed::{Life, Observed, PodRuntime};
use super::{PodExt, RestartPolicy, is_sidecar};

/// Why a running container is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillReason {
    /// Its definition in the pod has changed.
    Changed,
    LivenessProbe,
    StartupProbe,
    PostStartHook,
    /// The runtime has lost track of it.
    Unknown,
    /// It runs in a sandbox that is no longer in use.
    SandboxGone,
}

/// One step towards what the pod asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// End what runs, then stop every sandbox: the pod is complete, or starts over.
    StopSandboxes,
    CreateSandbox {
        attempt: u32,
    },
    Kill {
        id: String,
        name: String,
        why: KillReason,
    },
    Start {
        name: String,
        init: bool,
        restart_count: u32,
    },
    /// Remove a dead container that nobody looks at any more.
    Remove {
        id: String,
    },
}

/// What to do now, and when to look again without any other reason to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// Containers held back, with the whole delay and what is left of it.
    pub(crate) held_back: Vec<HeldBack>,
}

/// A restart that has to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldBack {
    pub(crate) name: String,
    pub(crate) init: bool,
    pub(crate) delay: Duration,
    pub(crate) left: Duration,
}

/// Decides about a pod that is not being deleted.
pub(crate) fn plan(pod: &Pod, runtime: &PodRuntime, memory: &Memory, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let sandbox = usable_sandbox(pod, runtime);
    if pod.is_terminal() || memory.failed.is_some() {
        if runtime.ready_sandbox().is_some() || runtime.alive().next().is_some() {
            plan.actions.push(Action::StopSandboxes);
        }
        return plan;
    }
    if sandbox.is_none() {
        return start_over(pod, runtime, memory, now);
    }
    let round = Round { pod, runtime, memory, now };
    round.end_what_must_not_run(&mut plan);
    match round.init_progress(&mut plan) {
        InitProgress::Failed => plan.actions.push(Action::StopSandboxes),
        InitProgress::Busy => {}
        InitProgress::Done => round.run_main_containers(&mut plan),
    }
    round.remove_dead(&mut plan);
    plan
}

/// The sandbox in use, if it has what it needs.
fn usable_sandbox<'a>(pod: &Pod, runtime: &'a PodRuntime) -> Option<&'a super::observed::Sandbox> {
    runtime.ready_sandbox().filter(|sandbox| pod.host_network() || !sandbox.ips.is_empty())
}

/// No usable sandbox: clear what is left and begin anew, unless there is nothing left to run.
fn start_over(pod: &Pod, runtime: &PodRuntime, memory: &Memory, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let round = Round { pod, runtime, memory, now };
    if runtime.alive().next().is_some() || runtime.ready_sandbox().is_some() {
        plan.actions.push(Action::StopSandboxes);
    }
    let ran = !runtime.containers.is_empty();
    if ran && !round.has_anything_to_run() {
        return plan;
    }
    let attempt = runtime.sandboxes.first().map_or(0, |sandbox| sandbox.attempt + 1);
    plan.actions.push(Action::CreateSandbox { attempt });
    plan
}

enum InitProgress {
    /// One has failed for good: so has the pod.
    Failed,
    Busy,
    Done,
}

struct Round<'a> {
    pod: &'a Pod,
    runtime: &'a PodRuntime,
    memory: &'a Memory,
    now: Timestamp,
}

impl Round<'_> {
    fn in_current_sandbox(&self, container: &Observed) -> bool {
        self.runtime.ready_sandbox().is_some_and(|sandbox| sandbox.id == container.sandbox_id)
    }

    /// Ends running containers that failed a probe or a hook, changed, or belong to no sandbox.
    fn end_what_must_not_run(&self, plan: &mut Plan) {
        for container in self.runtime.alive() {
            if container.life == Life::Created {
                // Plans are made between executions, so nobody is about to start it: the agent was
                // killed between the two calls.
                plan.actions.push(Action::Remove { id: container.id.clone() });
                continue;
            }
            let spec = super::all_containers(self.pod.podspec())
                .find(|(spec, _)| spec.name == container.name);
            let probes = self.memory.probes.get(&container.id).copied().unwrap_or_default();
            let hook = self.memory.post_start.get(&container.id);
            let why = if !self.in_current_sandbox(container) {
                KillReason::SandboxGone
            } else if container.life == Life::Unknown {
                KillReason::Unknown
            } else if spec.is_none_or(|(spec, _)| container_hash(spec) != container.hash) {
                KillReason::Changed
            } else if hook == Some(&PostStart::Failed) {
                KillReason::PostStartHook
            } else if probes.startup == Some(false) {
                KillReason::StartupProbe
            } else if probes.liveness == Some(false) {
                KillReason::LivenessProbe
            } else {
                continue;
            };
            let (id, name) = (container.id.clone(), container.name.clone());
            plan.actions.push(Action::Kill { id, name, why });
        }
    }

    /// Runs init containers one after another; sidecars count as done once they have started.
    fn init_progress(&self, plan: &mut Plan) -> InitProgress {
        let containers: Vec<&Container> =
            self.pod.podspec().init_containers.iter().flatten().collect();
        let main_began =
            self.pod.podspec().containers.iter().any(|c| self.latest_here(&c.name).is_some());
        for container in containers {
            let latest = self.latest_here(&container.name);
            if is_sidecar(container) {
                match latest {
                    Some(observed) if observed.life == Life::Running => {
                        if !main_began && !self.has_started(container, observed) {
                            return InitProgress::Busy;
                        }
                    }
                    Some(observed) if observed.life != Life::Exited => return InitProgress::Busy,
                    _ if main_began && self.main_containers_are_over() => {}
                    _ => {
                        self.start(plan, container, true);
                        if !main_began {
                            return InitProgress::Busy;
                        }
                    }
                }
                continue;
            }
            match latest {
                // Once main containers were started, init containers are never run again here.
                _ if main_began => {}
                Some(observed) if observed.succeeded() => {}
                Some(observed) if observed.life != Life::Exited => return InitProgress::Busy,
                Some(_) if self.pod.restart_policy() == RestartPolicy::Never => {
                    return InitProgress::Failed;
                }
                _ => {
                    self.start(plan, container, true);
                    return InitProgress::Busy;
                }
            }
        }
        InitProgress::Done
    }

    fn run_main_containers(&self, plan: &mut Plan) {
        let mut kept = false;
        let mut wanted = false;
        for container in &self.pod.podspec().containers {
            match self.latest_here(&container.name) {
                Some(observed) if observed.life != Life::Exited => kept = true,
                _ if self.should_run(container) => {
                    wanted = true;
                    self.start(plan, container, false);
                }
                _ => {}
            }
        }
        if !kept && !wanted {
            // Nothing is left to run: sidecars end, and the sandbox gives its address back.
            plan.actions.push(Action::StopSandboxes);
        }
    }

    /// Whether a container that does not run has to.
    fn should_run(&self, container: &Container) -> bool {
        match (self.runtime.latest(&container.name), self.pod.restart_policy()) {
            (None, _) | (_, RestartPolicy::Always) => true,
            (Some(observed), RestartPolicy::OnFailure) => !observed.succeeded(),
            (Some(observed), RestartPolicy::Never) => observed.life != Life::Exited,
        }
    }

    fn has_anything_to_run(&self) -> bool {
        let spec = self.pod.podspec();
        let init_failed = spec.init_containers.iter().flatten().any(|container| {
            !is_sidecar(container)
                && self.pod.restart_policy() == RestartPolicy::Never
                && self
                    .runtime
                    .latest(&container.name)
                    .is_some_and(|observed| observed.life == Life::Exited && !observed.succeeded())
        });
        !init_failed && spec.containers.iter().any(|container| self.should_run(container))
    }

    fn main_containers_are_over(&self) -> bool {
        self.pod.podspec().containers.iter().all(|container| {
            self.runtime.latest(&container.name).is_some_and(|observed| {
                observed.life == Life::Exited && !self.should_run(container)
            })
        })
    }

    fn has_started(&self, container: &Container, observed: &Observed) -> bool {
        let hook_done = !self.memory.post_start.contains_key(&observed.id);
        let probes = self.memory.probes.get(&observed.id).copied().unwrap_or_default();
        hook_done && (container.startup_probe.is_none() || probes.startup == Some(true))
    }

    fn latest_here(&self, name: &str) -> Option<&Observed> {
        self.runtime.latest(name).filter(|observed| self.in_current_sandbox(observed))
    }

    /// Starts a container, or holds it back.
    fn start(&self, plan: &mut Plan, container: &Container, init: bool) {
        let latest = self.runtime.latest(&container.name);
        if let Some(observed) = latest.filter(|observed| observed.life == Life::Exited) {
            let held =
                self.memory.backoff.remaining(&container.name, observed.finished_at(), self.now);
            if let Some((left, delay)) = held {
                let name = container.name.clone();
                plan.held_back.push(HeldBack { name, init, delay, left });
                return;
            }
        }
        let restart_count = latest.map_or(0, |observed| observed.restart_count + 1);
        plan.actions.push(Action::Start { name: container.name.clone(), init, restart_count });
    }

    /// Keeps the latest of each name and the one before it (for `lastState` and previous logs).
    fn remove_dead(&self, plan: &mut Plan) {
        let mut seen: std::collections::BTreeMap<&str, u32> = std::collections::BTreeMap::new();
        for container in &self.runtime.containers {
            let count = seen.entry(&container.name).or_default();
            *count += 1;
            if *count > 2 && container.life == Life::Exited {
                plan.actions.push(Action::Remove { id: container.id.clone() });
            }
        }
    }
}

/// Identifies a container's definition as far as a change of it restarts the container: as upstream,
/// only the name and the image are not fixed by something else.
pub(crate) fn container_hash(container: &Container) -> String {
    use sha2::{Digest, Sha256};
    let mut digest = Sha256::new();
    digest.update(&container.name);
    digest.update([0]);
    digest.update(container.image.as_deref().unwrap_or_default());
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
