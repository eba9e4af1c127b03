//! One decision as text or JSON. Pure.

use std::{fmt, net::SocketAddr};

use podium_proxy_ebpf::{AddressPort, Event, Outcome, Protocol};
use serde::Serialize;

use crate::model::{ObjectName, PortName, protocol_text};

/// Names of `podium_proxy_ebpf::Place`, in the order of their numbers.
const PLACES: [&str; 5] = ["socket", "uplink-ingress", "pod-ingress", "egress", "xdp"];

/// Copies an event out of the ring buffer; `None` for one of another version.
pub fn read(bytes: &[u8]) -> Option<Event> {
    if bytes.len() != size_of::<Event>() {
        return None;
    }
    // SAFETY: as long as an event, of which every bit pattern is a value.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}

/// The outcome of a name that [`outcome_text`] gives.
pub fn parse_outcome(text: &str) -> Result<Outcome, String> {
    (Outcome::ALL.into_iter()).find(|outcome| outcome_text(*outcome) == text).ok_or_else(|| {
        let all: Vec<String> = Outcome::ALL.into_iter().map(outcome_text).collect();
        format!("is none of {}", all.join(", "))
    })
}

/// An outcome's name, with dashes.
fn outcome_text(outcome: Outcome) -> String {
    let mut text = String::new();
    for char in format!("{outcome:?}").chars() {
        if char.is_ascii_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(char.to_ascii_lowercase());
    }
    text
}

/// What the event itself does not say.
#[derive(Debug, Default)]
pub struct Known {
    /// When it was.
    pub at: jiff::Timestamp,
    /// Whose id it names; `None` if nobody has it any more.
    pub service: Option<PortName>,
    /// The device's name.
    pub device: Option<String>,
}

/// A decision.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    at: jiff::Timestamp,
    place: String,
    protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<SocketAddr>,
    to: Option<SocketAddr>,
    outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
}

/// An address, or `None` where there is none.
fn present(at: &AddressPort) -> Option<SocketAddr> {
    (at.order() != (0, 0, 0)).then(|| at.socket_addr())
}

impl Line {
    /// From an event and what is known beside it.
    pub fn new(event: &Event, known: Known) -> Self {
        let place = PLACES.get(usize::from(event.place));
        let service = known.service;
        let name = |of: fn(&PortName) -> &str| service.as_ref().map(|name| of(name).to_owned());
        Self {
            at: known.at,
            place: place.map_or_else(|| format!("place-{}", event.place), |&text| text.to_owned()),
            protocol: Protocol::from_number(event.protocol).map_or_else(
                || format!("protocol-{}", event.protocol),
                |protocol| protocol_text(protocol).to_lowercase(),
            ),
            from: present(&event.before.from()),
            to: present(&event.before.to()),
            outcome: Outcome::from_number(event.outcome)
                .map_or_else(|| format!("outcome-{}", event.outcome), outcome_text),
            namespace: name(|name| &name.service.namespace),
            service: name(|name| &name.service.name),
            port: name(|name| &name.port).filter(|port| !port.is_empty()),
            endpoint: present(&event.endpoint),
            source: present(&event.source),
            device: known
                .device
                .or_else(|| (event.ifindex != 0).then(|| format!("device-{}", event.ifindex))),
        }
    }

