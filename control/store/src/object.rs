//! A stored object together with its key and revisions.

use serde_json::Value;

use crate::Revision;

/// One object as of one write. Shared, never changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// The key it is stored under.
    pub key: String,
    /// The object itself, `metadata.resourceVersion` set to [`Object::mod_revision`].
    pub value: Value,
    /// The write that created it.
    pub create_revision: Revision,
    /// The write that made it what it is.
    pub mod_revision: Revision,
}

impl Object {
    /// Puts an object together and stamps its revision into its metadata.
    pub(crate) fn stamped(
        key: String,
        mut value: Value,
        create_revision: Revision,
        mod_revision: Revision,
    ) -> Self {
        stamp(&mut value, Some(mod_revision));
        Self { key, value, create_revision, mod_revision }
    }
}

/// Sets or removes `metadata.resourceVersion`. Objects without metadata (none of Kubernetes) get one.
pub(crate) fn stamp(value: &mut Value, revision: Option<Revision>) {
    let Some(object) = value.as_object_mut() else { return };
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Default::default()));
    let Some(metadata) = metadata.as_object_mut() else { return };
    match revision {
        Some(revision) => {
            metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
        }
        None => {
            metadata.remove("resourceVersion");
        }
    }
}
