//! Defaults of Services and of the two forms their endpoints have.

use serde_json::{Value, json};

use super::{ensure, items_mut, set, set_if_absent, set_if_empty};

/// How long a client sticks to its pod under `sessionAffinity: ClientIP`, in seconds.
const CLIENT_IP_AFFINITY_SECONDS: i32 = 10800;

/// A Service, apart from its addresses and node ports, which the server allocates.
pub fn service(object: &mut Value) {
    let spec = ensure(object, "spec");
    set_if_empty(spec, "sessionAffinity", "None");
    session_affinity(spec);
    set_if_empty(spec, "type", "ClusterIP");
    for port in items_mut(spec, "ports") {
        set_if_empty(port, "protocol", "TCP");
        let number = port["port"].clone();
        set_if_empty(port, "targetPort", number);
    }
    let load_balancer = spec["type"] == "LoadBalancer";
    let has_external_ips = spec["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty());
    let cluster_ip = spec["type"] == "ClusterIP";
    if load_balancer || spec["type"] == "NodePort" || (cluster_ip && has_external_ips) {
        set_if_empty(spec, "externalTrafficPolicy", "Cluster");
    }
    if load_balancer || cluster_ip || spec["type"] == "NodePort" {
        set_if_absent(spec, "internalTrafficPolicy", "Cluster");
    }
    if load_balancer {
        set_if_absent(spec, "allocateLoadBalancerNodePorts", true);
        if let Some(status) = object.pointer_mut("/status/loadBalancer") {
            let with_ip = items_mut(status, "ingress")
                .filter(|ingress| ingress["ip"].as_str().is_some_and(|ip| !ip.is_empty()));
            with_ip.for_each(|ingress| set_if_absent(ingress, "ipMode", "VIP"));
        }
    }
}

fn session_affinity(spec: &mut Value) {
    if spec["sessionAffinity"] == "None"
        && let Some(fields) = spec.as_object_mut()
    {
        fields.remove("sessionAffinityConfig");
    }
    let timeout = spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds");
    if spec["sessionAffinity"] == "ClientIP" && timeout.is_none_or(Value::is_null) {
        set(
            spec,
            "sessionAffinityConfig",
            json!({"clientIP": {"timeoutSeconds": CLIENT_IP_AFFINITY_SECONDS}}),
        );
    }
}

/// Endpoints: the protocol of each port.
pub fn endpoints(object: &mut Value) {
    for subset in items_mut(object, "subsets") {
        for port in items_mut(subset, "ports") {
            set_if_empty(port, "protocol", "TCP");
        }
    }
}

/// An EndpointSlice: name and protocol of each port.
pub fn endpoint_slice(object: &mut Value) {
    for port in items_mut(object, "ports") {
        set_if_absent(port, "name", "");
        set_if_absent(port, "protocol", "TCP");
    }
}
