//! EndpointSlices that mirror the hand-written Endpoints of a Service without a selector. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort as OldPort, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::slices::{self, Changes, Group};
use super::trigger_time;
use crate::replica_set::owner;

/// Who makes mirrored slices.
pub(super) const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const NOT_COPIED: [&str; 2] =
    [trigger_time::ANNOTATION, "kubectl.kubernetes.io/last-applied-configuration"];
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const ADDRESSES_A_SUBSET_MAX: usize = 1000;

/// `slices` are the mirrored ones there are.
pub(super) fn plan(endpoints: Option<&Endpoints>, slices: Vec<EndpointSlice>) -> Changes {
    let Some(endpoints) = endpoints.filter(|endpoints| is_mirrored(endpoints)) else {
        return Changes::removing(slices);
    };
    let mut groups: BTreeMap<(&str, String), Group> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let waiting = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(waiting).take(ADDRESSES_A_SUBSET_MAX) {
            let family = match address.ip.parse() {
                Ok(IpAddr::V4(_)) => "IPv4",
                Ok(IpAddr::V6(_)) => "IPv6",
                Err(_) => continue,
            };
            let group = groups.entry((family, format!("{ports:?}")));
            let group = group.or_insert_with(|| Group::new(family, ports.clone()));
            group.endpoints.push(endpoint(address, ready));
        }
    }
    let groups = groups.into_values().collect();
    slices::lay(&metadata(endpoints), groups, slices, ADDRESSES_A_SUBSET_MAX)
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    endpoints.metadata.deletion_timestamp.is_none()
        && endpoints.labels().get(SKIP).map(String::as_str) != Some("true")
        && !endpoints.annotations().contains_key(LEADER)
}

fn metadata(endpoints: &Endpoints) -> ObjectMeta {
    let mut labels = endpoints.labels().clone();
    labels.insert(slices::SERVICE_NAME.to_owned(), endpoints.name_any());
    labels.insert(slices::MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    let mut annotations = endpoints.annotations().clone();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    ObjectMeta {
        generate_name: Some(format!("{}-", endpoints.name_any())),
        namespace: endpoints.namespace(),
        labels: Some(labels),
        annotations: Some(annotations).filter(|all| !all.is_empty()),
        owner_references: owner(endpoints).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn port(port: &OldPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn endpoints(metadata: serde_json::Value) -> Endpoints {
        let mut value = json!({"metadata": metadata, "subsets": [{
            "addresses": [{"ip": "198.51.100.1"}, {"ip": "2001:db8::1"}, {"ip": "not an address"}],
            "notReadyAddresses": [{"ip": "198.51.100.2", "nodeName": "n"}],
            "ports": [{"port": 5432}]}]});
        value["metadata"]["name"] = json!("db");
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn mirrors() {
        let plan = plan(Some(&endpoints(json!({"labels": {"team": "a"}}))), Vec::new());
        let seen: Vec<_> = plan
            .create
            .iter()
            .flat_map(|slice| {
                slice.endpoints.iter().flatten().map(|one| {
                    let ready = one.conditions.as_ref().and_then(|c| c.ready);
                    (slice.address_type.as_str(), one.addresses[0].as_str(), ready)
                })
            })
            .collect();
        let v4 = |ip, ready| ("IPv4", ip, Some(ready));
        assert_eq!(
            seen,
            [
                v4("198.51.100.1", true),
                v4("198.51.100.2", false),
                ("IPv6", "2001:db8::1", Some(true))
            ]
        );
        let labels = plan.create[0].labels();
        assert_eq!((labels["team"].as_str(), labels[slices::SERVICE_NAME].as_str()), ("a", "db"));
        assert!(slices::is_of(&plan.create[0], "db", CONTROLLER));
    }

    #[test]
    fn some_are_not_mirrored() {
        for metadata in [
            json!({"labels": {SKIP: "true"}}),
            json!({"annotations": {LEADER: "{}"}}),
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
        ] {
            let plan = plan(Some(&endpoints(metadata)), vec![EndpointSlice::default()]);
            assert_eq!((plan.create.len(), plan.delete.len()), (0, 1));
        }
    }
}
