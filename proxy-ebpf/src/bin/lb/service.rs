//! From a service address to one of its endpoints: what sockets and packets have in common.

use core::ptr::read_volatile;

use aya_ebpf::{helpers::generated::bpf_get_prandom_u32, maps::lpm_trie::Key};
use podium_proxy_ebpf::{
    AddressPort, AffinityEntry, AffinityKey, Endpoint, NoEndpoint, Outcome, ServiceEntry,
    ServiceKey, SourceRange, Span, choice,
};

use crate::{
    maps::{AFFINITY, ENDPOINTS, GENERATIONS, MAGLEV, SERVICES, SOURCE_RANGES},
    report,
};

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Looks at an entry before giving up; each miss needs another update of the very same entry.
const LOOK_UPS_MAX: u32 = 4;

/// Why something is not sent to an endpoint. One byte, so that a function that is not inlined can
/// return it in a `Result`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// Not ours: another protocol or another address.
    NotAService,
    /// A service without endpoints.
    NoEndpoints,
    /// A service that wants an endpoint of this node, and has them only elsewhere.
    NoLocalEndpoints,
    /// A ClusterIP, but none of its ports.
    UnknownPort,
    /// The entry changed under each look at it.
    EntryUnreadable,
    /// The entry names an element beyond the array: user space and this program disagree.
    EndpointUnreadable,
    /// A source that the service does not want.
    SourceNotAllowed,
    /// A service that only traffic with a known source may use, and the source is not known here:
    /// the packets will tell.
    SourceUnknown,
    /// No port is left to rewrite the source to.
    NatPortsExhausted,
    /// The flow cannot be remembered.
    FlowNotInserted,
    /// A later fragment whose first one was not seen.
    FragmentWithoutFirst,
    /// Headers that end before the fields to be changed.
    Malformed,
    /// The node knows no way there.
    NoRoute,
    /// An address of the blocks of ClusterIPs that is nobody's.
    UnallocatedClusterIp,
    /// No address of the node to rewrite the source to.
    NoNodeAddress,
    /// The reset of a connection that is not known.
    NothingToReset,
}

impl From<NoEndpoint> for Refusal {
    #[inline(always)]
    fn from(from: NoEndpoint) -> Self {
        match from {
            NoEndpoint::Anywhere => Self::NoEndpoints,
            NoEndpoint::OnThisNode => Self::NoLocalEndpoints,
        }
    }
}

impl Refusal {
    /// What it is counted as; `None` for what is none of our business.
    #[inline(always)]
    pub const fn outcome(self) -> Option<Outcome> {
        Some(match self {
            Self::NotAService | Self::SourceUnknown => return None,
            Self::NoEndpoints => Outcome::NoEndpoints,
            Self::NoLocalEndpoints => Outcome::NoLocalEndpoints,
            Self::UnknownPort => Outcome::UnknownPort,
            Self::EntryUnreadable => Outcome::EntryUnreadable,
            Self::EndpointUnreadable => Outcome::EndpointUnreadable,
            Self::SourceNotAllowed => Outcome::SourceNotAllowed,
            Self::NatPortsExhausted => Outcome::NatPortsExhausted,
            Self::FlowNotInserted => Outcome::FlowNotInserted,
            Self::FragmentWithoutFirst => Outcome::FragmentWithoutFirst,
            Self::Malformed => Outcome::Malformed,
            Self::NoRoute => Outcome::NoRoute,
            Self::UnallocatedClusterIp => Outcome::UnallocatedClusterIp,
            Self::NoNodeAddress => Outcome::NoNodeAddress,
            Self::NothingToReset => Outcome::NothingToReset,
        })
    }
}

/// Copies the entry of a service port, in one piece.
#[inline(always)]
pub fn look_up_into(
    service: &AddressPort,
    key: &ServiceKey,
    entry: &mut ServiceEntry,
) -> Result<(), Refusal> {
    for _ in 0..LOOK_UPS_MAX {
        let Some(found) = SERVICES.get_ptr(key) else {
            return Err(miss(service));
        };
        // SAFETY: map memory stays readable; whether the copy is of one piece is checked next.
        *entry = unsafe { read_volatile(found) };
        if entry.sealed == entry.seal(key) {
            return Ok(());
        }
    }
    Err(Refusal::EntryUnreadable)
}

/// The entry of a service port, in one piece.
#[inline(always)]
pub fn look_up(service: &AddressPort, key: &ServiceKey) -> Result<ServiceEntry, Refusal> {
    let mut entry = ServiceEntry::default();
    look_up_into(service, key, &mut entry).map(|()| entry)
}

