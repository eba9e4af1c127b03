//! Programs on network devices. Those named `kernel_…` need root, iproute2 and bpftool, and fail
//! where they lack it; `--skip kernel_` leaves them out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agent;
mod classify;
mod kernel;
mod namespace;
mod roles;
