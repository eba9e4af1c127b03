//! Reads what a program left: packets as one line of text, and how far each of their checksums is
//! off. Knows nothing of how the tests build packets.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    checksum,
    net::{self, Error, NAT_PORTS},
    packet::{DESTINATION, FRAGMENT, HOP_BY_HOP, ICMP, ICMP6, ROUTING, SCTP, TCP, UDP},
};

/// An IP packet taken apart.
pub struct Read<'a> {
    pub from: IpAddr,
    pub to: IpAddr,
    pub ttl: u8,
    pub tos: u8,
    pub protocol: u8,
    /// Numbers of the IPv6 extension headers; of IPv4 options, their length.
    pub extra: Vec<u8>,
    /// Identification, offset in bytes, whether more follow.
    pub fragment: Option<(u32, usize, bool)>,
    /// From the transport's header on, as far as it is there.
    pub transport: &'a [u8],
    /// Whether that is all the IP header promises.
    pub is_whole: bool,
    /// Delta of the IPv4 header's checksum.
    header_delta: u16,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl<'a> Read<'a> {
    /// An IP packet, or `None` if its headers do not hold together.
    pub fn ip(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::v4(bytes),
            6 => Self::v6(bytes),
            _ => None,
        }
    }

    /// The IP packet of a frame, with the tags before it.
    pub fn frame(bytes: &'a [u8]) -> Option<(Vec<u16>, Self)> {
        let (mut at, mut tags) = (12, Vec::new());
        while word(bytes, at)? == 0x8100 {
            tags.push(word(bytes, at + 2)?);
            at += 4;
        }
        Some((tags, Self::ip(bytes.get(at + 2..)?)?))
    }

    fn v4(bytes: &'a [u8]) -> Option<Self> {
        let header_len = usize::from(bytes[0] & 0xf) * 4;
        let header = bytes.get(..header_len.max(20))?;
        let len = usize::from(word(header, 2)?);
        let place = word(header, 6)?;
        let (offset, more) = (usize::from(place & 0x1fff) * 8, place & 0x2000 != 0);
        let id = u32::from(word(header, 4)?);
        let address = |at: usize| {
            let octets: [u8; 4] = header[at..at + 4].try_into().expect("four of them");
            IpAddr::from(Ipv4Addr::from(octets))
        };
        Some(Self {
            from: address(12),
            to: address(16),
            ttl: header[8],
            tos: header[1],
            protocol: header[9],
            extra: if header_len > 20 { vec![header_len as u8 - 20] } else { vec![] },
            fragment: (offset > 0 || more).then_some((id, offset, more)),
            transport: bytes.get(header_len..len.min(bytes.len()))?,
            is_whole: len <= bytes.len(),
            header_delta: checksum::internet_delta(header),
        })
    }

    fn v6(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..40)?;
        let len = 40 + usize::from(word(header, 4)?);
        let address = |at: usize| {
            let octets: [u8; 16] = header[at..at + 16].try_into().expect("sixteen of them");
            IpAddr::from(Ipv6Addr::from(octets))
        };
        let (mut protocol, mut at) = (header[6], 40);
        let (mut extra, mut fragment) = (Vec::new(), None);
        while matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
            extra.push(protocol);
            let mut header_len = (usize::from(*bytes.get(at + 1)?) + 1) * 8;
            if protocol == FRAGMENT {
                header_len = 8;
                let place = word(bytes, at + 2)?;
                let offset = usize::from(place & 0xfff8);
                fragment = Some((long(bytes, at + 4)?, offset, place & 1 != 0));
            }
            protocol = bytes[at];
            at += header_len;
            if fragment.is_some_and(|(_, offset, _)| offset > 0) {
                break;
            }
        }
        Some(Self {
            from: address(8),
            to: address(24),
            ttl: header[7],
            tos: (header[0] << 4) | (header[1] >> 4),
            protocol,
            extra,
            fragment,
            transport: bytes.get(at..len.min(bytes.len()))?,
            is_whole: len <= bytes.len(),
            header_delta: 0,
        })
    }

    fn inner(&self) -> Option<Self> {
        let kind = *self.transport.first()?;
        let is_error = match self.protocol {
            ICMP => matches!(kind, 3 | 4 | 11 | 12),
            ICMP6 => kind < 128,
            _ => false,
        };
        if is_error { Self::ip(self.transport.get(8..)?) } else { None }
    }

    pub fn ports(&self) -> Option<(u16, u16)> {
        let has = matches!(self.protocol, TCP | UDP | SCTP)
            && self.fragment.is_none_or(|(_, offset, _)| offset == 0);
        if has { Some((word(self.transport, 0)?, word(self.transport, 2)?)) } else { None }
    }

    /// Every checksum that can be checked, and how far it is off: 0 if it is right.
    pub fn deltas(&self) -> Vec<(String, u32)> {
        let mut deltas = vec![];
        if self.from.is_ipv4() {
            deltas.push(("IPv4 header".to_owned(), u32::from(self.header_delta)));
        }
        if self.is_whole && self.fragment.is_none() {
            deltas.extend(self.transport_delta());
        }
        if let Some(inner) = self.inner() {
            // Nobody looks at the CRC of a quoted packet (RFC 9260, 11.1.8: ports and tag count).
            let inner = inner.deltas().into_iter().filter(|(name, _)| name != "SCTP");
            deltas.extend(inner.map(|(name, delta)| (format!("inner {name}"), delta)));
        }
        deltas
    }

    fn transport_delta(&self) -> Option<(String, u32)> {
        let bytes = self.transport;
        let pseudo = || checksum::with_pseudo_header(self.from, self.to, self.protocol, bytes);
        let (name, delta) = match self.protocol {
            TCP if bytes.len() >= 20 => ("TCP", checksum::internet_delta(&pseudo())),
            UDP if word(bytes, 6)? == 0 => return None,
            UDP => ("UDP", checksum::internet_delta(&pseudo())),
            ICMP if bytes.len() >= 8 => ("ICMP", checksum::internet_delta(bytes)),
            ICMP6 if bytes.len() >= 8 => ("ICMPv6", checksum::internet_delta(&pseudo())),
            SCTP if bytes.len() >= 12 => {
                let stored = u32::from_le_bytes(bytes[8..12].try_into().ok()?);
                let mut bytes = bytes.to_vec();
                bytes[8..12].fill(0);
                return Some(("SCTP".to_owned(), stored ^ checksum::crc32c(&bytes)));
            }
            _ => return None,
        };
        Some((name.to_owned(), u32::from(delta)))
    }

    /// The packet in one line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let end = |ip: IpAddr, port: Option<u16>| match port {
            None => net::name(ip),
            Some(port) if NAT_PORTS.contains(&port) => format!("{}:nat", net::name(ip)),
            Some(port) => format!("{}:{port}", net::name(ip)),
        };
        let ports = self.ports();
        let from = end(self.from, ports.map(|ports| ports.0));
        let to = end(self.to, ports.map(|ports| ports.1));
        let _ = write!(text, "{from} > {to} ttl {}", self.ttl);
        if self.tos != 0 {
            let _ = write!(text, " tos {:#x}", self.tos);
        }
        if self.extra.iter().any(|number| *number != FRAGMENT) {
            text.push_str(" extra");
        }
        if let Some((id, offset, more)) = self.fragment {
            let more = if more { "+" } else { "" };
            let _ = write!(text, " fragment {id:#x}@{offset}{more}");
        }
        text.push(' ');
        text.push_str(&self.transport_text().unwrap_or_else(|| "truncated".to_owned()));
        text
    }

    fn transport_text(&self) -> Option<String> {
        let bytes = self.transport;
        if self.fragment.is_some_and(|(_, offset, _)| offset > 0) {
            return Some(format!("{} bytes of {}", bytes.len(), self.protocol));
        }
        Some(match self.protocol {
            TCP => {
                let flags = *bytes.get(13)?;
                let names = "FSRPAUEC".chars().enumerate();
                let flags: String = names
                    .filter(|(bit, _)| flags & (1 << bit) != 0)
                    .map(|(_, name)| name)
                    .collect();
                let (seq, ack) = (long(bytes, 4)?, long(bytes, 8)?);
                let data = bytes.len() as i64 - i64::from(bytes.get(12)? >> 4) * 4;
                format!("TCP {flags} {seq}/{ack} +{data}")
            }
            UDP => {
                let sum = if word(bytes, 6)? == 0 { " no checksum" } else { "" };
                format!("UDP {}{sum}", word(bytes, 4)?)
            }
            SCTP => {
                let chunk = *bytes.get(12)?;
                format!("SCTP {:x} chunk {chunk}/{}", long(bytes, 4)?, bytes.get(13)?)
            }
            ICMP | ICMP6 => {
                let inner = self.inner().map_or_else(String::new, |inner| {
                    format!(" about [{} ({} bytes)]", inner.text(), inner.transport.len())
                });
                let name = Error::name(self.from.is_ipv4(), *bytes.first()?, *bytes.get(1)?);
                format!("ICMP {name} {}{inner}", long(bytes, 4)?)
            }
            other => format!("protocol {other} len {}", bytes.len()),
        })
    }
}

