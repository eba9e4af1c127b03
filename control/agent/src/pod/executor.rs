//! Carries out the actions of a plan, in order. What goes wrong becomes an event, a waiting reason
//! and an error that makes the worker try again later.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::actions::{Action, KillReason};
use super::container_config::{self, Resolved, bind, container_config, termination_path};
use super::env::{self, Referenced};
use super::memory::{PostStart, Waiting};
use super::observed::{Life, Observed, PodRuntime};
use super::worker::Shared;
use super::{
    PodExt, all_containers, hook, host_files, image, resources, sandbox_config, termination,
};
use crate::error::Error;
use crate::event::pod_reference;
use crate::host::Host;
use crate::probe::attempt::Target;
use crate::{references, volumes};

/// A postStart hook has no limit upstream; one that hangs must not hang here for ever.
const POST_START_LIMIT: Duration = Duration::from_secs(600);

/// One round of work for one pod.
pub(crate) struct Executor {
    pub(crate) host: Arc<Host>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) pod: Arc<Pod>,
    /// The pod as it was when the plan was made.
    pub(crate) runtime: PodRuntime,
}

impl Executor {
    /// Carries the actions out. A container that cannot be started does not keep the next one from
    /// it; anything else ends the round.
    pub(crate) async fn execute(self, actions: Vec<Action>) -> Result<(), Error> {
        let mut outcome = Ok(());
        let mut referenced = None;
        for action in actions {
            match action {
                Action::StopSandboxes => self.stop_sandboxes().await?,
                Action::CreateSandbox { attempt } => self.create_sandbox(attempt).await?,
                Action::Kill { id, name, why } => self.kill(&id, &name, why).await?,
                Action::Remove { id } => self.host.runtime.remove_container(&id).await?,
                Action::Start { name, init, restart_count } => {
                    if referenced.is_none() {
                        referenced = Some(self.prepare_volumes().await?);
                    }
                    let Some(objects) = &referenced else { continue };
                    if let Err(error) = self.start(&name, init, restart_count, objects).await {
                        outcome = Err(error);
                    }
                }
            }
        }
        outcome
    }

    fn pod_dir(&self) -> PathBuf {
        self.host.config.pod_dir(self.pod.uid())
    }

    fn pod_ips(&self) -> Vec<String> {
        if self.pod.host_network() {
            return self.host.ips();
        }
        self.runtime.sandboxes.first().map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
    }

    async fn stop_sandboxes(&self) -> Result<(), Error> {
        termination::stop_all(&self.host, &self.pod, &self.runtime, None).await
    }

