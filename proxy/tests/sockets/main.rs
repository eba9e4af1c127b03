//! UDP sockets and the endpoints they are connected to, taking over from kube-proxy, and listening to
//! decisions: the real agent in network namespaces and cgroups of the tests. Need root, cgroup v2
//! and iproute2, and fail where they lack it; `--skip kernel_` leaves them out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../kernel/node.rs"]
mod node;

mod follow;
mod monitor;
mod takeover;
