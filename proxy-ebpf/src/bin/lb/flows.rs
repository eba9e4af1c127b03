//! Flows: remembered translations, and how a new one comes to be.

use core::mem::offset_of;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use podium_proxy_ebpf::{
    AddressPort, AffinityKey, Config, Endpoint, FlowEntry, FlowKey, FragmentKey, FragmentPorts,
    Hook, Origin, Outcome, Place, Protocol, ServiceEntry, ServiceKey, Tuple, choice,
    config::flags::DIRECT_RETURN, flags as entry_flags, flow::flags,
};

use crate::{
    direct_return,
    frame::{Buffer, Frame},
    maps::{CONFIG, FLOWS, FRAGMENTS},
    packet::{Fragment, Packet, signals},
    ports,
    report::{self, Decision},
    scratch::{Chosen, Scratch, copy_from},
    service::{self, Refusal},
};

/// How exact [`FlowEntry::used_at_ns`] is: the entry is written to that often at most.
const TOUCHED_EVERY_NS: u64 = 1_000_000_000;

/// Whose traffic comes in at a place.
#[inline(always)]
const fn origin_at(place: Place) -> Origin {
    match place {
        Place::Socket | Place::PodIngress => Origin::Inside,
        Place::UplinkIngress | Place::Egress | Place::Xdp => Origin::Outside,
    }
}

/// Fills in the ports that a later fragment does not carry, and remembers those of a first one.
#[inline(always)]
pub fn complete_fragment(packet: &mut Packet, hook: Hook) -> Result<(), Refusal> {
    let key = FragmentKey::new(
        packet.tuple.src,
        packet.tuple.dst,
        packet.fragment_id,
        packet.protocol,
        hook,
    );
    if packet.fragment == Fragment::First {
        let ports =
            FragmentPorts { src_port: packet.tuple.src_port, dst_port: packet.tuple.dst_port };
        if FRAGMENTS.insert(key, ports, BPF_ANY.into()).is_err() {
            report::count(Outcome::FragmentNotInserted);
        }
        return Ok(());
    }
    // SAFETY: copied; four bytes, written once.
    match unsafe { FRAGMENTS.get(key) } {
        Some(ports) => {
            packet.tuple.src_port = ports.src_port;
            packet.tuple.dst_port = ports.dst_port;
            Ok(())
        }
        None => Err(Refusal::FragmentWithoutFirst),
    }
}

/// Finds the translation of a packet that belongs to a flow, and brings it up to date.
#[inline(always)]
pub fn known(scratch: &mut Scratch, hook: Hook) -> bool {
    let Scratch { packet, key, flow, now_ns, .. } = scratch;
    packet.key_into(hook, key);
    let key: &FlowKey = key;
    *now_ns = report::recently_ns();
    let Some(found) = FLOWS.get_ptr_mut(key) else { return false };
    // SAFETY: map memory stays readable. The element of a flow that was just evicted may be given
    // to another while it is read or written here: what is written are the state, which comes
    // right with the next packets, the time, and a generation, which only asks for a look.
    unsafe { copy_from(flow, found) };
    if packet.needs_live_endpoint() && flow.flags & flags::ORIGIN != 0 {
        let generation = service::generation(flow.service_id);
        if generation != flow.generation {
            if !still_listed(packet, flow) {
                return false;
            }
            // SAFETY: as above; one aligned store.
            unsafe { (*found).generation = generation };
        }
    }
    let bits = packet.bits_after(flow.flags);
    if bits != flow.flags {
        set_state(found, bits);
        flow.flags = bits;
    }
    let now_ns = *now_ns;
    if now_ns.saturating_sub(flow.used_at_ns) > TOUCHED_EVERY_NS {
        // SAFETY: as above; one aligned store.
        unsafe { (*found).used_at_ns = now_ns };
        flow.used_at_ns = now_ns;
        keep_together(scratch);
    }
    true
}

