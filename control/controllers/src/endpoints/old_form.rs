//! The Endpoints object of a Service with a selector: one list, cut at 1000 addresses. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as OldPort, EndpointSubset, Endpoints, Pod, Service,
};
use k8s_openapi::api::discovery::v1::EndpointPort;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::{pods, slices, trigger_time};
use crate::pod;

const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";

/// Whether this controller made the object.
pub(super) fn is_ours(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER)
}

/// Addresses by the ports they serve.
#[derive(Debug, Default)]
pub(super) struct OldForm {
    subsets: BTreeMap<String, EndpointSubset>,
}

impl OldForm {
    pub(super) fn add(&mut self, service: &Service, pod: &Pod, ports: &[EndpointPort], ip: String) {
        let publish_all = pods::publishes_all(service);
        let asked = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        // Only a headless Service may be without ports.
        let pointless = ports.is_empty()
            && (asked.is_some_and(|asked| !asked.is_empty()) || !pods::is_headless(service));
        if pointless || (pod::is_terminating(pod) && !publish_all) {
            return;
        }
        let subset = self.subsets.entry(format!("{ports:?}")).or_insert_with(|| EndpointSubset {
            ports: Some(ports.iter().map(old_port).collect()).filter(|p: &Vec<_>| !p.is_empty()),
            ..EndpointSubset::default()
        });
        let address = EndpointAddress {
            ip,
            node_name: pod::node_name(pod).map(str::to_owned),
            target_ref: Some(pods::target(pod)),
            hostname: pods::hostname(service, pod),
        };
        let ready = publish_all || pod::is_ready(pod);
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }

    pub(super) fn finish(self, service: &Service) -> Endpoints {
        let mut subsets: Vec<EndpointSubset> = self.subsets.into_values().collect();
        for subset in &mut subsets {
            for list in [&mut subset.addresses, &mut subset.not_ready_addresses] {
                list.iter_mut().for_each(|list| list.sort_by_cached_key(order));
            }
        }
        let cut = truncate(&mut subsets);
        let mut labels = service.labels().clone();
        labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
        labels.remove(slices::HEADLESS);
        if pods::is_headless(service) {
            labels.insert(slices::HEADLESS.to_owned(), String::new());
        }
        let annotation = || BTreeMap::from([(OVER_CAPACITY.to_owned(), "truncated".to_owned())]);
        Endpoints {
            metadata: ObjectMeta {
                name: service.metadata.name.clone(),
                namespace: service.namespace(),
                labels: Some(labels),
                annotations: cut.then(annotation),
                ..ObjectMeta::default()
            },
            subsets: Some(subsets).filter(|all| !all.is_empty()),
        }
    }
}

/// A known object brought to what it shall be; annotations of others stay. `trigger` is when the
/// change happened, if there is one.
pub(super) fn renewed(old: &Endpoints, wanted: Endpoints, trigger: Option<Timestamp>) -> Endpoints {
    let mut new = old.clone();
    new.subsets = wanted.subsets;
    new.metadata.labels = wanted.metadata.labels;
    if let Some(annotations) = &mut new.metadata.annotations {
        annotations.remove(OVER_CAPACITY);
    }
    if let Some(wanted) = wanted.metadata.annotations {
        new.metadata.annotations.get_or_insert_default().extend(wanted);
    }
    if new != *old {
        trigger_time::annotate(&mut new.metadata, trigger);
    }
    new
}

fn order(address: &EndpointAddress) -> (Option<IpAddr>, Option<String>) {
    let uid = address.target_ref.as_ref().and_then(|target| target.uid.clone());
    (address.ip.parse().ok(), uid)
}

fn old_port(port: &EndpointPort) -> OldPort {
    OldPort {
        name: port.name.clone().filter(|name| !name.is_empty()),
        port: port.port.unwrap_or_default(),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    }
}

/// Cuts to the most addresses an object may hold: those not ready go first, each subset gives its
/// share. Says whether something was cut.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let length = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|subset| length(&subset.addresses)).sum();
    let waiting: usize = subsets.iter().map(|subset| length(&subset.not_ready_addresses)).sum();
    if ready + waiting <= ADDRESSES_MAX {
        return false;
    }
    let cut_ready = ready > ADDRESSES_MAX;
    let (total, max) =
        if cut_ready { (ready, ADDRESSES_MAX) } else { (waiting, ADDRESSES_MAX - ready) };
    let mut left = max;
    for subset in subsets {
        let list = if cut_ready {
            subset.not_ready_addresses = None;
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        let share = (length(list) * max).div_ceil(total).min(left);
        left -= share;
        if let Some(addresses) = list {
            addresses.truncate(share);
        }
        if share == 0 {
            *list = None;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation() {
        for (before, after) in [
            (vec![(600, 400)], None),
            (vec![(1001, 5)], Some(vec![(1000, 0)])),
            (vec![(600, 300), (0, 300)], Some(vec![(600, 200), (0, 200)])),
            (vec![(1500, 1), (500, 1)], Some(vec![(750, 0), (250, 0)])),
        ] {
            let list = |count: usize| (count > 0).then(|| vec![EndpointAddress::default(); count]);
            let mut subsets: Vec<_> = before
                .iter()
                .map(|(ready, waiting)| EndpointSubset {
                    addresses: list(*ready),
                    not_ready_addresses: list(*waiting),
                    ports: None,
                })
                .collect();
            let cut = truncate(&mut subsets);
            let size = |list: &Option<Vec<_>>| list.as_ref().map_or(0, Vec::len);
            let sizes: Vec<_> = subsets
                .iter()
                .map(|s| (size(&s.addresses), size(&s.not_ready_addresses)))
                .collect();
            assert_eq!(cut.then_some(sizes), after, "{before:?}");
        }
    }
}
