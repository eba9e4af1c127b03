//! What the programs are told about their node: the one element of the `config` array, and the keys
//! of the `source_ranges` trie.

use crate::AddressPort;

/// A run of port numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// How many.
    pub len: u16,
}

/// A block of addresses.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cidr {
    /// The first address; IPv4 mapped.
    pub ip: [u8; 16],
    /// Leading bits that all have in common, of 128; 0: no block.
    pub prefix_len: u32,
}

impl Cidr {
    /// Whether an address is in the block. In halves: a kernel program has no 128-bit shifts.
    #[inline(always)]
    pub const fn contains(&self, ip: &[u8; 16]) -> bool {
        if self.prefix_len == 0 || self.prefix_len > 128 {
            return false;
        }
        let (high, low, _) = AddressPort::new(self.ip, [0; 2]).order();
        let (other_high, other_low, _) = AddressPort::new(*ip, [0; 2]).order();
        if self.prefix_len <= 64 {
            (high ^ other_high) >> (64 - self.prefix_len) == 0
        } else {
            high == other_high && (low ^ other_low) >> (128 - self.prefix_len) == 0
        }
    }
}

/// Runs of ports for rewritten sources there may be.
pub const NAT_RANGES: usize = 4;
/// Blocks of service addresses there may be.
pub const SERVICE_CIDRS: usize = 4;

/// The element of the `config` array.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The network namespace of the node, as `bpf_get_netns_cookie` tells it.
    pub host_netns_cookie: u64,
    /// What sources are rewritten to: an address of this node; IPv4 mapped. Zero: none, IPv4 that
    /// would need it is dropped.
    pub node_v4: [u8; 16],
    /// The same for IPv6.
    pub node_v6: [u8; 16],
    /// Ports for rewritten sources: outside the node-port range and the range that sockets of the
    /// host get ports from by themselves.
    pub nat_ports: [PortRange; NAT_RANGES],
    /// The blocks that ClusterIPs are allocated from; what nobody has in there is dropped.
    pub service_cidrs: [Cidr; SERVICE_CIDRS],
    /// Bits of [`flags`].
    pub flags: u32,
    /// Elements of the `stream_peers` array; 0: TCP sockets are not remembered.
    pub stream_peers: u32,
}

const _: () =
    assert!(size_of::<Config>() == 8 + 16 + 16 + 4 * NAT_RANGES + 20 * SERVICE_CIDRS + 4 + 4);

/// Bits of [`Config::flags`].
pub mod flags {
    /// Answers of endpoints on other nodes go straight to the client; and the service addresses
    /// that other nodes send along are believed.
    pub const DIRECT_RETURN: u32 = 1;
}

/// Key of the `source_ranges` trie, after its prefix length: [`SourceRange::PREFIX_LEN`] and the
/// leading bits of the address.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceRange {
    /// [`crate::ServiceEntry::id`]; matched as a whole, so in any order.
    pub service_id: u32,
    /// The first address of the range; IPv4 mapped.
    pub ip: [u8; 16],
}

const _: () = assert!(size_of::<SourceRange>() == 4 + 16);

impl SourceRange {
    /// Leading bits of a key that are not those of the address.
    pub const PREFIX_LEN: u32 = 32;
}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for Config {}

#[cfg(feature = "user")]
// SAFETY: no padding (asserted above), and every bit pattern is a value.
unsafe impl aya::Pod for SourceRange {}
