//! EndpointSlices, and Endpoints objects turned into slices, cut down to what choosing needs.

use std::net::IpAddr;

use k8s_openapi::api::{
    core::v1::{EndpointAddress, EndpointSubset, Endpoints},
    discovery::v1::EndpointPort,
};
use podium_proxy_ebpf::{Family, Protocol};

use super::object::{EndpointObject, SliceObject};
use crate::model::{ObjectName, Problem, family_of};

/// The label that ties a slice to its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// When its cause happened, as its controller notes it.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// One list of endpoints that share their ports.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The Service it belongs to.
    pub service: ObjectName,
    /// The family of its addresses; `None` for FQDN slices, which no proxy serves.
    pub family: Option<Family>,
    /// Its ports.
    pub ports: Vec<SlicePort>,
    /// Its endpoints, whatever their condition.
    pub endpoints: Vec<SliceEndpoint>,
    /// The lists of zones that endpoints are hinted for; most have one of a few.
    pub zones: Vec<Vec<String>>,
    /// What was left out of it.
    pub problems: Vec<Problem>,
    /// When the cause of its last change happened, if that is known.
    pub triggered: Option<jiff::Timestamp>,
}

/// A port all endpoints of a slice have.
#[derive(Clone, Debug)]
pub struct SlicePort {
    /// The name of the Service port it answers.
    pub name: String,
    /// Its protocol; `None` for one that Services do not have.
    pub protocol: Option<Protocol>,
    /// The port of the endpoints.
    pub number: u16,
}

/// For whom an endpoint is, as a hint says (KEP-2433).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    /// There is no hint.
    #[default]
    None,
    /// For others.
    Others,
    /// For this node, or its zone.
    Here,
}

/// One endpoint.
#[derive(Clone, Copy, Debug)]
pub struct SliceEndpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Should get traffic.
    pub ready: bool,
    /// Can take traffic, though about to go (KEP-1669).
    pub serving_terminating: bool,
    /// Runs on this node.
    pub local: bool,
    /// Its node hints (KEP-3015), as seen from this node.
    pub for_node: Hint,
    /// Index of its zone hints in [`Slice::zones`].
    pub zones: Option<u16>,
}

/// A protocol by Kubernetes' name; Kubernetes' default is TCP.
pub fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// Whether anything can listen there. An IPv4 address in IPv6 clothes would be of both families.
fn is_usable(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip.to_canonical() == ip
}

