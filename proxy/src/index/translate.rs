//! One Service and its slices into service ports.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use podium_proxy_ebpf::{Family, Protocol, choice::SPAN_LEN_MAX};

use super::{
    addresses::Addresses,
    choice::{self, Candidates},
    object::PortSpec,
    service::Service,
    slice::{Slice, protocol},
};
use crate::model::{
    HealthCheck, LocalNode, ObjectName, PortName, Problem, Reach, ServicePort, protocol_text,
};

/// Services with this label belong to another proxy (KEP-2447).
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// `sessionAffinityConfig.clientIP.timeoutSeconds` where it is not set.
const AFFINITY_SECS_DEFAULT: u32 = 10_800;

/// What became of one Service.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// Its ports, one for each family.
    pub ports: Vec<Arc<ServicePort>>,
    /// Its ClusterIPs.
    pub cluster_ips: Vec<IpAddr>,
    /// Where load balancers ask for its health here.
    pub health_check: Option<(u16, HealthCheck)>,
    /// What was wrong with it.
    pub problems: Vec<Problem>,
    /// When it was created; decides who keeps an address two Services want.
    pub created_unix_ms: i64,
}

impl Translated {
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
pub fn translate(
    name: &ObjectName,
    service: &Service,
    slices: &[&Slice],
    node: &LocalNode,
) -> Translated {
    let addresses = Addresses::default();
    let result = Translated::default();
    let mut work = Translation { name, service, slices, node, addresses, result };
    work.result.created_unix_ms = service.created_unix_ms;
    if !work.skipped() {
        work.run();
    }
    work.result
}

struct Translation<'a> {
    name: &'a ObjectName,
    service: &'a Service,
    slices: &'a [&'a Slice],
    node: &'a LocalNode,
    addresses: Addresses,
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
        let Some(spec) = &self.service.spec else {
            return true;
        };
        self.service.is_of_other_proxy
            || spec.type_.as_deref() == Some("ExternalName")
            || spec.cluster_ip.as_deref() == Some("None")
            || spec.cluster_ips.iter().flatten().any(|ip| ip == "None")
    }

    fn run(&mut self) {
        let Some(spec) = &self.service.spec else {
            return;
        };
        self.addresses = Addresses::new(self.service);
        for (field, message) in std::mem::take(&mut self.addresses.problems) {
            self.problem(field, message);
        }
        self.result.cluster_ips.clone_from(&self.addresses.cluster_ips);
        let mut seen = BTreeSet::new();
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            let Some(port) = self.port(index, port) else {
                continue;
            };
            if !seen.insert((port.number, port.protocol)) {
                let Port { number, protocol, .. } = port;
                self.problem(
                    format!("spec.ports[{index}]"),
                    format!("{number}/{protocol:?} is there twice; the first one counts"),
                );
                continue;
            }
            for family in [Family::V4, Family::V6] {
                self.add(&port, family);
            }
        }
        self.health_check();
    }

    /// Load balancers ask for it where they must find the nodes with endpoints.
    fn health_check(&mut self) {
        let Some(spec) = &self.service.spec else {
            return;
        };
        let asks = spec.type_.as_deref() == Some("LoadBalancer")
            && spec.external_traffic_policy.as_deref() == Some("Local");
        let Some(number) = spec.health_check_node_port.filter(|number| asks && *number != 0) else {
            return;
        };
        let Some(port) = port_number(number) else {
            let message = format!("{number} is not between 1 and 65535; not served");
            self.problem("spec.healthCheckNodePort", message);
            return;
        };
        let local_endpoints = choice::local_ready(self.slices);
        let check = HealthCheck { service: self.name.clone(), local_endpoints };
        self.result.health_check = Some((port, check));
    }

    fn port(&mut self, index: usize, port: &PortSpec) -> Option<Port> {
        let field = format!("spec.ports[{index}]");
        let Some(number) = port_number(port.port) else {
            let message = format!("{} is not between 1 and 65535; port ignored", port.port);
            self.problem(format!("{field}.port"), message);
            return None;
        };
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            let name = port.protocol.as_deref().unwrap_or("");
            let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(protocol_text);
            self.problem(
                format!("{field}.protocol"),
                format!("{name:?} is none of {}; port ignored", known.join(", ")),
            );
            return None;
        };
        let node_port = port.node_port.filter(|number| *number != 0);
        if let Some(number) = node_port.filter(|number| port_number(*number).is_none()) {
            let message = format!("{number} is not between 1 and 65535; node port ignored");
            self.problem(format!("{field}.nodePort"), message);
        }
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            number,
            protocol,
            node_port: node_port.and_then(port_number),
        })
    }

    fn add(&mut self, port: &Port, family: Family) {
        let &Port { ref name, number, protocol, node_port } = port;
        let addresses = self.addresses.of_port(family, number, node_port, self.node);
        if addresses.is_empty() {
            return;
        }
        let name = PortName { service: self.name.clone(), port: name.clone(), protocol, family };
        if name.to_abi().is_none() {
            self.problem("metadata.name", "is longer than 63 characters; not served");
            return;
        }
        if self.result.ports.iter().any(|port| port.name == name) {
            let message = format!("{:?} names two ports; the first counts", name.port);
            self.problem("spec.ports", message);
            return;
        }
        let candidates = Candidates::new(self.slices, &name.port, protocol, family, self.node);
        let mut endpoints = candidates.of_cluster();
        if endpoints.len() > SPAN_LEN_MAX as usize {
            self.problem(
                "",
                format!("has {} endpoints; the first {SPAN_LEN_MAX} are used", endpoints.len()),
            );
            endpoints.truncate(SPAN_LEN_MAX as usize);
        }
        let wants_local = (addresses.values())
            .any(|frontend| [frontend.internal, frontend.external].contains(&Reach::Node));
        let mut local = if wants_local { candidates.of_node() } else { Vec::new() };
        local.truncate(SPAN_LEN_MAX as usize);
        let affinity_secs = self.affinity_secs();
        let source_ranges = self.addresses.source_ranges(family);
        self.result.ports.push(Arc::new(ServicePort {
            name,
            addresses,
            endpoints,
            local,
            affinity_secs,
            source_ranges,
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

/// A port of the Service that can be served.
struct Port {
    name: String,
    number: u16,
    protocol: Protocol,
    node_port: Option<u16>,
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number > 0)
}
