//! Packets, built from their fields. What a test does not name is ordinary.

use std::net::{IpAddr, SocketAddr};

use crate::checksum;

pub type Mac = [u8; 6];

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;
pub const ICMP: u8 = 1;
pub const ICMP6: u8 = 58;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// IPv6 extension headers, by their number.
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const DESTINATION: u8 = 60;

/// Which part of its transport a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub id: u32,
    /// In bytes, a multiple of 8.
    pub offset: usize,
    /// Bytes of this part; less if there are not so many.
    pub len: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Tcp {
        flags: u8,
        seq: u32,
        ack: u32,
        options: Vec<u8>,
        data: Vec<u8>,
    },
    Udp {
        has_checksum: bool,
        data: Vec<u8>,
    },
    /// Chunks as type, flags and value.
    Sctp {
        tag: u32,
        chunks: Vec<(u8, u8, Vec<u8>)>,
    },
    /// ICMP or ICMPv6; after type and code the four bytes of the header, and what follows it.
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
        data: Vec<u8>,
    },
    Other {
        protocol: u8,
        data: Vec<u8>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub mac_from: Mac,
    pub mac_to: Mac,
    /// Tags within the bytes, as a device leaves them that does not strip them.
    pub tags: Vec<u16>,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub ttl: u8,
    pub tos: u8,
    /// Options of an IPv4 header, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// Extension headers of IPv6 before a fragment header: number and all after its first two
    /// bytes, 8n - 2 of them.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub fragment: Option<Fragment>,
    /// Added to the transport's checksum to make it wrong.
    pub error: u16,
    pub body: Body,
}

impl Packet {
    pub fn new(from: SocketAddr, to: SocketAddr, body: Body) -> Self {
        Self {
            mac_from: [2, 0, 0, 0, 0, 0xfe],
            mac_to: [2, 0, 0, 0, 0, 1],
            tags: Vec::new(),
            from,
            to,
            ttl: 64,
            tos: 0,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            error: 0,
            body,
        }
    }

    pub fn tcp(from: SocketAddr, to: SocketAddr, flags: u8) -> Self {
        let ack = if flags & ACK == 0 { 0 } else { 2_000 };
        let options = if flags & SYN == 0 { vec![] } else { vec![2, 4, 5, 0xb4] };
        Self::new(from, to, Body::Tcp { flags, seq: 1_000, ack, options, data: vec![] })
    }

    pub fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Self {
        Self::new(from, to, Body::Udp { has_checksum: true, data: data.to_vec() })
    }

    /// An SCTP packet with one chunk.
    pub fn sctp(from: SocketAddr, to: SocketAddr, chunk: u8, value: &[u8]) -> Self {
        let tag = if chunk == 1 { 0 } else { 0xdead_beef };
        Self::new(from, to, Body::Sctp { tag, chunks: vec![(chunk, 0, value.to_vec())] })
    }

    /// An ICMP or ICMPv6 error of an address about a packet, of which it quotes so many bytes from
    /// its IP header on.
    pub fn icmp_error(
        from: SocketAddr,
        to: SocketAddr,
        (kind, code): (u8, u8),
        rest: u32,
        about: &Self,
        len: usize,
    ) -> Self {
        let mut quoted = about.ip_bytes();
        quoted.truncate(len);
        let body = Body::Icmp { kind, code, rest: rest.to_be_bytes(), data: quoted };
        Self::new(from, to, body)
    }

    pub fn is_v4(&self) -> bool {
        self.from.is_ipv4()
    }

