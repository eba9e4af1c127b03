//! Consistent hashing: the same number finds the same endpoint, and only what an endpoint had moves when
//! it leaves.

use std::net::{IpAddr, SocketAddr};

/// Places of one endpoint, as many as ingress-nginx's balancer has for the same spread.
const PLACES: u64 = 160;

/// Endpoints by their place in a list, many times around a circle of hashes.
#[derive(Debug)]
pub struct Ring {
    places: Box<[(u32, u32)]>,
}

impl Ring {
    /// The ring of endpoints in this order. There has to be one at least.
    pub fn new(addresses: impl Iterator<Item = SocketAddr>) -> Ring {
        let mut places = Vec::new();
        for (at, address) in (0u32..).zip(addresses) {
            let name = name(address);
            places.extend((0..PLACES).map(|place| (low(mix(name ^ mix(place))), at)));
        }
        places.sort_unstable();
        Ring { places: places.into() }
    }

    /// The endpoint for a hash.
    pub fn find(&self, hash: u64) -> usize {
        self.from(hash).next().unwrap_or(0)
    }

    /// Endpoints in the order in which they stand in for each other, over and over.
    pub fn from(&self, hash: u64) -> impl Iterator<Item = usize> {
        let place = low(hash);
        let start = self.places.partition_point(|(at, _)| *at < place);
        let around = self.places[start..].iter().chain(&self.places[..start]);
        around.map(|(_, endpoint)| *endpoint as usize)
    }
}

fn name(address: SocketAddr) -> u64 {
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => hash(&[&ip.octets()[..], &port].concat()),
        IpAddr::V6(ip) => hash(&[&ip.octets()[..], &port].concat()),
    }
}

/// The upper half, the better one of the two.
fn low(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or(u32::MAX)
}

/// A hash that is the same in every process (FNV-1a, then mixed).
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// The finish of MurmurHash3: every bit depends on every other.
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Jump consistent hash (Lamping, Veach): one of `buckets`, few of which change owners with their number.
pub fn jump(hash: u64, buckets: usize) -> usize {
    let mut key = hash;
    let (mut bucket, mut next) = (0_usize, 0_usize);
    while next < buckets {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the algorithm is defined on floating point numbers"
        )]
        {
            next =
                ((bucket + 1) as f64 * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64)) as usize;
        }
    }
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: usize) -> Vec<SocketAddr> {
        (0..count)
            .map(|n| format!("10.0.{}.{}:80", n / 250, n % 250 + 1).parse().unwrap())
            .collect()
    }

    /// Each endpoint's share of 100,000 keys.
    fn owners(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let ring = Ring::new(addresses.iter().copied());
        (0..100_000_u32).map(|key| addresses[ring.find(hash(&key.to_be_bytes()))]).collect()
    }

    #[test]
    fn only_the_keys_of_an_endpoint_that_leaves_move() {
        let all = addresses(20);
        let before = owners(&all);
        for gone in [0, 7, 19] {
            let mut left = all.clone();
            left.remove(gone);
            let after = owners(&left);
            for (before, after) in before.iter().zip(&after) {
                assert!(before == after || *before == all[gone]);
            }
        }
    }

    #[test]
    fn shares_are_about_even() {
        let all = addresses(20);
        let owners = owners(&all);
        for address in all {
            let share = owners.iter().filter(|owner| **owner == address).count();
            assert!((3_500..6_500).contains(&share), "{address} has {share} of 100,000");
        }
    }

    #[test]
    fn who_stands_in_is_always_the_same() {
        let all = addresses(5);
        let ring = Ring::new(all.iter().copied());
        let mut order: Vec<usize> = ring.from(hash(b"key")).collect();
        assert_eq!(order.len(), 5 * 160);
        order.dedup();
        assert_eq!(order[0], ring.find(hash(b"key")));
        let mut distinct = order.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn groups_keep_most_keys() {
        let moved = (0..100_000_u64).filter(|key| jump(mix(*key), 10) != jump(mix(*key), 11));
        let moved = moved.count();
        assert!((8_000..10_200).contains(&moved), "{moved} of 100,000 moved for one group of 11");
        assert!((0..1000).all(|key| jump(mix(key), 7) < 7 && jump(mix(key), 1) == 0));
    }
}
