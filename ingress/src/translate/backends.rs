//! Service and port of an Ingress backend to addresses, from EndpointSlices or Endpoints.

use crate::balance::{Address, Backend, BackendKey};
use crate::objects::{Kind, ObjectKey, World};
use crate::problem::Problem;
use crate::snapshot::Snapshot;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::IngressBackend;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Backends of one translation, each resolved once.
pub struct Backends<'a> {
    world: &'a World,
    previous: &'a Snapshot,
    slices: HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
    known: HashMap<BackendKey, Arc<Backend>>,
    changed: Vec<EndpointChange>,
}

/// A backend that goes on with other endpoints.
#[derive(Debug)]
pub struct EndpointChange {
    /// Which one.
    pub backend: Arc<Backend>,
    /// All its endpoints from now on.
    pub addresses: Box<[Address]>,
}

impl<'a> Backends<'a> {
    pub fn new(world: &'a World, previous: &'a Snapshot) -> Backends<'a> {
        let mut slices: HashMap<_, Vec<&EndpointSlice>> = HashMap::new();
        for (key, slice) in &world.slices {
            if let Some(service) =
                slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME_LABEL))
            {
                slices.entry((key.namespace.as_str(), service.as_str())).or_default().push(slice);
            }
        }
        Backends { world, previous, slices, known: HashMap::new(), changed: Vec::new() }
    }

    /// All backends that were asked for, and which of them have other endpoints than before.
    pub fn into_parts(self) -> (HashMap<BackendKey, Arc<Backend>>, Vec<EndpointChange>) {
        (self.known, self.changed)
    }

    /// The backend an Ingress names. What is wrong with it becomes a problem of the Ingress, and the
    /// backend has no endpoints.
    pub fn resolve(
        &mut self,
        ingress: &ObjectKey,
        backend: &IngressBackend,
        by_cluster_ip: bool,
        field: &str,
        problems: &mut Vec<Problem>,
    ) -> Arc<Backend> {
        let Some(named) = &backend.service else {
            let why = "names no Service; other resources cannot be backends here";
            problems.push(Problem::error(Kind::Ingress, ingress, field, why));
            let service = ObjectKey::new(&ingress.namespace, "");
            return self
                .insert(BackendKey { service, port: String::new(), by_cluster_ip }, Box::new([]));
        };
        let number = named.port.as_ref().and_then(|port| port.number);
        let port = match (number, named.port.as_ref().and_then(|port| port.name.as_ref())) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => String::new(),
        };
        let key = BackendKey {
            service: ObjectKey::new(&ingress.namespace, &named.name),
            port,
            by_cluster_ip,
        };
        match self.find_port(&key) {
            Ok((service, port)) => self.with_endpoints(key, service, port),
            Err((part, why)) => {
                problems.push(Problem::error(
                    Kind::Ingress,
                    ingress,
                    format!("{field}.service.{part}"),
                    why,
                ));
                self.insert(key, Box::new([]))
            }
        }
    }

    /// The backend behind the first port of a Service named by a flag.
    pub fn first_port(
        &mut self,
        service: &ObjectKey,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<Backend>> {
        let found = self.world.services.get(service);
        let port = found.and_then(|found| found.spec.as_ref()?.ports.as_ref()?.first());
        let (Some(found), Some(port)) = (found, port) else {
            let why = "is the default backend but does not exist or has no port";
            problems.push(Problem::error(Kind::Service, service, "", why));
            return None;
        };
        let key = BackendKey {
            service: service.clone(),
            port: port.port.to_string(),
            by_cluster_ip: false,
        };
        Some(self.with_endpoints(key, found, port))
    }

    fn find_port(
        &self,
        key: &BackendKey,
    ) -> Result<(&'a Service, &'a ServicePort), (&'static str, String)> {
        let service = self.world.services.get(&key.service);
        let service =
            service.ok_or_else(|| ("name", format!("Service {} does not exist", key.service)))?;
        let spec = service.spec.as_ref();
        if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
            return Err((
                "name",
                format!(
                    "Service {} is of type ExternalName, which is not honoured yet",
                    key.service
                ),
            ));
        }
        let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let names = |port: &&ServicePort| {
            port.port.to_string() == key.port
                || port.name.as_deref().is_some_and(|name| name == key.port)
        };
        let port = ports.iter().find(names);
        port.map(|port| (&**service, port))
            .ok_or_else(|| ("port", format!("Service {} has no port {:?}", key.service, key.port)))
    }

    fn with_endpoints(
        &mut self,
        key: BackendKey,
        service: &Service,
        port: &ServicePort,
    ) -> Arc<Backend> {
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let endpoints = if key.by_cluster_ip {
            cluster_ip(service, port).map(Address::Ip).into_iter().collect()
        } else {
            self.endpoints(&key.service, port)
        };
        self.insert(key, endpoints)
    }

    fn insert(&mut self, key: BackendKey, endpoints: Box<[Address]>) -> Arc<Backend> {
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let backend = match self.previous.backends.get(&key) {
            Some(backend) => {
                if !backend.endpoints().addresses().map(Address::Ip).eq(endpoints.iter().cloned()) {
                    let backend = backend.clone();
                    self.changed.push(EndpointChange { backend, addresses: endpoints });
                }
                backend.clone()
            }
            None => Arc::new(Backend::new(key.clone(), &endpoints)),
        };
        self.known.insert(key, backend.clone());
        backend
    }

    fn endpoints(&self, service: &ObjectKey, port: &ServicePort) -> Box<[Address]> {
        let name = port.name.as_deref().unwrap_or_default();
        let mut found = Found::default();
        match self.slices.get(&(service.namespace.as_str(), service.name.as_str())) {
            Some(slices) => slices.iter().for_each(|slice| found.add_slice(slice, name)),
            None => found.add_endpoints(self.world, service, name),
        }
        found.into_addresses()
    }
}

