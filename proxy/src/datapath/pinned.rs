//! Pinned maps, opened with the types that `podium_proxy_ebpf` gives them. One whose keys or values
//! have another size is an error, not a misunderstanding.

use std::path::Path;

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, lpm_trie::LpmTrie},
};
use podium_proxy_ebpf::{SourceRange, maps::SOURCE_RANGES};

use super::Error;

/// A hash map, LRU or not.
pub fn hash<K: Pod, V: Pod>(
    set: &Path,
    map: &'static str,
) -> Result<HashMap<MapData, K, V>, Error> {
    open(set, map).and_then(|data| HashMap::try_from(data).map_err(Error::map("understand", map)))
}

/// An array.
pub fn array<V: Pod>(set: &Path, map: &'static str) -> Result<Array<MapData, V>, Error> {
    open(set, map).and_then(|data| Array::try_from(data).map_err(Error::map("understand", map)))
}

/// An array with an element for each CPU.
pub fn per_cpu<V: Pod>(set: &Path, map: &'static str) -> Result<PerCpuArray<MapData, V>, Error> {
    open(set, map)
        .and_then(|data| PerCpuArray::try_from(data).map_err(Error::map("understand", map)))
}

/// The source ranges.
pub fn source_ranges(set: &Path) -> Result<LpmTrie<MapData, SourceRange, u8>, Error> {
    open(set, SOURCE_RANGES)
        .and_then(|data| LpmTrie::try_from(data).map_err(Error::map("understand", SOURCE_RANGES)))
}

fn open(set: &Path, map: &'static str) -> Result<Map, Error> {
    MapData::from_pin(set.join(map)).and_then(Map::from_map_data).map_err(Error::map("open", map))
}
