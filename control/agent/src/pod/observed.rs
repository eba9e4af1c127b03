//! What the runtime holds of a pod, in our own words. The runtime is the only memory the agent has
//! of sandboxes, containers and restart counts, so that killing the agent loses none of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_cri::v1 as cri;

use crate::cri::Runtime;
use crate::error::Error;

/// Labels and annotations on sandboxes and containers; upstream's names where upstream has one.
pub(crate) mod key {
    pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
    pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
    pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub(crate) const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
    pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    pub(crate) const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    pub(crate) const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub(crate) const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
    /// The node an object belongs to: several agents may share one runtime.
    pub(crate) const NODE: &str = "podium.node";
}

/// A pod's sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) ready: bool,
    pub(crate) attempt: u32,
    pub(crate) created_at_ns: i64,
    pub(crate) ips: Vec<String>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Made, not started yet.
    Created,
    Running,
    Exited,
    /// The runtime has lost it; it has to be ended before anything else.
    Unknown,
}

/// One container the runtime holds, alive or dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) sandbox_id: String,
    pub(crate) life: Life,
    pub(crate) restart_count: u32,
    pub(crate) created_at_ns: i64,
    pub(crate) started_at_ns: i64,
    pub(crate) finished_at_ns: i64,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) hash: String,
    pub(crate) grace_s: Option<u64>,
}

impl Observed {
    pub(crate) fn finished_at(&self) -> Timestamp {
        Timestamp::from_nanosecond(self.finished_at_ns.into()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.life == Life::Exited && self.exit_code == 0
    }
}

/// All of one pod, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodRuntime {
    pub(crate) sandboxes: Vec<Sandbox>,
    pub(crate) containers: Vec<Observed>,
}

impl PodRuntime {
    /// The sandbox in use: the newest, if it is ready.
    pub(crate) fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// The newest container of this name.
    pub(crate) fn latest(&self, name: &str) -> Option<&Observed> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The newest dead one of this name before its latest.
    pub(crate) fn previous(&self, name: &str) -> Option<&Observed> {
        self.containers
            .iter()
            .filter(|container| container.name == name)
            .skip(1)
            .find(|container| container.life == Life::Exited)
    }

    pub(crate) fn alive(&self) -> impl Iterator<Item = &Observed> {
        self.containers.iter().filter(|container| container.life != Life::Exited)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }
}

/// Reads one pod from the runtime. A dead container never changes, so what was read of it once is
/// taken from `before`.
pub(crate) async fn read(
    runtime: &Runtime,
    uid: &str,
    before: &PodRuntime,
) -> Result<PodRuntime, Error> {
    let filter = HashMap::from([(key::POD_UID.to_owned(), uid.to_owned())]);
    // In this order: whoever sees a container also sees the sandbox it runs in.
    let containers = runtime.list_containers(filter.clone()).await?;
    let sandboxes = runtime.list_sandboxes(filter).await?;
    let mut found = PodRuntime::default();
    for sandbox in sandboxes {
        match sandbox_of(runtime, &sandbox, before).await {
            Err(error) if error.is_runtime_not_found() => {}
            sandbox => found.sandboxes.push(sandbox?),
        }
    }
    for container in containers {
        let known = before.containers.iter().find(|known| {
            known.id == container.id
                && known.life == Life::Exited
                && container.state == cri::ContainerState::ContainerExited as i32
        });
        if let Some(known) = known {
            found.containers.push(known.clone());
            continue;
        }
        match runtime.container_status(&container.id).await {
            Err(error) if error.is_runtime_not_found() => {}
            status => found.containers.push(container_of(&container, status?)),
        }
    }
    found.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at_ns));
    found.containers.sort_by_key(|container| std::cmp::Reverse(container.created_at_ns));
    Ok(found)
}

async fn sandbox_of(
    runtime: &Runtime,
    listed: &cri::PodSandbox,
    before: &PodRuntime,
) -> Result<Sandbox, Error> {
    let ready = listed.state == cri::PodSandboxState::SandboxReady as i32;
    let known = before.sandboxes.iter().find(|known| known.id == listed.id);
    if let Some(known) = known.filter(|known| known.ready == ready && !known.ips.is_empty()) {
        return Ok(known.clone());
    }
    let status = runtime.sandbox_status(&listed.id).await?;
    let network = status.network.unwrap_or_default();
    let more = network.additional_ips.into_iter().map(|ip| ip.ip);
    Ok(Sandbox {
        id: listed.id.clone(),
        ready: status.state == cri::PodSandboxState::SandboxReady as i32,
        attempt: listed.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
        created_at_ns: listed.created_at,
        ips: [network.ip].into_iter().chain(more).filter(|ip| !ip.is_empty()).collect(),
    })
}

fn container_of(listed: &cri::Container, status: cri::ContainerStatus) -> Observed {
    let annotation = |key: &str| listed.annotations.get(key).cloned();
    let life = match cri::ContainerState::try_from(status.state) {
        Ok(cri::ContainerState::ContainerCreated) => Life::Created,
        Ok(cri::ContainerState::ContainerRunning) => Life::Running,
        Ok(cri::ContainerState::ContainerExited) => Life::Exited,
        _ => Life::Unknown,
    };
    let attempt = listed.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
    let asked = listed.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
    let resolved = status.image.map(|image| image.image).unwrap_or_default();
    Observed {
        id: listed.id.clone(),
        name: listed.labels.get(key::CONTAINER_NAME).cloned().unwrap_or_default(),
        sandbox_id: listed.pod_sandbox_id.clone(),
        life,
        restart_count: annotation(key::RESTART_COUNT)
            .and_then(|count| count.parse().ok())
            .unwrap_or(attempt),
        created_at_ns: status.created_at,
        started_at_ns: status.started_at,
        finished_at_ns: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: if resolved.is_empty() || resolved.starts_with("sha256:") {
            asked
        } else {
            resolved
        },
        image_id: status.image_ref,
        hash: annotation(key::CONTAINER_HASH).unwrap_or_default(),
        grace_s: annotation(key::GRACE_PERIOD).and_then(|seconds| seconds.parse().ok()),
    }
}

/// What of a pod in the runtime has to change for its worker to look again.
pub(crate) type Fingerprint = Vec<(String, i32)>;

/// A pod the runtime holds, whether or not the API knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listed {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) fingerprint: Fingerprint,
}

/// All pods of this node in the runtime by uid.
pub(crate) async fn list(
    runtime: &Runtime,
    node_name: &str,
) -> Result<Arc<BTreeMap<String, Listed>>, Error> {
    let filter = HashMap::from([(key::NODE.to_owned(), node_name.to_owned())]);
    // In this order: whoever sees a container also sees the sandbox it runs in.
    let containers = runtime.list_containers(filter.clone()).await?;
    let sandboxes = runtime.list_sandboxes(filter).await?;
    let mut pods: BTreeMap<String, Listed> = BTreeMap::new();
    let sandboxes =
        sandboxes.into_iter().map(|sandbox| (sandbox.labels, sandbox.id, sandbox.state));
    let containers = containers
        .into_iter()
        .map(|container| (container.labels, container.id, container.state + 100));
    for (labels, id, state) in sandboxes.chain(containers) {
        let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let pod = pods.entry(label(key::POD_UID)).or_insert_with(|| Listed {
            namespace: label(key::POD_NAMESPACE),
            name: label(key::POD_NAME),
            fingerprint: Vec::new(),
        });
        pod.fingerprint.push((id, state));
    }
    for pod in pods.values_mut() {
        pod.fingerprint.sort();
    }
    Ok(Arc::new(pods))
}
