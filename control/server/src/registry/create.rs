//! Creating objects.

use std::sync::Arc;

use jiff::Timestamp;
use podium_api::status::Status;
use podium_api::{defaulting, object, strategy, validation};
use podium_store::{Error, Object};
use serde_json::Value;

use crate::admission;
use crate::failure;
use crate::kind::Kind;
use crate::registry::update::{Change, name_differs};
use crate::registry::{Registry, WriteOptions, metadata};

/// So often is a new generated name tried before giving up.
const NAME_TRIES: usize = 8;

impl Registry {
    /// Creates an object sent in storage form; returns it as stored.
    pub(crate) async fn create(
        &self,
        kind: &Kind,
        namespace: &str,
        mut new: Value,
        options: WriteOptions,
    ) -> Result<Value, Status> {
        self.check_namespace(kind, namespace, &new).await?;
        if !object::resource_version(&new).is_empty() {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(Status::bad_request(message));
        }
        metadata::create(&mut new, kind.stored.namespaced, namespace, Timestamp::now());
        defaulting::apply(kind.stored, &mut new);
        let account = self.account_of(kind, namespace, &new).await?;
        let account = account.as_ref().map(|account| &account.value);
        admission::create(kind.stored, &mut new, account, &mut rand::rng());
        let prefix = object::generate_name(&new).to_owned();
        let generated = object::name(&new).is_empty() && !prefix.is_empty();
        let mut tries = if generated { NAME_TRIES } else { 1 };
        loop {
            tries -= 1;
            if generated {
                let name = object::generated_name(&prefix, &mut rand::rng());
                object::set(&mut new, "name", name);
            }
            match self.store_new(kind, namespace, new.clone(), options).await {
                Err(status) if status.reason == "AlreadyExists" && tries > 0 => {}
                result => return result,
            }
        }
    }

    /// A PUT of an object that is not there: creates it where the kind has it so. `None` when the
    /// object exists, or cannot be made this way.
    pub(crate) async fn put_new(
        &self,
        target: Change<'_>,
        sent: &Value,
        options: WriteOptions,
    ) -> Result<Option<Value>, Status> {
        let Change { kind, namespace, name, .. } = target;
        if !strategy::creates_on_update(kind.stored)
            || self.find(kind, namespace, name).await?.is_some()
        {
            return Ok(None);
        }
        let named = object::name(sent);
        if named != name {
            return Err(name_differs(named, name));
        }
        let uid = object::uid(sent);
        if !uid.is_empty() {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ");
            return Err(Status::conflict(kind.served, name, why));
        }
        let mut new = sent.clone();
        object::unset(&mut new, "resourceVersion");
        match self.create(kind, namespace, new, options).await {
            Ok(created) => Ok(Some(created)),
            // Somebody was faster; what is there now is updated.
            Err(status) if status.reason == "AlreadyExists" => Ok(None),
            Err(status) => Err(status),
        }
    }

    async fn store_new(
        &self,
        kind: &Kind,
        namespace: &str,
        mut new: Value,
        options: WriteOptions,
    ) -> Result<Value, Status> {
        let name = object::name(&new).to_owned();
        strategy::prepare_create(kind.stored, &mut new);
        let exists = async || Ok(self.find(kind, namespace, &name).await?.is_some());
        let claim = match kind.stored.kind {
            // Refused for its addresses only if it may exist at all.
            "Service" if exists().await? => return Err(Status::already_exists(kind.served, &name)),
            "Service" => Some(
                self.allocators
                    .create(&mut new)
                    .map_err(|errors| Status::invalid(kind.served, &name, &errors))?,
            ),
            _ => None,
        };
        let errors = validation::create(kind.stored, &new);
        if !errors.is_empty() {
            return Err(Status::invalid(kind.served, &name, &errors));
        }
        if options.dry_run {
            let taken = exists().await?;
            return if taken { Err(Status::already_exists(kind.served, &name)) } else { Ok(new) };
        }
        match self.store.create(&kind.key(namespace, &name), new).await {
            Ok(stored) => {
                if let Some(claim) = claim {
                    claim.keep();
                }
                Ok(stored.value.clone())
            }
            Err(error @ Error::Exists { .. }) => Err(failure::of_object(kind.served, &name, error)),
            Err(error) => Err(failure::of_store(error)),
        }
    }

    /// The ServiceAccount a new Pod acts as, if it exists.
    async fn account_of(
        &self,
        kind: &Kind,
        namespace: &str,
        new: &Value,
    ) -> Result<Option<Arc<Object>>, Status> {
        if kind.stored.kind != "Pod" {
            return Ok(None);
        }
        let accounts = Kind::internal("", "ServiceAccount")?;
        self.find(&accounts, namespace, admission::service_account::name(new)).await
    }

    /// Nothing is created in a Namespace that is missing or on its way out.
    async fn check_namespace(
        &self,
        kind: &Kind,
        namespace: &str,
        new: &Value,
    ) -> Result<(), Status> {
        if !kind.stored.namespaced {
            return Ok(());
        }
        let claimed = object::namespace(new);
        if !claimed.is_empty() && claimed != namespace {
            let message = "the namespace of the provided object does not match the namespace sent \
                           on the request";
            return Err(Status::bad_request(message));
        }
        let namespaces = Kind::internal("", "Namespace")?;
        let found = self.get(&namespaces, "", namespace).await?;
        if object::is_terminating(&found.value) {
            return Err(admission::namespace_terminating(
                kind.served,
                object::name(new),
                namespace,
            ));
        }
        Ok(())
    }
}
