//! One Service and its slices into service ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Service, ServicePort as PortSpec};
use podium_proxy_ebpf::{
    AddressPort, Endpoint, Family, FrontendKind, Protocol, choice::SPAN_LEN_MAX,
};

use super::slice::{Slice, SliceEndpoint, protocol};
use crate::model::{Frontend, ObjectName, PortName, Problem, Reach, ServicePort, family_of};

/// Services with this label belong to another proxy (KEP-2447).
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// `sessionAffinityConfig.clientIP.timeoutSeconds` where it is not set.
const AFFINITY_SECS_DEFAULT: u32 = 10_800;

/// What became of one Service.
#[derive(Debug, Default)]
pub struct Translated {
    /// Its ports, one for each family.
    pub ports: Vec<Arc<ServicePort>>,
    /// Its ClusterIPs.
    pub cluster_ips: Vec<IpAddr>,
    /// What was wrong with it.
    pub problems: Vec<Problem>,
    /// When it was created; decides who keeps an address two Services want.
    pub created_unix_ms: i64,
}

impl Translated {
    /// The addresses it wants: those that are its ClusterIPs, or all others.
    pub fn claims(&self, as_cluster_ip: bool) -> impl Iterator<Item = (AddressPort, &PortName)> {
        self.ports.iter().flat_map(move |port| {
            (port.addresses.keys())
                .filter(move |at| {
                    self.cluster_ips.contains(&at.socket_addr().ip()) == as_cluster_ip
                })
                .map(|at| (*at, &port.name))
        })
    }

    /// Shares the ports that are as they were `before`, so that comparing them later is free.
    pub fn keep_unchanged(&mut self, before: &Self) {
        for port in &mut self.ports {
            if let Some(same) = before.ports.iter().find(|old| *old == port) {
                *port = Arc::clone(same);
            }
        }
    }
}

/// Translates one Service. Headless ones, ExternalNames and those of another proxy yield nothing.
pub fn translate(name: &ObjectName, service: &Service, slices: &[&Slice]) -> Translated {
    let mut work = Translation { name, service, slices, result: Translated::default() };
    work.result.created_unix_ms = (service.metadata.creation_timestamp.as_ref())
        .map_or(i64::MAX, |created| created.0.as_millisecond());
    if !work.skipped() {
        work.run();
    }
    work.result
}

struct Translation<'a> {
    name: &'a ObjectName,
    service: &'a Service,
    slices: &'a [&'a Slice],
    result: Translated,
}

