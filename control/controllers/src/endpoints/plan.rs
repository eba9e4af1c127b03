//! Which endpoints a Service has, and how they are laid into slices of 100. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as OldPort, EndpointSubset, Endpoints, Node, ObjectReference,
    Pod, Service, ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use crate::replica_set::owner;
use crate::{pod, selector};

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const ENDPOINTS_A_SLICE: usize = 100;

pub(crate) struct Plan {
    pub(crate) create: Vec<EndpointSlice>,
    pub(crate) update: Vec<(EndpointSlice, EndpointSlice)>,
    pub(crate) delete: Vec<EndpointSlice>,
    pub(crate) endpoints: Endpoints,
}

pub(crate) fn is_ours(slice: &EndpointSlice, service: &str) -> bool {
    let label = |name| slice.labels().get(name).map(String::as_str);
    label(SERVICE_NAME) == Some(service) && label(MANAGED_BY) == Some(CONTROLLER)
}

pub(crate) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    mut slices: Vec<EndpointSlice>,
) -> Plan {
    let spec = service.spec.clone().unwrap_or_default();
    let publish_all = spec.publish_not_ready_addresses == Some(true);
    let families = spec.ip_families.clone().unwrap_or_else(|| vec!["IPv4".to_owned()]);
    let mut groups: BTreeMap<(String, String), (Vec<EndpointPort>, Vec<Endpoint>)> =
        BTreeMap::new();
    let mut subsets: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod::is_finished(pod) && pod::node_name(pod).is_some()) {
        if !selector::matches_pairs(spec.selector.as_ref(), pod.metadata.labels.as_ref()) {
            continue;
        }
        let ports = ports(spec.ports.as_deref().unwrap_or_default(), pod);
        for (index, family) in families.iter().enumerate() {
            let Some(address) = address(pod, family) else { continue };
            let endpoint = endpoint(pod, &address, nodes, publish_all);
            let serving = endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true);
            let key = (family.clone(), format!("{ports:?}"));
            groups.entry(key).or_insert_with(|| (ports.clone(), Vec::new())).1.push(endpoint);
            if index == 0 && (!pod::is_terminating(pod) || publish_all) {
                add_old(&mut subsets, &ports, pod, address, serving);
            }
        }
    }
    let mut plan = Plan {
        create: Vec::new(),
        update: Vec::new(),
        delete: Vec::new(),
        endpoints: old_form(service, subsets),
    };
    for ((family, _), (ports, endpoints)) in groups {
        lay(service, &family, &ports, endpoints, &mut slices, &mut plan);
    }
    plan.delete = slices;
    plan
}

/// Endpoints stay in the slice they are in; new ones fill the gaps, then new slices.
fn lay(
    service: &Service,
    family: &str,
    ports: &[EndpointPort],
    mut endpoints: Vec<Endpoint>,
    slices: &mut Vec<EndpointSlice>,
    plan: &mut Plan,
) {
    let mut kept = Vec::new();
    slices.retain(|slice| {
        let same =
            slice.address_type == family && slice.ports.as_deref().unwrap_or_default() == ports;
        if same {
            kept.push((slice.clone(), slice.clone()));
        }
        !same
    });
    for (_, new) in &mut kept {
        let mut stays = Vec::new();
        for known in new.endpoints.iter().flatten() {
            if let Some(index) = endpoints.iter().position(|e| e.addresses == known.addresses) {
                stays.push(endpoints.remove(index));
            }
        }
        new.endpoints = Some(stays);
    }
    for (_, new) in &mut kept {
        let inside = new.endpoints.get_or_insert_default();
        let room = ENDPOINTS_A_SLICE.saturating_sub(inside.len()).min(endpoints.len());
        inside.extend(endpoints.drain(..room));
    }
    for (old, new) in kept {
        if new.endpoints.as_ref().is_none_or(Vec::is_empty) {
            plan.delete.push(old);
        } else if old != new {
            plan.update.push((old, new));
        }
    }
    for chunk in endpoints.chunks(ENDPOINTS_A_SLICE) {
        plan.create.push(new_slice(service, family, ports, chunk.to_vec()));
    }
}

fn new_slice(
    service: &Service,
    family: &str,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels),
            owner_references: owner(service).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports.to_vec()),
    }
}

fn ports(ports: &[ServicePort], pod: &Pod) -> Vec<EndpointPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let named: Vec<_> = containers.flat_map(|container| container.ports.iter().flatten()).collect();
    let resolve = |port: &ServicePort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let number = match &port.target_port {
            None => port.port,
            Some(IntOrString::Int(number)) => *number,
            Some(IntOrString::String(name)) => {
                let found = named.iter().find(|one| {
                    one.name.as_ref() == Some(name)
                        && one.protocol.as_deref().unwrap_or("TCP") == protocol
                });
                found?.container_port
            }
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

fn address(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all =
        status.pod_ips.iter().flatten().map(|one| one.ip.clone()).chain(status.pod_ip.clone());
    all.into_iter().find(|ip| !ip.is_empty() && ip.contains(':') == (family == "IPv6"))
}

fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.namespace(),
        name: pod.metadata.name.clone(),
        uid: pod.uid(),
        ..ObjectReference::default()
    }
}

fn endpoint(pod: &Pod, address: &str, nodes: &[Arc<Node>], publish_all: bool) -> Endpoint {
    let node = pod::node_name(pod);
    let zone = nodes
        .iter()
        .find(|one| Some(one.name_any().as_str()) == node)
        .and_then(|node| node.labels().get("topology.kubernetes.io/zone").cloned());
    let serving = pod::is_ready(pod) || publish_all;
    let terminating = pod::is_terminating(pod);
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publish_all || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        node_name: node.map(str::to_owned),
        target_ref: Some(target(pod)),
        zone,
        ..Endpoint::default()
    }
}

fn add_old(
    subsets: &mut BTreeMap<String, EndpointSubset>,
    ports: &[EndpointPort],
    pod: &Pod,
    ip: String,
    ready: bool,
) {
    let subset = subsets.entry(format!("{ports:?}")).or_insert_with(|| EndpointSubset {
        ports: Some(ports.iter().map(old_port).collect()).filter(|p: &Vec<_>| !p.is_empty()),
        ..EndpointSubset::default()
    });
    let address = EndpointAddress {
        ip,
        node_name: pod::node_name(pod).map(str::to_owned),
        target_ref: Some(target(pod)),
        hostname: None,
    };
    let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
    list.get_or_insert_default().push(address);
}

fn old_port(port: &EndpointPort) -> OldPort {
    OldPort {
        name: port.name.clone().filter(|name| !name.is_empty()),
        port: port.port.unwrap_or_default(),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    }
}

fn old_form(service: &Service, subsets: BTreeMap<String, EndpointSubset>) -> Endpoints {
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.namespace(),
            labels: service.metadata.labels.clone(),
            ..ObjectMeta::default()
        },
        subsets: Some(subsets.into_values().collect()).filter(|all: &Vec<_>| !all.is_empty()),
    }
}
