//! What of a packet's headers decides where it goes.

use podium_proxy_ebpf::{FlowKey, Hook, Protocol, Tuple, flow::flags};

use crate::{
    frame::{ETHERTYPE_V4, ETHERTYPE_V6, Frame, L3},
    scratch::put,
    translate::ports_word,
};

/// Extension headers followed before a packet is left alone.
const EXTENSIONS_MAX: u32 = 8;

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// The fixed part of an IPv4 header.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub struct Ipv4Header {
    pub version_len: u8,
    pub tos: u8,
    pub total_len: [u8; 2],
    pub id: [u8; 2],
    pub fragment: [u8; 2],
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: [u8; 2],
    pub src: [u8; 4],
    pub dst: [u8; 4],
}

impl Ipv4Header {
    /// Bytes of the header with its options; `None` if that is no header.
    #[inline(always)]
    pub const fn len(&self) -> Option<u32> {
        let len = (self.version_len & 0xf) as u32 * 4;
        if self.version_len >> 4 == 4 && len >= 20 { Some(len) } else { None }
    }
}

/// The fixed IPv6 header.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Ipv6Header {
    pub version_class: [u8; 4],
    pub payload_len: [u8; 2],
    pub next: u8,
    pub hop_limit: u8,
    pub src: [u8; 16],
    pub dst: [u8; 16],
}

/// The part of a packet that this one is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The beginning, with the ports.
    First,
    /// Another part, without them.
    Later,
}

/// Bits of [`Packet::signals`].
pub mod signals {
    /// Opens a connection: SYN without ACK, INIT.
    pub const OPENS: u8 = 1;
    /// Closes one side: FIN, SHUTDOWN.
    pub const FIN: u8 = 1 << 1;
    /// Ends it at once: RST, ABORT.
    pub const RST: u8 = 1 << 2;
    /// Answers what opens a connection: SYN with ACK, INIT ACK.
    pub const ACCEPTS: u8 = 1 << 3;
}

/// A packet of a protocol that Services have.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Packet {
    pub tuple: Tuple,
    /// Where the transport header begins.
    pub l4: u32,
    /// Bytes from the network header on.
    pub bytes: u32,
    pub fragment_id: [u8; 4],
    pub fragment: Fragment,
    pub protocol: u8,
    /// Bits of [`signals`].
    pub signals: u8,
    pub v6: bool,
}

impl Packet {
    /// Whether the packet is long enough for what was read of it.
    #[inline(always)]
    const fn has_transport_header(&self) -> bool {
        let len = match Protocol::from_number(self.protocol) {
            _ if matches!(self.fragment, Fragment::Later) => 0,
            Some(Protocol::Tcp) => 20,
            Some(Protocol::Sctp) => 12,
            Some(Protocol::Udp) | None => 8,
        };
        self.l4 + len <= L3 + self.bytes
    }

    /// Whether the flow's endpoint has to be in its service's list for this packet: what opens a
    /// connection, and every datagram.
    #[inline(always)]
    pub const fn needs_live_endpoint(&self) -> bool {
        self.protocol == Protocol::Udp as u8 || self.signals & signals::OPENS != 0
    }
}

impl Packet {
    /// The addresses, in words that are read back as they are written.
    #[inline(always)]
    fn set_ends(&mut self, src: &[u8; 16], dst: &[u8; 16]) {
        let ([a, b], [c, d]) = (halves(src), halves(dst));
        put(&mut self.tuple, [a, b, c, d]);
    }

    /// Both ports, as the word they are in a transport header.
    #[inline(always)]
    fn set_ports(&mut self, word: u32) {
        // SAFETY: the ports are the last four bytes of the tuple, whose words are aligned.
        unsafe { (&raw mut self.tuple.src_port).cast::<u32>().write_volatile(word) };
    }

    /// Makes the key of its flow.
    #[inline(always)]
    pub fn key_into(&self, hook: Hook, key: &mut FlowKey) {
        let ([a, b], [c, d]) = (halves(&self.tuple.src), halves(&self.tuple.dst));
        let last = u32::from_ne_bytes([self.protocol, hook as u8, 0, 0]);
        let ports = u64::from(ports_word(&self.tuple));
        put(key, [a, b, c, d, ports | (u64::from(last) << 32)]);
    }

