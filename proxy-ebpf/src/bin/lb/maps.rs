//! The maps of the programs. Types, names and layout version: `podium_proxy_ebpf`. Sizes of those
//! with a flag are set by the loader.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use podium_proxy_ebpf::{
    AddressPort, AffinityEntry, AffinityKey, Config, Endpoint, FlowEntry, FlowKey, FragmentKey,
    FragmentPorts, Monitor, Outcome, PeerKey, ServiceCounters, ServiceEntry, ServiceKey,
    ServiceName, SourceRange, StreamPeer,
    maps::{
        AFFINITY_DEFAULT, ENDPOINTS_DEFAULT, EVENTS_BYTES, FLOWS_DEFAULT, FRAGMENTS_LEN,
        MAGLEV_DEFAULT, SERVICES_DEFAULT, SOCKET_PEERS_DEFAULT, SOURCE_RANGES_DEFAULT,
    },
};

#[map]
pub static SERVICES: HashMap<ServiceKey, ServiceEntry> =
    HashMap::pinned(SERVICES_DEFAULT, BPF_F_NO_PREALLOC);

#[map]
pub static ENDPOINTS: Array<Endpoint> = Array::pinned(ENDPOINTS_DEFAULT, BPF_F_MMAPABLE);

#[map]
pub static MAGLEV: Array<[u16; 4]> = Array::pinned(MAGLEV_DEFAULT, BPF_F_MMAPABLE);

/// Read by user space only. It belongs to the set all the same: ids mean nothing without it.
#[map]
pub static NAMES: HashMap<u32, ServiceName> = HashMap::pinned(SERVICES_DEFAULT, BPF_F_NO_PREALLOC);

#[map]
pub static GENERATIONS: Array<u32> = Array::pinned(SERVICES_DEFAULT, 0);

#[map]
pub static COUNTERS: PerCpuArray<ServiceCounters> = PerCpuArray::pinned(SERVICES_DEFAULT, 0);

#[map]
pub static OUTCOMES: PerCpuArray<u64> = PerCpuArray::pinned(Outcome::COUNT, 0);

#[map]
pub static SOURCE_RANGES: LpmTrie<SourceRange, u8> =
    LpmTrie::pinned(SOURCE_RANGES_DEFAULT, BPF_F_NO_PREALLOC);

#[map]
pub static CONFIG: Array<Config> = Array::pinned(1, 0);

#[map]
pub static MONITOR: Array<Monitor> = Array::pinned(1, 0);

#[map]
pub static EVENTS: RingBuf = RingBuf::pinned(EVENTS_BYTES, 0);

#[map]
pub static AFFINITY: LruHashMap<AffinityKey, AffinityEntry> =
    LruHashMap::pinned(AFFINITY_DEFAULT, 0);

#[map]
pub static SOCKET_PEERS: LruHashMap<PeerKey, AddressPort> =
    LruHashMap::pinned(SOCKET_PEERS_DEFAULT, 0);

#[map]
pub static STREAM_PEERS: Array<StreamPeer> = Array::pinned(SOCKET_PEERS_DEFAULT, BPF_F_MMAPABLE);

#[map]
pub static FLOWS: LruHashMap<FlowKey, FlowEntry> = LruHashMap::pinned(FLOWS_DEFAULT, 0);

#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> = LruHashMap::pinned(FRAGMENTS_LEN, 0);
