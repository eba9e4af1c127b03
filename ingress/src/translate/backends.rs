//! Service and port of an Ingress backend to addresses, from EndpointSlices or Endpoints: for the
//! Services in use, and again only for those that changed.

use crate::annotations::upstream::Upstream;
use crate::annotations::upstream::health::Health;
use crate::balance::{Address, Backend, BackendKey, Care};
use crate::few::FewMap;
use crate::objects::ingress::IngressBackend;
use crate::objects::service::{Service, ServicePort, ServiceType, TargetPort};
use crate::objects::slice::Slice;
use crate::objects::{ObjectKey, World, names};
use crate::shards::Shards;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use thiserror::Error;

/// The backends in use.
#[derive(Debug)]
pub struct Backends {
    services: HashMap<ObjectKey, Used>,
    /// The same, for the snapshot.
    pub table: Shards<Arc<BackendKey>, Arc<Backend>>,
    changes: Vec<EndpointChange>,
    /// Made since the last look; perhaps nobody came to use them.
    made: Vec<Arc<Backend>>,
    unclaimed: Arc<Backend>,
    /// Services of type ExternalName have no endpoints.
    pub no_external_names: bool,
}

/// A Service in use.
#[derive(Debug, Default)]
struct Used {
    backends: Vec<State>,
    /// The Ingresses that use it, and how many of its backends each.
    users: FewMap<Arc<ObjectKey>, usize>,
}

#[derive(Debug)]
struct State {
    backend: Arc<Backend>,
    users: usize,
    addresses: Arc<[Address]>,
    fault: Option<Box<Fault>>,
}

/// A backend that goes on with other endpoints.
#[derive(Debug)]
pub struct EndpointChange {
    /// Which one.
    pub backend: Arc<Backend>,
    /// All its endpoints from now on.
    pub addresses: Arc<[Address]>,
}

/// Why a backend cannot have endpoints.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// No such Service.
    #[error("Service {0} does not exist")]
    NoService(ObjectKey),
    /// No such port.
    #[error("Service {0} has no port {1:?}")]
    NoPort(ObjectKey, String),
    /// No port at all.
    #[error("Service {0} has no ports")]
    NoPorts(ObjectKey),
    /// ingress-nginx refuses these too: they would let a tenant reach what listens beside the proxy.
    #[error("Service {0} has the external name {1:?}, which is not a DNS name of another host")]
    ExternalName(ObjectKey, String),
    /// By `--disable-svc-external-name`.
    #[error("Service {0} is of type ExternalName, and those are switched off here")]
    NoExternalNames(ObjectKey),
}

impl Fault {
    /// The part of an Ingress backend that is to blame.
    pub fn field(&self) -> &'static str {
        match self {
            Fault::NoService(_) | Fault::ExternalName(..) | Fault::NoExternalNames(_) => "name",
            Fault::NoPort(..) | Fault::NoPorts(_) => "port",
        }
    }
}

/// Whether a key is what an Ingress with these settings names by `backend`.
pub fn is_named_by(key: &BackendKey, backend: &IngressBackend, upstream: &Upstream) -> bool {
    let Some(named) = &backend.service else {
        return false;
    };
    backend.port.is(&key.port)
        && key.service.name == *named
        && key.by_cluster_ip == upstream.by_cluster_ip
        && key.care == care(&upstream.health)
}

impl Default for Backends {
    fn default() -> Backends {
        let key = BackendKey {
            service: ObjectKey::new("", "upstream-default-backend"),
            port: names::shared(""),
            by_cluster_ip: false,
            care: Care::default(),
        };
        Backends {
            services: HashMap::new(),
            table: Shards::default(),
            changes: Vec::new(),
            made: Vec::new(),
            unclaimed: Arc::new(Backend::new(Arc::new(key), Arc::default())),
            no_external_names: false,
        }
    }
}

impl Backends {
    /// What requests go to that nobody claims.
    pub fn unclaimed(&self) -> Arc<Backend> {
        self.unclaimed.clone()
    }

