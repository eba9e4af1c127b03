//! Names and sizes of the maps, as both halves and `bpftool` know them.

/// Version of everything pinned: the key and value types of this crate and what they mean. A
/// change of either raises it; an agent that finds another version builds a new set of maps, fills
/// it, swings the programs over to it and drops the old one.
pub const LAYOUT_VERSION: u32 = 1;

/// Service address, port and protocol → entry.
pub const SERVICES: &str = "SERVICES";
/// Spans of endpoints, mapped into user space.
pub const ENDPOINTS: &str = "ENDPOINTS";
/// Service id → name.
pub const NAMES: &str = "NAMES";
/// Service id → connections made, per CPU.
pub const COUNTERS: &str = "COUNTERS";
/// Client and service id → endpoint.
pub const AFFINITY: &str = "AFFINITY";
/// Socket and endpoint → service address.
pub const SOCKET_PEERS: &str = "SOCKET_PEERS";

/// Every map, in the order of this file.
pub const ALL: [&str; 6] = [SERVICES, ENDPOINTS, NAMES, COUNTERS, AFFINITY, SOCKET_PEERS];

/// Service addresses with a port, and ClusterIPs, unless a flag says otherwise.
pub const SERVICES_DEFAULT: u32 = 65_536;
/// Elements of the endpoints array, unless a flag says otherwise.
pub const ENDPOINTS_DEFAULT: u32 = 262_144;
/// Clients with affinity that are remembered.
pub const AFFINITY_LEN: u32 = 65_536;
/// Sockets whose peer is remembered.
pub const SOCKET_PEERS_LEN: u32 = 131_072;
