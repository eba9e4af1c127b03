//! The packet path end to end: real agents, sockets and packets between network namespaces. Need
//! root, cgroup v2 and iproute2, and fail where they lack it; `--skip net_` leaves them out.
//!
//! Each test is named after the row of the rules it shows to be kept.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod affinity;
mod ask;
mod attach;
mod changes;
mod choice;
mod direct;
mod frontends;
mod inside;
mod island;
mod manifest;
mod netns;
mod node;
mod policy;
mod ranges;
mod refusal;
mod restart;
mod routes;
mod sctp;
mod server;
mod sizes;
mod topology;
mod veth;
mod world;
