//! Rules as kube-proxy 1.34 writes them in iptables mode, with `--cluster-cidr` given and all else at its
//! defaults: chains, order of rules, marks and comments (`pkg/proxy/iptables/proxier.go` of Kubernetes).

use std::fmt::Write;

use crate::bench::workload::{CLUSTER_CIDR, MASQUERADE_MARK, SERVICE_PORT, ServicePort, Workload};

/// With more endpoints than this, kube-proxy leaves comments out of the rules of endpoints.
const COMMENTED_ENDPOINTS_MAX: usize = 1_000;

/// Hooks of the filter table. kube-proxy puts each of its jumps before those it made earlier.
const FILTER: &str = "*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m comment --comment \"block incoming localnet connections\" -d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark MARK/MARK -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

/// What does not depend on services, of the nat table.
const NAT: &str = "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark MARK/MARK -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark MARK
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark MARK
";

impl Workload {
    /// Input of `iptables-restore`.
    pub fn iptables(&self) -> String {
        let endpoints: usize = self.ports().map(|port| port.endpoints.len()).sum();
        let mut rules = Rules {
            endpoint_port: self.port,
            with_comments: endpoints <= COMMENTED_ENDPOINTS_MAX,
            ..Rules::default()
        };
        for chain in ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"] {
            let _ = writeln!(rules.chains, ":{chain} - [0:0]");
        }
        for port in self.ports() {
            rules.add(&port);
        }
        let Rules { chains, portals, node_ports, others, .. } = rules;
        let (filter, nat) = (
            FILTER.replace("MARK/MARK", &format!("{MASQUERADE_MARK}/{MASQUERADE_MARK}")),
            marked(),
        );
        format!(
            "{filter}*nat\n{chains}{nat}{node_ports}{portals}\
             -A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be \
             the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
             {others}COMMIT\n"
        )
    }
}

/// The mark in the place of its name; names of chains hold the same word.
fn marked() -> String {
    NAT.replace("MARK/MARK", &format!("{MASQUERADE_MARK}/{MASQUERADE_MARK}"))
        .replace("-mark MARK", &format!("-mark {MASQUERADE_MARK}"))
}

/// Rules of the nat table, by where they go.
#[derive(Default)]
struct Rules {
    endpoint_port: u16,
    with_comments: bool,
    chains: String,
    portals: String,
    node_ports: String,
    others: String,
}

impl Rules {
    fn add(&mut self, port: &ServicePort<'_>) {
        let (name, ip, protocol) = (port.name(), port.cluster_ip(), port.protocol.lower());
        // kube-proxy's are hashes of this length.
        let tag = format!("{}{:015}", &port.protocol.upper()[..1], port.number);
        let _ = writeln!(self.chains, ":KUBE-SVC-{tag} - [0:0]");
        let matched = format!("-m {protocol} -p {protocol} -d {ip} --dport {SERVICE_PORT}");
        let _ = writeln!(
            self.portals,
            "-A KUBE-SERVICES -m comment --comment \"{name} cluster IP\" {matched} -j KUBE-SVC-{tag}"
        );
        let _ = writeln!(
            self.others,
            "-A KUBE-SVC-{tag} -m comment --comment \"{name} cluster IP\" {matched} \
             ! -s {CLUSTER_CIDR} -j KUBE-MARK-MASQ"
        );
        if let Some(node_port) = port.node_port() {
            let _ = writeln!(self.chains, ":KUBE-EXT-{tag} - [0:0]");
            let _ = writeln!(
                self.node_ports,
                "-A KUBE-NODEPORTS -m comment --comment {name} -m {protocol} -p {protocol} \
                 --dport {node_port} -j KUBE-EXT-{tag}"
            );
            let _ = writeln!(
                self.others,
                "-A KUBE-EXT-{tag} -m comment --comment \"masquerade traffic for {name} external \
                 destinations\" -j KUBE-MARK-MASQ\n-A KUBE-EXT-{tag} -j KUBE-SVC-{tag}"
            );
        }
        self.add_endpoints(port, &tag);
    }

    fn add_endpoints(&mut self, port: &ServicePort<'_>, tag: &str) {
        let (name, protocol) = (port.name(), port.protocol.lower());
        let comment = |text: &str| {
            if self.with_comments { format!("-m comment --comment {text} ") } else { String::new() }
        };
        for (index, endpoint) in port.endpoints.iter().enumerate() {
            let to = format!("{endpoint}:{}", self.endpoint_port);
            let chance = match port.endpoints.len() - index {
                1 => String::new(),
                #[expect(clippy::cast_precision_loss, reason = "a service has few endpoints")]
                left => {
                    format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64)
                }
            };
            let chain = format!("KUBE-SEP-{tag}{index:02}");
            let _ = writeln!(self.chains, ":{chain} - [0:0]");
            let way = comment(&format!("\"{name} -> {to}\""));
            let _ = writeln!(self.others, "-A KUBE-SVC-{tag} {way}{chance}-j {chain}");
            let own = comment(&name);
            let _ = writeln!(
                self.others,
                "-A {chain} {own}-s {endpoint} -j KUBE-MARK-MASQ\n\
                 -A {chain} {own}-m {protocol} -p {protocol} -j DNAT --to-destination {to}"
            );
        }
    }
}
