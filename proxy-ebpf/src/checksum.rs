//! Checksums that follow a change of the bytes they cover, without looking at the other bytes.

/// What replacing words adds to an Internet checksum's sum (RFC 1624), folded to 32 bits: the form
/// `bpf_l4_csum_replace` takes. Words in memory order; the sum does not care for byte order.
#[inline(always)]
pub const fn difference<const N: usize>(from: &[u32; N], to: &[u32; N]) -> u32 {
    let mut sum = 0_u64;
    let mut index = 0;
    while index < N {
        sum += to[index] as u64 + !from[index] as u64;
        index += 1;
    }
    fold_to_32(sum)
}

/// The sum of two differences.
#[inline(always)]
pub const fn join(a: u32, b: u32) -> u32 {
    fold_to_32(a as u64 + b as u64)
}

#[expect(clippy::cast_possible_truncation, reason = "folded to 32 bits")]
#[inline(always)]
const fn fold_to_32(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
#[inline(always)]
const fn fold_to_16(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// A checksum after a [`difference`] of what it covers.
#[inline(always)]
pub const fn apply(checksum: [u8; 2], difference: u32) -> [u8; 2] {
    let old = u16::from_ne_bytes(checksum);
    (!fold_to_16(!old as u64 + difference as u64)).to_ne_bytes()
}

/// The checksum of words from scratch.
#[inline(always)]
pub const fn of<const N: usize>(words: &[u32; N]) -> [u8; 2] {
    (!fold_to_16(difference(&[u32::MAX; N], words) as u64)).to_ne_bytes()
}

/// The checksum's sum before it is complemented: what a header carries whose checksum the device
/// shall complete.
#[inline(always)]
pub const fn partial(sum: u32) -> [u8; 2] {
    fold_to_16(sum as u64).to_ne_bytes()
}

/// An address in words.
#[inline(always)]
pub const fn words(ip: &[u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *ip;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

/// CRC32c (RFC 9260, appendix A), as SCTP uses it.
pub mod crc32c {
    /// The Castagnoli polynomial, lowest coefficient first in the highest bit.
    const POLYNOMIAL: u32 = 0x82f6_3b78;

    /// x to the power of 8·2^k, for the k-th bit of a number of bytes.
    const POWERS: [u32; LENGTH_BITS as usize] = powers();

    /// Bits of the longest packet's length.
    const LENGTH_BITS: u32 = 16;

    const fn powers() -> [u32; LENGTH_BITS as usize] {
        // x^1, squared three times: x^8.
        let mut power = 1 << 30;
        let mut index = 0;
        while index < 3 {
            power = multiply(power, power);
            index += 1;
        }
        let mut powers = [0; LENGTH_BITS as usize];
        let mut index = 0;
        while index < powers.len() {
            powers[index] = power;
            power = multiply(power, power);
            index += 1;
        }
        powers
    }

    /// The product of two polynomials modulo [`POLYNOMIAL`]. Without branches: a program's verifier
    /// would follow each of them.
    #[inline(always)]
    const fn multiply(a: u32, mut b: u32) -> u32 {
        let mut product = 0;
        let mut bit = 0;
        while bit < 32 {
            product ^= b & 0_u32.wrapping_sub((a >> (31 - bit)) & 1);
            b = (b >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(b & 1));
            bit += 1;
        }
        product
    }

    /// The checksum after four bytes changed that are followed by `trailing` others: a CRC is
    /// linear, so that only the change has to be carried past them.
    #[inline(never)]
    pub const fn after_change(checksum: u32, from: u32, to: u32, trailing: u32) -> u32 {
        // The four bytes in little-endian words are a polynomial of 32 terms, to be multiplied by
        // x^32 like all that a CRC covers.
        let mut change = multiply(from ^ to, X_32);
        let mut bit = 0;
        while bit < LENGTH_BITS {
            let carried = multiply(change, POWERS[bit as usize]);
            let mask = 0_u32.wrapping_sub((trailing >> bit) & 1);
            change = (carried & mask) | (change & !mask);
            bit += 1;
        }
        checksum ^ change
    }

    /// x^32: four bytes' worth.
    const X_32: u32 = POWERS[2];
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    fn crc(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        !crc
    }

    #[test]
    fn a_crc_follows_a_change_of_its_first_bytes() {
        assert_eq!(crc(b"123456789"), 0xe306_9283, "the check value of the catalogue");
        for len in [4, 5, 12, 13, 60, 1480, 65_535_usize] {
            let mut bytes: std::vec::Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
            let before = crc(&bytes);
            let old = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            bytes[..4].copy_from_slice(&[1, 187, 0x9c, 0x40]);
            let new = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let trailing = u32::try_from(len).unwrap() - 4;
            assert_eq!(crc32c::after_change(before, old, new, trailing), crc(&bytes), "{len}");
        }
    }

    #[test]
    fn a_checksum_follows_a_change() {
        // The header of RFC 1071's usual example.
        let before = [0x4500_0073_u32, 0x0000_4000, 0x4011_0000, 0xc0a8_0001, 0xc0a8_00c7];
        let after = [0x4500_0073_u32, 0x0000_4000, 0x4011_0000, 0x0af4_0102, 0xc0a8_00c7];
        let (before, after) = (before.map(u32::to_be), after.map(u32::to_be));
        assert_eq!(of(&before), [0xb8, 0x61]);
        assert_eq!(apply(of(&before), difference(&before, &after)), of(&after));
        assert_eq!(apply(of(&before), difference(&before, &before)), of(&before));
    }
}
