//! What the programs are told about their node: the one element of `CONFIG`.

use std::{
    fs, io, net::IpAddr, num::ParseIntError, ops::RangeInclusive, os::fd::AsRawFd as _,
    str::FromStr,
};

use ipnet::IpNet;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use podium_proxy_ebpf::{
    Cidr, Config, PortRange, address,
    config::{NAT_RANGES, SERVICE_CIDRS, flags},
};

use super::Error;
use crate::model::LocalNode;

/// Where sockets get ports by themselves; relative to the network namespace of who reads it.
const LOCAL_PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The first port that needs no privilege.
const UNPRIVILEGED: u16 = 1024;

/// How packets from outside reach endpoints on other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ForwardingMode {
    /// With this node's address as their source; answers come back through this node.
    #[default]
    Snat,
    /// With the client's address; answers go straight to the client (direct server return).
    Dsr,
}

/// `--service-node-port-range`: the ports that node ports are allocated from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePortRange(pub RangeInclusive<u16>);

impl Default for NodePortRange {
    fn default() -> Self {
        Self(30_000..=32_767)
    }
}

/// A text that is no range of ports.
#[derive(Debug, thiserror::Error)]
pub enum NodePortRangeError {
    /// Not two numbers.
    #[error("want FIRST-LAST, such as 30000-32767")]
    Form,
    /// Not numbers of ports.
    #[error("want two ports, FIRST-LAST: {0}")]
    Number(#[from] ParseIntError),
    /// The wrong way round, or port 0.
    #[error("want FIRST-LAST with 1 <= FIRST <= LAST")]
    Empty,
}

impl FromStr for NodePortRange {
    type Err = NodePortRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, last) = text.split_once('-').ok_or(NodePortRangeError::Form)?;
        let (first, last) = (first.trim().parse::<u16>()?, last.trim().parse::<u16>()?);
        if first == 0 || first > last {
            return Err(NodePortRangeError::Empty);
        }
        Ok(Self(first..=last))
    }
}

/// What does not change while an agent runs.
#[derive(Clone, Debug, Default)]
pub struct Forwarding {
    /// How endpoints on other nodes are reached.
    pub mode: ForwardingMode,
    /// Ports that belong to Services.
    pub node_ports: NodePortRange,
}

/// Puts what the API says of the node into an element.
pub fn fill(config: &mut Config, node: &LocalNode) {
    let mapped = |ip: Option<IpAddr>| ip.map(address::map).unwrap_or_default();
    config.node_v4 = mapped(node.primary_v4.map(IpAddr::V4));
    config.node_v6 = mapped(node.primary_v6.map(IpAddr::V6));
    config.service_cidrs = [Cidr::default(); SERVICE_CIDRS];
    for (slot, block) in config.service_cidrs.iter_mut().zip(&node.service_cidrs) {
        *slot = cidr(*block);
    }
}

/// A block in the form of the map.
fn cidr(block: IpNet) -> Cidr {
    let beyond_mapped = match block {
        IpNet::V4(_) => 96,
        IpNet::V6(_) => 0,
    };
    Cidr {
        ip: address::map(block.network()),
        prefix_len: beyond_mapped + u32::from(block.prefix_len()),
    }
}

impl Forwarding {
    /// The element without what only the API tells, for the network namespace of this thread.
    ///
    /// # Errors
    /// If the kernel does not tell which namespace that is, or which ports it gives to sockets.
    pub fn config(&self) -> Result<Config, Error> {
        let text =
            fs::read_to_string(LOCAL_PORT_RANGE).map_err(Error::io("read", LOCAL_PORT_RANGE))?;
        let local = local_port_range(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not two ports"))
            .map_err(Error::io("understand", LOCAL_PORT_RANGE))?;
        let nat_ports = nat_ports(&[self.node_ports.0.clone(), local.clone()]);
        if nat_ports == [PortRange::default(); NAT_RANGES] {
            tracing::warn!(
                "no port is left for rewritten sources: {LOCAL_PORT_RANGE} says {}-{}, \
                 --service-node-port-range {}-{}; make one of them smaller, or connections from \
                 outside to endpoints in pods are dropped",
                local.start(),
                local.end(),
                self.node_ports.0.start(),
                self.node_ports.0.end(),
            );
        }
        Ok(Config {
            host_netns_cookie: netns_cookie().map_err(Error::io("ask", "SO_NETNS_COOKIE"))?,
            nat_ports,
            flags: match self.mode {
                ForwardingMode::Snat => 0,
                ForwardingMode::Dsr => flags::DIRECT_RETURN,
            },
            ..Config::default()
        })
    }
}

/// The two numbers of `ip_local_port_range`.
fn local_port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<u16>);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

