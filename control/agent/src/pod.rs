//! Everything about one pod: what the runtime holds of it ([`observed`]), what to do next
//! ([`actions`], pure), doing it ([`executor`]), its status ([`status`], pure), and the task that
//! goes round with it ([`worker`]).

pub(crate) mod actions;
pub(crate) mod container_config;
pub(crate) mod env;
pub(crate) mod executor;
pub(crate) mod fields;
pub(crate) mod hook;
pub(crate) mod host_files;
pub(crate) mod image;
pub(crate) mod memory;
pub(crate) mod observed;
pub(crate) mod phase;
pub(crate) mod resources;
pub(crate) mod sandbox_config;
pub(crate) mod status;
pub(crate) mod termination;
pub(crate) mod worker;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// When the containers of a pod are started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// The parts of a pod that are asked for everywhere.
pub(crate) trait PodExt {
    fn uid(&self) -> &str;
    fn name(&self) -> &str;
    fn namespace(&self) -> &str;
    fn podspec(&self) -> &PodSpec;
    fn restart_policy(&self) -> RestartPolicy;
    fn host_network(&self) -> bool;
    fn is_terminal(&self) -> bool;
    /// `namespace/name`, for messages.
    fn display(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }
}

static EMPTY_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

impl PodExt for Pod {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn podspec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&EMPTY_SPEC)
    }

    fn restart_policy(&self) -> RestartPolicy {
        match self.podspec().restart_policy.as_deref() {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        }
    }

    fn host_network(&self) -> bool {
        self.podspec().host_network == Some(true)
    }

    fn is_terminal(&self) -> bool {
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }
}

/// True for an init container that stays: `restartPolicy: Always` (KEP-753).
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The pod's containers, init containers first; `true` marks those.
pub(crate) fn all_containers(spec: &PodSpec) -> impl Iterator<Item = (&Container, bool)> {
    let init = spec.init_containers.iter().flatten().map(|container| (container, true));
    init.chain(spec.containers.iter().map(|container| (container, false)))
}
