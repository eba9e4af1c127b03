//! Objects, written the way Kubernetes writes them: prepared, defaulted, admitted, validated,
//! allocated for, stored with optimistic concurrency. Knows nothing of HTTP.

mod create;
mod delete;
mod metadata;
mod update;

use std::sync::Arc;

use podium_api::status::Status;
use podium_store::{Object, Store};
use serde_json::Value;

use crate::allocation::Allocators;
use crate::failure;
use crate::kind::Kind;

pub(crate) use delete::{DeleteOptions, Deleted};
pub(crate) use update::{Change, Scope};

/// How an object is written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WriteOptions {
    /// Do everything but the writing.
    pub(crate) dry_run: bool,
}

/// The objects of the cluster.
pub(crate) struct Registry {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) allocators: Allocators,
}

impl Registry {
    /// The stored object, or 404.
    pub(crate) async fn get(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Object>, Status> {
        let found = self.store.get(&kind.key(namespace, name)).await;
        found.map_err(failure::of_store)?.ok_or_else(|| Status::not_found(kind.served, name))
    }

    /// The stored object, if it exists.
    pub(crate) async fn find(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Status> {
        self.store.get(&kind.key(namespace, name)).await.map_err(failure::of_store)
    }

    /// Makes the resources of a Service that is gone available again.
    fn released(&self, kind: &Kind, object: &Value) {
        if kind.stored.kind == "Service" {
            self.allocators.release(object);
        }
    }
}