/// Tells an unknown port of a ClusterIP from an address that is none of ours.
#[inline(always)]
fn miss(address: &AddressPort) -> Refusal {
    match SERVICES.get_ptr(ServiceKey::whole_address(address.ip)) {
        Some(_) => Refusal::UnknownPort,
        None => Refusal::NotAService,
    }
}

/// Whether an address is none: all zeros.
#[inline(always)]
pub const fn is_unset(ip: &[u8; 16]) -> bool {
    matches!(AddressPort::new(*ip, [0; 2]).order(), (0, 0, 0))
}

/// How often the list of a service port changed.
#[inline(always)]
pub fn generation(service_id: u32) -> u32 {
    GENERATIONS.get(service_id).copied().unwrap_or(0)
}

/// Whether a source may use a service with `loadBalancerSourceRanges`.
#[inline(always)]
pub fn allows(service_id: u32, source: &[u8; 16]) -> bool {
    let range = SourceRange { service_id, ip: *source };
    SOURCE_RANGES.get(Key::new(SourceRange::PREFIX_LEN + 128, range)).is_some()
}

/// The element of a span at an address, if it is still there.
#[inline(always)]
pub fn find(span: Span, endpoint: &AddressPort) -> Option<Endpoint> {
    choice::find(span, endpoint, |index| ENDPOINTS.get(index).copied())
}

/// Any endpoint of a span, all equally likely.
#[inline(always)]
pub fn at_random(span: Span) -> Result<Endpoint, Refusal> {
    // SAFETY: a plain helper without arguments.
    scaled(span, unsafe { bpf_get_prandom_u32() })
}

#[inline(always)]
fn scaled(span: Span, number: u32) -> Result<Endpoint, Refusal> {
    choice::pick(span, number)
        .and_then(|index| ENDPOINTS.get(index).copied())
        .ok_or(Refusal::EndpointUnreadable)
}

/// The endpoint that every node picks for a hash.
#[inline(always)]
pub fn consistent(entry: &ServiceEntry, span: Span, hash: u32) -> Result<Endpoint, Refusal> {
    if entry.maglev.len == 0 || span.start != entry.endpoints.start {
        return scaled(span, hash);
    }
    let slot = choice::slot(entry.maglev.len, hash);
    let block = entry.maglev.start.wrapping_add(slot / choice::SLOTS_PER_BLOCK);
    let offsets = MAGLEV.get(block).ok_or(Refusal::EndpointUnreadable)?;
    let offset = u32::from(offsets[(slot % choice::SLOTS_PER_BLOCK) as usize]);
    if offset >= span.len {
        return Err(Refusal::EndpointUnreadable);
    }
    ENDPOINTS.get(span.start.wrapping_add(offset)).copied().ok_or(Refusal::EndpointUnreadable)
}

/// What the client of a key had, if it is recent enough and still in the span; else a new choice,
/// which it keeps from now on.
#[inline(always)]
pub fn kept_or(
    key: &AffinityKey,
    span: Span,
    kept_secs: u32,
    choose: impl FnOnce() -> Result<Endpoint, Refusal>,
) -> Result<Endpoint, Refusal> {
    let now_ns = report::now_ns();
    if let Some(endpoint) = kept(key, span, u64::from(kept_secs) * NANOS_PER_SEC, now_ns) {
        return Ok(endpoint);
    }
    let endpoint = choose()?;
    let entry = AffinityEntry { endpoint: endpoint.at(), used_at_ns: now_ns };
    if AFFINITY.insert(key, entry, 0).is_err() {
        // The next choice is free again.
        report::count(Outcome::AffinityNotInserted);
    }
    Ok(endpoint)
}

#[inline(always)]
fn kept(key: &AffinityKey, span: Span, kept_ns: u64, now_ns: u64) -> Option<Endpoint> {
    let entry = AFFINITY.get_ptr_mut(key)?;
    // SAFETY: map memory stays valid; a value of another client, should the element be reused
    // while it is read, fails the search below or is as good a choice as any.
    let AffinityEntry { endpoint, used_at_ns } = unsafe { *entry };
    // Another CPU may have used it since the clock was read.
    if now_ns.saturating_sub(used_at_ns) > kept_ns {
        return None;
    }
    let endpoint = find(span, &endpoint)?;
    // SAFETY: as above; one aligned store.
    unsafe { (*entry).used_at_ns = now_ns };
    Some(endpoint)
}
