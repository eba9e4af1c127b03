//! What is read of an EndpointSlice: there are as many as Services, and they change most often.

use super::{ObjectKey, names};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::net::IpAddr;
use std::sync::Arc;

/// Names the Service of an EndpointSlice.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// An EndpointSlice.
#[derive(Debug, PartialEq)]
pub struct Slice {
    /// The Service it belongs to.
    pub service: Option<ObjectKey>,
    /// Its ports.
    pub ports: Box<[SlicePort]>,
    /// Its endpoints, as far as they have addresses of IP.
    pub endpoints: Box<[SliceEndpoint]>,
}

/// A port of an EndpointSlice.
#[derive(Debug, PartialEq)]
pub struct SlicePort {
    /// The name of the Service's port; empty for none.
    pub name: Arc<str>,
    /// Its number.
    pub number: Option<i32>,
    /// `TCP`, or nothing said.
    pub is_tcp: bool,
}

/// An endpoint of an EndpointSlice.
#[derive(Debug, PartialEq)]
pub struct SliceEndpoint {
    /// All addresses of an endpoint are the same pod; the first one is the one to use.
    pub ip: IpAddr,
    /// It takes requests. The controller of a Service that publishes endpoints before they are ready calls
    /// them ready, also while they terminate.
    pub ready: bool,
    /// It terminates and still serves (KEP-1669).
    pub terminating: bool,
}

impl Slice {
    /// Takes what is read of one.
    pub fn of(slice: &EndpointSlice) -> Slice {
        let label = slice.metadata.labels.as_ref().and_then(|all| all.get(SERVICE_NAME_LABEL));
        let namespace = ObjectKey::of(&slice.metadata).namespace;
        let ports = slice.ports.iter().flatten().map(|port| SlicePort {
            name: names::shared(port.name.as_deref().unwrap_or_default()),
            number: port.port,
            is_tcp: matches!(port.protocol.as_deref(), None | Some("TCP")),
        });
        let endpoints = slice.endpoints.iter().flatten().filter_map(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
            let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
            let ip = endpoint.addresses.first()?.parse().ok()?;
            Some(SliceEndpoint { ip, ready, terminating: serving && terminating })
        });
        Slice {
            service: label.map(|name| ObjectKey::new(namespace, name)),
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        }
    }
}
