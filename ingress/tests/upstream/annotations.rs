//! Cases of upstream's `test/e2e/annotations`.

mod affinity;
mod auth;
mod authtls;
mod canary;
mod cors;
mod errors;
mod guards;
mod redirects;
mod rewriting;
mod upstreams;