    /// Makes another backend the one for what nobody claims; `None` is one without endpoints.
    pub fn set_unclaimed(&mut self, backend: Option<Arc<Backend>>) {
        self.unclaimed = backend.unwrap_or_else(|| Backends::default().unclaimed);
    }

    /// The backend an Ingress names; `None` for something that is no Service.
    pub fn named(
        &mut self,
        world: &World,
        namespace: &Arc<str>,
        backend: &IngressBackend,
        upstream: &Upstream,
    ) -> Option<Arc<Backend>> {
        let (service, port) = (backend.service.as_ref()?, backend.port.text());
        let service = ObjectKey { namespace: namespace.clone(), name: service.clone() };
        let (by_cluster_ip, care) = (upstream.by_cluster_ip, care(&upstream.health));
        Some(self.get(world, BackendKey { service, port, by_cluster_ip, care }))
    }

    /// The backend behind a port of a Service, by its number.
    pub fn numbered(&mut self, world: &World, service: &ObjectKey, port: u16) -> Arc<Backend> {
        let port = names::shared(&port.to_string());
        let (service, care) = (service.clone(), Care::default());
        self.get(world, BackendKey { service, port, by_cluster_ip: false, care })
    }

    /// The backend behind the first port of a Service.
    pub fn first_port(&mut self, world: &World, service: &ObjectKey) -> Arc<Backend> {
        let (service, port) = (service.clone(), names::shared(""));
        let key = BackendKey { service, port, by_cluster_ip: false, care: Care::default() };
        self.get(world, key)
    }

    pub(super) fn get(&mut self, world: &World, key: BackendKey) -> Arc<Backend> {
        if let Some(known) = self.table.get(&key) {
            return known.clone();
        }
        let (addresses, fault) = resolve(world, &key, self.no_external_names);
        let key = Arc::new(key);
        let backend = Arc::new(Backend::new(key.clone(), addresses.clone()));
        let used = self.services.entry(key.service.clone()).or_default();
        // Most Services are used by one of their ports.
        used.backends.reserve_exact(usize::from(used.backends.is_empty()));
        used.backends.push(State { backend: backend.clone(), users: 0, addresses, fault });
        self.table.insert(key, backend.clone());
        self.made.push(backend.clone());
        backend
    }

    /// Notes that an Ingress uses backends.
    pub fn acquire(&mut self, backends: &[Arc<Backend>], user: &Arc<ObjectKey>) {
        for backend in backends {
            if let Some(used) = self.services.get_mut(&backend.key.service) {
                *used.users.get_or_default(user) += 1;
                used.state_mut(backend).into_iter().for_each(|state| state.users += 1);
            }
        }
    }

    /// Notes that it does no more; a backend without users goes.
    pub fn release(&mut self, backends: &[Arc<Backend>], user: &Arc<ObjectKey>) {
        for backend in backends {
            let Some(used) = self.services.get_mut(&backend.key.service) else {
                continue;
            };
            if let Some(count) = used.users.get_mut(user) {
                *count -= 1;
                if *count == 0 {
                    used.users.remove(user);
                }
            }
            used.state_mut(backend).into_iter().for_each(|state| state.users -= 1);
            self.drop_unused(backend);
        }
    }

    fn drop_unused(&mut self, backend: &Arc<Backend>) {
        let Some(used) = self.services.get_mut(&backend.key.service) else {
            return;
        };
        used.backends.retain(|state| state.users > 0 || !Arc::ptr_eq(&state.backend, backend));
        if used.state_mut(backend).is_none() {
            self.table.remove(&backend.key);
        }
        if used.backends.is_empty() {
            self.services.remove(&backend.key.service);
        }
    }

    /// Looks at a Service again. Returns whom it concerns that something is wrong now, or no more.
    pub fn refresh(&mut self, world: &World, service: &ObjectKey) -> BTreeSet<Arc<ObjectKey>> {
        let Some(used) = self.services.get_mut(service) else {
            return BTreeSet::new();
        };
        let mut faults_changed = false;
        for state in &mut used.backends {
            let (addresses, fault) = resolve(world, &state.backend.key, self.no_external_names);
            faults_changed |= fault != state.fault;
            state.fault = fault;
            if addresses != state.addresses {
                state.addresses = addresses.clone();
                let backend = state.backend.clone();
                self.changes.push(EndpointChange { backend, addresses });
            }
        }
        if faults_changed { used.users.keys().cloned().collect() } else { BTreeSet::new() }
    }

