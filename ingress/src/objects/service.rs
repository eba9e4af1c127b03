//! What is read of a Service.

use super::names;
use super::uid::Uid;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::IpAddr;
use std::sync::Arc;

/// A Service.
#[derive(Debug, PartialEq)]
pub struct Service {
    /// `metadata.uid`.
    pub uid: Option<Uid>,
    /// `spec.type`, as far as it makes a difference.
    pub service_type: ServiceType,
    /// `spec.clusterIP`, unless there is none.
    pub cluster_ip: Option<IpAddr>,
    /// `spec.ports`.
    pub ports: Box<[ServicePort]>,
    /// Where it is reached from outside: addresses of its load balancer, then `spec.externalIPs`.
    pub addresses: Box<[Arc<str>]>,
}

/// What kind of Service it is.
#[derive(Debug, PartialEq)]
pub enum ServiceType {
    /// One with a cluster IP or none, with or without ports on nodes.
    Internal,
    /// One with a load balancer.
    LoadBalancer,
    /// Another name for something outside.
    ExternalName(Option<Arc<str>>),
}

/// A port of a Service.
#[derive(Debug, PartialEq)]
pub struct ServicePort {
    /// Empty for none.
    pub name: Arc<str>,
    /// `port`.
    pub number: i32,
    /// `targetPort`.
    pub target: Option<TargetPort>,
}

/// The port of the endpoints.
#[derive(Debug, PartialEq)]
pub enum TargetPort {
    /// By its number.
    Number(i32),
    /// By its name.
    Name(Arc<str>),
}

impl Service {
    /// Takes what is read of one.
    pub fn of(service: &api::Service) -> Service {
        let spec = service.spec.as_ref();
        let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let assigned = balancer.into_iter().flat_map(|balancer| balancer.ingress.iter().flatten());
        let assigned = assigned.filter_map(|at| at.ip.as_deref().or(at.hostname.as_deref()));
        let external = spec.into_iter().flat_map(|spec| spec.external_ips.iter().flatten());
        let external = external.map(String::as_str);
        let ports = spec.into_iter().flat_map(|spec| spec.ports.iter().flatten());
        Service {
            uid: service.metadata.uid.as_deref().map(Uid::of),
            service_type: ServiceType::of(spec),
            cluster_ip: spec.and_then(|spec| spec.cluster_ip.as_ref()?.parse().ok()),
            ports: ports.map(ServicePort::of).collect(),
            addresses: assigned.chain(external).map(names::shared).collect(),
        }
    }
}

impl ServiceType {
    fn of(spec: Option<&api::ServiceSpec>) -> ServiceType {
        let name = || spec.and_then(|spec| spec.external_name.as_deref());
        match spec.and_then(|spec| spec.type_.as_deref()) {
            Some("ExternalName") => ServiceType::ExternalName(name().map(names::shared)),
            Some("LoadBalancer") => ServiceType::LoadBalancer,
            _ => ServiceType::Internal,
        }
    }
}

impl ServicePort {
    fn of(port: &api::ServicePort) -> ServicePort {
        ServicePort {
            name: names::shared(port.name.as_deref().unwrap_or_default()),
            number: port.port,
            target: port.target_port.as_ref().map(|target| match target {
                IntOrString::Int(number) => TargetPort::Number(*number),
                IntOrString::String(name) => TargetPort::Name(names::shared(name)),
            }),
        }
    }
}
