//! What `tests/memory.rs` measures: all that is held for some objects, and how long a change takes. No part
//! of the interface.

use crate::certificates::{Certificate, CertificateError};
use crate::objects::{Kind, ObjectKey, Read};
use crate::source::Change;
use crate::translate::{Index, Policy};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// All that is known of some objects, and what they are served from.
pub struct Footprint(Index);

impl Footprint {
    /// Of nothing.
    pub fn new() -> Result<Footprint, CertificateError> {
        let mut policy = Policy::new(Arc::new(Certificate::fake()?));
        policy.classes.without_class = true;
        Ok(Footprint(Index::new(policy)))
    }

    /// Takes a list of a kind in, as a watch does.
    pub fn list(&mut self, kind: &str, values: impl Iterator<Item = Value>) {
        let kind = kind_of(kind);
        let all = values.map(|value| Read::of(kind, value)).collect();
        self.0.apply([Change::Replace(kind, None, all)]);
    }

    /// Takes one object in and makes it effective. Returns how many backends have other endpoints.
    pub fn apply(&mut self, kind: &str, value: Value) -> usize {
        self.0.apply([Change::Apply(kind_of(kind), value)]);
        self.update()
    }

    /// Makes all that was taken in effective.
    pub fn update(&mut self) -> usize {
        let update = self.0.update(Timestamp::UNIX_EPOCH);
        for change in &update.endpoint_changes {
            change.backend.replace(change.addresses.clone());
        }
        update.endpoint_changes.len()
    }

    /// The Service a request goes to, with the number of its endpoints.
    pub fn route(&mut self, host: &str, path: &str) -> Option<(ObjectKey, usize)> {
        let snapshot = self.0.update(Timestamp::UNIX_EPOCH).snapshot;
        let route = snapshot.route_by(snapshot.host(host), path.as_bytes())?;
        let endpoints = route.backend.endpoints().addresses().count();
        Some((route.backend.key.service.clone(), endpoints))
    }
}

fn kind_of(kind: &str) -> Kind {
    match kind {
        "Ingress" => Kind::Ingress,
        "Service" => Kind::Service,
        _ => Kind::EndpointSlice,
    }
}
