//! What a new set of maps takes over from the one before it, so that an agent with other sizes, or
//! of another version, breaks no flow: translations, affinity, socket peers, fragments, counts.
//!
//! Ids mean nothing outside their set, so they are translated by name. What a Service that is
//! gone left behind is not worth the same everywhere: its clients' affinity and its UDP flows go,
//! as they would with the Service; its other flows end by themselves and stay, with
//! [`NOBODY`] as their id, which is no element of any array: they are not counted, and a new
//! connection from the same port of the client is balanced anew.

use std::{collections::BTreeMap, path::Path};

use aya::{
    Pod,
    maps::{HashMap, MapData, MapError, MapInfo},
};
use podium_proxy_ebpf::{
    AddressPort, AffinityEntry, AffinityKey, FlowEntry, FlowKey, FragmentKey, FragmentPorts,
    PeerKey, Protocol, ServiceCounters, ServiceName, StreamPeer,
    maps::{
        AFFINITY, COUNTERS, FLOWS, FRAGMENTS, GENERATIONS, NAMES, OUTCOMES, SOCKET_PEERS,
        STREAM_PEERS,
    },
};

use super::{Error, batch, kernel::map_into_memory, mapping::Mapping, pinned};
use crate::model::PortName;

/// Id of a service port that is gone.
const NOBODY: u32 = u32::MAX;

/// Not what programs take for the generation of [`NOBODY`], which is 0: a SYN is looked up.
const NO_GENERATION: u32 = u32::MAX;

/// `BPF_ANY`, `BPF_NOEXIST` of `linux/bpf.h`.
const ANY: u64 = 0;
const NOEXIST: u64 = 1;

/// When it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Before the programs go over to the new set: everything. What an interrupted try left there
    /// is older and is replaced.
    Before,
    /// The same where some programs already went over: what they know is newer and stays.
    BeforeTheRest,
    /// After all went over: what the old ones came to know meanwhile.
    After,
}

/// What was taken over, by map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Entries written.
    pub entries: BTreeMap<&'static str, u32>,
}

/// Takes over from one set to another; the names of the new one must be in place.
///
/// A map whose keys or values have another size in the old set is left out: that is another layout.
///
/// # Errors
/// If a map cannot be read or written.
pub fn carry(old: &Path, new: &Path, round: Round) -> Result<Carried, Error> {
    let ids = Ids::read(old, new)?;
    let flags = if round == Round::Before { ANY } else { NOEXIST };
    if round == Round::Before {
        ids.carry_generations(old, new)?;
        ids.carry_counters(old, new)?;
        carry_outcomes(old, new)?;
    }
    let mut carried = Carried::default();
    let mut count = |map, entries: u32| carried.entries.insert(map, entries);
    let flows = copy::<FlowKey, FlowEntry>(old, new, FLOWS, flags, |key, entry| {
        ids.flow(&key, entry).map(|entry| (key, entry))
    })?;
    count(FLOWS, flows);
    let affinity = copy::<AffinityKey, AffinityEntry>(old, new, AFFINITY, flags, |key, entry| {
        ids.affinity(key).map(|key| (key, entry))
    })?;
    count(AFFINITY, affinity);
    let peers = copy::<PeerKey, AddressPort>(old, new, SOCKET_PEERS, flags, as_it_is)?;
    count(SOCKET_PEERS, peers);
    count(STREAM_PEERS, carry_streams(old, new)?);
    let fragments = copy::<FragmentKey, FragmentPorts>(old, new, FRAGMENTS, flags, as_it_is)?;
    count(FRAGMENTS, fragments);
    Ok(carried)
}

#[expect(clippy::unnecessary_wraps, reason = "one of the ways to translate an entry")]
const fn as_it_is<K: Copy, V: Copy>(key: K, value: V) -> Option<(K, V)> {
    Some((key, value))
}

/// Copies what `translate` makes of each entry; returns how many were written.
fn copy<K: Pod, V: Pod>(
    old: &Path,
    new: &Path,
    map: &'static str,
    flags: u64,
    translate: impl Fn(K, V) -> Option<(K, V)>,
) -> Result<u32, Error> {
    let Some(from) = open_same::<K, V>(old, map)? else {
        return Ok(0);
    };
    let mut to: HashMap<MapData, K, V> = pinned::hash(new, map)?;
    let mut written = 0;
    let mut failed = None;
    batch::walk(&from, |key, value| {
        if failed.is_none()
            && let Some((key, value)) = translate(key, value)
        {
            match to.insert(key, value, flags) {
                Ok(()) => written += 1,
                // There already; or the map is smaller than what it shall take, and busy.
                Err(error) if is_one_of(&error, &[libc::EEXIST, libc::ENOMEM]) => {}
                Err(error) => failed = Some(error),
            }
        }
    })
    .map_err(Error::map("read", map))?;
    match failed {
        Some(error) => Err(Error::map("write", map)(error)),
        None => Ok(written),
    }
}

