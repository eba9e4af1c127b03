//! Rules as kube-proxy 1.34 writes them in nftables mode (KEP-3866), with `--cluster-cidr` given and all
//! else at its defaults: base chains and their priorities, maps, order of rules
//! (`pkg/proxy/nftables/proxier.go` of Kubernetes).

use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::bench::workload::{
    CLUSTER_CIDR, MASQUERADE_MARK, SERVICE_CIDR, SERVICE_PORT, ServicePort, Workload,
};

/// Elements and chains, by where they go.
#[derive(Default)]
struct Rules {
    endpoint_port: u16,
    chains: String,
    cluster_ips: String,
    ips: String,
    node_ports: String,
}

impl Workload {
    /// Input of `nft -f`, in place of what was there before. `node` is the address of node ports.
    pub fn nftables(&self, node: Ipv4Addr) -> String {
        let mut rules = Rules { endpoint_port: self.port, ..Rules::default() };
        for port in self.ports() {
            rules.add(&port);
        }
        let Rules { chains, cluster_ips, ips, node_ports, .. } = rules;
        format!(
            "table ip kube-proxy
delete table ip kube-proxy
table ip kube-proxy {{
set cluster-ips {{ type ipv4_addr; comment \"Active ClusterIPs\"; elements = {{ {cluster_ips} }} }}
set nodeport-ips {{ type ipv4_addr; comment \"IPs that accept NodePort traffic\"; elements = {{ {node} }} }}
chain mark-for-masquerade {{ mark set mark or {MASQUERADE_MARK}; }}
chain reject-chain {{ reject; }}
{chains}map firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}
map no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{
{ips}}} }}
map service-nodeports {{ type inet_proto . inet_service : verdict; elements = {{
{node_ports}}} }}
chain cluster-ips-check {{
ip daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\"
ip daddr {{ {SERVICE_CIDR} }} drop comment \"Drop traffic to unallocated ClusterIPs\"
}}
chain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}
chain nodeport-endpoints-check {{ ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}
chain service-endpoints-check {{ ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
chain services {{
ip daddr . meta l4proto . th dport vmap @service-ips
ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
}}
chain masquerading {{
mark and {MASQUERADE_MARK} == 0 return
mark set mark xor {MASQUERADE_MARK}
masquerade fully-random
}}
chain filter-prerouting-pre-dnat {{ type filter hook prerouting priority -110; ct state new jump firewall-check; }}
chain filter-output-pre-dnat {{ type filter hook output priority -110; ct state new jump firewall-check; }}
chain filter-forward {{ type filter hook forward priority 0; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }}
chain filter-input {{ type filter hook input priority 0; ct state new jump nodeport-endpoints-check; ct state new jump service-endpoints-check; }}
chain filter-output {{ type filter hook output priority 0; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }}
chain nat-output {{ type nat hook output priority -100; jump services; }}
chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}
chain nat-postrouting {{ type nat hook postrouting priority 100; jump masquerading; }}
}}
"
        )
    }
}

impl Rules {
    fn add(&mut self, port: &ServicePort<'_>) {
        let (ip, protocol) = (port.cluster_ip(), port.protocol.lower());
        // kube-proxy puts a hash of this length before the name.
        let tag =
            format!("{:08}-{}", port.number, port.name().replace(':', &format!("/{protocol}/")));
        if port.protocol.lower() == "tcp" {
            let _ = write!(self.cluster_ips, "{ip}, ");
        }
        let _ = writeln!(self.ips, "{ip} . {protocol} . {SERVICE_PORT} : goto service-{tag},");
        let mut choices = Vec::new();
        for (index, endpoint) in port.endpoints.iter().enumerate() {
            let to = format!("{endpoint}:{}", self.endpoint_port);
            let chain = format!("endpoint-{tag}__{endpoint}/{}", self.endpoint_port);
            let _ = writeln!(
                self.chains,
                "chain {chain} {{ ip saddr {endpoint} jump mark-for-masquerade; \
                 meta l4proto {protocol} dnat to {to}; }}"
            );
            choices.push(format!("{index} : goto {chain}"));
        }
        let _ = writeln!(
            self.chains,
            "chain service-{tag} {{ ip daddr {ip} \
             ip saddr != {CLUSTER_CIDR} jump mark-for-masquerade; \
             numgen random mod {} vmap {{ {} }}; }}",
            choices.len(),
            choices.join(", ")
        );
        if let Some(node_port) = port.node_port() {
            let _ = writeln!(self.node_ports, "{protocol} . {node_port} : goto external-{tag},");
            let _ = writeln!(
                self.chains,
                "chain external-{tag} {{ jump mark-for-masquerade; goto service-{tag}; }}"
            );
        }
    }
}
