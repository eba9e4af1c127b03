//! What a connection or a packet to an address would get, and why: the kernel's decision, retold
//! from its maps.

mod choice;

use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
    str::FromStr,
};

use podium_proxy_ebpf::{
    AddressPort, Config, Family, FrontendKind, NoEndpoint, Origin, Protocol, ServiceEntry,
    ServiceKey, Span, flags,
};

use crate::{
    model::{family_of, protocol_text},
    plan::{
        held::{Held, HeldPort, Snapshot},
        port_names, ranges,
    },
};

/// `ADDRESS:PORT`, `[ADDRESS]:PORT`, with `/tcp`, `/udp` or `/sctp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The address.
    pub at: SocketAddr,
    /// The protocol.
    pub protocol: Protocol,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (at, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((at, "tcp")) => (at, Protocol::Tcp),
            Some((at, "udp")) => (at, Protocol::Udp),
            Some((at, "sctp")) => (at, Protocol::Sctp),
            Some((_, other)) => {
                return Err(format!("protocol {other:?} is none of tcp, udp and sctp"));
            }
        };
        let at = at.parse().map_err(|_| format!("{at:?} is no ADDRESS:PORT"))?;
        Ok(Self { at, protocol })
    }
}

/// How traffic comes to the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    /// A socket of this node or of one of its pods connects.
    #[default]
    Socket,
    /// A packet comes out of the device of a pod of this node.
    Pod,
    /// A packet comes in from another machine.
    Uplink,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Where to.
    pub target: Target,
    /// Where from, if that is to be considered.
    pub from: Option<SocketAddr>,
    /// Which way.
    pub via: Via,
}

impl Query {
    const fn origin(&self) -> Origin {
        match self.via {
            Via::Socket | Via::Pod => Origin::Inside,
            Via::Uplink => Origin::Outside,
        }
    }

    /// How the client learns that it is refused.
    fn refusal(&self) -> &'static str {
        match (self.via, self.target.protocol) {
            (Via::Socket, Protocol::Tcp | Protocol::Udp) => "refused at once (ECONNREFUSED)",
            (Via::Socket, Protocol::Sctp) => "its packets are refused (ICMP port unreachable)",
            (_, Protocol::Tcp) => "refused at once (TCP RST)",
            (_, Protocol::Udp | Protocol::Sctp) => "refused at once (ICMP port unreachable)",
        }
    }
}

/// The decision, step by step.
#[derive(Debug)]
pub struct Trace {
    query: Query,
    steps: Vec<String>,
    outcome: String,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Query { target, from, via } = self.query;
        write!(f, "{} ", protocol_text(target.protocol))?;
        if let Some(from) = from {
            write!(f, "{from} -> ")?;
        }
        write!(f, "{}", target.at)?;
        match via {
            Via::Socket => writeln!(f)?,
            Via::Pod => writeln!(f, ", a packet of a pod of this node")?,
            Via::Uplink => writeln!(f, ", a packet from another machine")?,
        }
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        writeln!(f, "=> {}", self.outcome)
    }
}

/// Retells what the programs would do.
pub fn trace(snapshot: &Snapshot, held: &Held, config: &Config, query: Query) -> Trace {
    let mut tracer = Tracer { snapshot, held, config, query, steps: Vec::new() };
    let outcome = match tracer.decide() {
        Ok(outcome) | Err(outcome) => outcome,
    };
    Trace { query, steps: tracer.steps, outcome }
}

struct Tracer<'a> {
    snapshot: &'a Snapshot,
    held: &'a Held,
    config: &'a Config,
    query: Query,
    steps: Vec<String>,
}

