//! Node ports: `spec.ports[].nodePort` and `spec.healthCheckNodePort`.

use podium_api::field::{self, Path};
use serde_json::{Value, json};

use crate::allocation::{Shared, Taken};

/// KEP-3668: `min(max(16, size/32), 128)`, nothing in ranges too small for it.
pub(super) fn reserved(count: usize) -> u128 {
    if count <= 16 { 0 } else { (count / 32).clamp(16, 128) as u128 }
}

/// Whether a Service of this spec has node ports.
fn needed(spec: &Value) -> bool {
    match spec["type"].as_str() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

/// Fills in the node ports a Service lacks.
pub(super) fn fill(
    shared: &mut Shared,
    new: &mut Value,
    had: &[Taken],
    taken: &mut Vec<Taken>,
    errors: &mut Vec<field::Error>,
) {
    let spec = &mut new["spec"];
    let any = needed(spec);
    let health = spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local";
    let path = Path::new("spec").child("ports");
    let mut given: Vec<(u64, u16, String)> = Vec::new();
    let ports = spec["ports"].as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
    for (index, port) in ports.iter_mut().enumerate() {
        let at = path.index(index).child("nodePort");
        let number = port["port"].as_u64().unwrap_or_default();
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
        if let Some(wanted) = asked(&port["nodePort"]) {
            let shared_in_service =
                given.iter().any(|(_, node, other)| *node == wanted && *other != protocol);
            if !shared_in_service {
                take(shared, wanted, &at, had, taken, errors);
            }
            given.push((number, wanted, protocol));
        } else if any {
            // TCP and UDP of one port get one node port, as upstream does.
            let twin = given
                .iter()
                .find(|(other, _, transport)| *other == number && *transport != protocol)
                .map(|(_, node, _)| *node);
            match twin.or_else(|| take_any(shared, taken)) {
                Some(node) => {
                    port["nodePort"] = json!(node);
                    given.push((number, node, protocol));
                }
                None => errors.push(full(&at)),
            }
        }
    }
    if health {
        let at = Path::new("spec").child("healthCheckNodePort");
        if let Some(wanted) = asked(&spec["healthCheckNodePort"]) {
            take(shared, wanted, &at, had, taken, errors);
        } else {
            match take_any(shared, taken) {
                Some(node) => spec["healthCheckNodePort"] = json!(node),
                None => errors.push(full(&at)),
            }
        }
    }
}

fn full(at: &Path) -> field::Error {
    field::Error::invalid(at, 0, "failed to allocate a nodePort: range is full")
}

fn asked(port: &Value) -> Option<u16> {
    port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

fn take_any(shared: &mut Shared, taken: &mut Vec<Taken>) -> Option<u16> {
    let offset = shared.ports.take_any()?;
    let port = shared.port_at(offset)?;
    taken.push(Taken::Port(port));
    Some(port)
}

fn take(
    shared: &mut Shared,
    port: u16,
    at: &Path,
    had: &[Taken],
    taken: &mut Vec<Taken>,
    errors: &mut Vec<field::Error>,
) {
    let wanted = Taken::Port(port);
    if had.contains(&wanted) {
        return;
    }
    if shared.port_offset(port).is_none() {
        let last = shared.ports_first + u16::try_from(shared.ports.size() - 1).unwrap_or(u16::MAX);
        let detail = format!(
            "provided port is not in the valid range. The range of valid ports is {}-{last}",
            shared.ports_first
        );
        errors.push(field::Error::invalid(at, port, detail));
    } else if shared.take(wanted) {
        taken.push(wanted);
    } else {
        errors.push(field::Error::invalid(at, port, "provided port is already allocated"));
    }
}