    /// Why a backend has no endpoints, if something is wrong.
    pub fn fault(&self, backend: &Arc<Backend>) -> Option<&Fault> {
        let used = self.services.get(&backend.key.service)?;
        let state = used.backends.iter().find(|state| Arc::ptr_eq(&state.backend, backend));
        state?.fault.as_deref()
    }

    /// Backends that go on with other endpoints since this was last asked. All that is in use has its
    /// users by now.
    pub fn take_changes(&mut self) -> Vec<EndpointChange> {
        for made in std::mem::take(&mut self.made) {
            self.drop_unused(&made);
        }
        std::mem::take(&mut self.changes)
    }

    /// Every backend with its addresses.
    #[cfg(test)]
    pub fn addresses(&self) -> std::collections::BTreeMap<&BackendKey, &[Address]> {
        let states = self.services.values().flat_map(|used| &used.backends);
        states.map(|state| (&*state.backend.key, &*state.addresses)).collect()
    }
}

impl Used {
    fn state_mut(&mut self, backend: &Arc<Backend>) -> Option<&mut State> {
        self.backends.iter_mut().find(|state| Arc::ptr_eq(&state.backend, backend))
    }
}

fn care(health: &Health) -> Care {
    let check = health.check.path.is_some().then(|| Arc::new(health.check.clone()));
    Care { check, slow_start: health.slow_start }
}

/// The addresses of a backend, or what is wrong with it.
fn resolve(
    world: &World,
    key: &BackendKey,
    no_external_names: bool,
) -> (Arc<[Address]>, Option<Box<Fault>>) {
    match addresses(world, key, no_external_names) {
        Ok(addresses) => (addresses, None),
        Err(fault) => (Arc::default(), Some(Box::new(fault))),
    }
}

fn addresses(
    world: &World,
    key: &BackendKey,
    no_external_names: bool,
) -> Result<Arc<[Address]>, Fault> {
    let Some(service) = world.services.get(&key.service) else {
        return Err(Fault::NoService(key.service.clone()));
    };
    if let ServiceType::ExternalName(name) = &service.service_type {
        if no_external_names {
            return Err(Fault::NoExternalNames(key.service.clone()));
        }
        let name = name.as_deref().unwrap_or_default();
        return external(service, name, key).map(|address| [address].into());
    }
    let ports = &service.ports;
    let port = match key.port.is_empty() {
        true => ports.first().ok_or_else(|| Fault::NoPorts(key.service.clone()))?,
        false => find_port(ports, &key.port)
            .ok_or_else(|| Fault::NoPort(key.service.clone(), key.port.to_string()))?,
    };
    // Without a cluster IP ingress-nginx goes to the endpoints all the same.
    if key.by_cluster_ip
        && let Some(address) = cluster_ip(service, port)
    {
        return Ok([Address::Ip(address)].into());
    }
    let mut found = Found::default();
    let mut slices = world.slices_of(&key.service).peekable();
    if slices.peek().is_some() {
        slices.for_each(|slice| found.add_slice(slice, port));
    } else {
        found.add_endpoints(world, &key.service, port);
    }
    Ok(found.into_addresses())
}

/// By number, target port or name, as ingress-nginx does it.
fn find_port<'a>(ports: &'a [ServicePort], wanted: &str) -> Option<&'a ServicePort> {
    ports.iter().find(|port| {
        port.number.to_string() == wanted
            || *port.name == *wanted
            || match &port.target {
                Some(TargetPort::Number(number)) => number.to_string() == wanted,
                Some(TargetPort::Name(name)) => **name == *wanted,
                None => false,
            }
    })
}

