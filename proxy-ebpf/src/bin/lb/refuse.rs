//! Says no: turns a packet round into a reset or an ICMP error, and sends it back.

use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail};
use podium_proxy_ebpf::{
    Protocol,
    checksum::{self, words},
};

use crate::{
    frame::{Buffer, Frame, L3},
    packet::{Fragment, Ipv4Header, Ipv6Header, Packet, signals, unmap_v4},
    route::REDIRECT,
    translate::checksum_offset,
};

const TIME_TO_LIVE: u8 = 64;
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// `BPF_ADJ_ROOM_MAC`: room between the Ethernet and the network header.
const BEFORE_NETWORK_HEADER: u32 = 1;

#[repr(C, align(4))]
#[derive(Clone, Copy)]
struct TcpHeader {
    src_port: [u8; 2],
    dst_port: [u8; 2],
    sequence: [u8; 4],
    acknowledged: [u8; 4],
    offset: u8,
    flags: u8,
    window: [u8; 2],
    checksum: [u8; 2],
    urgent: [u8; 2],
}

const SYN: u8 = 1 << 1;
const FIN: u8 = 1;
const RST: u8 = 1 << 2;
const ACK: u8 = 1 << 4;

/// Sends the refusal of a packet; `false` if there is none to be sent: to fragments, to headers with
/// options, and never to a reset.
#[inline(never)]
pub fn refuse(buffer: &Buffer, packet: &Packet) -> bool {
    try_refuse(buffer, packet).is_some()
}

#[inline(always)]
fn try_refuse(buffer: &Buffer, packet: &Packet) -> Option<()> {
    let plain = packet.l4 == if packet.v6 { L3 + 40 } else { L3 + 20 };
    if packet.fragment != Fragment::Whole
        || !plain
        || packet.signals & signals::RST != 0
        || !may_be_answered(packet)
    {
        return None;
    }
    if packet.protocol == Protocol::Tcp as u8 {
        reset(buffer, packet)?;
    } else if !rate::take() {
        return None;
    } else if packet.v6 {
        unreachable_v6(buffer, packet)?;
    } else {
        unreachable_v4(buffer, packet)?;
    }
    let macs: [[u8; 6]; 2] = buffer.load(0)?;
    let [to, from] = macs;
    done(buffer.store(0, &[from, to]))?;
    // SAFETY: a plain helper: out of the device the packet came in through.
    done(unsafe { bpf_redirect(buffer.ifindex(), 0) } == REDIRECT)
}

/// RFC 1122, 3.2.2, and RFC 4443, 2.4: whom an error must not be sent to.
#[inline(always)]
fn may_be_answered(packet: &Packet) -> bool {
    if packet.v6 {
        let (high, low, _) = packet.tuple.from().order();
        // Neither multicast, nor unspecified, nor loopback.
        high >> 56 != 0xff && (high != 0 || low > 1)
    } else {
        let [first, ..] = unmap_v4(&packet.tuple.src);
        first != 0 && first != 127 && first < 224
    }
}

mod rate {
    //! How many ICMP errors a CPU sends: as many as the kernel lets a machine send
    //! (`icmp_msgs_per_sec`), so that nobody has others flooded by them.

    use aya_ebpf::{macros::map, maps::PerCpuArray};

    use crate::report;

    const PER_SEC: u64 = 1000;
    const INTERVAL_NS: u64 = 1_000_000_000 / PER_SEC;
    /// How many may be sent at once (`icmp_msgs_burst`).
    const BURST: u64 = 50;

    /// When the bucket was empty, counted on by an interval for each error.
    #[map]
    static REFUSALS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

    /// Whether another error may be sent now.
    #[inline(always)]
    pub fn take() -> bool {
        let Some(empty_at_ns) = REFUSALS.get_ptr_mut(0) else { return false };
        // SAFETY: a slot of this CPU.
        let empty_at_ns = unsafe { &mut *empty_at_ns };
        let now_ns = report::now_ns();
        let since = (*empty_at_ns).max(now_ns.saturating_sub(BURST * INTERVAL_NS));
        if since + INTERVAL_NS > now_ns {
            return false;
        }
        *empty_at_ns = since + INTERVAL_NS;
        true
    }
}