/// Addresses by readiness, sorted and without duplicates.
#[derive(Default)]
struct Found {
    ready: BTreeSet<SocketAddr>,
    serving: BTreeSet<SocketAddr>,
}

impl Found {
    fn add_slice(&mut self, slice: &EndpointSlice, port_name: &str) {
        let ports = slice.ports.iter().flatten().filter(|port| {
            port.name.as_deref().unwrap_or_default() == port_name
                && matches!(port.protocol.as_deref(), None | Some("TCP"))
        });
        for port in ports.filter_map(|port| u16::try_from(port.port?).ok()) {
            for endpoint in slice.endpoints.iter().flatten() {
                // All addresses of an endpoint are the same pod; the first one is the one to use.
                let Some(ip) = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok())
                else {
                    continue;
                };
                let conditions = endpoint.conditions.as_ref();
                let is = |flag: Option<bool>, unknown: bool| flag.unwrap_or(unknown);
                let ready = is(conditions.and_then(|c| c.ready), true);
                let terminating = is(conditions.and_then(|c| c.terminating), false);
                let serving = is(conditions.and_then(|c| c.serving), ready);
                if ready && !terminating {
                    self.ready.insert(SocketAddr::new(ip, port));
                } else if serving && terminating {
                    self.serving.insert(SocketAddr::new(ip, port));
                }
            }
        }
    }

    fn add_endpoints(&mut self, world: &World, service: &ObjectKey, port_name: &str) {
        let endpoints = world.endpoints.get(service);
        for subset in endpoints.iter().flat_map(|endpoints| endpoints.subsets.iter().flatten()) {
            let ports = subset.ports.iter().flatten().filter(|port| {
                port.name.as_deref().unwrap_or_default() == port_name
                    && matches!(port.protocol.as_deref(), None | Some("TCP"))
            });
            for port in ports.filter_map(|port| u16::try_from(port.port).ok()) {
                let addresses = subset.addresses.iter().flatten();
                let ips = addresses.filter_map(|address| address.ip.parse::<IpAddr>().ok());
                self.ready.extend(ips.map(|ip| SocketAddr::new(ip, port)));
            }
        }
    }

    /// Ready endpoints; where there are none, those that still serve while they terminate (KEP-1669).
    fn into_addresses(self) -> Box<[Address]> {
        let chosen = if self.ready.is_empty() { self.serving } else { self.ready };
        chosen.into_iter().map(Address::Ip).collect()
    }
}

fn cluster_ip(service: &Service, port: &ServicePort) -> Option<SocketAddr> {
    let ip = service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(port.port).ok()?))
}
