//! What all workers of a node share: its configuration, the machine, and the connections to the
//! runtime and to the API server.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::runtime::reflector::Store;

use crate::archives::Archives;
use crate::cgroup::Hierarchies;
use crate::config::Config;
use crate::cri::Runtime;
use crate::event::Recorder;
use crate::machine::Machine;
use crate::pod::fields::NodeFacts;

/// The node as its pods' workers see it.
pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) machine: Machine,
    pub(crate) client: kube::Client,
    pub(crate) runtime: Runtime,
    pub(crate) recorder: Recorder,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) archives: Archives,
    pub(crate) services: Store<Service>,
}

impl Host {
    pub(crate) fn ips(&self) -> Vec<String> {
        self.config.node_ips.iter().map(ToString::to_string).collect()
    }

    /// The facts behind the downward API for a pod with these addresses.
    pub(crate) fn facts(&self, pod_ips: &[String]) -> NodeFacts {
        NodeFacts {
            node_name: self.config.node_name.clone(),
            host_ips: self.ips(),
            pod_ips: pod_ips.to_vec(),
            cpus: self.machine.cpus,
            memory_bytes: self.machine.memory_bytes,
        }
    }

    /// The Services whose variables a pod may see.
    pub(crate) fn services_for(&self, pod: &Pod) -> Vec<Arc<Service>> {
        let namespace = pod.metadata.namespace.as_deref();
        let visible = |service: &Arc<Service>| {
            let home = service.metadata.namespace.as_deref();
            home == namespace
                || (home == Some("default")
                    && service.metadata.name.as_deref() == Some("kubernetes"))
        };
        self.services.state().into_iter().filter(visible).collect()
    }
}