#[inline(always)]
fn done(success: bool) -> Option<()> {
    success.then_some(())
}

#[inline(always)]
fn cut(buffer: &Buffer, len: u32) -> Option<()> {
    // SAFETY: the helper takes this hook's context.
    done(unsafe { bpf_skb_change_tail(buffer.skb, len, 0) == 0 })
}

#[inline(always)]
fn make_room(buffer: &Buffer, len: u32) -> Option<()> {
    // SAFETY: the helper takes this hook's context.
    done(unsafe { bpf_skb_adjust_room(buffer.skb, len as i32, BEFORE_NETWORK_HEADER, 0) == 0 })
}

/// RFC 9293, 3.10.7.1: the answer of a closed port.
#[inline(always)]
fn reset(buffer: &Buffer, packet: &Packet) -> Option<()> {
    const LEN: u32 = size_of::<TcpHeader>() as u32;
    let old: TcpHeader = buffer.load(packet.l4)?;
    let data_len = (L3 + packet.bytes)
        .checked_sub(packet.l4 + u32::from(old.offset >> 4) * 4)?
        .wrapping_add(u32::from(old.flags & SYN != 0))
        .wrapping_add(u32::from(old.flags & FIN != 0));
    let offset = packet.l4 + checksum_offset(packet.protocol)?;
    let partial = buffer.is_partial(offset)?;
    let seen = u32::from_be_bytes(old.sequence).wrapping_add(data_len);
    let has_ack = old.flags & ACK != 0;
    let mut new = TcpHeader {
        src_port: old.dst_port,
        dst_port: old.src_port,
        sequence: if has_ack { old.acknowledged } else { [0; 4] },
        acknowledged: if has_ack { [0; 4] } else { seen.to_be_bytes() },
        offset: 5 << 4,
        flags: if has_ack { RST } else { RST | ACK },
        window: [0; 2],
        checksum: [0; 2],
        urgent: [0; 2],
    };
    let pseudo = pseudo_header(packet, Protocol::Tcp as u8, LEN);
    let [a, b] = new.src_port;
    let [c, d] = new.dst_port;
    let header = [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes(new.sequence),
        u32::from_ne_bytes(new.acknowledged),
        u32::from_ne_bytes([new.offset, new.flags, 0, 0]),
    ];
    new.checksum = if partial {
        checksum::partial(pseudo)
    } else {
        checksum::apply([0xff; 2], checksum::join(pseudo, sum(&header)))
    };
    cut(buffer, packet.l4 + LEN)?;
    done(buffer.store(packet.l4, &new))?;
    network_header(buffer, packet, Protocol::Tcp as u8, LEN)
}

/// The sum of words: what they add to zeros.
#[inline(always)]
fn sum<const N: usize>(added: &[u32; N]) -> u32 {
    checksum::difference(&[u32::MAX; N], added)
}

/// The sum of the pseudo header of an answer, which has the same addresses as the packet.
#[inline(always)]
fn pseudo_header(packet: &Packet, protocol: u8, len: u32) -> u32 {
    let addresses = if packet.v6 {
        checksum::join(sum(&words(&packet.tuple.src)), sum(&words(&packet.tuple.dst)))
    } else {
        sum(&[
            u32::from_ne_bytes(unmap_v4(&packet.tuple.src)),
            u32::from_ne_bytes(unmap_v4(&packet.tuple.dst)),
        ])
    };
    checksum::join(addresses, sum(&[len.to_be(), u32::from(protocol).to_be()]))
}