/// Writes the byte of an entry's flags that packets change, and no other.
#[inline(always)]
fn set_state(entry: *mut FlowEntry, bits: u32) {
    const BYTE: usize = offset_of!(FlowEntry, flags) + (flags::STATE_SHIFT / 8) as usize;
    let byte = entry.cast::<u8>().wrapping_add(BYTE);
    // SAFETY: within the entry; the programs are built for little-endian machines.
    unsafe { *byte = (bits >> flags::STATE_SHIFT) as u8 };
}

/// Whether the flow's endpoint is still one of its service's.
#[inline(never)]
fn still_listed(packet: &Packet, entry: &FlowEntry) -> bool {
    let Some(protocol) = Protocol::from_number(packet.protocol) else { return false };
    let service_at = packet.tuple.to();
    let Ok(now) = service::look_up(&service_at, &ServiceKey::new(&service_at, protocol)) else {
        return false;
    };
    // An endpoint of this node is also in the list of all, unless there the topology keeps it out.
    let endpoint = entry.to.to();
    now.id == entry.service_id
        && (service::find(now.endpoints, &endpoint).is_some()
            || service::find(now.local, &endpoint).is_some())
}

/// A look at an entry keeps it from being evicted: those of one flow shall stay or go together.
/// Each side also puts back what of the flow went nevertheless.
#[inline(never)]
pub fn keep_together(scratch: &mut Scratch) {
    if scratch.flow.flags & flags::ORIGIN == 0 {
        return keep_origin(scratch);
    }
    let Scratch { packet, key, flow, other_key, other, ends, .. } = scratch;
    let Some(answer) = flow.answer_key(packet.protocol) else { return };
    *other_key = answer;
    answer_entry(&key.tuple, flow, other);
    keep(other_key, other);
    if flow.flags & (flags::SOURCE_REWRITTEN | flags::FORWARD) == flags::SOURCE_REWRITTEN {
        *ends = Tuple::new(&key.tuple.from(), &flow.to.to());
        *other_key = FlowKey::new(ends.reversed(), packet.protocol, Hook::Egress);
        keep(other_key, other);
        *other_key = FlowKey::new(*ends, packet.protocol, Hook::Egress);
        other.to = flow.to;
        other.flags = flags::SOURCE_REWRITTEN;
        keep(other_key, other);
    }
}

/// The same from the side of answers, of which the first kind to be met leads back to where the
/// flow came from.
#[inline(never)]
fn keep_origin(scratch: &mut Scratch) {
    let Scratch { packet, key, flow, other_key, other, .. } = scratch;
    *other_key = FlowKey::new(flow.to.reversed(), packet.protocol, Hook::Ingress);
    let is_first = key.hook == Hook::Ingress as u8 || flow.flags & flags::SOURCE_REWRITTEN == 0;
    if !is_first || flow.flags & flags::DIRECT_RETURN != 0 {
        look_at(other_key);
        return;
    }
    *other = *flow;
    other.to = key.tuple.reversed();
    other.flags |= flags::ORIGIN;
    // Not known when the endpoint was last seen in the list: the next packet that asks looks.
    other.generation = service::generation(flow.service_id).wrapping_sub(1);
    keep(other_key, other);
}

/// Looks at an entry, and puts it back if it is gone.
#[inline(always)]
fn keep(key: &FlowKey, entry: &FlowEntry) {
    if !look_at(key) {
        insert_missing(key, entry);
    }
}

/// The flags that all entries of a flow have in common.
const KIND: u32 =
    flags::FORWARD | flags::SOURCE_REWRITTEN | flags::DIRECT_RETURN | flags::PORT_REWRITTEN;

/// What becomes of answers, given the client's packets as they come and their entry.
#[inline(always)]
fn answer_entry(before: &Tuple, origin: &FlowEntry, into: &mut FlowEntry) {
    into.to = before.reversed();
    into.flags = origin.flags & KIND;
    into.service_id = origin.service_id;
    into.generation = 0;
    into.used_at_ns = origin.used_at_ns;
}

