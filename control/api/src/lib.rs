//! What Kubernetes objects are, and nothing of where they are kept or how they are asked for: kinds,
//! defaulting, validation, versions, patches, selectors, tables, discovery. Every function is pure;
//! time and randomness are arguments or come from the caller's objects.
//!
//! An object is a [`serde_json::Value`] with `apiVersion` and `kind`, kept as it was sent: the typed
//! bindings drop fields they do not know, an API server must not.

pub mod decode;
pub mod defaulting;
pub mod discovery;
pub mod field;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod resource;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod table;
pub mod validation;
pub mod version;