/// Unprivileged ports outside the ranges given; where that leaves more runs than there is room
/// for, the longest.
///
/// `ip_local_reserved_ports` stays in. It keeps ports within `ip_local_port_range` from being given
/// out by themselves, and that range is out as a whole. A program that binds one of the others on
/// purpose is no obstacle: a rewritten flow is known by both ends, so the two meet only where both
/// talk from the same port to the same endpoint.
fn nat_ports(taken: &[RangeInclusive<u16>]) -> [PortRange; NAT_RANGES] {
    let mut taken: Vec<_> =
        taken.iter().map(|range| (u32::from(*range.start()), u32::from(*range.end()))).collect();
    taken.sort_unstable();
    let end = u32::from(u16::MAX) + 1;
    let mut runs = Vec::new();
    let mut next = u32::from(UNPRIVILEGED);
    for (first, last) in taken.into_iter().chain([(end, end)]) {
        if first > next {
            runs.push((next, first - next));
        }
        next = next.max(last + 1);
    }
    runs.sort_unstable_by_key(|(first, len)| (std::cmp::Reverse(*len), *first));
    runs.truncate(NAT_RANGES);
    runs.sort_unstable();
    let mut ranges = [PortRange::default(); NAT_RANGES];
    for (range, (first, len)) in ranges.iter_mut().zip(runs) {
        // Both fit: all is below 65,536, and what is below 1024 is not in a run.
        *range = PortRange {
            first: u16::try_from(first).unwrap_or(0),
            len: u16::try_from(len).unwrap_or(0),
        };
    }
    ranges
}

/// The network namespace of this thread, as `bpf_get_netns_cookie` tells it.
fn netns_cookie() -> io::Result<u64> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .or_else(|_| {
            socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        })?;
    let mut cookie = 0_u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: `cookie` has room for the `len` bytes of the answer, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            any.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(taken: &[RangeInclusive<u16>]) -> Vec<(u16, u16)> {
        (nat_ports(taken).iter())
            .filter(|range| range.len > 0)
            .map(|range| (range.first, range.first + (range.len - 1)))
            .collect()
    }

    #[test]
    fn ports_for_rewritten_sources() {
        let defaults = [30_000..=32_767, 32_768..=60_999];
        assert_eq!(runs(&defaults), [(1024, 29_999), (61_000, 65_535)]);
        assert_eq!(runs(&[]), [(1024, 65_535)]);
        assert_eq!(runs(&[1..=65_535]), []);
        assert_eq!(runs(&[0..=65_535, 30_000..=32_767]), []);
        assert_eq!(runs(&[30_000..=32_767, 10_000..=65_535]), [(1024, 9999)], "one in the other");
        assert_eq!(runs(&[1..=1023]), [(1024, 65_535)]);
        assert_eq!(runs(&[1024..=1024, 65_535..=65_535]), [(1025, 65_534)]);
        let many = [2000..=2999, 3010..=3999, 5000..=5999, 6100..=6999, 60_000..=65_000];
        let largest = [(1024, 1999), (4000, 4999), (7000, 59_999), (65_001, 65_535)];
        assert_eq!(runs(&many), largest, "the short ones between are left out");
    }

    #[test]
    fn ranges_of_ports() {
        let parse = |text: &str| text.parse::<NodePortRange>().map_err(|error| error.to_string());
        assert_eq!(parse("30000-32767"), Ok(NodePortRange::default()));
        assert_eq!(parse("1-1"), Ok(NodePortRange(1..=1)));
        for wrong in ["", "30000", "5-4", "0-5", "1-65536", "a-b"] {
            assert!(parse(wrong).unwrap_err().contains("FIRST-LAST"), "{wrong}");
        }
        assert_eq!(local_port_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(local_port_range("32768"), None);
    }

    #[test]
    fn blocks_of_service_addresses() {
        let mut config = Config::default();
        let node = LocalNode {
            primary_v4: "192.0.2.1".parse().ok(),
            service_cidrs: ["10.96.0.0/12", "fd00:96::/112"]
                .map(|text| text.parse().unwrap())
                .into(),
            ..LocalNode::default()
        };
        fill(&mut config, &node);
        let [v4, v6, none, _] = config.service_cidrs;
        assert_eq!((v4.prefix_len, v6.prefix_len, none.prefix_len), (108, 112, 0));
        let inside = |text: &str| {
            let ip = address::map(text.parse().unwrap());
            config.service_cidrs.iter().any(|block| block.contains(&ip))
        };
        assert!(inside("10.111.255.255") && inside("fd00:96::ffff"));
        assert!(!inside("10.112.0.0") && !inside("fd00:97::"));
        assert_eq!(address::unmap(config.node_v4).to_string(), "192.0.2.1");
        assert_eq!(config.node_v6, [0; 16]);
    }
}
