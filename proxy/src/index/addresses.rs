//! Where a Service is reached: ClusterIPs, external and load-balancer addresses, node ports, and
//! what its traffic policies and source ranges make of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use podium_proxy_ebpf::{AddressPort, Family, FrontendKind};

use super::service::Service;
use crate::model::{Frontend, LocalNode, Reach, family_of};

/// `spec.loadBalancerSourceRanges` as it was given before that field existed; counts while the
/// field is empty.
pub const SOURCE_RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// Something wrong with a field, and what follows.
pub type FieldProblem = (String, String);

/// Where all ports of a Service are reached.
#[derive(Debug, Default)]
pub struct Addresses {
    /// Its ClusterIPs.
    pub cluster_ips: Vec<IpAddr>,
    /// What was wrong.
    pub problems: Vec<FieldProblem>,
    /// Addresses at which the Service's own port numbers count.
    by_ip: BTreeMap<IpAddr, Frontend>,
    /// Who may use its load-balancer addresses; `None`: everybody.
    source_ranges: Option<Vec<IpNet>>,
    families: Vec<Family>,
    has_node_ports: bool,
    external: Option<Reach>,
}

impl Addresses {
    /// Reads a Service.
    pub fn new(service: &Service) -> Self {
        let mut addresses = Self::default();
        let Some(spec) = &service.spec else {
            return addresses;
        };
        let reach = |policy: &Option<String>| match policy.as_deref() {
            Some("Local") => Reach::Node,
            _ => Reach::Cluster,
        };
        let (internal, external) =
            (reach(&spec.internal_traffic_policy), reach(&spec.external_traffic_policy));
        addresses.external = Some(external);
        let kind = spec.type_.as_deref();
        addresses.has_node_ports = matches!(kind, Some("NodePort" | "LoadBalancer"));
        let external_ips =
            addresses.parse("spec.externalIPs", spec.external_ips.as_deref().unwrap_or(&[]));
        addresses.add(external_ips, FrontendKind::ExternalIp, Reach::Cluster, external);
        if kind == Some("LoadBalancer") {
            addresses.read_source_ranges(service);
            let balancer_ips =
                addresses.parse("status.loadBalancer.ingress", &service.balancer_ips);
            addresses.add(balancer_ips, FrontendKind::LoadBalancer, Reach::Cluster, external);
        }
        let cluster_ips = addresses.read_cluster_ips(service);
        addresses.add(cluster_ips.clone(), FrontendKind::ClusterIp, internal, internal);
        addresses.families = families(service, &cluster_ips);
        addresses.cluster_ips = cluster_ips;
        addresses
    }

    /// Everywhere one port is reached in one family.
    pub fn of_port(
        &self,
        family: Family,
        number: u16,
        node_port: Option<u16>,
        node: &LocalNode,
    ) -> BTreeMap<AddressPort, Frontend> {
        let mut all = BTreeMap::new();
        if !self.families.contains(&family) {
            return all;
        }
        for (ip, frontend) in self.by_ip.iter().filter(|(ip, _)| family_of(**ip) == family) {
            all.insert(AddressPort::from(SocketAddr::new(*ip, number)), *frontend);
        }
        let Some(node_port) = node_port.filter(|_| self.has_node_ports) else {
            return all;
        };
        let external = self.external.unwrap_or(Reach::Cluster);
        let ips = node.nodeport_ips.iter().filter(|ip| family_of(**ip) == family);
        // Whoever is on the node gets Cluster behaviour, whatever the external traffic policy.
        for ip in ips {
            let frontend = Frontend {
                kind: FrontendKind::NodePort,
                internal: Reach::Cluster,
                external,
                restricted: false,
            };
            let at = AddressPort::from(SocketAddr::new(*ip, node_port));
            all.entry(at).or_insert(frontend);
        }
        let loopback = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        all.entry(AddressPort::from(SocketAddr::new(loopback, node_port))).or_insert(Frontend {
            kind: FrontendKind::LoopbackNodePort,
            internal: Reach::Cluster,
            external: Reach::Cluster,
            restricted: false,
        });
        all
    }

