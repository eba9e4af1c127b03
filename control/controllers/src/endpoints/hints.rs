//! Hints of where an endpoint is to be used, from `spec.trafficDistribution` (KEP-4444, KEP-3015). Pure.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, ForNode, ForZone};

use super::pods;

/// What a Service prefers of its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preference {
    /// Those in the client's zone.
    Zone,
    /// Those on the client's node, then those in its zone.
    Node,
}

/// The preference of a Service; none where clients choose by themselves, as of a headless one.
pub(super) fn preference(service: &Service) -> Option<Preference> {
    let spec = service.spec.as_ref().filter(|_| !pods::is_headless(service))?;
    match spec.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => Some(Preference::Zone),
        "PreferSameNode" => Some(Preference::Node),
        _ => None,
    }
}

/// The hints of an endpoint: where it is itself, as far as that is known. Proxies heed hints when
/// every ready endpoint has one, so that no other needs any.
pub(super) fn hints(preference: Option<Preference>, endpoint: &Endpoint) -> Option<EndpointHints> {
    let preference = preference?;
    let conditions = endpoint.conditions.as_ref();
    if conditions.and_then(|conditions| conditions.ready) != Some(true) {
        return None;
    }
    let for_zones = endpoint.zone.clone().map(|name| vec![ForZone { name }]);
    let node = endpoint.node_name.clone().filter(|_| preference == Preference::Node);
    let for_nodes = node.map(|name| vec![ForNode { name }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn hints_name_the_endpoints_own_place() {
        let zone = json!({"forZones": [{"name": "east"}]});
        let node = json!({"forNodes": [{"name": "a"}]});
        let both = json!({"forNodes": [{"name": "a"}], "forZones": [{"name": "east"}]});
        let placed = json!({"nodeName": "a", "zone": "east"});
        let unready = json!({"nodeName": "a", "zone": "east", "conditions": {"ready": false}});
        for (distribution, address, endpoint, expected) in [
            (json!("PreferClose"), "10.96.0.9", &placed, &zone),
            (json!("PreferSameZone"), "10.96.0.9", &placed, &zone),
            (json!("PreferSameNode"), "10.96.0.9", &placed, &both),
            (json!("PreferSameNode"), "10.96.0.9", &json!({"nodeName": "a"}), &node),
            (json!("PreferSameNode"), "10.96.0.9", &json!({"zone": "east"}), &zone),
            (json!("PreferClose"), "10.96.0.9", &json!({"nodeName": "a"}), &Value::Null),
            (json!("PreferClose"), "10.96.0.9", &unready, &Value::Null),
            (json!("PreferClose"), "None", &placed, &Value::Null),
            (json!("another"), "10.96.0.9", &placed, &Value::Null),
            (Value::Null, "10.96.0.9", &placed, &Value::Null),
        ] {
            let service = json!({"metadata": {"name": "web"},
                "spec": {"clusterIP": address, "trafficDistribution": distribution}});
            let service: Service = serde_json::from_value(service).unwrap();
            let mut value = json!({"addresses": ["10.244.0.1"], "conditions": {"ready": true}});
            for (key, part) in endpoint.as_object().unwrap() {
                value[key] = part.clone();
            }
            let endpoint: Endpoint = serde_json::from_value(value.clone()).unwrap();
            let hints = hints(preference(&service), &endpoint);
            let hints = serde_json::to_value(hints).unwrap();
            assert_eq!(&hints, expected, "{distribution} {address} {value}");
        }
    }
}
