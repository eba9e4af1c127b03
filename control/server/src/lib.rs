//! The Kubernetes API over HTTP: requests in, objects of `podium-store` out.
//!
//! [`ApiServer`] is one service used two ways: over TLS ([`listener`]) and in memory
//! ([`ApiServer::client_service`]), where the caller's identity is handed over with it. The way of a
//! request: [`service`] (identity, limits, time) → [`objects`], [`subresources`] or [`system`] →
//! [`registry`] (what writing means) → the store. What objects mean is `podium-api`'s.

mod admission;
mod allocation;
mod answer;
mod authentication;
mod body;
mod bootstrap;
mod config;
mod failure;
mod identity;
mod impersonation;
mod keys;
mod kind;
mod listener;
mod metrics;
mod negotiate;
mod node_log;
mod objects;
mod pki;
mod read;
mod registry;
mod request;
mod reviews;
mod selection;
mod server;
mod service;
mod subresources;
mod system;
mod token;
mod watching;

pub use answer::AnswerBody;
pub use body::BoxError;
pub use config::Config;
pub use identity::{Identity, MASTERS};
pub use pki::{Authority, ClientRequest, PkiError};
pub use server::{ApiServer, StartError};
pub use service::ClientService;
