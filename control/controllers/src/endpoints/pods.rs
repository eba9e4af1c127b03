//! What one pod is as an endpoint of a Service. Pure.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{
    ContainerPort, Node, ObjectReference, Pod, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use crate::pod;

/// Label of a node that names its zone.
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";

/// Pods that have run to their end serve no more.
pub(super) fn may_serve(pod: &Pod) -> bool {
    !pod::is_finished(pod)
}

pub(super) fn is_headless(service: &Service) -> bool {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    matches!(address, None | Some("None" | ""))
}

/// Whether pods are published before they are ready.
pub(super) fn publishes_all(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.publish_not_ready_addresses == Some(true))
}

/// The pod's address of a family.
pub(super) fn address(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|one| &one.ip).chain(&status.pod_ip);
    let mut all = all.filter(|ip| !ip.is_empty());
    all.find(|ip| ip.contains(':') == (family == "IPv6")).cloned()
}

/// The ports as this pod serves them: a name may mean another number in each pod, or none.
pub(super) fn ports(spec: &ServiceSpec, pod: &Pod) -> Vec<EndpointPort> {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let resolve = |port: &ServicePort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let number = match &port.target_port {
            None | Some(IntOrString::Int(0)) => port.port,
            Some(IntOrString::Int(number)) => *number,
            Some(IntOrString::String(name)) => named(pod, name, &protocol)?.container_port,
        };
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(number),
            protocol: Some(protocol),
            app_protocol: port.app_protocol.clone(),
        })
    };
    ports.iter().filter_map(resolve).collect()
}

fn named<'a>(pod: &'a Pod, name: &str, protocol: &str) -> Option<&'a ContainerPort> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|one| one.ports.iter().flatten());
    ports.into_iter().find(|port| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    })
}

/// A reference to the pod.
pub(super) fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.namespace(),
        name: pod.metadata.name.clone(),
        uid: pod.uid(),
        ..ObjectReference::default()
    }
}

/// The name a headless Service gives the pod in DNS.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let named = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname.clone().filter(|name| named && !name.is_empty())
}

/// The pod as endpoint; none if its node is not known, so that a pod left over from a removed node
/// is not called.
pub(super) fn endpoint(
    service: &Service,
    pod: &Pod,
    address: String,
    nodes: &HashMap<String, &Node>,
) -> Option<Endpoint> {
    let publish_all = publishes_all(service);
    let name = pod::node_name(pod);
    let node = name.and_then(|name| nodes.get(name));
    if name.is_some() && node.is_none() && !publish_all {
        return None;
    }
    let (serving, terminating) = (pod::is_ready(pod), pod::is_terminating(pod));
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish_all || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: name.map(str::to_owned),
        target_ref: Some(target(pod)),
        zone: node.and_then(|node| node.labels().get(ZONE).cloned()),
        ..Endpoint::default()
    })
}
