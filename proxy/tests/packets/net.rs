//! Addresses by name, alike in both families: a fixture is written once and holds for both.

use std::net::{IpAddr, SocketAddr};

use podium_proxy_ebpf::Family;

use crate::packet::{Body, Packet};

/// Name, IPv4 and IPv6 address. Where they are: see `world`.
const NAMES: [(&str, &str, &str); 16] = [
    ("client", "198.51.100.9", "2001:db8:9::9"),
    ("client2", "198.51.100.77", "2001:db8:9::77"),
    ("gateway", "192.0.2.254", "2001:db8:2::fe"),
    ("node", "192.0.2.1", "2001:db8:2::1"),
    ("peer", "192.0.2.2", "2001:db8:2::2"),
    ("pod", "10.244.1.5", "fd00:244:1::5"),
    ("pod2", "10.244.1.6", "fd00:244:1::6"),
    ("far", "10.244.2.7", "fd00:244:2::7"),
    ("far2", "10.244.2.8", "fd00:244:2::8"),
    ("cluster", "10.96.0.10", "fd00:96::10"),
    ("nobody", "10.96.7.7", "fd00:96::707"),
    ("balancer", "203.0.113.10", "2001:db8:3::10"),
    ("nowhere", "10.250.0.1", "fd00:250::1"),
    ("silent", "192.0.2.77", "2001:db8:2::77"),
    ("loopback", "127.0.0.1", "::1"),
    ("external", "203.0.113.20", "2001:db8:3::20"),
];

/// Ports that the node rewrites sources to.
pub const NAT_PORTS: std::ops::Range<u16> = 20_000..21_000;

/// The name of an address, or the address.
pub fn name(ip: IpAddr) -> String {
    let text = ip.to_string();
    let known = NAMES.iter().find(|(_, v4, v6)| text == *v4 || text == *v6);
    known.map_or(text, |(name, _, _)| (*name).to_owned())
}

/// A family to write packets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net(pub Family);

pub const FAMILIES: [Net; 2] = [Net(Family::V4), Net(Family::V6)];

impl Net {
    pub fn is_v4(self) -> bool {
        self.0 == Family::V4
    }

    pub fn ip(self, name: &str) -> IpAddr {
        let known = NAMES.iter().find(|(known, _, _)| *known == name);
        let (_, v4, v6) = known.unwrap_or_else(|| panic!("who is {name}?"));
        if self.is_v4() { v4.parse().unwrap() } else { v6.parse().unwrap() }
    }

    /// From `name:port`, or `name` for port 0.
    pub fn at(self, text: &str) -> SocketAddr {
        let (name, port) = text.split_once(':').unwrap_or((text, "0"));
        SocketAddr::new(self.ip(name), port.parse().unwrap())
    }

    pub fn packet(self, from: &str, to: &str, body: Body) -> Packet {
        Packet::new(self.at(from), self.at(to), body)
    }

    pub fn tcp(self, from: &str, to: &str, flags: u8) -> Packet {
        Packet::tcp(self.at(from), self.at(to), flags)
    }

    pub fn udp(self, from: &str, to: &str, data: &[u8]) -> Packet {
        Packet::udp(self.at(from), self.at(to), data)
    }

    pub fn sctp(self, from: &str, to: &str, chunk: u8, value: &[u8]) -> Packet {
        Packet::sctp(self.at(from), self.at(to), chunk, value)
    }

    /// An ICMP error of this family, see [`Packet::icmp_error`].
    pub fn error(
        self,
        kind: Error,
        (from, to): (&str, &str),
        about: &Packet,
        len: usize,
    ) -> Packet {
        let (numbers, rest) = kind.numbers(self.is_v4());
        Packet::icmp_error(self.at(from), self.at(to), numbers, rest, about, len)
    }

    /// Bytes of an IP header without options or extensions.
    pub fn header_len(self) -> usize {
        if self.is_v4() { 20 } else { 40 }
    }
}

/// The errors that matter to translated packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    PortUnreachable,
    HostUnreachable,
    TooBig,
    TimeExceeded,
}

impl Error {
    pub const ALL: [Self; 4] =
        [Self::PortUnreachable, Self::HostUnreachable, Self::TooBig, Self::TimeExceeded];

    /// Type and code, and the word after the checksum.
    const fn numbers(self, is_v4: bool) -> ((u8, u8), u32) {
        match (self, is_v4) {
            (Self::PortUnreachable, true) => ((3, 3), 0),
            (Self::PortUnreachable, false) => ((1, 4), 0),
            (Self::HostUnreachable, true) => ((3, 1), 0),
            (Self::HostUnreachable, false) => ((1, 3), 0),
            (Self::TooBig, true) => ((3, 4), 1400),
            (Self::TooBig, false) => ((2, 0), 1400),
            (Self::TimeExceeded, true) => ((11, 0), 0),
            (Self::TimeExceeded, false) => ((3, 0), 0),
        }
    }

    /// What an ICMP message is called.
    pub fn name(is_v4: bool, kind: u8, code: u8) -> String {
        let known = Self::ALL.iter().find(|error| error.numbers(is_v4).0 == (kind, code));
        known.map_or_else(|| format!("{kind}/{code}"), |error| format!("{error:?}"))
    }
}