impl Tracer<'_> {
    fn step(&mut self, text: impl Into<String>) {
        self.steps.push(text.into());
    }

    /// The outcome; as an error where it ends the way early.
    fn decide(&mut self) -> Result<String, String> {
        let at = AddressPort::from(self.query.target.at);
        let key = ServiceKey::new(&at, self.query.target.protocol);
        let Some(entry) = self.held.entries.get(&key).copied() else {
            return Err(self.miss(&at));
        };
        let port = self.held.ports.values().find(|port| port.id == entry.id);
        let name = port.map_or("unknown".to_owned(), |port| port.content.name.to_string());
        let kind = FrontendKind::from_flags(entry.flags).map_or("unknown", kind_text);
        self.step(format!("service {name} (id {}), at a {kind} address", entry.id));
        self.admit(&entry, port)?;
        self.step(format!("endpoints: {}", self.listed(entry.endpoints)));
        let origin = self.query.origin();
        if entry.local_only(origin) {
            let policy = match origin {
                Origin::Inside => "internalTrafficPolicy",
                Origin::Outside => "externalTrafficPolicy",
            };
            self.step(format!("{policy} Local; of this node: {}", self.listed(entry.local)));
        }
        self.affinity(&entry);
        let span = entry.candidates(origin).map_err(|none| match (none, self.query.via) {
            (NoEndpoint::Anywhere, _) => format!("{}: no endpoints", self.query.refusal()),
            (NoEndpoint::OnThisNode, Via::Socket) => {
                "fails at once (EHOSTUNREACH): there are endpoints, but none on this node".into()
            }
            (NoEndpoint::OnThisNode, _) => {
                "dropped: there are endpoints, but none on this node".into()
            }
        })?;
        Ok(self.choose(&entry, port, span))
    }

    /// No service has this very address, port and protocol.
    fn miss(&mut self, at: &AddressPort) -> String {
        self.step("no service has this address, port and protocol");
        if self.held.entries.contains_key(&ServiceKey::whole_address(at.ip)) {
            self.step(others_at(self.held, at));
            return format!("{}: a ClusterIP, but none of its ports", self.query.refusal());
        }
        self.step("the address is no ClusterIP");
        if self.config.service_cidrs.iter().any(|cidr| cidr.contains(&at.ip)) {
            return "dropped: within the blocks of ClusterIPs, but nobody's".to_owned();
        }
        match self.query.via {
            Via::Socket => "untouched: the connection goes to this very address".to_owned(),
            Via::Pod | Via::Uplink => "untouched: the packet goes on to this very address".into(),
        }
    }

    /// Who may come here at all.
    fn admit(&mut self, entry: &ServiceEntry, port: Option<&HeldPort>) -> Result<(), String> {
        if entry.flags & flags::HOST_ONLY != 0 {
            if self.query.via != Via::Socket {
                return Err("untouched: only sockets of the host's own network namespace".into());
            }
            self.step(
                "only for sockets of the host's own network namespace, others go on untouched",
            );
        }
        if entry.flags & flags::SOURCE_RANGES == 0 {
            return Ok(());
        }
        let shown: Vec<String> = port.map_or_else(Vec::new, |port| {
            let ranges = port.source_ranges.iter().filter_map(ranges::from_abi);
            ranges.map(|range| range.to_string()).collect()
        });
        self.step(format!("loadBalancerSourceRanges: {}", shown.join(" ")));
        let allows =
            |ip: [u8; 16]| port.is_some_and(|port| ranges::allow(&port.source_ranges, &ip));
        if self.query.via == Via::Socket {
            self.step("a pod's packets are judged when they come out of its device (--via pod)");
            if allows(self.config.node_v4) || allows(self.config.node_v6) {
                self.step("the host may come: the node's address is among them");
                return Ok(());
            }
            return Err(
                "fails at once (EHOSTUNREACH) for the host: the node's address is not among them"
                    .to_owned(),
            );
        }
        match self.query.from {
            None => self.step("who is not among them is dropped; --from says who it is"),
            Some(from) if allows(AddressPort::from(from).ip) => {
                self.step("the source is among them");
            }
            Some(_) => return Err("dropped: the source is not among them".to_owned()),
        }
        Ok(())
    }

    fn affinity(&mut self, entry: &ServiceEntry) {
        let is_socket = self.query.via == Via::Socket;
        self.step(match entry.affinity_secs {
            0 if is_socket && self.query.target.protocol == Protocol::Udp => {
                "no session affinity; an unconnected socket stays with its endpoint for 120 s"
                    .into()
            }
            0 => "no session affinity".to_owned(),
            secs => format!(
                "session affinity: each {} keeps its endpoint until it has not used it for {secs} \
                 s or it is gone",
                if is_socket { "pod (network namespace)" } else { "client address" }
            ),
        });
    }

    fn listed(&self, span: Span) -> String {
        let elements = self.snapshot.spans.get(&span).map_or(&[][..], Vec::as_slice);
        let mut text = String::new();
        for element in elements {
            let space = if text.is_empty() { "" } else { " " };
            let _ = write!(text, "{space}{}", element.at().socket_addr());
        }
        if text.is_empty() {
            return "none".to_owned();
        }
        format!("{text} (span {}+{})", span.start, span.len)
    }

    /// What sources of the target's family are rewritten to.
    fn node_address(&self) -> Option<std::net::IpAddr> {
        let ip = match family_of(self.query.target.at.ip().to_canonical()) {
            Family::V4 => self.config.node_v4,
            Family::V6 => self.config.node_v6,
        };
        (ip != [0; 16]).then(|| podium_proxy_ebpf::address::unmap(ip))
    }
}

/// What an address is, in the words of the API.
pub const fn kind_text(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "ClusterIP",
        FrontendKind::ExternalIp => "ExternalIP",
        FrontendKind::LoadBalancer => "LoadBalancer",
        FrontendKind::NodePort => "NodePort",
        FrontendKind::LoopbackNodePort => "loopback NodePort",
    }
}

fn others_at(held: &Held, at: &AddressPort) -> String {
    let names = port_names(held);
    let mut ports: Vec<String> = (held.entries.iter())
        .filter(|(key, _)| key.ip == at.ip && !key.is_whole_address())
        .map(|(key, entry)| {
            let port = u16::from_be_bytes(key.port);
            match names.get(&entry.id) {
                Some(name) => format!("{port}/{} ({name})", protocol_text(name.protocol)),
                None => port.to_string(),
            }
        })
        .collect();
    ports.sort();
    format!("ports of this ClusterIP: {}", ports.join(", "))
}
