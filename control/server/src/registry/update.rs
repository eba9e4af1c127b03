//! Changing objects: one loop for PUT, PATCH and the server's own changes.

use podium_api::resource::Subresource;
use podium_api::status::Status;
use podium_api::{defaulting, object, strategy, validation};
use podium_store::{Error, Object};
use serde_json::Value;

use crate::failure;
use crate::kind::Kind;
use crate::registry::{Registry, WriteOptions, metadata};

/// A change is tried again so often when others write the same object meanwhile.
const TRIES: usize = 10;

/// Which part of an object a request may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Main,
    Status,
    Scale,
    /// A Namespace's own finalizers; and a Pod's node. Prepared by the caller alone.
    Internal,
}

/// A change of one object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) scope: Scope,
}

impl Registry {
    /// Reads the object, lets `change` make the new one of it, and writes that; again if the object
    /// was written meanwhile and the new one carries no resourceVersion of an older read.
    pub(crate) async fn update(
        &self,
        target: Change<'_>,
        options: WriteOptions,
        mut change: impl FnMut(&Value) -> Result<Value, Status>,
    ) -> Result<Value, Status> {
        for _ in 0..TRIES {
            let current = self.get(target.kind, target.namespace, target.name).await?;
            let new = change(&current.value)?;
            check_preconditions(&target, &new, &current)?;
            match self.write(target, options, &current, new).await? {
                Some(stored) => return Ok(stored),
                None => tracing::debug!(key = current.key, "written meanwhile, trying again"),
            }
        }
        Err(Status::conflict_modified(target.kind.served, target.name))
    }

    /// `None` when the object was written meanwhile.
    async fn write(
        &self,
        target: Change<'_>,
        options: WriteOptions,
        current: &Object,
        mut new: Value,
    ) -> Result<Option<Value>, Status> {
        let kind = target.kind;
        let old = &current.value;
        metadata::keep(&mut new, old);
        object::set(&mut new, "resourceVersion", current.mod_revision.to_string());
        let scope = match target.scope {
            Scope::Main => Some(strategy::Scope::Main),
            Scope::Status => Some(strategy::Scope::Status),
            Scope::Scale => Some(strategy::Scope::Scale),
            Scope::Internal => None,
        };
        if let Some(scope) = scope {
            defaulting::apply(kind.stored, &mut new);
            strategy::prepare_update(kind.stored, scope, &mut new, old);
        }
        let allocate = kind.stored.kind == "Service" && target.scope == Scope::Main;
        let claim = if allocate {
            let claim = self.allocators.update(&mut new, old);
            Some(claim.map_err(|errors| Status::invalid(kind.served, target.name, &errors))?)
        } else {
            None
        };
        if scope.is_some() {
            let errors = validation::update(kind.stored, &new, old);
            if !errors.is_empty() {
                return Err(Status::invalid(kind.served, target.name, &errors));
            }
        }
        let gone = metadata::may_go(&new);
        if options.dry_run || (new == *old && !gone) {
            return Ok(Some(new));
        }
        let written = if gone {
            self.store.delete(&current.key, current.mod_revision).await
        } else {
            self.store.update(&current.key, current.mod_revision, new.clone()).await
        };
        match written {
            Ok(stored) => {
                if let Some(claim) = claim {
                    claim.keep();
                }
                if gone {
                    self.released(kind, old);
                    return Ok(Some(new));
                }
                Ok(Some(stored.value.clone()))
            }
            Err(Error::Conflict { .. }) => Ok(None),
            Err(error) => Err(failure::of_object(kind.served, target.name, error)),
        }
    }
}

/// A uid or resourceVersion in the body says which object the client means.
fn check_preconditions(target: &Change<'_>, new: &Value, current: &Object) -> Result<(), Status> {
    let resource = target.kind.served;
    let (uid, held) = (object::uid(new), object::uid(&current.value));
    if !uid.is_empty() && uid != held {
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {held}");
        return Err(Status::conflict(resource, target.name, why));
    }
    let version = object::resource_version(new);
    if !version.is_empty() && version != "0" && version != current.mod_revision.to_string() {
        if version.parse::<u64>().is_err() {
            let field = podium_api::field::Path::new("metadata").child("resourceVersion");
            let detail = format!("strconv.ParseUint: parsing \"{version}\": invalid syntax");
            let error = podium_api::field::Error::invalid(&field, version, detail);
            return Err(Status::invalid(resource, target.name, &[error]));
        }
        return Err(Status::conflict_modified(resource, target.name));
    }
    let name = object::name(new);
    if !name.is_empty() && name != target.name {
        return Err(name_differs(name, target.name));
    }
    let namespace = object::namespace(new);
    if resource.namespaced && !namespace.is_empty() && namespace != target.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// 400: body and path name different objects.
pub(super) fn name_differs(sent: &str, of_path: &str) -> Status {
    Status::bad_request(format!(
        "the name of the object ({sent}) does not match the name on the URL ({of_path})"
    ))
}

/// The scope of a subresource that is written like an object.
impl TryFrom<Subresource> for Scope {
    type Error = Status;

    fn try_from(subresource: Subresource) -> Result<Self, Status> {
        match subresource {
            Subresource::Status => Ok(Self::Status),
            Subresource::Scale => Ok(Self::Scale),
            _ => Err(Status::method_not_allowed()),
        }
    }
}