impl Slice {
    /// From an EndpointSlice, as seen from `node`.
    pub fn from_object(object: &SliceObject, node: Option<&str>) -> Self {
        let metadata = &object.metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let name = metadata.name.clone().unwrap_or_default();
        let mut slice = Self {
            service: ObjectName { namespace: namespace.clone(), name: String::new() },
            family: None,
            ports: Vec::with_capacity(object.ports.len()),
            endpoints: Vec::with_capacity(object.endpoints.len()),
            zones: Vec::new(),
            problems: Vec::new(),
            triggered: (metadata.annotations.as_ref())
                .and_then(|annotations| annotations.get(TRIGGER_TIME)?.parse().ok()),
        };
        let what = format!("EndpointSlice {namespace}/{name}");
        match metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME_LABEL)) {
            Some(service) => slice.service.name.clone_from(service),
            None => slice.problem(
                &what,
                "metadata.labels",
                format!("has no {SERVICE_NAME_LABEL}, so it belongs to no Service; ignored"),
            ),
        }
        slice.family = match object.address_type.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            "FQDN" => None,
            other => {
                let message = format!("{other:?} is none of IPv4, IPv6, FQDN; slice ignored");
                slice.problem(&what, "addressType", message);
                None
            }
        };
        for (index, port) in object.ports.iter().enumerate() {
            slice.add_port(&what, index, port);
        }
        for (index, endpoint) in object.endpoints.iter().enumerate() {
            slice.add_endpoint(&what, index, endpoint, node);
        }
        slice
    }

    fn problem(&mut self, object: &str, field: impl Into<String>, message: String) {
        self.problems.push(Problem { object: object.to_owned(), field: field.into(), message });
    }

    fn add_port(&mut self, what: &str, index: usize, port: &EndpointPort) {
        // No number means "all ports", which says nothing about where to connect to.
        let Some(number) = port.port else { return };
        match u16::try_from(number) {
            Ok(number) if number > 0 => self.ports.push(SlicePort {
                name: port.name.clone().unwrap_or_default(),
                protocol: protocol(port.protocol.as_deref()),
                number,
            }),
            _ => self.problem(
                what,
                format!("ports[{index}].port"),
                format!("{number} is not between 1 and 65535; port ignored"),
            ),
        }
    }

    fn add_endpoint(
        &mut self,
        what: &str,
        index: usize,
        from: &EndpointObject,
        node: Option<&str>,
    ) {
        let Some(family) = self.family else { return };
        // Consumers use the first address only, all of them being the same endpoint.
        let text = from.addresses.first().map_or("", String::as_str);
        let ip = match text.parse::<IpAddr>() {
            Ok(ip) if family_of(ip) == family && is_usable(ip) => ip,
            _ => {
                let message = format!("{text:?} is no {family:?} address; endpoint ignored");
                self.problem(what, format!("endpoints[{index}].addresses"), message);
                return;
            }
        };
        // Unset means ready; an unset `serving` follows `ready` (discovery/v1).
        let ready = from.conditions.ready.unwrap_or(true);
        let serving = from.conditions.serving.unwrap_or(ready);
        let terminating = from.conditions.terminating.unwrap_or(false);
        let hints = from.hints.as_ref();
        let nodes = hints.and_then(|hints| hints.for_nodes.as_deref()).unwrap_or(&[]);
        let for_node = if nodes.is_empty() {
            Hint::None
        } else if nodes.iter().any(|hint| Some(hint.name.as_str()) == node) {
            Hint::Here
        } else {
            Hint::Others
        };
        let zones = hints.and_then(|hints| hints.for_zones.as_deref()).unwrap_or(&[]);
        let zones = self.zones(zones.iter().map(|hint| hint.name.clone()).collect());
        self.endpoints.push(SliceEndpoint {
            ip,
            ready,
            serving_terminating: serving && terminating,
            local: node.is_some() && from.node_name.as_deref() == node,
            for_node,
            zones,
        });
    }

    fn zones(&mut self, zones: Vec<String>) -> Option<u16> {
        if zones.is_empty() {
            return None;
        }
        let index = self.zones.iter().position(|known| *known == zones).unwrap_or_else(|| {
            self.zones.push(zones);
            self.zones.len() - 1
        });
        u16::try_from(index).ok()
    }

    /// The zone hints of one of its endpoints, as seen from a node in `zone`.
    pub fn for_zone(&self, endpoint: &SliceEndpoint, zone: Option<&str>) -> Hint {
        match endpoint.zones.and_then(|index| self.zones.get(usize::from(index))) {
            None => Hint::None,
            Some(zones) if zones.iter().any(|hinted| Some(hinted.as_str()) == zone) => Hint::Here,
            Some(_) => Hint::Others,
        }
    }

    /// From an Endpoints object: a slice for each subset and family, of its ready addresses.
    pub fn from_endpoints(object: &Endpoints, node: Option<&str>) -> Vec<Self> {
        let service = ObjectName {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
        };
        let mut slices = Vec::new();
        for (index, subset) in object.subsets.iter().flatten().enumerate() {
            for family in [Family::V4, Family::V6] {
                slices.push(Self::from_subset(&service, index, subset, family, node));
            }
        }
        slices
    }

    fn from_subset(
        service: &ObjectName,
        index: usize,
        subset: &EndpointSubset,
        family: Family,
        node: Option<&str>,
    ) -> Self {
        let mut slice = Self {
            service: service.clone(),
            family: Some(family),
            ports: Vec::new(),
            endpoints: Vec::new(),
            zones: Vec::new(),
            problems: Vec::new(),
            triggered: None,
        };
        let what = format!("Endpoints {service}");
        for (port_index, port) in subset.ports.iter().flatten().enumerate() {
            let port = EndpointPort {
                app_protocol: None,
                name: port.name.clone(),
                port: Some(port.port),
                protocol: port.protocol.clone(),
            };
            slice.add_port(&what, port_index, &port);
        }
        for (address_index, address) in subset.addresses.iter().flatten().enumerate() {
            let EndpointAddress { ip: text, node_name, .. } = address;
            match text.parse::<IpAddr>() {
                Ok(ip) if family_of(ip) != family => {}
                Ok(ip) if is_usable(ip) => slice.endpoints.push(SliceEndpoint {
                    ip,
                    ready: true,
                    serving_terminating: false,
                    local: node.is_some() && node_name.as_deref() == node,
                    for_node: Hint::None,
                    zones: None,
                }),
                // Reported once, not for each family.
                _ if family == Family::V6 => {}
                _ => slice.problem(
                    &what,
                    format!("subsets[{index}].addresses[{address_index}].ip"),
                    format!("{text:?} is no address of an endpoint; ignored"),
                ),
            }
        }
        slice
    }
}