    /// The bytes on the wire, from the Ethernet header on.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.mac_to);
        bytes.extend(self.mac_from);
        for tag in &self.tags {
            bytes.extend([0x81, 0x00]);
            bytes.extend(tag.to_be_bytes());
        }
        bytes.extend(if self.is_v4() { [0x08, 0x00] } else { [0x86, 0xdd] });
        bytes.extend(self.ip_bytes());
        bytes
    }

    /// The bytes from the IP header on.
    pub fn ip_bytes(&self) -> Vec<u8> {
        let mut transport = self.transport();
        let mut more = false;
        if let Some(Fragment { offset, len, .. }) = self.fragment {
            more = offset + len < transport.len();
            transport = transport[offset.min(transport.len())..].to_vec();
            transport.truncate(len);
        }
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let ihl = 5 + self.options.len() / 4;
                let mut bytes = vec![0x40 | ihl as u8, self.tos];
                bytes.extend(((ihl * 4 + transport.len()) as u16).to_be_bytes());
                let (id, bits) = match self.fragment {
                    // Not to be fragmented.
                    None => (0x1234, 0x4000),
                    Some(Fragment { id, offset, .. }) => {
                        (id as u16, (offset / 8) as u16 | if more { 0x2000 } else { 0 })
                    }
                };
                bytes.extend(id.to_be_bytes());
                bytes.extend(bits.to_be_bytes());
                bytes.extend([self.ttl, self.protocol(), 0, 0]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
                bytes.extend(&self.options);
                let sum = checksum::internet(&bytes);
                bytes[10..12].copy_from_slice(&sum.to_be_bytes());
                bytes.extend(transport);
                bytes
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut headers = self.extensions.clone();
                if let Some(Fragment { id, offset, .. }) = self.fragment {
                    let mut value = ((offset as u16) | u16::from(more)).to_be_bytes().to_vec();
                    value.extend(id.to_be_bytes());
                    headers.push((FRAGMENT, value));
                }
                let mut bytes = vec![0x60 | (self.tos >> 4), self.tos << 4, 0, 0];
                let len = headers.iter().map(|(_, value)| value.len() + 2).sum::<usize>();
                bytes.extend(((len + transport.len()) as u16).to_be_bytes());
                bytes.push(headers.first().map_or(self.protocol(), |(number, _)| *number));
                bytes.push(self.ttl);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
                for (index, (number, value)) in headers.iter().enumerate() {
                    bytes.push(headers.get(index + 1).map_or(self.protocol(), |next| next.0));
                    assert_eq!((value.len() + 2) % 8, 0, "an extension header of odd length");
                    let len = (value.len() + 2) / 8 - 1;
                    bytes.push(if *number == FRAGMENT { 0 } else { len as u8 });
                    bytes.extend(value);
                }
                bytes.extend(transport);
                bytes
            }
            _ => panic!("{} and {} are of two families", self.from, self.to),
        }
    }

    pub fn protocol(&self) -> u8 {
        match (&self.body, self.is_v4()) {
            (Body::Tcp { .. }, _) => TCP,
            (Body::Udp { .. }, _) => UDP,
            (Body::Sctp { .. }, _) => SCTP,
            (Body::Icmp { .. }, true) => ICMP,
            (Body::Icmp { .. }, false) => ICMP6,
            (Body::Other { protocol, .. }, _) => *protocol,
        }
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if matches!(self.body, Body::Tcp { .. } | Body::Udp { .. } | Body::Sctp { .. }) {
            bytes.extend(self.from.port().to_be_bytes());
            bytes.extend(self.to.port().to_be_bytes());
        }
        match &self.body {
            Body::Tcp { flags, seq, ack, options, data } => {
                bytes.extend(seq.to_be_bytes());
                bytes.extend(ack.to_be_bytes());
                bytes.extend([((5 + options.len() / 4) as u8) << 4, *flags]);
                bytes.extend([0xff, 0xff, 0, 0, 0, 0]);
                bytes.extend(options);
                bytes.extend(data);
                self.seal(bytes, 16)
            }
            Body::Udp { has_checksum, data } => {
                bytes.extend(((8 + data.len()) as u16).to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(data);
                if !*has_checksum {
                    return bytes;
                }
                let mut sealed = self.seal(bytes, 6);
                if sealed[6..8] == [0, 0] {
                    sealed[6..8].copy_from_slice(&[0xff, 0xff]);
                }
                sealed
            }
            Body::Sctp { tag, chunks } => {
                bytes.extend(tag.to_be_bytes());
                bytes.extend([0; 4]);
                for (kind, flags, value) in chunks {
                    bytes.extend([*kind, *flags]);
                    bytes.extend(((value.len() + 4) as u16).to_be_bytes());
                    bytes.extend(value);
                    bytes.resize(bytes.len().next_multiple_of(4), 0);
                }
                let crc = checksum::crc32c(&bytes) ^ u32::from(self.error);
                bytes[8..12].copy_from_slice(&crc.to_le_bytes());
                bytes
            }
            Body::Icmp { kind, code, rest, data } => {
                bytes.extend([*kind, *code, 0, 0]);
                bytes.extend(rest);
                bytes.extend(data);
                self.seal(bytes, 2)
            }
            Body::Other { data, .. } => data.clone(),
        }
    }

    /// Puts the Internet checksum, or a wrong one, at an offset that holds zero.
    fn seal(&self, mut bytes: Vec<u8>, offset: usize) -> Vec<u8> {
        let sum = if self.protocol() == ICMP {
            checksum::internet(&bytes)
        } else {
            let (from, to) = (self.from.ip(), self.to.ip());
            let covered = checksum::with_pseudo_header(from, to, self.protocol(), &bytes);
            checksum::internet(&covered)
        };
        let sum = checksum::sum(&[sum.to_be_bytes(), self.error.to_be_bytes()].concat());
        bytes[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}