/// The name an ExternalName Service stands for. Its ports need not be listed.
fn external(service: &Service, name: &str, key: &BackendKey) -> Result<Address, Fault> {
    let name = name.trim_end_matches('.');
    let fault = || Fault::ExternalName(key.service.clone(), name.to_string());
    let mut ports = service.ports.iter();
    let listed = match key.port.is_empty() {
        true => ports.next(),
        false => ports.find(|port| port.number.to_string() == *key.port || port.name == key.port),
    };
    let target = listed.map(|port| match port.target {
        Some(TargetPort::Number(number)) if number != 0 => number,
        _ => port.number,
    });
    let port = target.or_else(|| key.port.parse().ok()).and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| Fault::NoPort(key.service.clone(), key.port.to_string()))?;
    match name.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => Err(fault()),
        Ok(ip) => Ok(Address::Ip(SocketAddr::new(ip, port))),
        Err(_) => {
            let name = name.to_ascii_lowercase();
            let usable = name != "localhost"
                && !name.is_empty()
                && super::compile::check_host(&name).is_ok()
                && !name.starts_with('*');
            if usable { Ok(Address::Name(name.into(), port)) } else { Err(fault()) }
        }
    }
}

fn cluster_ip(service: &Service, port: &ServicePort) -> Option<SocketAddr> {
    Some(SocketAddr::new(service.cluster_ip?, u16::try_from(port.number).ok()?))
}

/// Addresses by readiness, sorted and without duplicates.
#[derive(Default)]
struct Found {
    ready: BTreeSet<SocketAddr>,
    serving: BTreeSet<SocketAddr>,
}

impl Found {
    fn add_slice(&mut self, slice: &Slice, port: &ServicePort) {
        let tcp = slice.ports.iter().filter(|port| port.is_tcp);
        let mut numbers: Vec<u16> = tcp
            .filter_map(|own| target(Some(&own.name), own.number, port))
            .filter_map(|port| u16::try_from(port).ok())
            .collect();
        if slice.ports.is_empty() {
            // Written by hand for a Service without a selector.
            numbers.extend(numeric_target(port).and_then(|port| u16::try_from(port).ok()));
        }
        for endpoint in &slice.endpoints {
            let addresses = numbers.iter().map(|port| SocketAddr::new(endpoint.ip, *port));
            if endpoint.ready {
                self.ready.extend(addresses);
            } else if endpoint.terminating {
                self.serving.extend(addresses);
            }
        }
    }

    fn add_endpoints(&mut self, world: &World, service: &ObjectKey, port: &ServicePort) {
        let endpoints = world.endpoints.get(service);
        for subset in endpoints.iter().flat_map(|endpoints| endpoints.subsets.iter().flatten()) {
            let ports = subset.ports.iter().flatten();
            let ports = ports
                .filter(|port| is_tcp(port.protocol.as_deref()))
                .filter_map(|own| target(own.name.as_deref(), Some(own.port), port));
            for port in ports.filter_map(|port| u16::try_from(port).ok()) {
                let addresses = subset.addresses.iter().flatten();
                let ips = addresses.filter_map(|address| address.ip.parse::<IpAddr>().ok());
                self.ready.extend(ips.map(|ip| SocketAddr::new(ip, port)));
            }
        }
    }

    /// Ready endpoints; where there are none, those that still serve while they terminate (KEP-1669).
    fn into_addresses(self) -> Arc<[Address]> {
        let chosen = if self.ready.is_empty() { self.serving } else { self.ready };
        chosen.into_iter().map(Address::Ip).collect()
    }
}

fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("TCP"))
}

/// The number of an endpoint's port if it is the one a port of the Service means: a Service with one
/// nameless port means any; a number as the target stands in where the names do not fit.
fn target(name: Option<&str>, number: Option<i32>, port: &ServicePort) -> Option<i32> {
    if port.name.is_empty() || name.unwrap_or_default() == &*port.name {
        return number;
    }
    numeric_target(port)
}

fn numeric_target(port: &ServicePort) -> Option<i32> {
    match port.target {
        Some(TargetPort::Number(number)) => Some(number),
        _ => None,
    }
}