    /// Who may use the restricted addresses of a family; empty if none is restricted.
    pub fn source_ranges(&self, family: Family) -> BTreeSet<IpNet> {
        if !self.is_restricted(family) {
            return BTreeSet::new();
        }
        let all = self.source_ranges.iter().flatten();
        all.filter(|range| family_of(range.addr()) == family).copied().collect()
    }

    /// A range of prefix length 0 lets everybody in: its own family, and the other one if that has
    /// no ranges. Ranges of one family only let nobody of the other in.
    fn is_restricted(&self, family: Family) -> bool {
        let Some(ranges) = &self.source_ranges else {
            return false;
        };
        let mut own = ranges.iter().filter(|range| family_of(range.addr()) == family).peekable();
        if own.peek().is_some() {
            own.all(|range| range.prefix_len() > 0)
        } else {
            ranges.iter().all(|range| range.prefix_len() > 0)
        }
    }

    /// Later kinds win over earlier ones: a load balancer's source ranges must not be got around
    /// by naming its address a second time, and a ClusterIP is always that.
    fn add(&mut self, ips: Vec<IpAddr>, kind: FrontendKind, internal: Reach, external: Reach) {
        for ip in ips {
            let restricted =
                kind == FrontendKind::LoadBalancer && self.is_restricted(family_of(ip));
            self.by_ip.insert(ip, Frontend { kind, internal, external, restricted });
        }
    }

    fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push((field.into(), message.into()));
    }

    fn read_cluster_ips(&mut self, service: &Service) -> Vec<IpAddr> {
        let Some(spec) = &service.spec else {
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

    fn parse(&mut self, field: &str, texts: &[String]) -> Vec<IpAddr> {
        let mut ips = Vec::new();
        for text in texts.iter().filter(|text| !text.is_empty()) {
            match text.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
                Ok(ip) if !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast()) => {
                    ips.push(ip);
                }
                Ok(ip) => self.problem(
                    field,
                    format!("{ip} is no address a Service can have; not served at it"),
                ),
                Err(_) => {
                    self.problem(field, format!("{text:?} is no address; not served at it"));
                }
            }
        }
        ips
    }

    fn read_source_ranges(&mut self, service: &Service) {
        let given = (service.spec.as_ref())
            .and_then(|spec| spec.load_balancer_source_ranges.clone())
            .unwrap_or_default();
        let annotation = service.source_ranges.as_ref().filter(|text| !text.trim().is_empty());
        let texts: Vec<(String, &str)> = match annotation {
            _ if !given.is_empty() => (given.iter().enumerate())
                .map(|(at, text)| (format!("spec.loadBalancerSourceRanges[{at}]"), text.as_str()))
                .collect(),
            Some(text) => {
                let field = format!("metadata.annotations[{SOURCE_RANGES_ANNOTATION}]");
                text.split(',').map(|range| (field.clone(), range)).collect()
            }
            None => return,
        };
        let mut ranges = Vec::new();
        for (field, text) in texts {
            match text.trim().parse::<IpNet>() {
                Ok(range) => ranges.push(range.trunc()),
                Err(_) => self.problem(
                    field,
                    format!("{text:?} is no range of addresses; it lets nobody in"),
                ),
            }
        }
        self.source_ranges = Some(ranges);
    }
}

/// The families of a Service: those of its ClusterIPs; without one, those it asks for.
fn families(service: &Service, cluster_ips: &[IpAddr]) -> Vec<Family> {
    if !cluster_ips.is_empty() {
        return cluster_ips.iter().map(|ip| family_of(*ip)).collect();
    }
    let asked = service.spec.as_ref().and_then(|spec| spec.ip_families.as_deref()).unwrap_or(&[]);
    let asked: Vec<Family> = (asked.iter())
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    if asked.is_empty() { vec![Family::V4, Family::V6] } else { asked }
}
