//! The services that everybody balances: the same list as manifests for Podium, as rules in the layout of
//! kube-proxy's iptables mode, and as rules in the layout of its nftables mode.
//!
//! Every service has endpoints of its own, so that nothing is shared between services. One more service
//! than the number says is there for clients outside: its endpoints are on the other node.

mod iptables;
mod nftables;

use std::fmt::Write;
use std::net::Ipv4Addr;

/// Port of every service.
pub const SERVICE_PORT: u16 = 80;
/// First node port.
const NODE_PORT_FIRST: u16 = 30_000;
/// Only so many of the services have a node port, as there are ports.
const NODE_PORTS_MAX: usize = 2_000;
/// Mark for packets whose source is to be rewritten, as kube-proxy has it.
const MASQUERADE_MARK: &str = "0x4000";
/// Addresses of pods, as kube-proxy is told them by `--cluster-cidr`.
const CLUSTER_CIDR: &str = "10.244.0.0/16";
/// Addresses of services.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The namespace of the services.
const NAMESPACE: &str = "bench";

/// Services with their endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// How many services, not counting the one for clients outside.
    pub services: usize,
    /// Where each of them leads.
    pub endpoints: Vec<Ipv4Addr>,
    /// Where the one for clients outside leads.
    pub endpoints_elsewhere: Vec<Ipv4Addr>,
    /// The port that endpoints listen on.
    pub port: u16,
}

/// A protocol that is balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

    fn lower(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    fn upper(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        }
    }
}

/// A port of a service, which is what rules are about.
struct ServicePort<'a> {
    number: usize,
    protocol: Protocol,
    endpoints: &'a [Ipv4Addr],
}

impl ServicePort<'_> {
    /// As kube-proxy calls it in comments.
    fn name(&self) -> String {
        format!("{NAMESPACE}/{}:{}", Workload::name(self.number), self.protocol.lower())
    }

    fn cluster_ip(&self) -> Ipv4Addr {
        Workload::cluster_ip(self.number)
    }

    fn node_port(&self) -> Option<u16> {
        Workload::node_port(self.number)
    }
}

impl Workload {
    /// The cluster address of a service.
    pub fn cluster_ip(number: usize) -> Ipv4Addr {
        let [_, _, high, low] = u32::try_from(number + 10).unwrap_or(0).to_be_bytes();
        Ipv4Addr::new(10, 96, high, low)
    }

    /// The node port of a service, where it has one.
    pub fn node_port(number: usize) -> Option<u16> {
        let offset = u16::try_from(number).ok()?;
        (number < NODE_PORTS_MAX).then(|| NODE_PORT_FIRST + offset)
    }

    /// The service to measure from inside. kube-proxy writes rules in the order of a Go map, which is
    /// any, and rules are walked in their order: the one in the middle costs what the mean does.
    pub fn measured(&self) -> usize {
        self.services / 2
    }

    /// The service for clients outside, with its rules in the middle of those of node ports.
    pub fn outside(&self) -> usize {
        self.services.min(NODE_PORTS_MAX) / 2 + 1
    }

    /// The node port of the service for clients outside.
    pub fn outside_port(&self) -> u16 {
        Self::node_port(self.outside()).unwrap_or_default()
    }

    fn name(number: usize) -> String {
        format!("s{number:05}")
    }

    fn endpoints_of(&self, number: usize) -> &[Ipv4Addr] {
        if number == self.outside() { &self.endpoints_elsewhere } else { &self.endpoints }
    }

    /// Every service is for TCP, those that are measured for UDP too: rules for a second port of each
    /// service would make lists twice as long as the number of services says.
    fn protocols(&self, number: usize) -> &'static [Protocol] {
        if [self.measured(), self.outside()].contains(&number) {
            &Protocol::BOTH
        } else {
            &Protocol::BOTH[..1]
        }
    }

    fn ports(&self) -> impl Iterator<Item = ServicePort<'_>> {
        (0..=self.services).flat_map(|number| {
            let endpoints = self.endpoints_of(number);
            let port =
                move |protocol: &Protocol| ServicePort { number, protocol: *protocol, endpoints };
            self.protocols(number).iter().map(port)
        })
    }

    /// Services and EndpointSlices as a stream of YAML documents.
    pub fn manifests(&self) -> String {
        let mut text = String::new();
        for number in 0..=self.services {
            let (name, ip) = (Self::name(number), Self::cluster_ip(number));
            let node_port = Self::node_port(number);
            let kind = if node_port.is_some() { "NodePort" } else { "ClusterIP" };
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
                 spec:\n  type: {kind}\n  clusterIP: {ip}\n  clusterIPs: [{ip}]\n  ports:\n"
            );
            for protocol in self.protocols(number) {
                let (lower, upper) = (protocol.lower(), protocol.upper());
                let port = node_port.map(|port| format!(", nodePort: {port}")).unwrap_or_default();
                let _ = writeln!(
                    text,
                    "  - {{name: {lower}, protocol: {upper}, port: {SERVICE_PORT}{port}}}"
                );
            }
            let _ = write!(
                text,
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, \
                 namespace: {NAMESPACE}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
                 addressType: IPv4\nports:\n"
            );
            for protocol in self.protocols(number) {
                let (lower, upper, port) = (protocol.lower(), protocol.upper(), self.port);
                let _ = writeln!(text, "- {{name: {lower}, protocol: {upper}, port: {port}}}");
            }
            text.push_str("endpoints:\n");
            for endpoint in self.endpoints_of(number) {
                let _ =
                    writeln!(text, "- {{addresses: [{endpoint}], conditions: {{ready: true}}}}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Workload {
        let address = |last| Ipv4Addr::new(10, 0, 0, last);
        Workload {
            services: 2,
            endpoints: vec![address(1), address(2)],
            endpoints_elsewhere: vec![address(3), address(4)],
            port: 8080,
        }
    }

    #[test]
    fn every_service_leads_to_every_endpoint_in_every_layout() {
        let workload = two();
        // Two services and the one for clients outside. The measured ones have a UDP port besides.
        let iptables = workload.iptables();
        assert_eq!(iptables.matches("-j DNAT").count(), 5 * 2);
        assert_eq!(iptables.matches(" cluster IP\" -m tcp -p tcp -d 10.96.0.11").count(), 2);
        assert_eq!(iptables.matches("--probability 0.5000000000 -j KUBE-SEP-").count(), 5);
        assert_eq!(iptables.matches("-j DNAT --to-destination 10.0.0.3:8080").count(), 2);
        let nftables = workload.nftables(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(nftables.matches("dnat to").count(), 5 * 2);
        assert!(nftables.contains("10.96.0.12 . udp . 80 : goto service-"));
        let manifests = workload.manifests();
        assert_eq!(manifests.matches("addresses: [").count(), 3 * 2);
        assert!(manifests.contains("nodePort: 30002"));
    }

    #[test]
    fn measured_services_are_two_and_exist() {
        for services in [1, 100, 1_000, 10_000] {
            let workload = Workload { services, ..two() };
            assert_ne!(workload.measured(), workload.outside());
            assert!(workload.measured() < services && workload.outside() <= services);
            assert_ne!(workload.outside_port(), 0);
        }
    }

    #[test]
    fn addresses_stay_within_the_service_block() {
        assert_eq!(Workload::cluster_ip(0), Ipv4Addr::new(10, 96, 0, 10));
        assert_eq!(Workload::cluster_ip(10_000), Ipv4Addr::new(10, 96, 39, 26));
        assert_eq!(Workload::node_port(1_999), Some(31_999));
        assert_eq!(Workload::node_port(2_000), None);
    }
}
