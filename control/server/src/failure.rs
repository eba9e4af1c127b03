//! From what the store says to what the client is told.

use podium_api::resource::Resource;
use podium_api::status::Status;
use podium_store::Error;

/// The answer to a store error about one object.
pub(crate) fn of_object(resource: &Resource, name: &str, error: Error) -> Status {
    match error {
        Error::Exists { .. } => Status::already_exists(resource, name),
        Error::Missing { .. } => Status::not_found(resource, name),
        Error::Conflict { .. } => Status::conflict_modified(resource, name),
        other => of_store(other),
    }
}

/// The answer to a store error about a revision, or to a fault.
pub(crate) fn of_store(error: Error) -> Status {
    match error {
        Error::Compacted { revision, oldest } => {
            Status::expired(format!("too old resource version: {revision} ({oldest})"))
        }
        Error::Future { revision, current } => {
            Status::resource_version_too_large(revision, current)
        }
        fault => {
            tracing::error!(error = %fault, "store");
            Status::internal(fault)
        }
    }
}
