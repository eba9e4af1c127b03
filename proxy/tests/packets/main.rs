//! Packet fixtures: description, packet in, verdict, packet out, through BPF_PROG_TEST_RUN of the
//! real programs on maps filled by the real plan. Need root and a bpffs, and fail where they lack
//! it; `--skip kernel_` leaves them out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::cast_possible_truncation, reason = "packets are shorter than 64 KiB")]

mod anatomy;
mod bpf;
mod checksum;
mod cost;
mod direct_return;
mod errors;
mod fixture;
mod flows;
mod forward;
mod fuzz;
mod harness;
mod headers;
mod lengths;
mod limits;
mod model;
mod net;
mod packet;
mod policies;
mod read;
mod refuse;
mod stage;
mod window;
mod world;
mod xdp;