fn is_one_of(error: &MapError, errnos: &[i32]) -> bool {
    matches!(error, MapError::SyscallError(error)
        if error.io_error.raw_os_error().is_some_and(|errno| errnos.contains(&errno)))
}

/// A map of the old set; `None` if it has none of this name and these sizes.
fn open_same<K: Pod, V: Pod>(
    set: &Path,
    map: &'static str,
) -> Result<Option<HashMap<MapData, K, V>>, Error> {
    if !set.join(map).exists() {
        return Ok(None);
    }
    match pinned::hash(set, map) {
        Ok(map) => Ok(Some(map)),
        Err(Error::Map { source, .. }) if is_other_layout(&source) => Ok(None),
        Err(error) => Err(error),
    }
}

const fn is_other_layout(error: &MapError) -> bool {
    matches!(
        error,
        MapError::InvalidKeySize { .. }
            | MapError::InvalidValueSize { .. }
            | MapError::InvalidMapType { .. }
    )
}

/// Ids of the old set, and which ids the same service ports have in the new one.
#[derive(Debug, Default)]
struct Ids(BTreeMap<u32, u32>);

impl Ids {
    fn read(old: &Path, new: &Path) -> Result<Self, Error> {
        let Some(old_names) = open_same::<u32, ServiceName>(old, NAMES)? else {
            return Ok(Self::default());
        };
        let mut by_name = BTreeMap::new();
        batch::walk(&pinned::hash(new, NAMES)?, |id: u32, name: ServiceName| {
            if let Some(name) = PortName::from_abi(&name) {
                by_name.insert(name, id);
            }
        })
        .map_err(Error::map("read", NAMES))?;
        let mut ids = BTreeMap::new();
        batch::walk(&old_names, |id, name: ServiceName| {
            let new_id = PortName::from_abi(&name).and_then(|name| by_name.get(&name));
            if let Some(new_id) = new_id {
                ids.insert(id, *new_id);
            }
        })
        .map_err(Error::map("read", NAMES))?;
        Ok(Self(ids))
    }

    /// A flow with its id in the new set; `None` if it shall not outlive its Service.
    fn flow(&self, key: &FlowKey, entry: FlowEntry) -> Option<FlowEntry> {
        match self.0.get(&entry.service_id) {
            Some(id) => Some(FlowEntry { service_id: *id, ..entry }),
            None if key.protocol == Protocol::Udp as u8 => None,
            None => Some(FlowEntry { service_id: NOBODY, generation: NO_GENERATION, ..entry }),
        }
    }

    fn affinity(&self, key: AffinityKey) -> Option<AffinityKey> {
        let service_id = *self.0.get(&key.service_id)?;
        Some(AffinityKey { service_id, ..key })
    }

    /// Makes every generation another one than that of any flow which is taken over: the list of
    /// endpoints may have changed while no agent ran, so each flow looks it up once.
    fn carry_generations(&self, old: &Path, new: &Path) -> Result<(), Error> {
        let Ok(from) = pinned::array::<u32>(old, GENERATIONS) else {
            return Ok(());
        };
        let mut to = pinned::array::<u32>(new, GENERATIONS)?;
        for (old_id, new_id) in &self.0 {
            let before = from.get(old_id, 0).map_err(Error::map("read", GENERATIONS))?;
            let now = to.get(new_id, 0).map_err(Error::map("read", GENERATIONS))?;
            let generation = next_generation(before, now);
            to.set(*new_id, generation, 0).map_err(Error::map("write", GENERATIONS))?;
        }
        Ok(())
    }

    /// Goes on counting from where the old set is. What is counted there until the programs have
    /// gone over is lost.
    fn carry_counters(&self, old: &Path, new: &Path) -> Result<(), Error> {
        let Ok(from) = pinned::per_cpu::<ServiceCounters>(old, COUNTERS) else {
            return Ok(());
        };
        let mut to = pinned::per_cpu::<ServiceCounters>(new, COUNTERS)?;
        for (old_id, new_id) in &self.0 {
            let counts = from.get(old_id, 0).map_err(Error::map("read", COUNTERS))?;
            to.set(*new_id, counts, 0).map_err(Error::map("write", COUNTERS))?;
        }
        Ok(())
    }
}