/// Opens a flow: picks an endpoint, and remembers what becomes of its packets and their answers.
#[inline(never)]
pub fn open(buffer: &Buffer, scratch: &mut Scratch, place: Place) -> Result<(), Refusal> {
    scratch.chosen.has_service = false;
    scratch.chosen.has_endpoint = false;
    let opened = find_service(scratch)
        .and_then(|()| choose(scratch, place))
        .and_then(|()| remember(buffer, scratch, place));
    let outcome = match opened {
        Ok(()) => Outcome::FlowOpened,
        Err(refusal) => match refusal.outcome() {
            Some(outcome) => outcome,
            None => return opened,
        },
    };
    tell(buffer, scratch, place, outcome);
    opened
}

#[inline(never)]
fn tell(buffer: &Buffer, scratch: &Scratch, place: Place, outcome: Outcome) {
    let chosen = &scratch.chosen;
    let endpoint = chosen.endpoint.at();
    let source = scratch.flow.to.from();
    if let Outcome::FlowOpened = outcome {
        report::account(chosen.service_id, 1, 0, 0);
    }
    let decision = Decision {
        place,
        protocol: scratch.packet.protocol,
        before: &scratch.packet.tuple,
        service_id: chosen.has_service.then_some(chosen.service_id),
        endpoint: chosen.has_endpoint.then_some(&endpoint),
        source: chosen.has_endpoint.then_some(&source),
        ifindex: buffer.ifindex(),
    };
    report::decided(outcome, &decision);
}

/// Finds the packet's service, if the packet may use it.
#[inline(never)]
fn find_service(scratch: &mut Scratch) -> Result<(), Refusal> {
    let Scratch { packet, chosen, entry, .. } = scratch;
    let protocol = Protocol::from_number(packet.protocol).ok_or(Refusal::NotAService)?;
    let service_at = packet.tuple.to();
    let service_key = ServiceKey::new(&service_at, protocol);
    service::look_up_into(&service_at, &service_key, entry)?;
    // The generation is read before the list is, so that a list changed in between is noticed.
    let first_id = entry.id;
    let generation = service::generation(first_id);
    service::look_up_into(&service_at, &service_key, entry)?;
    chosen.service_id = entry.id;
    chosen.flags = entry.flags;
    chosen.has_service = true;
    chosen.generation = if first_id == entry.id { generation } else { generation.wrapping_sub(1) };
    if entry.flags & entry_flags::HOST_ONLY != 0 {
        return Err(Refusal::NotAService);
    }
    if packet.signals & signals::RST != 0 {
        return Err(Refusal::NothingToReset);
    }
    if entry.flags & entry_flags::SOURCE_RANGES != 0
        && !service::allows(entry.id, &packet.tuple.src)
    {
        return Err(Refusal::SourceNotAllowed);
    }
    Ok(())
}

/// Picks an endpoint of the packet's service.
#[inline(never)]
fn choose(scratch: &mut Scratch, place: Place) -> Result<(), Refusal> {
    let Scratch { packet, chosen, entry, .. } = scratch;
    chosen.endpoint = endpoint_for(packet, entry, origin_at(place))?;
    chosen.has_endpoint = true;
    Ok(())
}

#[inline(always)]
fn endpoint_for(
    packet: &Packet,
    entry: &ServiceEntry,
    origin: Origin,
) -> Result<Endpoint, Refusal> {
    let span = entry.candidates(origin)?;
    let client = packet.tuple.from();
    if entry.affinity_secs > 0 {
        let key = AffinityKey::of_address(client.ip, entry.id);
        // Every node that sees this client first picks the same endpoint, whatever its port.
        let hash = choice::flow_hash(&AddressPort::new(client.ip, [0; 2]), packet.protocol);
        return service::kept_or(&key, span, entry.affinity_secs, || {
            service::consistent(entry, span, hash)
        });
    }
    match origin {
        Origin::Inside => service::at_random(span),
        Origin::Outside => {
            service::consistent(entry, span, choice::flow_hash(&client, packet.protocol))
        }
    }
}