    async fn create_sandbox(&self, attempt: u32) -> Result<(), Error> {
        let (host, pod) = (&self.host, &self.pod);
        let object = || pod_reference(pod, None);
        if attempt > 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            host.recorder.normal(object(), "SandboxChanged", message);
        } else if let Some(message) = sandbox_config::unmapped_host_ports(pod) {
            host.recorder.warning(object(), "HostPortNotSupported", message);
        }
        let cgroup = host.config.pod_cgroup(pod.uid());
        host.hierarchies.create(&cgroup)?;
        host.hierarchies.limit(&cgroup, &resources::of_pod(pod))?;
        create_dir(&self.pod_dir(), 0o750)?;
        let config = self.sandbox_config(attempt);
        create_dir(Path::new(&config.log_directory), 0o755)?;
        // Volumes first: a pod whose volumes are missing should not hold an address.
        self.prepare_volumes().await?;
        host.runtime.run_sandbox(config).await.map(|_| ()).inspect_err(|error| {
            let message = format!("Failed to create pod sandbox: {error}");
            host.recorder.warning(object(), "FailedCreatePodSandBox", message);
        })
    }

    fn sandbox_config(&self, attempt: u32) -> cri::PodSandboxConfig {
        let resolv_conf = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        sandbox_config::sandbox_config(&self.host.config, &self.pod, attempt, &resolv_conf)
    }

    /// Reads what the pod refers to and brings its volumes up to date.
    pub(crate) async fn prepare_volumes(&self) -> Result<Referenced, Error> {
        let (host, pod) = (&self.host, &self.pod);
        let referenced = references::fetch(&host.client, pod).await?;
        let facts = host.facts(&self.pod_ips());
        let sources = volumes::Sources {
            pod,
            facts: &facts,
            referenced: &referenced,
            tokens: &self.shared.tokens,
        };
        for volume in pod.podspec().volumes.iter().flatten() {
            if let Err(error) = volumes::set_up(&self.pod_dir(), volume, &sources).await {
                let name = &volume.name;
                let message = format!("MountVolume.SetUp failed for volume {name:?} : {error}");
                host.recorder.warning(pod_reference(pod, None), "FailedMount", &message);
                return Err(Error::Object(message));
            }
        }
        Ok(referenced)
    }

    async fn kill(&self, id: &str, name: &str, why: KillReason) -> Result<(), Error> {
        let Some(observed) = self.runtime.containers.iter().find(|container| container.id == id)
        else {
            return Ok(());
        };
        let spec = all_containers(self.pod.podspec()).find(|(spec, _)| spec.name == name);
        let probe_grace = |probe: Option<&k8s_openapi::api::core::v1::Probe>| {
            probe.and_then(|probe| u64::try_from(probe.termination_grace_period_seconds?).ok())
        };
        let spec = spec.map(|(spec, _)| spec);
        let (text, own_grace) = match why {
            KillReason::LivenessProbe => (
                format!("Container {name} failed liveness probe, will be restarted"),
                probe_grace(spec.and_then(|spec| spec.liveness_probe.as_ref())),
            ),
            KillReason::StartupProbe => (
                format!("Container {name} failed startup probe, will be restarted"),
                probe_grace(spec.and_then(|spec| spec.startup_probe.as_ref())),
            ),
            KillReason::Changed => {
                (format!("Container {name} definition changed, will be restarted"), None)
            }
            KillReason::PostStartHook => ("FailedPostStartHook".to_owned(), None),
            KillReason::Unknown => (
                format!("Container {name} is in unknown state, try killing it before restart"),
                None,
            ),
            KillReason::SandboxGone => (format!("Stopping container {name}"), None),
        };
        let grace = own_grace
            .map_or_else(|| termination::grace_period(&self.pod, observed), Duration::from_secs);
        let ips = self.pod_ips();
        let pod_ip = ips.first().map(String::as_str);
        termination::stop_container(&self.host, &self.pod, observed, pod_ip, grace, &text).await
    }

    async fn start(
        &self,
        name: &str,
        init: bool,
        restart_count: u32,
        referenced: &Referenced,
    ) -> Result<(), Error> {
        let found = all_containers(self.pod.podspec()).find(|(spec, _)| spec.name == name);
        let Some((spec, _)) = found else { return Ok(()) };
        match self.try_start(spec, init, restart_count, referenced).await {
            Ok(id) => {
                self.started(spec, &id, init);
                Ok(())
            }
            Err(waiting) => {
                let error = Error::Object(format!("container {name}: {}", waiting.message));
                self.shared.memory().waiting.insert(name.to_owned(), waiting);
                Err(error)
            }
        }
    }

    async fn try_start(
        &self,
        spec: &Container,
        init: bool,
        restart_count: u32,
        referenced: &Referenced,
    ) -> Result<String, Waiting> {
        let (host, pod) = (&self.host, &self.pod);
        let refuse = |reason: &'static str, error: Error| {
            let message = match &error {
                Error::Runtime { status, .. } => status.message().to_owned(),
                other => other.to_string(),
            };
            let object = pod_reference(pod, Some((&spec.name, init)));
            host.recorder.warning(object, "Failed", format!("Error: {message}"));
            Waiting { reason, message }
        };
        let Some(sandbox) = self.runtime.ready_sandbox() else {
            let error = Error::Object("the pod has no sandbox".to_owned());
            return Err(refuse("CreateContainerError", error));
        };
        let image = image::ensure(host, &self.shared, pod, spec, init).await?;
        let config = self
            .describe(spec, restart_count, &image, referenced)
            .map_err(|error| refuse("CreateContainerConfigError", error))?;
        let sandbox_config = self.sandbox_config(sandbox.attempt);
        let id = host
            .runtime
            .create_container(&sandbox.id, config, sandbox_config)
            .await
            .map_err(|error| refuse("CreateContainerError", error))?;
        let object = || pod_reference(pod, Some((&spec.name, init)));
        host.recorder.normal(object(), "Created", format!("Created container: {}", spec.name));
        if let Some(ended) = self.runtime.latest(&spec.name) {
            let mut memory = self.shared.memory();
            memory.backoff.attempt(&spec.name, ended.finished_at(), Timestamp::now());
        }
        self.mark_post_start(spec, &id);
        host.runtime
            .start_container(&id)
            .await
            .map_err(|error| refuse("RunContainerError", error))?;
        host.recorder.normal(object(), "Started", format!("Started container {}", spec.name));
        Ok(id)
    }

    fn describe(
        &self,
        spec: &Container,
        restart_count: u32,
        image: &cri::Image,
        referenced: &Referenced,
    ) -> Result<cri::ContainerConfig, Error> {
        let (host, pod) = (&self.host, &self.pod);
        let facts = host.facts(&self.pod_ips());
        let services = host.services_for(pod);
        let services: Vec<_> = services.iter().map(AsRef::as_ref).collect();
        let environment = env::environment(pod, spec, &facts, referenced, &services)?;
        let mut mounts = volumes::mounts(&self.pod_dir(), pod, spec, &environment)?;
        mounts.extend(self.own_mounts(spec, restart_count, &mounts)?);
        container_config(Resolved {
            config: &host.config,
            machine_memory_bytes: host.machine.memory_bytes,
            pod,
            spec,
            restart_count,
            image,
            environment,
            mounts,
        })
    }

    /// /etc/hosts and the termination message file, where the pod mounts nothing there itself.
    fn own_mounts(
        &self,
        spec: &Container,
        restart_count: u32,
        taken: &[cri::Mount],
    ) -> Result<Vec<cri::Mount>, Error> {
        let mut mounts = Vec::new();
        let free = |path: &str| !taken.iter().any(|mount| mount.container_path == path);
        if free("/etc/hosts") {
            let path = self.pod_dir().join("etc-hosts");
            let host_file = fs::read_to_string("/etc/hosts").unwrap_or_default();
            let domain = &self.host.config.cluster_domain;
            let text = host_files::hosts(&self.pod, &self.pod_ips(), &host_file, domain);
            write(&path, &text, 0o644)?;
            mounts.push(bind("/etc/hosts", &path, false));
        }
        let inside = termination_path(spec);
        if free(inside) {
            let path = message_file(&self.pod_dir(), &spec.name, restart_count);
            create_dir(path.parent().unwrap_or(&path), 0o755)?;
            // Any user the container runs as may write its last words.
            write(&path, "", 0o666)?;
            mounts.push(bind(inside, &path, false));
        }
        Ok(mounts)
    }

    /// Before the start: a container with a hook does not count as started until the hook is done.
    fn mark_post_start(&self, spec: &Container, id: &str) {
        if spec.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some()) {
            self.shared.memory().post_start.insert(id.to_owned(), PostStart::Running);
        }
    }

    fn started(&self, spec: &Container, id: &str, init: bool) {
        self.shared.memory().waiting.remove(&spec.name);
        let Some(handler) = spec.lifecycle.as_ref().and_then(|l| l.post_start.clone()) else {
            return;
        };
        let (host, shared, pod) = (self.host.clone(), self.shared.clone(), self.pod.clone());
        let pod_ip = self.pod_ips().first().and_then(|ip| ip.parse().ok());
        let target = Target { container_id: id.to_owned(), pod_ip };
        let spec = spec.clone();
        tokio::spawn(async move {
            let result = hook::run(&host.runtime, &spec, &handler, &target, POST_START_LIMIT).await;
            match result {
                Ok(()) => {
                    shared.memory().post_start.remove(&target.container_id);
                }
                Err(error) => {
                    let object = pod_reference(&pod, Some((&spec.name, init)));
                    let message = format!("PostStartHook failed: {error}");
                    host.recorder.warning(object, "FailedPostStartHook", message);
                    shared.memory().post_start.insert(target.container_id, PostStart::Failed);
                }
            }
            shared.wake();
        });
    }
}