    /// The bits of [`podium_proxy_ebpf::flow::flags`] of an entry after this packet.
    #[inline(always)]
    pub const fn bits_after(&self, mut bits: u32) -> u32 {
        if self.signals & signals::OPENS != 0 {
            // The same ports again, for a new connection.
            bits &= !(flags::FIN | flags::RST | flags::ESTABLISHED);
        } else {
            if self.signals & signals::ACCEPTS != 0 {
                bits &= !(flags::FIN | flags::RST);
            }
            bits |= flags::ESTABLISHED;
        }
        if self.signals & signals::FIN != 0 {
            bits |= flags::FIN;
        }
        if self.signals & signals::RST != 0 {
            bits |= flags::RST;
        }
        bits
    }
}

/// What a packet is to the programs.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Nothing that a Service could be about.
    Foreign,
    /// One of a Service's protocols.
    Transport,
    /// An ICMP error; `l4` is where it begins.
    Error,
}

/// An address in words of eight bytes.
#[inline(always)]
const fn halves(ip: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *ip;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// The mapped form of an IPv4 address.
#[inline(always)]
pub const fn map_v4(ip: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = ip;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The IPv4 address in a mapped one.
#[inline(always)]
pub const fn unmap_v4(ip: &[u8; 16]) -> [u8; 4] {
    let [.., a, b, c, d] = *ip;
    [a, b, c, d]
}

/// Reads the headers. A packet whose headers do not hold together is foreign: the stack knows best
/// what to do with it.
#[inline(never)]
pub fn parse<F: Frame>(frame: &F, packet: &mut Packet) -> Kind {
    let parsed = match frame.ethertype() {
        Some(ETHERTYPE_V4) => read(frame, L3, false, packet, false),
        Some(ETHERTYPE_V6) => read(frame, L3, true, packet, false),
        _ => None,
    };
    // A packet joined from others may be longer than its header can say, which then says nothing.
    if packet.bytes == if packet.v6 { 40 } else { 0 } && frame.is_joined() {
        packet.bytes = frame.len().wrapping_sub(L3);
    }
    match parsed {
        // A packet that was cut short is not translated, nor one that ends within its headers.
        Some(kind) if L3 + packet.bytes <= frame.len() && packet.has_transport_header() => kind,
        _ => Kind::Foreign,
    }
}

/// Reads the beginning of a packet that an ICMP error carries, from `at` on.
#[inline(never)]
pub fn parse_inner<F: Frame>(frame: &F, at: u32, v6: bool, packet: &mut Packet) -> bool {
    read(frame, at, v6, packet, true) == Some(Kind::Transport) && packet.fragment != Fragment::Later
}

#[inline(always)]
fn read<F: Frame>(frame: &F, at: u32, v6: bool, packet: &mut Packet, inner: bool) -> Option<Kind> {
    packet.signals = 0;
    packet.set_ports(0);
    packet.v6 = v6;
    if v6 {
        read_v6(frame, at, packet)?
    } else {
        read_v4(frame, at, packet)?
    }
    read_transport(frame, packet, inner)
}

#[inline(always)]
fn read_v4<F: Frame>(frame: &F, at: u32, packet: &mut Packet) -> Option<()> {
    let header: Ipv4Header = frame.load(at)?;
    let fragment_bits = u16::from_be_bytes(header.fragment);
    let [id_high, id_low] = header.id;
    let (src, dst) = (map_v4(header.src), map_v4(header.dst));
    packet.set_ends(&src, &dst);
    packet.l4 = at + header.len()?;
    packet.bytes = u32::from(u16::from_be_bytes(header.total_len));
    packet.fragment_id = [0, 0, id_high, id_low];
    packet.fragment = fragment_of(fragment_bits & 0x1fff != 0, fragment_bits & 0x2000 != 0);
    packet.protocol = header.protocol;
    Some(())
}

#[inline(always)]
fn read_v6<F: Frame>(frame: &F, at: u32, packet: &mut Packet) -> Option<()> {
    let header: Ipv6Header = frame.load(at)?;
    if header.version_class[0] >> 4 != 6 {
        return None;
    }
    packet.set_ends(&header.src, &header.dst);
    packet.bytes = 40 + u32::from(u16::from_be_bytes(header.payload_len));
    packet.fragment = Fragment::Whole;
    packet.fragment_id = [0; 4];
    let (mut protocol, mut l4) = (header.next, at + 40);
    for _ in 0..EXTENSIONS_MAX {
        let (next, len) = match protocol {
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => {
                let [next, len]: [u8; 2] = frame.load(l4)?;
                (next, (u32::from(len) + 1) * 8)
            }
            44 => {
                let [next, _, high, low, a, b, c, d]: [u8; 8] = frame.load(l4)?;
                let bits = u16::from_be_bytes([high, low]);
                packet.fragment = fragment_of(bits & 0xfff8 != 0, bits & 1 != 0);
                packet.fragment_id = [a, b, c, d];
                (next, 8)
            }
            // Authentication: its length is in words, less two.
            51 => {
                let [next, len]: [u8; 2] = frame.load(l4)?;
                (next, (u32::from(len) + 2) * 4)
            }
            _ => break,
        };
        protocol = next;
        l4 += len;
        if packet.fragment == Fragment::Later {
            // What follows is the middle of something.
            break;
        }
    }
    packet.protocol = protocol;
    packet.l4 = l4;
    Some(())
}

#[inline(always)]
const fn fragment_of(has_offset: bool, more: bool) -> Fragment {
    if has_offset {
        Fragment::Later
    } else if more {
        Fragment::First
    } else {
        Fragment::Whole
    }
}

/// Reads the ports and what the packet does to its connection.
#[inline(always)]
fn read_transport<F: Frame>(frame: &F, packet: &mut Packet, inner: bool) -> Option<Kind> {
    if packet.protocol == if packet.v6 { ICMP_V6 } else { ICMP } {
        if inner || packet.fragment != Fragment::Whole {
            return None;
        }
        let kind: u8 = frame.load(packet.l4)?;
        let is_error = if packet.v6 { matches!(kind, 1..=4) } else { matches!(kind, 3 | 11 | 12) };
        return is_error.then_some(Kind::Error);
    }
    let protocol = Protocol::from_number(packet.protocol)?;
    if packet.fragment == Fragment::Later {
        return Some(Kind::Transport);
    }
    packet.set_ports(frame.load(packet.l4)?);
    if inner {
        // Eight bytes of the header are all there need be.
        return Some(Kind::Transport);
    }
    packet.signals = match protocol {
        Protocol::Tcp => {
            // The whole header, so that what is translated has a checksum to follow.
            let [flags, .., _]: [u8; 7] = frame.load(packet.l4 + 13)?;
            tcp_signals(flags)
        }
        // The kind of the first chunk: what opens or ends an association comes alone.
        Protocol::Sctp => sctp_signals(frame.load(packet.l4 + 12)?),
        Protocol::Udp => {
            let _: [u8; 2] = frame.load(packet.l4 + 6)?;
            0
        }
    };
    Some(Kind::Transport)
}

#[inline(always)]
const fn tcp_signals(flags: u8) -> u8 {
    const FIN: u8 = 1;
    const SYN: u8 = 1 << 1;
    const RST: u8 = 1 << 2;
    const ACK: u8 = 1 << 4;
    let mut found = 0;
    if flags & SYN != 0 {
        found |= if flags & ACK == 0 { signals::OPENS } else { signals::ACCEPTS };
    }
    if flags & FIN != 0 {
        found |= signals::FIN;
    }
    if flags & RST != 0 {
        found |= signals::RST;
    }
    found
}

#[inline(always)]
const fn sctp_signals(chunk: u8) -> u8 {
    match chunk {
        1 => signals::OPENS,
        2 => signals::ACCEPTS,
        6 => signals::RST,
        7 | 8 | 14 => signals::FIN,
        _ => 0,
    }
}
