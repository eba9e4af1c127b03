//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and Kubernetes' strategic merge patch.
//! Each turns an object and a patch into a new object; what may be changed is left to validation.

use serde_json::Value;

use crate::object;
use crate::resource::Resource;
use crate::status::Status;

pub mod json;
pub mod merge;
pub mod strategic;

/// The media types, which choose the kind of patch.
pub const JSON_MEDIA_TYPE: &str = "application/json-patch+json";
/// See [`JSON_MEDIA_TYPE`].
pub const MERGE_MEDIA_TYPE: &str = "application/merge-patch+json";
/// See [`JSON_MEDIA_TYPE`].
pub const STRATEGIC_MEDIA_TYPE: &str = "application/strategic-merge-patch+json";

/// 422 with one message: what upstream answers when a patch is well formed but does not fit. It has
/// no details, which kubectl would print in place of the message.
fn does_not_apply(resource: &Resource, current: &Value, why: impl std::fmt::Display) -> Status {
    let mut status = Status::invalid(resource, object::name(current), &[]);
    status.message = why.to_string();
    status.details = Box::default();
    status
}
