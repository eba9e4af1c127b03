//! What the EndpointSlices and the Endpoints of a Service with a selector shall be. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::old_form::OldForm;
use super::slices::{self, Changes, Group};
use super::{hints, pods};
use crate::replica_set::owner;
use crate::selector;

/// Who makes slices of Services with a selector.
pub(super) const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const ENDPOINTS_A_SLICE_MAX: usize = 100;

pub(super) struct Plan {
    pub(super) slices: Changes,
    pub(super) endpoints: Endpoints,
}

pub(super) fn has_selector(service: &Service) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| !selector.is_empty())
}

pub(super) fn is_external(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName"))
}

pub(super) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    slices: Vec<EndpointSlice>,
) -> Plan {
    let spec = service.spec.clone().unwrap_or_default();
    let families = spec.ip_families.clone().unwrap_or_else(|| vec!["IPv4".to_owned()]);
    let nodes: HashMap<String, &Node> =
        nodes.iter().map(|node| (node.name_any(), &**node)).collect();
    let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
    let mut old = OldForm::default();
    let preference = hints::preference(service);
    for pod in pods.iter().filter(|pod| pods::may_serve(pod)) {
        if !selector::matches_pairs(spec.selector.as_ref(), pod.metadata.labels.as_ref()) {
            continue;
        }
        let ports = pods::ports(&spec, pod);
        if let Some(address) = families.first().and_then(|family| pods::address(pod, family)) {
            old.add(service, pod, &ports, address);
        }
        for family in &families {
            let Some(address) = pods::address(pod, family) else { continue };
            let Some(mut endpoint) = pods::endpoint(service, pod, address, &nodes) else {
                continue;
            };
            endpoint.hints = hints::hints(preference, &endpoint);
            let group = groups.entry((family.clone(), format!("{ports:?}")));
            let group = group.or_insert_with(|| Group::new(family, ports.clone()));
            group.endpoints.push(endpoint);
        }
    }
    // A Service without endpoints still shows a slice for each family.
    for family in &families {
        if !groups.keys().any(|(known, _)| known == family) {
            groups.insert((family.clone(), String::new()), Group::new(family, Vec::new()));
        }
    }
    let groups = groups.into_values().collect();
    let slices = slices::lay(&metadata(service), groups, slices, ENDPOINTS_A_SLICE_MAX);
    Plan { slices, endpoints: old.finish(service) }
}

fn metadata(service: &Service) -> ObjectMeta {
    let mut labels = service.labels().clone();
    labels.retain(|key, _| !slices::is_reserved(key));
    labels.insert(slices::SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(slices::MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if pods::is_headless(service) {
        labels.insert(slices::HEADLESS.to_owned(), String::new());
    }
    ObjectMeta {
        generate_name: Some(format!("{}-", service.name_any())),
        namespace: service.namespace(),
        labels: Some(labels),
        owner_references: owner(service).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;