/// The host's side of a container's termination message file.
pub(crate) fn message_file(pod_dir: &Path, container: &str, restart_count: u32) -> PathBuf {
    pod_dir.join("containers").join(container).join(restart_count.to_string())
}

/// Fills in the last words of the containers that ended since they were last looked at.
pub(crate) fn read_last_words(
    host: &Host,
    pod: &Pod,
    runtime: &mut PodRuntime,
    before: &PodRuntime,
) {
    let pod_dir = host.config.pod_dir(pod.uid());
    let log_dir = host.config.logs_dir().join(sandbox_config::log_directory_name(pod));
    let new = |observed: &&mut Observed| {
        observed.life == Life::Exited
            && observed.message.is_empty()
            && !before.containers.iter().any(|c| c.id == observed.id && c.life == Life::Exited)
    };
    for observed in runtime.containers.iter_mut().filter(new) {
        let spec = all_containers(pod.podspec()).find(|(spec, _)| spec.name == observed.name);
        let policy = spec.and_then(|(spec, _)| spec.termination_message_policy.as_deref());
        let log = container_config::log_path(&observed.name, observed.restart_count);
        observed.message = termination::message(
            &message_file(&pod_dir, &observed.name, observed.restart_count),
            &log_dir.join(log),
            policy == Some("FallbackToLogsOnError"),
            observed.exit_code,
        );
    }
}

fn create_dir(path: &Path, mode: u32) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|e| Error::io("set the mode of", path, e))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    fs::write(path, text).map_err(|e| Error::io("write", path, e))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|e| Error::io("set the mode of", path, e))
}