/// How packets of a new flow are to be treated: bits of [`flags`].
#[inline(always)]
fn treatment(packet: &Packet, place: Place, chosen: &Chosen, config: &Config) -> u32 {
    let elsewhere = chosen.endpoint.place == Endpoint::ELSEWHERE;
    // Who reaches itself would not take a packet from its own address.
    let is_hairpin = is_same(&chosen.endpoint.ip, &packet.tuple.src);
    if let Origin::Inside = origin_at(place) {
        return if is_hairpin { flags::SOURCE_REWRITTEN } else { 0 };
    }
    let forward = if elsewhere { flags::FORWARD } else { 0 };
    if is_hairpin && elsewhere {
        return forward | flags::SOURCE_REWRITTEN;
    }
    let keeps_source = chosen.flags & entry_flags::EXTERNAL_LOCAL != 0
        || chosen.endpoint.place == Endpoint::ON_HOST
        || config.flags & DIRECT_RETURN != 0 && !elsewhere;
    if keeps_source {
        forward
    } else if config.flags & DIRECT_RETURN != 0 && direct_return::is_possible(packet) {
        forward | flags::DIRECT_RETURN
    } else {
        forward | flags::SOURCE_REWRITTEN
    }
}

/// Without `memcmp`, which a kernel program does not have.
#[inline(always)]
fn is_same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    AddressPort::new(*a, [0; 2]).order() == AddressPort::new(*b, [0; 2]).order()
}

/// Puts the entries of a flow into the map: those for answers first, so that no packet is
/// translated whose answer would not be.
#[inline(never)]
fn remember(buffer: &Buffer, scratch: &mut Scratch, place: Place) -> Result<(), Refusal> {
    let Scratch { packet, key, flow, chosen, other_key, other, ends, .. } = scratch;
    let config = CONFIG.get(0).ok_or(Refusal::NoNodeAddress)?;
    flow.to = Tuple::new(&packet.tuple.from(), &chosen.endpoint.at());
    flow.flags = flags::ORIGIN | treatment(packet, place, chosen, config);
    flow.service_id = chosen.service_id;
    flow.generation = chosen.generation;
    flow.used_at_ns = report::now_ns();
    *ends = flow.to;
    answer_entry(&key.tuple, flow, other);
    if flow.flags & flags::SOURCE_REWRITTEN == 0 {
        if let Some(answer) = flow.answer_key(packet.protocol) {
            *other_key = answer;
            if claim_egress(other_key, other).is_err() {
                ports::claim_for_client(packet, flow, other_key, other)?;
            } else {
                // What an older flow of these ends left: their source is kept now.
                *other_key = FlowKey::new(*ends, packet.protocol, Hook::Egress);
                forget(other_key);
            }
        }
        return insert(key, flow);
    }
    if flow.flags & flags::FORWARD == 0 {
        *other_key = FlowKey::new(ends.reversed(), packet.protocol, Hook::Egress);
        if claim_egress(other_key, other).is_err() {
            // Another flow of the same client port has this way through the stack: past it there
            // is room for both, as their sources differ.
            flow.flags |= flags::FORWARD;
            other.flags |= flags::FORWARD;
        }
    }
    ports::claim(buffer, packet, config, chosen.endpoint.place, flow, other_key, other)?;
    if flow.flags & flags::FORWARD == 0 {
        *other_key = FlowKey::new(*ends, packet.protocol, Hook::Egress);
        other.to = flow.to;
        other.flags = flags::SOURCE_REWRITTEN;
        insert(other_key, other)?;
    }
    insert(key, flow)
}

