//! Names and sizes of the maps, as both halves and `bpftool` know them.

/// Version of everything pinned: the key and value types of this crate and what they mean. A
/// change of either raises it; an agent that finds another version builds a new set of maps, fills
/// it, swings the programs over to it and drops the old one.
pub const LAYOUT_VERSION: u32 = 3;

/// Service address, port and protocol → entry.
pub const SERVICES: &str = "SERVICES";
/// Spans of endpoints, mapped into user space.
pub const ENDPOINTS: &str = "ENDPOINTS";
/// Tables for the consistent choice, mapped into user space.
pub const MAGLEV: &str = "MAGLEV";
/// Service id → name.
pub const NAMES: &str = "NAMES";
/// Service id → how often its list of endpoints changed.
pub const GENERATIONS: &str = "GENERATIONS";
/// Service id → connections, packets and bytes, per CPU.
pub const COUNTERS: &str = "COUNTERS";
/// Outcome → how often, per CPU.
pub const OUTCOMES: &str = "OUTCOMES";
/// Service id and source prefix → allowed.
pub const SOURCE_RANGES: &str = "SOURCE_RANGES";
/// What the programs are told about their node.
pub const CONFIG: &str = "CONFIG";
/// Whether decisions are told.
pub const MONITOR: &str = "MONITOR";
/// Decisions, for who listens.
pub const EVENTS: &str = "EVENTS";
/// Client and service id → endpoint.
pub const AFFINITY: &str = "AFFINITY";
/// UDP socket and endpoint → service address.
pub const SOCKET_PEERS: &str = "SOCKET_PEERS";
/// TCP socket → endpoint and service address, mapped into user space.
pub const STREAM_PEERS: &str = "STREAM_PEERS";
/// Packet → translated packet: conntrack and NAT in one.
pub const FLOWS: &str = "FLOWS";
/// Fragmented packet → ports.
pub const FRAGMENTS: &str = "FRAGMENTS";

/// Every map, in the order of this file.
pub const ALL: [&str; 16] = [
    SERVICES,
    ENDPOINTS,
    MAGLEV,
    NAMES,
    GENERATIONS,
    COUNTERS,
    OUTCOMES,
    SOURCE_RANGES,
    CONFIG,
    MONITOR,
    EVENTS,
    AFFINITY,
    SOCKET_PEERS,
    STREAM_PEERS,
    FLOWS,
    FRAGMENTS,
];

/// Service addresses with a port, and ClusterIPs, unless a flag says otherwise.
pub const SERVICES_DEFAULT: u32 = 65_536;
/// Elements of the endpoints array, unless a flag says otherwise.
pub const ENDPOINTS_DEFAULT: u32 = 262_144;
/// Blocks of [`crate::choice::SLOTS_PER_BLOCK`] slots, unless a flag says otherwise: 16 MiB, for
/// about 2,000 service ports that are reached from outside.
pub const MAGLEV_DEFAULT: u32 = 2 << 20;
/// Source ranges of all services together, unless a flag says otherwise.
pub const SOURCE_RANGES_DEFAULT: u32 = 65_536;
/// Clients with affinity that are remembered, unless a flag says otherwise.
pub const AFFINITY_DEFAULT: u32 = 65_536;
/// Sockets whose peer is remembered, of UDP and of TCP each, unless a flag says otherwise.
pub const SOCKET_PEERS_DEFAULT: u32 = 131_072;
/// Translations that are remembered, two or four a flow, unless a flag says otherwise.
pub const FLOWS_DEFAULT: u32 = 262_144;
/// Fragmented packets whose ports are remembered: many more than fit into the time they live.
pub const FRAGMENTS_LEN: u32 = 8_192;
/// Bytes of the ring buffer of decisions.
pub const EVENTS_BYTES: u32 = 256 << 10;
