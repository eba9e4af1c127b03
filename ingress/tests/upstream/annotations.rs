//! Cases of upstream's `test/e2e/annotations`.

mod affinity;
mod auth;
mod canary;
mod guards;
mod redirects;
mod rewriting;
mod upstreams;