/// The devices and neighbours of the tests, by their MAC addresses.
fn mac(bytes: &[u8]) -> String {
    match bytes {
        [2, 0, 0, 0, 0, 0xfe] => "router".to_owned(),
        [2, 0, 0, 0, 0, 0x01] => "node".to_owned(),
        [2, 0, 0, 0, 0, 0x02] => "peer".to_owned(),
        [2, 0, 0, 0, 1, 0x01] => "node'".to_owned(),
        [2, 0, 0, 0, 1, pod] => format!("pod{pod}"),
        other => format!("{other:02x?}"),
    }
}

/// A frame in one line.
pub fn text(frame: &[u8]) -> String {
    let Some(macs) = frame.get(..12) else { return "truncated".to_owned() };
    let mut text = format!("{} > {}: ", mac(&macs[6..]), mac(&macs[..6]));
    match Read::frame(frame) {
        None => text.push_str("truncated"),
        Some((tags, read)) => {
            for tag in tags {
                let _ = write!(text, "tag {tag:#x} ");
            }
            text.push_str(&read.text());
        }
    }
    text
}

/// See [`Read::deltas`].
pub fn deltas(frame: &[u8]) -> Vec<(String, u32)> {
    Read::frame(frame).map(|(_, read)| read.deltas()).unwrap_or_default()
}
