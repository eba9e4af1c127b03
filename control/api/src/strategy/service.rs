//! Services: `clusterIP` and `clusterIPs` say the same, and a change of type releases what only the
//! old type has. The addresses and ports themselves are allocated by the server.

use serde_json::{Value, json};

use super::remove;

/// Prepares a new Service.
pub fn prepare_create(service: &mut Value) {
    service["status"] = json!({"loadBalancer": {}});
    let spec = &mut service["spec"];
    let address = text(spec, "clusterIP").to_owned();
    if !address.is_empty() && is_empty(spec, "clusterIPs") {
        spec["clusterIPs"] = json!([address]);
    }
}

/// Prepares a Service to take the place of an old one.
pub fn prepare_update(service: &mut Value, old: &Value) {
    let old = &old["spec"];
    let (kind, old_kind) =
        (text(&service["spec"], "type").to_owned(), text(old, "type").to_owned());
    let spec = &mut service["spec"];
    if kind != "ExternalName" && old_kind != "ExternalName" {
        keep_allocated(spec, old);
    }
    synchronize_addresses(spec, old);
    release(spec, old, &kind, &old_kind);
}

/// A client that sends a Service without what was allocated for it means to keep that.
fn keep_allocated(spec: &mut Value, old: &Value) {
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if is_empty(spec, field) && !is_empty(old, field) {
            // An address that is cleared while the other form changed is the user's doing.
            let other = if field == "clusterIP" { "clusterIPs" } else { "clusterIP" };
            let changed = !is_empty(spec, other) && spec[other] != old[other];
            if !(field.starts_with("clusterIP") && changed) {
                spec[field] = old[field].clone();
            }
        }
    }
    if text(spec, "type") == "LoadBalancer"
        && text(spec, "externalTrafficPolicy") == "Local"
        && spec["healthCheckNodePort"].is_null()
        && let Some(port) = old.get("healthCheckNodePort")
    {
        spec["healthCheckNodePort"] = port.clone();
    }
    if matches!(text(spec, "type"), "NodePort" | "LoadBalancer") {
        keep_node_ports(spec, old);
    }
}

fn keep_node_ports(spec: &mut Value, old: &Value) {
    let old_ports = old["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(ports) = spec["ports"].as_array_mut() else {
        return;
    };
    let is_zero = |port: &Value| port["nodePort"].as_i64().unwrap_or(0) == 0;
    let mut taken: Vec<(Value, Value)> = ports
        .iter()
        .filter(|port| !is_zero(port))
        .map(|port| (port["nodePort"].clone(), port["protocol"].clone()))
        .collect();
    for port in ports.iter_mut().filter(|port| is_zero(port)) {
        let same = |old: &&Value| {
            old["port"] == port["port"] && old["protocol"] == port["protocol"] && !is_zero(old)
        };
        let Some(old) = old_ports.iter().find(same) else {
            continue;
        };
        let key = (old["nodePort"].clone(), old["protocol"].clone());
        if !taken.contains(&key) {
            port["nodePort"] = key.0.clone();
            taken.push(key);
        }
    }
}

/// Whichever of `clusterIP` and `clusterIPs` the user changed, the other follows.
fn synchronize_addresses(spec: &mut Value, old: &Value) {
    let first = |spec: &Value| spec["clusterIPs"][0].as_str().unwrap_or_default().to_owned();
    let address_changed = text(spec, "clusterIP") != text(old, "clusterIP");
    let addresses_changed = spec["clusterIPs"] != old["clusterIPs"];
    if address_changed && !addresses_changed {
        let address = text(spec, "clusterIP").to_owned();
        match address.is_empty() {
            true => remove(spec, "clusterIPs"),
            false => spec["clusterIPs"] = json!([address]),
        }
    } else if addresses_changed && !address_changed && is_empty(spec, "clusterIPs") {
        remove(spec, "clusterIP");
    } else if addresses_changed && is_empty(spec, "clusterIP") && !first(spec).is_empty() {
        spec["clusterIP"] = Value::from(first(spec));
    }
}

/// Clears the fields the old type had and the new one has not, unless the user changed them too.
fn release(spec: &mut Value, old: &Value, kind: &str, old_kind: &str) {
    let unchanged = |spec: &Value, field: &str| spec[field] == old[field];
    if old_kind != "ExternalName" && kind == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if unchanged(spec, field) {
                remove(spec, field);
            }
        }
    }
    let has_node_ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    if has_node_ports(old_kind) && !has_node_ports(kind) {
        release_node_ports(spec, old);
    }
    let needs_check = |spec: &Value| {
        text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
    };
    if needs_check(old) && !needs_check(spec) && unchanged(spec, "healthCheckNodePort") {
        remove(spec, "healthCheckNodePort");
    }
    if old_kind == "LoadBalancer" && kind != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if unchanged(spec, field) {
                remove(spec, field);
            }
        }
    }
    let reachable = |spec: &Value, kind: &str| {
        has_node_ports(kind) || (kind == "ClusterIP" && !is_empty(spec, "externalIPs"))
    };
    if reachable(old, old_kind)
        && !reachable(spec, kind)
        && unchanged(spec, "externalTrafficPolicy")
    {
        remove(spec, "externalTrafficPolicy");
    }
}

fn release_node_ports(spec: &mut Value, old: &Value) {
    let allocated: Vec<&Value> =
        old["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]).collect();
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        if allocated.contains(&&port["nodePort"]) {
            remove(port, "nodePort");
        }
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn is_empty(value: &Value, field: &str) -> bool {
    match value.get(field) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}
