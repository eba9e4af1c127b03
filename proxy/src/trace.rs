//! What a connection to an address would get, and why: the kernel's decision, retold from its maps.

use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
    str::FromStr,
};

use podium_proxy_ebpf::{AddressPort, NoEndpoint, Origin, Protocol, ServiceKey, Span};

use crate::{
    model::{PortName, protocol_text},
    plan::{
        held::{Held, Snapshot},
        port_names,
    },
};

/// `ADDRESS:PORT`, `[ADDRESS]:PORT`, with `/tcp` or `/udp`.
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
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((at, "udp")) => (at, Protocol::Udp),
            Some((_, other)) => return Err(format!("protocol {other:?} is neither tcp nor udp")),
        };
        let at = at.parse().map_err(|_| format!("{at:?} is no ADDRESS:PORT"))?;
        Ok(Self { at, protocol })
    }
}

/// The decision, step by step.
#[derive(Debug)]
pub struct Trace {
    target: Target,
    steps: Vec<String>,
    outcome: String,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", protocol_text(self.target.protocol), self.target.at)?;
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        writeln!(f, "=> {}", self.outcome)
    }
}

/// Retells what the programs would do with a socket that connects to `target`.
pub fn trace(snapshot: &Snapshot, held: &Held, target: Target) -> Trace {
    let at = AddressPort::from(target.at);
    let key = ServiceKey::new(&at, target.protocol);
    let mut steps = Vec::new();
    let Some(entry) = held.entries.get(&key) else {
        steps.push("no service has this address, port and protocol".to_owned());
        let whole = held.entries.contains_key(&ServiceKey::whole_address(at.ip));
        let outcome = if whole {
            steps.push(others_at(held, &at));
            "refused at once (ECONNREFUSED): a ClusterIP, but none of its ports"
        } else {
            steps.push("the address is no ClusterIP".to_owned());
            "untouched: the connection goes to this very address"
        };
        return Trace { target, steps, outcome: outcome.to_owned() };
    };
    let names = port_names(held);
    let name = names.get(&entry.id).map_or("unknown".to_owned(), ToString::to_string);
    steps.push(format!("service {name} (id {})", entry.id));
    steps.push(format!("endpoints: {}", listed(snapshot, entry.endpoints)));
    if entry.local_only(Origin::Inside) {
        let local = listed(snapshot, entry.local);
        steps.push(format!("internalTrafficPolicy Local; of this node: {local}"));
    }
    match entry.affinity_secs {
        0 if target.protocol == Protocol::Udp => steps.push(
            "no session affinity; an unconnected socket stays with its endpoint for 120 s"
                .to_owned(),
        ),
        0 => steps.push("no session affinity".to_owned()),
        secs => steps.push(format!(
            "session affinity: each pod (network namespace) keeps its endpoint until it has not \
             used it for {secs} s or it is gone"
        )),
    }
    let outcome = match entry.candidates(Origin::Inside) {
        Err(NoEndpoint::Anywhere) => "refused at once (ECONNREFUSED): no endpoints".to_owned(),
        Err(NoEndpoint::OnThisNode) => {
            "fails at once (EHOSTUNREACH): there are endpoints, but none on this node".to_owned()
        }
        Ok(span) => match snapshot.spans.get(&span).map(Vec::as_slice) {
            Some([only]) => format!("goes to {}", only.at().socket_addr()),
            _ => format!("goes to one of these {} at random, all equally likely", span.len),
        },
    };
    Trace { target, steps, outcome }
}

fn listed(snapshot: &Snapshot, span: Span) -> String {
    let elements = snapshot.spans.get(&span).map_or(&[][..], Vec::as_slice);
    let mut text = String::new();
    for element in elements {
        let _ = write!(
            text,
            "{}{}",
            if text.is_empty() { "" } else { " " },
            element.at().socket_addr()
        );
    }
    if text.is_empty() {
        return "none".to_owned();
    }
    format!("{text} (span {}+{})", span.start, span.len)
}

fn others_at(held: &Held, at: &AddressPort) -> String {
    let names = port_names(held);
    let mut ports: Vec<String> = (held.entries.iter())
        .filter(|(key, _)| key.ip == at.ip && !key.is_whole_address())
        .map(|(key, entry)| {
            let name: Option<&&PortName> = names.get(&entry.id);
            let port = u16::from_be_bytes(key.port);
            match name {
                Some(name) => format!("{port}/{} ({name})", protocol_text(name.protocol)),
                None => port.to_string(),
            }
        })
        .collect();
    ports.sort();
    format!("ports of this ClusterIP: {}", ports.join(", "))
}
