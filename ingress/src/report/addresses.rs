//! Where the controller is reached: what goes into the status of Ingresses.
//!
//! Given addresses come first, then those of the published Service, else those of the nodes that run the
//! controller's pods, all as ingress-nginx does it.

use crate::objects::service::{Service, ServiceType};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, Error};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Labels that a controller of pods changes with every version of its template.
const LABELS_OF_VERSIONS: [&str; 3] =
    ["pod-template-hash", "controller-revision-hash", "pod-template-generation"];

/// The value of `status.loadBalancer.ingress` for addresses.
pub fn of_list(addresses: &[String]) -> Value {
    addresses.iter().map(|address| one(address)).collect()
}

fn one(address: &str) -> Value {
    match address.parse::<IpAddr>() {
        Ok(ip) => json!({ "ip": ip }),
        Err(_) => json!({ "hostname": address }),
    }
}

/// The same for the published Service.
pub fn of_service(service: &Service) -> Value {
    let all: Value = service.addresses.iter().map(|address| one(address)).collect();
    match (&service.service_type, service.cluster_ip) {
        (ServiceType::ExternalName(name), _) => name.iter().map(|name| one(name)).collect(),
        (ServiceType::Internal, Some(ip)) if service.addresses.is_empty() => json!([{ "ip": ip }]),
        _ => all,
    }
}

/// This pod, as its environment says.
#[derive(Clone, Debug)]
pub struct OwnPod {
    /// `POD_NAMESPACE`.
    pub namespace: String,
    /// `POD_NAME`.
    pub name: String,
    /// `--report-node-internal-ip-address`.
    pub internal_addresses: bool,
}

impl OwnPod {
    /// Addresses of the nodes that run ready pods of the controller.
    pub async fn node_addresses(&self, client: &Client) -> Result<Value, Error> {
        let pods = self.pods(client, false).await?;
        let names: BTreeSet<String> = pods.into_iter().filter_map(ready_node).collect();
        let nodes: Api<Node> = Api::all(client.clone());
        let mut all = Vec::new();
        for name in names {
            if let Some(node) = nodes.get_opt(&name).await? {
                let addresses = addresses_of(&node, self.internal_addresses);
                all.extend(addresses.iter().map(|address| one(address)));
            }
        }
        all.sort_by_key(Value::to_string);
        all.dedup();
        Ok(Value::Array(all))
    }

    /// Whether other pods of the controller go on when this one ends.
    pub async fn is_one_of_several(&self, client: &Client) -> Result<bool, Error> {
        Ok(self.pods(client, true).await?.len() > 1)
    }

    /// Pods with this one's labels, of this or any version of their template.
    async fn pods(&self, client: &Client, any_version: bool) -> Result<Vec<Pod>, Error> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let Some(own) = pods.get_opt(&self.name).await? else {
            return Ok(Vec::new());
        };
        let labels: BTreeMap<String, String> = own.metadata.labels.clone().unwrap_or_default();
        let selector: Vec<String> = labels
            .iter()
            .filter(|(name, _)| !any_version || !LABELS_OF_VERSIONS.contains(&name.as_str()))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if selector.is_empty() {
            return Ok(vec![own]);
        }
        Ok(pods.list(&ListParams::default().labels(&selector.join(","))).await?.items)
    }
}

fn ready_node(pod: Pod) -> Option<String> {
    let status = pod.status?;
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let runs = status.phase.as_deref() == Some("Running");
    pod.spec?.node_name.filter(|_| ready && runs)
}

/// External addresses of a node, or internal ones where it has no others or they are wanted.
fn addresses_of(node: &Node, internal: bool) -> Vec<String> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let of_type = |wanted: &str| -> Vec<String> {
        let own = addresses.clone().filter(|address| address.type_ == wanted);
        own.map(|address| address.address.clone()).filter(|a| !a.is_empty()).collect()
    };
    let external = of_type("ExternalIP");
    if internal || external.is_empty() { of_type("InternalIP") } else { external }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1 as api;

    fn service(spec: Value, status: Value) -> Service {
        let service: api::Service = serde_json::from_value(
            json!({"metadata": {"name": "front"}, "spec": spec, "status": status}),
        )
        .unwrap();
        Service::of(&service)
    }

    #[test]
    fn addresses_follow_the_type_of_the_published_service() {
        let assigned =
            json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.example"}]}});
        for (spec, status, expected) in [
            (
                json!({"type": "LoadBalancer"}),
                assigned,
                json!([{"ip": "192.0.2.1"}, {"hostname": "lb.example"}]),
            ),
            (json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9"}), json!({}), json!([])),
            (
                json!({"type": "ClusterIP", "clusterIP": "10.96.0.9"}),
                json!({}),
                json!([{"ip": "10.96.0.9"}]),
            ),
            (
                json!({"type": "NodePort", "clusterIP": "10.96.0.9", "externalIPs": ["203.0.113.5"]}),
                json!({}),
                json!([{"ip": "203.0.113.5"}]),
            ),
            (json!({"clusterIP": "None"}), json!({}), json!([])),
            (
                json!({"type": "ExternalName", "externalName": "lb.example"}),
                json!({}),
                json!([{"hostname": "lb.example"}]),
            ),
        ] {
            assert_eq!(of_service(&service(spec.clone(), status)), expected, "{spec}");
        }
        let given = ["2001:db8::1".to_string(), "front.example".to_string()];
        assert_eq!(of_list(&given), json!([{"ip": "2001:db8::1"}, {"hostname": "front.example"}]));
    }

    #[test]
    fn nodes_are_reached_outside_where_they_can_be() {
        let node = |addresses: Value| -> Node {
            serde_json::from_value(json!({"metadata": {}, "status": {"addresses": addresses}}))
                .unwrap()
        };
        let inside = json!({"type": "InternalIP", "address": "10.0.0.1"});
        let outside = json!({"type": "ExternalIP", "address": "203.0.113.1"});
        let both = node(json!([inside, outside]));
        assert_eq!(addresses_of(&both, false), ["203.0.113.1"]);
        assert_eq!(addresses_of(&both, true), ["10.0.0.1"]);
        assert_eq!(addresses_of(&node(json!([inside])), false), ["10.0.0.1"]);
    }
}
