//! The services that everybody balances: the same list as manifests for Podium, as rules in the layout of
//! kube-proxy's iptables mode, and as rules in the layout of its nftables mode.
//!
//! The layouts follow what kube-proxy 1.34 writes for such services (KEP-3866 describes the second one).
//! Every service has endpoints of its own number, so that nothing is shared between services.

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

/// Services with their endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// How many services.
    pub services: usize,
    /// Where each of them leads.
    pub endpoints: Vec<Ipv4Addr>,
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

    /// The service to measure: rules are walked in their order, so the one in the middle is the mean.
    pub fn measured(&self) -> usize {
        self.services / 2
    }

    /// The same of those with a node port.
    pub fn measured_node_port(&self) -> usize {
        self.services.min(NODE_PORTS_MAX) / 2
    }

    /// Every service is for TCP, those that are measured for UDP too: rules for a second port of each
    /// service would make lists twice as long as the number of services says.
    fn protocols(&self, number: usize) -> &'static [Protocol] {
        if [self.measured(), self.measured_node_port()].contains(&number) {
            &Protocol::BOTH
        } else {
            &Protocol::BOTH[..1]
        }
    }

    fn name(number: usize) -> String {
        format!("s{number:05}")
    }

    /// Services and EndpointSlices as a stream of YAML documents.
    pub fn manifests(&self) -> String {
        let mut text = String::new();
        for number in 0..self.services {
            let (name, ip) = (Self::name(number), Self::cluster_ip(number));
            let node_port = Self::node_port(number);
            let kind = if node_port.is_some() { "NodePort" } else { "ClusterIP" };
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: bench}}\n\
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
                 namespace: bench, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\n\
                 ports:\n"
            );
            for protocol in self.protocols(number) {
                let (lower, upper, port) = (protocol.lower(), protocol.upper(), self.port);
                let _ = writeln!(text, "- {{name: {lower}, protocol: {upper}, port: {port}}}");
            }
            text.push_str("endpoints:\n");
            for endpoint in &self.endpoints {
                let _ =
                    writeln!(text, "- {{addresses: [{endpoint}], conditions: {{ready: true}}}}");
            }
        }
        text
    }

    /// Input of `iptables-restore`.
    pub fn iptables(&self) -> String {
        let mut chains = String::new();
        let (mut portals, mut node_ports, mut rules) =
            (String::new(), String::new(), String::new());
        for chain in ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"] {
            let _ = writeln!(chains, ":{chain} - [0:0]");
        }
        for number in 0..self.services {
            for protocol in self.protocols(number) {
                self.iptables_service(
                    number,
                    *protocol,
                    &mut chains,
                    &mut portals,
                    &mut node_ports,
                    &mut rules,
                );
            }
        }
        format!(
            "*filter\n:KUBE-FORWARD - [0:0]\n-A FORWARD -j KUBE-FORWARD\n\
             -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
             -A KUBE-FORWARD -m mark --mark {MASQUERADE_MARK}/{MASQUERADE_MARK} -j ACCEPT\n\
             -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n\
             *nat\n{chains}\
             -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
             -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
             -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
             -A KUBE-POSTROUTING -m mark ! --mark {MASQUERADE_MARK}/{MASQUERADE_MARK} -j RETURN\n\
             -A KUBE-POSTROUTING -j MARK --xor-mark {MASQUERADE_MARK}\n\
             -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n\
             -A KUBE-MARK-MASQ -j MARK --or-mark {MASQUERADE_MARK}\n\
             {portals}{node_ports}\
             -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
             {rules}COMMIT\n"
        )
    }

    fn iptables_service(
        &self,
        number: usize,
        protocol: Protocol,
        chains: &mut String,
        portals: &mut String,
        node_ports: &mut String,
        rules: &mut String,
    ) {
        let (name, ip, lower) = (Self::name(number), Self::cluster_ip(number), protocol.lower());
        let tag = format!("{}{name}", &protocol.upper()[..1]);
        let comment = format!("-m comment --comment bench/{name}:{lower}");
        let _ = writeln!(chains, ":KUBE-SVC-{tag} - [0:0]");
        let _ = writeln!(
            portals,
            "-A KUBE-SERVICES -d {ip}/32 -p {lower} {comment} -m {lower} --dport {SERVICE_PORT} \
             -j KUBE-SVC-{tag}"
        );
        if let Some(port) = Self::node_port(number) {
            let _ = writeln!(chains, ":KUBE-EXT-{tag} - [0:0]");
            let _ = writeln!(
                node_ports,
                "-A KUBE-NODEPORTS -p {lower} {comment} -m {lower} --dport {port} -j KUBE-EXT-{tag}"
            );
            let _ = writeln!(rules, "-A KUBE-EXT-{tag} {comment} -j KUBE-MARK-MASQ");
            let _ = writeln!(rules, "-A KUBE-EXT-{tag} -j KUBE-SVC-{tag}");
        }
        let count = self.endpoints.len();
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let left = count - index;
            let chance = match left {
                1 => String::new(),
                #[expect(clippy::cast_precision_loss, reason = "a service has few endpoints")]
                left => {
                    format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64)
                }
            };
            let _ = writeln!(chains, ":KUBE-SEP-{tag}{index} - [0:0]");
            let _ = writeln!(rules, "-A KUBE-SVC-{tag} {comment}{chance} -j KUBE-SEP-{tag}{index}");
            let _ = writeln!(
                rules,
                "-A KUBE-SEP-{tag}{index} -s {endpoint}/32 {comment} -j KUBE-MARK-MASQ"
            );
            let _ = writeln!(
                rules,
                "-A KUBE-SEP-{tag}{index} -p {lower} {comment} -m {lower} -j DNAT --to-destination \
                 {endpoint}:{}",
                self.port
            );
        }
    }

    /// Input of `nft -f`. `node` is the address of node ports.
    pub fn nftables(&self, node: Ipv4Addr) -> String {
        let (mut chains, mut ips, mut ports) = (String::new(), String::new(), String::new());
        for number in 0..self.services {
            let ip = Self::cluster_ip(number);
            for protocol in self.protocols(number) {
                let lower = protocol.lower();
                let tag = format!("{}-{lower}", Self::name(number));
                let _ = writeln!(ips, "{ip} . {lower} . {SERVICE_PORT} : goto service-{tag},");
                if let Some(port) = Self::node_port(number) {
                    let _ = writeln!(ports, "{lower} . {port} : goto external-{tag},");
                    let _ = writeln!(
                        chains,
                        "chain external-{tag} {{ jump mark-for-masquerade; goto service-{tag}; }}"
                    );
                }
                self.nftables_service(&tag, lower, &mut chains);
            }
        }
        format!(
            "table ip kube-proxy {{\n\
             chain mark-for-masquerade {{ meta mark set meta mark or {MASQUERADE_MARK}; }}\n\
             {chains}\
             map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{\n{ips}}} }}\n\
             map service-nodeports {{ type inet_proto . inet_service : verdict; elements = {{\n{ports}}} }}\n\
             set nodeport-ips {{ type ipv4_addr; elements = {{ {node} }} }}\n\
             chain services {{\n\
             ip daddr . meta l4proto . th dport vmap @service-ips\n\
             ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports\n}}\n\
             chain nat-output {{ type nat hook output priority -100; jump services; }}\n\
             chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}\n\
             chain nat-postrouting {{ type nat hook postrouting priority srcnat;\n\
             meta mark & {MASQUERADE_MARK} == 0 return\n\
             meta mark set meta mark xor {MASQUERADE_MARK}\n\
             masquerade fully-random\n}}\n}}\n"
        )
    }

    fn nftables_service(&self, tag: &str, protocol: &str, chains: &mut String) {
        let mut choices = String::new();
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let _ = writeln!(
                chains,
                "chain endpoint-{tag}-{index} {{ ip saddr {endpoint} jump mark-for-masquerade; \
                 meta l4proto {protocol} dnat to {endpoint}:{} }}",
                self.port
            );
            let _ = write!(choices, "{index} : goto endpoint-{tag}-{index}, ");
        }
        let _ = writeln!(
            chains,
            "chain service-{tag} {{ numgen random mod {} vmap {{ {choices}}} }}",
            self.endpoints.len()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Workload {
        let endpoints = vec![Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        Workload { services: 2, endpoints, port: 8080 }
    }

    #[test]
    fn every_service_leads_to_every_endpoint_in_every_layout() {
        let workload = two();
        let iptables = workload.iptables();
        // The second of the services is measured, and has a UDP port besides.
        assert_eq!(iptables.matches("-j DNAT").count(), 3 * 2);
        assert_eq!(iptables.matches("-A KUBE-SERVICES -d").count(), 3);
        assert!(iptables.contains("--probability 0.5000000000 -j KUBE-SEP-Ts000010"));
        let nftables = workload.nftables(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(nftables.matches("dnat to").count(), 3 * 2);
        assert!(nftables.contains("10.96.0.11 . udp . 80 : goto service-s00001-udp,"));
        let manifests = workload.manifests();
        assert_eq!(manifests.matches("addresses: [").count(), 2 * 2);
        assert!(manifests.contains("nodePort: 30001"));
    }

    #[test]
    fn addresses_stay_within_the_service_block() {
        assert_eq!(Workload::cluster_ip(0), Ipv4Addr::new(10, 96, 0, 10));
        assert_eq!(Workload::cluster_ip(9_999), Ipv4Addr::new(10, 96, 39, 25));
        assert_eq!(Workload::node_port(1_999), Some(31_999));
        assert_eq!(Workload::node_port(2_000), None);
    }
}