    /// Whether it was about a Service.
    pub fn is_of(&self, service: &ObjectName) -> bool {
        self.namespace.as_ref() == Some(&service.namespace)
            && self.service.as_ref() == Some(&service.name)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, protocol, outcome, .. } = self;
        write!(f, "{} {place}", self.at.strftime("%H:%M:%S%.6f"))?;
        if let Some(device) = &self.device {
            write!(f, " {device}")?;
        }
        write!(f, " {protocol}")?;
        if let Some(from) = self.from {
            write!(f, " {from}")?;
        }
        if let Some(to) = self.to {
            write!(f, " -> {to}")?;
        }
        write!(f, " {outcome}")?;
        if let (Some(namespace), Some(service)) = (&self.namespace, &self.service) {
            write!(f, " {namespace}/{service}")?;
            if let Some(port) = &self.port {
                write!(f, ":{port}")?;
            }
        }
        if let Some(endpoint) = self.endpoint {
            write!(f, " endpoint {endpoint}")?;
        }
        if let Some(source) = self.source {
            write!(f, " source {source}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use podium_proxy_ebpf::{Family, Place, Tuple};

    use super::*;

    fn at(text: &str) -> AddressPort {
        match text {
            "" => AddressPort::new([0; 16], [0; 2]),
            text => AddressPort::from(text.parse::<SocketAddr>().unwrap()),
        }
    }

    fn event(place: Place, outcome: Outcome, from: &str, to: &str) -> Event {
        Event {
            at_ns: 0,
            before: Tuple::new(&at(from), &at(to)),
            service_id: 7,
            endpoint: at(""),
            source: at(""),
            protocol: Protocol::Udp as u8,
            outcome: outcome as u8,
            place: place as u8,
            has_service: 1,
            ifindex: 0,
        }
    }

    fn known(port: &str) -> Known {
        Known {
            at: "2026-01-02T03:04:05.678901234Z".parse().unwrap(),
            service: Some(PortName {
                service: ObjectName { namespace: "kube-system".into(), name: "dns".into() },
                port: port.to_owned(),
                protocol: Protocol::Udp,
                family: Family::V4,
            }),
            device: None,
        }
    }

    fn check(event: Event, known: Known, expected: Expect) {
        let line = Line::new(&event, known);
        expected.assert_eq(&format!("{line}\n{}\n", serde_json::to_string(&line).unwrap()));
    }

    #[test]
    fn a_socket() {
        let mut event = event(Place::Socket, Outcome::SocketConnected, "", "10.96.0.10:53");
        event.endpoint = at("10.1.0.2:5353");
        check(
            event,
            known("dns"),
            expect![[r#"
            03:04:05.678901 socket udp -> 10.96.0.10:53 socket-connected kube-system/dns:dns endpoint 10.1.0.2:5353
            {"at":"2026-01-02T03:04:05.678901234Z","place":"socket","protocol":"udp","to":"10.96.0.10:53","outcome":"socket-connected","namespace":"kube-system","service":"dns","port":"dns","endpoint":"10.1.0.2:5353"}
        "#]],
        );
    }

    #[test]
    fn a_packet_with_another_source() {
        let (from, to) = ("[2001:db8::1]:4000", "[2001:db8:1::1]:53");
        let mut event = event(Place::UplinkIngress, Outcome::FlowOpened, from, to);
        event.endpoint = at("[fd00::2]:5353");
        event.source = at("[fd00::1]:40001");
        event.ifindex = 3;
        let known = Known { device: Some("eth0".to_owned()), ..known("") };
        check(
            event,
            known,
            expect![[r#"
            03:04:05.678901 uplink-ingress eth0 udp [2001:db8::1]:4000 -> [2001:db8:1::1]:53 flow-opened kube-system/dns endpoint [fd00::2]:5353 source [fd00::1]:40001
            {"at":"2026-01-02T03:04:05.678901234Z","place":"uplink-ingress","protocol":"udp","from":"[2001:db8::1]:4000","to":"[2001:db8:1::1]:53","outcome":"flow-opened","namespace":"kube-system","service":"dns","endpoint":"[fd00::2]:5353","source":"[fd00::1]:40001","device":"eth0"}
        "#]],
        );
    }

    #[test]
    fn what_this_version_does_not_know() {
        let mut event = event(Place::Xdp, Outcome::Malformed, "", "192.0.2.1:80");
        (event.place, event.outcome, event.protocol, event.ifindex) = (9, 200, 47, 5);
        let known = Known { service: None, ..known("") };
        check(
            event,
            known,
            expect![[r#"
            03:04:05.678901 place-9 device-5 protocol-47 -> 192.0.2.1:80 outcome-200
            {"at":"2026-01-02T03:04:05.678901234Z","place":"place-9","protocol":"protocol-47","to":"192.0.2.1:80","outcome":"outcome-200","device":"device-5"}
        "#]],
        );
        assert!(read(&[0; 3]).is_none());
    }

    #[test]
    fn outcomes_by_name() {
        for outcome in Outcome::ALL {
            assert_eq!(parse_outcome(&outcome_text(outcome)), Ok(outcome));
        }
        assert!(parse_outcome("none").unwrap_err().contains("no-endpoints"));
    }
}
