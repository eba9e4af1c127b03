//! As much of SCTP (RFC 9260) as a packet needs to pass for it, over raw sockets: kernels are often
//! built without it, and a translation is right or wrong in the first packet each way already.
//! The checksum, which covers the ports, is checked on both sides.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{FromRawFd as _, OwnedFd},
};

use nix::sys::socket::{SockaddrStorage, bind};

/// Chunk types.
pub const INIT: u8 = 1;
pub const INIT_ACK: u8 = 2;
pub const ABORT: u8 = 6;

/// Common header, chunk header and the fixed part of INIT; then the header of a parameter that a
/// receiver skips if it does not know it.
const TEXT_AT: usize = 12 + 4 + 16 + 4;
const UNKNOWN_PARAMETER: [u8; 2] = [0x80, 0x42];

/// What matters of a packet.
pub struct Packet {
    pub from_port: u16,
    pub to_port: u16,
    pub chunk: u8,
    pub text: String,
}

impl Packet {
    /// From what a raw socket received, which for IPv4 begins with the IP header. `None` if the
    /// checksum is wrong.
    pub fn parse(bytes: &[u8], is_v4: bool) -> Option<Self> {
        let skip = if is_v4 { usize::from(bytes.first()? & 0xf) * 4 } else { 0 };
        let bytes = bytes.get(skip..)?;
        let mut blank = bytes.to_vec();
        blank.get_mut(8..12)?.fill(0);
        if crc32c(&blank).to_le_bytes() != bytes[8..12] {
            return None;
        }
        let text = bytes.get(TEXT_AT..).unwrap_or_default();
        Some(Self {
            from_port: u16::from_be_bytes([bytes[0], bytes[1]]),
            to_port: u16::from_be_bytes([bytes[2], bytes[3]]),
            chunk: *bytes.get(12)?,
            text: String::from_utf8_lossy(text).trim_end_matches('\0').to_owned(),
        })
    }
}

/// A packet of one INIT or INIT ACK chunk, that carries a text.
pub fn packet(from_port: u16, to_port: u16, chunk: u8, text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(from_port.to_be_bytes());
    bytes.extend(to_port.to_be_bytes());
    // Verification tag: that of INIT is zero. Then the checksum's place.
    bytes.extend(if chunk == INIT { [0; 4] } else { [0, 0, 0, 7] });
    bytes.extend([0; 4]);
    let parameter_len = 4 + text.len();
    let chunk_len = 4 + 16 + parameter_len;
    bytes.extend([chunk, 0]);
    bytes.extend(u16::try_from(chunk_len).unwrap().to_be_bytes());
    // Initiate tag, receive window, streams out and in, initial sequence number.
    bytes.extend([0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    bytes.extend(UNKNOWN_PARAMETER);
    bytes.extend(u16::try_from(parameter_len).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let sum = crc32c(&bytes).to_le_bytes();
    bytes[8..12].copy_from_slice(&sum);
    bytes
}

/// A raw socket at an address, in the form of one that sends and receives datagrams. The port of
/// its addresses means nothing and must be 0.
pub fn socket(at: IpAddr) -> UdpSocket {
    let family = if at.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 132) };
    assert!(fd >= 0, "no raw socket: {}", std::io::Error::last_os_error());
    bind(fd, &SockaddrStorage::from(SocketAddr::new(at, 0))).unwrap();
    // SAFETY: just opened, and nobody else's.
    UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// CRC-32C (Castagnoli), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 0 { sum >> 1 } else { (sum >> 1) ^ 0x82f6_3b78 }
        })
    })
}
