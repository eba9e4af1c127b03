//! Checksums by their definitions, without any of the tricks of the kernel programs: the Internet
//! checksum (RFC 1071) and SCTP's CRC32c (RFC 9260, appendix A).

use std::net::IpAddr;

/// The ones' complement sum of 16-bit words, an odd last byte padded with zero.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The Internet checksum.
pub fn internet(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// The pseudo-header of TCP, UDP and ICMPv6 followed by the transport.
pub fn with_pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        _ => panic!("{from} and {to} are of two families"),
    }
    bytes.extend((transport.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes.extend(transport);
    bytes
}

/// CRC32c, bit by bit.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// How far a stored Internet checksum is off: 0 if it is right. Ones' complement has two zeros,
/// which are told apart nowhere but in UDP.
pub fn internet_delta(covered: &[u8]) -> u16 {
    match sum(covered) {
        0xffff => 0,
        sum => sum,
    }
}

#[test]
fn checksums_of_known_packets() {
    // RFC 1071, 3.
    assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    // The check value of CRC-32C.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(internet(&[0xff]), 0x00ff);
}