/// Puts an entry for answers on their way out into the map, unless a living flow has its place: a
/// client that reaches one endpoint from one port by two addresses of its service.
#[inline(always)]
fn claim_egress(key: &FlowKey, entry: &FlowEntry) -> Result<(), Refusal> {
    if FLOWS.insert(key, entry, BPF_NOEXIST.into()).is_ok() {
        return Ok(());
    }
    if let Some(taken) = FLOWS.get_ptr(key) {
        // SAFETY: map memory stays readable; see `known`.
        let taken = unsafe { &*taken };
        let is_same = taken.to.from().order() == entry.to.from().order();
        if !is_same && !is_closed(taken) && !ports::is_over(taken, key.protocol) {
            return Err(Refusal::FlowNotInserted);
        }
    }
    insert(key, entry)
}

/// Puts what another node told into the map, unless it says what is there already, or a living
/// flow of this node's own is there.
#[inline(always)]
pub fn insert_unless_same(key: &FlowKey, entry: &FlowEntry) {
    if let Some(there) = FLOWS.get_ptr(key) {
        // SAFETY: map memory stays readable; see `known`.
        let there = unsafe { &*there };
        let is_same = there.to.from().order() == entry.to.from().order();
        let is_of_others = there.flags & flags::DIRECT_RETURN == 0
            && !is_closed(there)
            && !ports::is_over(there, key.protocol);
        if is_same || is_of_others {
            return;
        }
    }
    if insert(key, entry).is_err() {
        // Its answers will leave with the endpoint's address.
        report::count(Outcome::FlowNotInserted);
    }
}

#[inline(always)]
fn forget(key: &FlowKey) {
    let _ = FLOWS.remove(key);
}

/// Looks at an entry, which keeps it; whether it is there.
#[inline(always)]
fn look_at(key: &FlowKey) -> bool {
    FLOWS.get_ptr(key).is_some()
}

/// Puts an entry into the map unless there is one. Should that fail, the next packet tries again.
#[inline(always)]
pub fn insert_missing(key: &FlowKey, entry: &FlowEntry) {
    let _ = FLOWS.insert(key, entry, BPF_NOEXIST.into());
}

#[inline(always)]
pub fn insert(key: &FlowKey, entry: &FlowEntry) -> Result<(), Refusal> {
    FLOWS.insert(key, entry, BPF_ANY.into()).map_err(|_| Refusal::FlowNotInserted)
}

/// For a packet that the node's own stack has to deal with instead of [`flags::FORWARD`], because it
/// must be taken apart or answered with an error: what gives its parts their source, and what
/// translates the error back, both on their way out.
#[inline(never)]
pub fn expect_detour(scratch: &mut Scratch) -> Result<(), Refusal> {
    let Scratch { packet, flow, other_key, other, ends, .. } = scratch;
    *ends = Tuple::new(&packet.tuple.from(), &flow.to.to());
    *other = *flow;
    // Counted at ingress.
    other.flags = flags::SOURCE_REWRITTEN;
    *other_key = FlowKey::new(*ends, packet.protocol, Hook::Egress);
    claim_egress(other_key, other)?;
    other.to = packet.tuple.reversed();
    *other_key = FlowKey::new(ends.reversed(), packet.protocol, Hook::Egress);
    claim_egress(other_key, other)
}

/// For what opens a connection straight to an endpoint: the entries that another one left which
/// the same client port reached it by through a service.
#[inline(never)]
pub fn forget_left_over(scratch: &mut Scratch) {
    let Scratch { packet, other_key, .. } = scratch;
    *other_key = FlowKey::new(packet.tuple.reversed(), packet.protocol, Hook::Egress);
    let key: &FlowKey = other_key;
    let Some(entry) = FLOWS.get_ptr(key) else { return };
    // SAFETY: map memory stays readable; see `known`.
    let entry = unsafe { &*entry };
    if is_closed(entry) || ports::is_over(entry, packet.protocol) {
        forget(key);
        *other_key = FlowKey::new(packet.tuple, packet.protocol, Hook::Egress);
        forget(other_key);
    }
}

#[inline(always)]
const fn is_closed(entry: &FlowEntry) -> bool {
    entry.flags & (flags::FIN | flags::RST) != 0
}