impl Translation<'_> {
    fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.result.problems.push(Problem {
            object: format!("Service {}", self.name),
            field: field.into(),
            message: message.into(),
        });
    }

    fn skipped(&self) -> bool {
        let labels = self.service.metadata.labels.as_ref();
        let Some(spec) = &self.service.spec else {
            return true;
        };
        labels.is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL))
            || spec.type_.as_deref() == Some("ExternalName")
            || spec.cluster_ip.as_deref() == Some("None")
            || spec.cluster_ips.iter().flatten().any(|ip| ip == "None")
    }

    fn run(&mut self) {
        let Some(spec) = &self.service.spec else {
            return;
        };
        let cluster_ips = self.cluster_ips();
        let mut addresses: BTreeMap<IpAddr, Frontend> = BTreeMap::new();
        // Whoever reaches an external address from a node gets Cluster behaviour, whatever the
        // external traffic policy.
        for ip in self.external_ips() {
            let frontend = Frontend {
                kind: FrontendKind::ExternalIp,
                internal: Reach::Cluster,
                external: Reach::Cluster,
                restricted: false,
            };
            addresses.insert(ip, frontend);
        }
        let internal = match spec.internal_traffic_policy.as_deref() {
            Some("Local") => Reach::Node,
            _ => Reach::Cluster,
        };
        for ip in &cluster_ips {
            let frontend = Frontend {
                kind: FrontendKind::ClusterIp,
                internal,
                external: internal,
                restricted: false,
            };
            addresses.insert(*ip, frontend);
        }
        self.result.cluster_ips = cluster_ips;

        let mut seen = BTreeSet::new();
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            let Some((number, protocol)) = self.port(index, port) else {
                continue;
            };
            if !seen.insert((number, protocol)) {
                self.problem(
                    format!("spec.ports[{index}]"),
                    format!("{number}/{protocol:?} is there twice; the first one counts"),
                );
                continue;
            }
            for family in [Family::V4, Family::V6] {
                self.add(port.name.as_deref().unwrap_or(""), number, protocol, family, &addresses);
            }
        }
    }

    fn cluster_ips(&mut self) -> Vec<IpAddr> {
        let Some(spec) = &self.service.spec else {
            return Vec::new();
        };
        let (field, texts) = match &spec.cluster_ips {
            Some(texts) if !texts.is_empty() => ("spec.clusterIPs", texts.clone()),
            _ => ("spec.clusterIP", spec.cluster_ip.clone().into_iter().collect()),
        };
        if texts.iter().all(String::is_empty) {
            self.problem(
                "spec.clusterIP",
                "is not set and this source allocates none: give an address; not served at one",
            );
            return Vec::new();
        }
        self.parse(field, &texts)
    }

    fn external_ips(&mut self) -> Vec<IpAddr> {
        let Some(spec) = &self.service.spec else {
            return Vec::new();
        };
        let mut ips = self.parse("spec.externalIPs", spec.external_ips.as_deref().unwrap_or(&[]));
        if spec.type_.as_deref() == Some("LoadBalancer") {
            let ingress = (self.service.status.as_ref())
                .and_then(|status| status.load_balancer.as_ref())
                .and_then(|balancer| balancer.ingress.as_deref())
                .unwrap_or(&[]);
            // KEP-1860: mode Proxy means that the balancer itself must be passed through.
            let texts: Vec<String> = (ingress.iter())
                .filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"))
                .filter_map(|entry| entry.ip.clone())
                .collect();
            ips.extend(self.parse("status.loadBalancer.ingress", &texts));
        }
        ips
    }

    fn parse(&mut self, field: &str, texts: &[String]) -> Vec<IpAddr> {
        let mut ips = Vec::new();
        for text in texts.iter().filter(|text| !text.is_empty()) {
            match text.parse::<IpAddr>() {
                Ok(ip) if !ip.is_unspecified() => ips.push(ip),
                _ => self.problem(field, format!("{text:?} is no address; not served at it")),
            }
        }
        ips
    }

    fn port(&mut self, index: usize, port: &PortSpec) -> Option<(u16, Protocol)> {
        let field = format!("spec.ports[{index}]");
        let number = match u16::try_from(port.port) {
            Ok(number) if number > 0 => number,
            _ => {
                let message = format!("{} is not between 1 and 65535; port ignored", port.port);
                self.problem(format!("{field}.port"), message);
                return None;
            }
        };
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            let name = port.protocol.as_deref().unwrap_or("");
            self.problem(
                format!("{field}.protocol"),
                format!("{name:?} is not balanced for sockets (TCP and UDP are); port ignored"),
            );
            return None;
        };
        Some((number, protocol))
    }

    fn add(
        &mut self,
        port_name: &str,
        number: u16,
        protocol: Protocol,
        family: Family,
        addresses: &BTreeMap<IpAddr, Frontend>,
    ) {
        let addresses: BTreeMap<AddressPort, Frontend> = (addresses.iter())
            .filter(|(ip, _)| family_of(**ip) == family)
            .map(|(ip, frontend)| (AddressPort::from(SocketAddr::new(*ip, number)), *frontend))
            .collect();
        if addresses.is_empty() {
            return;
        }
        let known = merge(self.slices, port_name, protocol, family);
        let wants_local = addresses.values().any(|frontend| frontend.internal == Reach::Node);
        let mut endpoints = choose(known.iter());
        if endpoints.len() > SPAN_LEN_MAX as usize {
            self.problem(
                "",
                format!("has {} endpoints; the first {SPAN_LEN_MAX} are used", endpoints.len()),
            );
            endpoints.truncate(SPAN_LEN_MAX as usize);
        }
        let mut local = Vec::new();
        if wants_local {
            local = choose(known.iter().filter(|(_, endpoint)| endpoint.local));
            local.truncate(SPAN_LEN_MAX as usize);
        }
        let name =
            PortName { service: self.name.clone(), port: port_name.to_owned(), protocol, family };
        if name.to_abi().is_none() {
            self.problem("metadata.name", "is longer than 63 characters; not served");
            return;
        }
        if self.result.ports.iter().any(|port| port.name == name) {
            self.problem("spec.ports", format!("{port_name:?} names two ports; the first counts"));
            return;
        }
        let affinity_secs = self.affinity_secs();
        self.result.ports.push(Arc::new(ServicePort {
            name,
            addresses,
            endpoints,
            local,
            affinity_secs,
            source_ranges: BTreeSet::new(),
        }));
    }

    fn affinity_secs(&self) -> u32 {
        let Some(spec) = &self.service.spec else {
            return 0;
        };
        if spec.session_affinity.as_deref() != Some("ClientIP") {
            return 0;
        }
        (spec.session_affinity_config.as_ref())
            .and_then(|config| config.client_ip.as_ref())
            .and_then(|client_ip| client_ip.timeout_seconds)
            .and_then(|secs| u32::try_from(secs).ok())
            .unwrap_or(AFFINITY_SECS_DEFAULT)
    }
}

/// The endpoints of all slices that answer a port. One that several slices list, as while it moves
/// between them, is as good as the best they say of it.
fn merge(
    slices: &[&Slice],
    port_name: &str,
    protocol: Protocol,
    family: Family,
) -> BTreeMap<AddressPort, SliceEndpoint> {
    let mut merged: BTreeMap<AddressPort, SliceEndpoint> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.family == Some(family)) {
        let ports = (slice.ports.iter())
            .filter(|port| port.name == port_name && port.protocol == Some(protocol));
        for port in ports {
            for endpoint in &slice.endpoints {
                let at = AddressPort::from(SocketAddr::new(endpoint.ip, port.number));
                let known = merged.entry(at).or_insert(*endpoint);
                known.ready |= endpoint.ready;
                known.serving_terminating |= endpoint.serving_terminating;
                known.local |= endpoint.local;
            }
        }
    }
    merged
}

/// Ready endpoints; when there are none, those both serving and terminating (KEP-1669).
fn choose<'a>(
    from: impl Iterator<Item = (&'a AddressPort, &'a SliceEndpoint)> + Clone,
) -> Vec<Endpoint> {
    let placed = |(at, endpoint): (&AddressPort, &SliceEndpoint)| {
        Endpoint::new(at, if endpoint.local { Endpoint::ON_NODE } else { Endpoint::ELSEWHERE })
    };
    let ready: Vec<_> = from.clone().filter(|(_, endpoint)| endpoint.ready).map(placed).collect();
    if !ready.is_empty() {
        return ready;
    }
    from.filter(|(_, endpoint)| endpoint.serving_terminating).map(placed).collect()
}