/// Another generation than `before`, and than that of any flow of the new set so far.
const fn next_generation(before: u32, now: u32) -> u32 {
    let next = before.wrapping_add(1);
    // An interrupted try may have got further; only being another one counts.
    if next == now { next.wrapping_add(1) } else { next }
}

fn carry_outcomes(old: &Path, new: &Path) -> Result<(), Error> {
    let Ok(from) = pinned::per_cpu::<u64>(old, OUTCOMES) else {
        return Ok(());
    };
    let mut to = pinned::per_cpu::<u64>(new, OUTCOMES)?;
    for outcome in 0..from.len().min(to.len()) {
        let counts = from.get(&outcome, 0).map_err(Error::map("read", OUTCOMES))?;
        to.set(outcome, counts, 0).map_err(Error::map("write", OUTCOMES))?;
    }
    Ok(())
}

/// Every TCP socket to its place in the new array. Of two that share one there, the younger stays.
fn carry_streams(old: &Path, new: &Path) -> Result<u32, Error> {
    if !old.join(STREAM_PEERS).exists() {
        return Ok(0);
    }
    let (from, mut to) = (streams(old)?, streams(new)?);
    let mut written = 0;
    for peer in from.read(0, from.len()).unwrap_or_default() {
        let place = StreamPeer::place(peer.socket_cookie, to.len());
        let Some((place, there)) = place.and_then(|at| Some((at, *to.read(at, 1)?.first()?)))
        else {
            continue;
        };
        let stays = there.is_whole() && there.socket_cookie >= peer.socket_cookie;
        if peer.is_whole() && !stays {
            written += u32::from(to.write(place, &[peer]));
        }
    }
    Ok(written)
}

fn streams(set: &Path) -> Result<Mapping<StreamPeer>, Error> {
    let path = set.join(STREAM_PEERS);
    let len = MapInfo::from_pin(&path).map_err(Error::map("open", STREAM_PEERS))?.max_entries();
    map_into_memory(set, STREAM_PEERS, len)
}

#[cfg(test)]
mod tests {
    use podium_proxy_ebpf::{Hook, Tuple, socket::Holder};

    use super::*;

    #[test]
    fn ids_are_translated() {
        let ids = Ids(BTreeMap::from([(4, 9), (9, 4)]));
        let ends = ["192.0.2.1:1", "192.0.2.2:2"]
            .map(|text| AddressPort::from(text.parse::<std::net::SocketAddr>().unwrap()));
        let tuple = Tuple::new(&ends[0], &ends[1]);
        let entry = |service_id| FlowEntry {
            to: tuple,
            flags: 1,
            service_id,
            generation: 5,
            used_at_ns: 7,
        };
        let flow = |protocol, service_id| {
            let key = FlowKey::new(tuple, protocol as u8, Hook::Ingress);
            let before = entry(service_id);
            let after = ids.flow(&key, before)?;
            let generation = if after.service_id == NOBODY { NO_GENERATION } else { 5 };
            assert_eq!(after, FlowEntry { service_id: after.service_id, generation, ..before });
            Some(after.service_id)
        };
        assert_eq!(flow(Protocol::Tcp, 4), Some(9));
        assert_eq!(flow(Protocol::Udp, 9), Some(4));
        assert_eq!(flow(Protocol::Tcp, 5), Some(NOBODY), "the Service is gone, its connection not");
        assert_eq!(flow(Protocol::Sctp, 5), Some(NOBODY));
        assert_eq!(flow(Protocol::Tcp, NOBODY), Some(NOBODY), "and so the next time");
        assert_eq!(flow(Protocol::Udp, 5), None);
        let client = |id| AffinityKey::of_cookie(1, id, Holder::NetworkNamespace);
        assert_eq!(ids.affinity(client(4)), Some(client(9)));
        assert_eq!(ids.affinity(client(5)), None);
    }

    #[test]
    fn generations_differ_from_those_before() {
        for (before, now) in [(0, 0), (5, 0), (5, 6), (u32::MAX, 0), (u32::MAX, 7)] {
            let next = next_generation(before, now);
            assert!(next != before && next != now, "{before} {now} {next}");
        }
    }
}
