//! The API in memory and over TLS: what clients rely on, request by request.

#![expect(clippy::unwrap_used, reason = "all of this file is a test")]

mod cluster;
mod deletes;
mod hostile;
mod kube_clients;
mod objects;
mod reads;
mod services;
mod writes;