/// Writes the network header of an answer of `len` bytes.
#[inline(always)]
fn network_header(buffer: &Buffer, packet: &Packet, protocol: u8, len: u32) -> Option<()> {
    if packet.v6 {
        let header = Ipv6Header {
            version_class: [0x60, 0, 0, 0],
            payload_len: (len as u16).to_be_bytes(),
            next: protocol,
            hop_limit: TIME_TO_LIVE,
            src: packet.tuple.dst,
            dst: packet.tuple.src,
        };
        return done(buffer.store(L3, &header));
    }
    let mut header = Ipv4Header {
        version_len: 0x45,
        tos: 0,
        total_len: (20 + len as u16).to_be_bytes(),
        id: [0; 2],
        // Do not fragment.
        fragment: [0x40, 0],
        ttl: TIME_TO_LIVE,
        protocol,
        checksum: [0; 2],
        src: unmap_v4(&packet.tuple.dst),
        dst: unmap_v4(&packet.tuple.src),
    };
    let [a, b] = header.total_len;
    header.checksum = checksum::of(&[
        u32::from_ne_bytes([header.version_len, header.tos, a, b]),
        u32::from_ne_bytes([0, 0, 0x40, 0]),
        u32::from_ne_bytes([header.ttl, header.protocol, 0, 0]),
        u32::from_ne_bytes(header.src),
        u32::from_ne_bytes(header.dst),
    ]);
    done(buffer.store(L3, &header))
}

/// The word of a transport header's second four bytes as it will be once a device that is to
/// complete a UDP checksum has done so, over the eight bytes that are left of the datagram: the
/// error's checksum covers it.
#[inline(always)]
fn completed(buffer: &Buffer, packet: &Packet, first: u32, second: u32) -> Option<u32> {
    if packet.protocol != Protocol::Udp as u8 || !buffer.is_partial(packet.l4 + 6)? {
        return Some(second);
    }
    let [len_high, len_low, ..] = second.to_ne_bytes();
    let [a, b] = checksum::of(&[first, second]);
    Some(u32::from_ne_bytes([len_high, len_low, a, b]))
}

/// RFC 792: destination unreachable, port unreachable, with the header and eight bytes.
#[inline(always)]
fn unreachable_v4(buffer: &Buffer, packet: &Packet) -> Option<()> {
    const INNER: u32 = 28;
    const ROOM: u32 = 20 + 8;
    const KIND: [u8; 2] = [3, 3];
    let mut inner: [u32; 7] = buffer.load(L3)?;
    inner[6] = completed(buffer, packet, inner[5], inner[6])?;
    let [kind, code] = KIND;
    let first = u32::from_ne_bytes([kind, code, 0, 0]);
    let error = checksum::apply([0xff; 2], checksum::join(sum(&[first]), sum(&inner)));
    let [a, b] = error;
    cut(buffer, L3 + INNER)?;
    make_room(buffer, ROOM)?;
    done(buffer.store(L3 + 20, &[kind, code, a, b, 0, 0, 0, 0]))?;
    network_header(buffer, packet, ICMP, 8 + INNER)
}

/// RFC 4443, 3.1: destination unreachable, port unreachable.
#[inline(always)]
fn unreachable_v6(buffer: &Buffer, packet: &Packet) -> Option<()> {
    const INNER: u32 = 48;
    const ROOM: u32 = 40 + 8;
    const KIND: [u8; 2] = [1, 4];
    let mut inner: [u32; 12] = buffer.load(L3)?;
    inner[11] = completed(buffer, packet, inner[10], inner[11])?;
    let [kind, code] = KIND;
    let first = u32::from_ne_bytes([kind, code, 0, 0]);
    let pseudo = pseudo_header(packet, ICMP_V6, 8 + INNER);
    let covered = checksum::join(sum(&[first]), sum(&inner));
    let [a, b] = checksum::apply([0xff; 2], checksum::join(pseudo, covered));
    cut(buffer, L3 + INNER)?;
    make_room(buffer, ROOM)?;
    done(buffer.store(L3 + 40, &[kind, code, a, b, 0, 0, 0, 0]))?;
    network_header(buffer, packet, ICMP_V6, 8 + INNER)
}
