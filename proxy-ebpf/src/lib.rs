//! The ABI between podium-proxy's two halves: keys and values of the eBPF maps, their names and
//! sizes, and the pure arithmetic both sides do with them.
//!
//! Everything here is `no_std` and knows neither map nor socket. The programs that use it are in
//! `src/bin/lb`; user space lives in the `proxy` crate. Addresses and ports are byte arrays in
//! network order; counts and indexes are native integers, as both halves run on one machine.
//! Padding is a compile error: each type asserts that its size is the sum of its fields.

#![no_std]

pub mod address;
pub mod checksum;
pub mod choice;
pub mod config;
pub mod flow;
pub mod maps;
pub mod outcome;
pub mod service;
pub mod socket;

pub use address::{AddressPort, Endpoint};
pub use config::{Cidr, Config, PortRange, SourceRange};
pub use flow::{FlowEntry, FlowKey, FragmentKey, FragmentPorts, Hook, Tuple};
pub use outcome::{Event, Monitor, Outcome, Place, ServiceCounters};
pub use service::{
    Family, FrontendKind, NoEndpoint, Origin, Protocol, ServiceEntry, ServiceKey, ServiceName,
    Span, flags,
};
pub use socket::{AffinityEntry, AffinityKey, PeerKey, StreamPeer};
