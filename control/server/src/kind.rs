//! A kind as one request sees it: the version asked for, the version stored, and the way between.

use std::borrow::Cow;

use podium_api::resource::{self, Resource};
use podium_api::status::Status;
use podium_api::{object, version};
use serde_json::Value;

use crate::keys;

/// A served version of a kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// As it is asked for.
    pub(crate) served: &'static Resource,
    /// The version asked for.
    pub(crate) version: &'static str,
    /// As it is stored, defaulted and validated. Differs from `served` for Events only, which are
    /// one set of objects under two groups.
    pub(crate) stored: &'static Resource,
}

impl Kind {
    pub(crate) fn new(served: &'static Resource, version: &'static str) -> Self {
        let stored = served.stored_as();
        Self { served, version, stored }
    }

    /// A kind in its storage version, for the server's own use.
    pub(crate) fn internal(group: &str, kind: &str) -> Result<Self, Status> {
        let served = resource::find_kind(group, kind)
            .ok_or_else(|| Status::internal(format!("kind {kind:?} of group {group:?}")))?;
        Ok(Self::new(served, served.storage_version))
    }

    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        let namespace = if self.stored.namespaced { namespace } else { "" };
        keys::object(self.stored.group, self.stored.plural, namespace, name)
    }

    pub(crate) fn prefix(&self, namespace: &str) -> String {
        keys::collection(self.stored.group, self.stored.plural, namespace)
    }

    fn is_storage(&self) -> bool {
        version::is_stored_form(self.served, self.version)
    }

    /// From the stored form to the one asked for.
    pub(crate) fn outward<'a>(&self, stored: &'a Value) -> Cow<'a, Value> {
        if self.is_storage() {
            Cow::Borrowed(stored)
        } else {
            Cow::Owned(version::from_storage(self.served, self.version, stored))
        }
    }

    /// From the form sent to the stored one.
    pub(crate) fn inward(&self, sent: Value) -> Result<Value, Status> {
        if self.is_storage() {
            Ok(sent)
        } else {
            version::to_storage(self.served, self.version, sent)
        }
    }

    /// Fills in or checks `apiVersion` and `kind` of a body.
    pub(crate) fn claim(&self, sent: &mut Value) -> Result<(), Status> {
        let expected = self.served.api_version(self.version);
        let (api_version, kind) = (object::api_version(sent), object::kind(sent));
        if !api_version.is_empty() && api_version != expected {
            return Err(Status::bad_request(format!(
                "the API version in the data ({api_version}) does not match the expected API \
                 version ({expected})"
            )));
        }
        if !kind.is_empty() && kind != self.served.kind {
            return Err(Status::bad_request(format!(
                "{api_version}, Kind={kind} in the data does not match the expected Kind={}",
                self.served.kind
            )));
        }
        sent["apiVersion"] = expected.into();
        sent["kind"] = self.served.kind.into();
        Ok(())
    }
}
