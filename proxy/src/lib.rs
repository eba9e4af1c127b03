//! podium-proxy: the service load balancer of a node.
//!
//! A change travels through the modules in this order:
//!
//! ```text
//! source ─► index ─► plan ─► datapath ─► kernel
//! ```
//!
//! [`source`] brings Kubernetes objects, from an API server or a folder. [`index`] turns them into
//! the state the kernel should hold ([`model`]). [`plan`] compares that with what it does hold and
//! says which map operations lead there, in an order that leaves no torn state in between.
//! [`datapath`] carries them out. Index and plan are pure; [`reconcile`] is the loop around all.

pub mod datapath;
pub mod devices;
pub mod health_checks;
pub mod index;
pub mod kube_proxy;
pub mod metrics;
pub mod model;
pub mod monitor;
pub mod plan;
pub mod preflight;
pub mod reconcile;
pub mod serve;
pub mod sockets;
pub mod source;
pub mod status;
pub mod trace;
