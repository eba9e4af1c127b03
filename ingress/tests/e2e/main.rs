//! The real binary between real clients and small backends, all on loopback, objects from a folder.

mod backend;
mod changes;
mod harness;
mod hostile;
mod routing;
mod tls;
