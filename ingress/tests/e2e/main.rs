//! The real binary between real clients and small backends, all on loopback, objects from a folder.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod access_log;
mod auth;
mod authority;
mod backend;
mod balance;
mod canary;
mod changes;
mod check;
mod client_certificates;
mod clients;
mod cluster;
mod cors;
mod errors;
mod events;
mod from_api;
mod harness;
mod headers;
mod hostile;
mod limits;
mod metrics;
mod mirror;
mod options;
mod proxy_protocol;
mod recorder;
mod redirects;
mod retries;
mod routing;
mod slow_clients;
mod status;
mod tls;
mod tls_client;
mod tls_hosts;
mod upgrade;
mod upstream_tls;
