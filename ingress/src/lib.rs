//! The ingress controller: Ingress objects in, an HTTP(S) reverse proxy on pingora out.
//!
//! A request travels `listener` → `proxy` → the current `snapshot` → an endpoint. A change travels
//! `source` → `objects::World` → `translate` (pure) → one atomic swap of the snapshot.

mod access_log;
mod annotations;
mod certificates;
mod class;
mod controller;
mod listener;
mod matcher;
mod metrics;
mod objects;
mod problem;
mod proxy;
mod report;
mod rewrite;
mod run;
mod snapshot;
mod source;
mod status_server;
mod translate;
mod uri;

pub use annotations::parse_size;
pub use run::{AccessLogFormat, Config, RunError, Source, run};
