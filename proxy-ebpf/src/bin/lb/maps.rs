//! The maps of the programs. Types, names and layout version: `podium_proxy_ebpf`. Sizes of those
//! with a flag are set by the loader.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use podium_proxy_ebpf::{
    AddressPort, AffinityEntry, AffinityKey, PeerKey, ServiceEntry, ServiceKey, ServiceName,
    maps::{AFFINITY_LEN, ENDPOINTS_DEFAULT, SERVICES_DEFAULT, SOCKET_PEERS_LEN},
};

#[map]
pub static SERVICES: HashMap<ServiceKey, ServiceEntry> =
    HashMap::pinned(SERVICES_DEFAULT, BPF_F_NO_PREALLOC);

#[map]
pub static ENDPOINTS: Array<AddressPort> = Array::pinned(ENDPOINTS_DEFAULT, BPF_F_MMAPABLE);

/// Read by user space only. It belongs to the set all the same: ids mean nothing without it.
#[map]
pub static NAMES: HashMap<u32, ServiceName> = HashMap::pinned(SERVICES_DEFAULT, BPF_F_NO_PREALLOC);

#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::pinned(SERVICES_DEFAULT, 0);

#[map]
pub static AFFINITY: LruHashMap<AffinityKey, AffinityEntry> = LruHashMap::pinned(AFFINITY_LEN, 0);

#[map]
pub static SOCKET_PEERS: LruHashMap<PeerKey, AddressPort> = LruHashMap::pinned(SOCKET_PEERS_LEN, 0);
