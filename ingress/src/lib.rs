//! The ingress controller: Ingress objects in, an HTTP(S) reverse proxy on pingora out.
//!
//! A request travels `listener` → `proxy` → the current `snapshot` → an endpoint. A change travels
//! `source` → `objects::World` → `translate` (pure) → one atomic swap of the snapshot.
//!
//! Behaviour is that of ingress-nginx, with these differences, all on purpose:
//! - A Prefix path with a trailing slash matches without it too, as the Ingress specification has it;
//!   nginx redirects.
//! - Expressions are those of the `regex` crate, which cannot be made to run for ever: no look-around and
//!   no back-references. A path that needs them is refused by itself, with an Event.
//! - A rewrite target may name groups of its path, not nginx variables.
//! - Requests are streamed to endpoints; nginx reads the whole body first.
//! - A broken Secret leaves its last good certificate in use.
//! - Only WebSockets may leave HTTP: an upgrade to anything else is answered as a plain request.
//! - Hop-by-hop headers end here, those that `Connection` names among them; nginx passes some on.
//! - Requests sent ahead of an answer on HTTP/1.1 (pipelining) are not read: the connection ends after it.
//! - What a request and its Host disagree on is refused; nginx routes by the one and passes on the other.
//!
//! Smaller ones, with their reasons, are the table in `tests/differential/exceptions.rs`.
//! - An authority (`auth-url`) hears `X-Forwarded-*` from trusted proxies only, its cookies reach the client
//!   one by one, and a URL without a path asks for `/`.
//! - `auth-secret` without `auth-type` closes a location, and no realm switches a guard off.
//! - What is blocked everywhere (`block-cidrs`) stays so where an Ingress has ranges of its own.

mod access_log;
mod annotations;
mod balance;
mod certificates;
pub mod check;
mod class;
mod controller;
mod credentials;
mod few;
#[doc(hidden)]
pub mod footprint;
#[doc(hidden)]
pub mod fuzzing;
mod handover;
mod htpasswd;
mod http_client;
mod leader;
mod listener;
mod matcher;
mod metrics;
mod objects;
mod options;
mod problem;
mod proxy;
mod rates;
mod recent;
mod report;
mod resources;
mod rewrite;
mod run;
mod shards;
mod snapshot;
mod source;
mod source_ranges;
mod status_server;
mod tls;
mod translate;
mod uri;
mod variables;

pub use annotations::values::parse_size;
pub use class::ClassSelection;
pub use listener::proxy_protocol;
pub use objects::ObjectKey;
pub use run::{AccessLogFormat, Config, ReportingConfig, RunError, Source, run};

/// A duration as in flags and options: `30s`, `1h30m`.
pub fn parse_duration(text: &str) -> Option<std::time::Duration> {
    options::values::duration(text).ok()
}

/// Every annotation there is, and what becomes of it, in words: for the table in the documentation.
pub fn known_annotations() -> Vec<(&'static str, String)> {
    annotations::known().into_iter().map(|(name, support)| (name, support.to_string())).collect()
}

/// The same for every option of the ConfigMap.
pub fn known_options() -> Vec<(&'static str, String)> {
    let rows = options::table::ROWS.iter();
    let mut all: Vec<_> = rows.map(|row| (row.name, row.support().to_string())).collect();
    all.sort();
    all
}
