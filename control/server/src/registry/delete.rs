//! Deleting objects: grace periods, finalizers, propagation.

use jiff::{Timestamp, ToSpan as _};
use podium_api::object;
use podium_api::resource::Resource;
use podium_api::status::Status;
use podium_store::Error;
use serde_json::{Value, json};

use crate::admission;
use crate::failure;
use crate::kind::Kind;
use crate::registry::{Registry, WriteOptions, metadata};

/// What the garbage collector removes once the dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// What the garbage collector removes once the dependents are let go.
const ORPHAN: &str = "orphan";
const TRIES: usize = 10;

/// What becomes of dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// A client's wishes.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

impl DeleteOptions {
    /// Reads a `meta/v1 DeleteOptions`.
    pub(crate) fn read(body: &Value) -> Result<Self, Status> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let propagation = match (body["propagationPolicy"].as_str(), &body["orphanDependents"]) {
            (Some(policy), _) => Some(Self::policy(policy)?),
            (None, Value::Bool(true)) => Some(Propagation::Orphan),
            (None, Value::Bool(false)) => Some(Propagation::Background),
            (None, _) => None,
        };
        Ok(Self {
            grace_seconds: body["gracePeriodSeconds"].as_i64(),
            propagation,
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            dry_run: body["dryRun"].as_array().is_some_and(|list| !list.is_empty()),
        })
    }

    pub(crate) fn policy(text: &str) -> Result<Propagation, Status> {
        match text {
            "Background" => Ok(Propagation::Background),
            "Foreground" => Ok(Propagation::Foreground),
            "Orphan" => Ok(Propagation::Orphan),
            other => Err(Status::bad_request(format!(
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \
                 \"{other}\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            ))),
        }
    }
}

/// How far a delete got.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Value),
    /// The object is marked and waits for its finalizers or its grace period.
    Marked(Value),
}

impl Registry {
    /// Deletes an object, or marks it when something has to happen first.
    pub(crate) async fn delete(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        admission::delete(kind.served, name)?;
        for _ in 0..TRIES {
            let current = self.get(kind, namespace, name).await?;
            check_preconditions(kind.served, name, options, &current.value)?;
            let marked = mark(&current.value, options, Timestamp::now());
            let gone = metadata::may_go(&marked);
            if options.dry_run {
                return Ok(if gone { Deleted::Gone(marked) } else { Deleted::Marked(marked) });
            }
            if !gone && marked == current.value {
                return Ok(Deleted::Marked(marked));
            }
            let revision = current.mod_revision;
            let written = if gone {
                self.store.delete(&current.key, revision).await
            } else {
                self.store.update(&current.key, revision, marked).await
            };
            match written {
                Ok(stored) if gone => {
                    self.released(kind, &stored.value);
                    return Ok(Deleted::Gone(stored.value.clone()));
                }
                Ok(stored) => return Ok(Deleted::Marked(stored.value.clone())),
                Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(failure::of_object(kind.served, name, error)),
            }
        }
        Err(Status::conflict_modified(kind.served, name))
    }

    /// Ends a Namespace's own finalizers, as the namespace controller asks, and removes the
    /// Namespace when nothing else holds it.
    pub(crate) async fn finalize(
        &self,
        kind: &Kind,
        name: &str,
        sent: &Value,
        options: WriteOptions,
    ) -> Result<Value, Status> {
        let target = super::Change { kind, namespace: "", name, scope: super::Scope::Internal };
        self.update(target, options, |current| {
            let mut new = current.clone();
            object::child_mut(&mut new, "spec");
            match sent["spec"].get("finalizers") {
                Some(finalizers) => new["spec"]["finalizers"] = finalizers.clone(),
                None => drop(object::child_mut(&mut new, "spec").remove("finalizers")),
            }
            Ok(new)
        })
        .await
    }
}

fn check_preconditions(
    resource: &Resource,
    name: &str,
    options: &DeleteOptions,
    current: &Value,
) -> Result<(), Status> {
    let (uid, version) = (object::uid(current), object::resource_version(current));
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        );
        return Err(Status::conflict(resource, name, why));
    }
    if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != version) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in \
             object meta: {version}"
        );
        return Err(Status::conflict(resource, name, why));
    }
    Ok(())
}

/// The object as a delete leaves it.
fn mark(current: &Value, options: &DeleteOptions, now: Timestamp) -> Value {
    let mut marked = current.clone();
    propagate(&mut marked, options.propagation);
    let wanted = grace_seconds(current, options);
    let pending = current["metadata"]["deletionGracePeriodSeconds"].as_i64();
    if object::is_terminating(current) && pending.is_none_or(|pending| pending <= wanted) {
        // A grace period that runs can be shortened, never prolonged.
        return marked;
    }
    object::set(&mut marked, "deletionTimestamp", object::time(now + wanted.seconds()));
    object::set(&mut marked, "deletionGracePeriodSeconds", wanted);
    let generation = object::generation(current);
    if generation > 0 {
        object::set(&mut marked, "generation", generation + 1);
    }
    if object::kind(current) == "Namespace" {
        object::child_mut(&mut marked, "status").insert("phase".to_owned(), json!("Terminating"));
    }
    marked
}

/// Pods alone are given time, and only those that a node knows of and that have not ended.
fn grace_seconds(current: &Value, options: &DeleteOptions) -> i64 {
    if object::kind(current) != "Pod" {
        return 0;
    }
    let of_spec = current["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    let wanted = options.grace_seconds.unwrap_or(of_spec);
    let scheduled = current["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let ended = matches!(current["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
    if !scheduled || ended {
        return 0;
    }
    // A negative period counts as one second (KEP: "at least one").
    if wanted < 0 { 1 } else { wanted }
}

fn propagate(marked: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let mut finalizers: Vec<String> = object::finalizers(marked)
        .filter(|finalizer| !matches!(*finalizer, FOREGROUND | ORPHAN))
        .map(str::to_owned)
        .collect();
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
    }
    if finalizers.is_empty() {
        object::unset(marked, "finalizers");
    } else {
        object::set(marked, "finalizers", finalizers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(node: &str, phase: &str) -> Value {
        json!({
            "kind": "Pod",
            "metadata": { "name": "p" },
            "spec": { "nodeName": node, "terminationGracePeriodSeconds": 30 },
            "status": { "phase": phase },
        })
    }

    #[test]
    fn only_running_pods_get_a_grace_period() {
        let options = |grace| DeleteOptions { grace_seconds: grace, ..DeleteOptions::default() };
        for (object, grace, want) in [
            (pod("n", "Running"), None, 30),
            (pod("n", "Running"), Some(5), 5),
            (pod("n", "Running"), Some(0), 0),
            (pod("", "Pending"), None, 0),
            (pod("n", "Succeeded"), None, 0),
            (json!({ "kind": "Service" }), Some(9), 0),
        ] {
            let marked = mark(&object, &options(grace), Timestamp::UNIX_EPOCH);
            assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], want, "{object}");
            assert_eq!(metadata::may_go(&marked), want == 0);
        }
    }

    #[test]
    fn a_running_grace_period_is_only_ever_shortened() {
        let options = |grace| DeleteOptions { grace_seconds: grace, ..DeleteOptions::default() };
        let first = mark(&pod("n", "Running"), &options(Some(10)), Timestamp::UNIX_EPOCH);
        assert_eq!(first["metadata"]["deletionTimestamp"], "1970-01-01T00:00:10Z");
        assert_eq!(mark(&first, &options(Some(20)), Timestamp::UNIX_EPOCH), first);
        let forced = mark(&first, &options(Some(0)), Timestamp::UNIX_EPOCH);
        assert!(metadata::may_go(&forced));
    }

    #[test]
    fn propagation_becomes_a_finalizer() {
        for (policy, want) in [
            (Propagation::Foreground, Some(json!(["keep", "foregroundDeletion"]))),
            (Propagation::Orphan, Some(json!(["keep", "orphan"]))),
            (Propagation::Background, Some(json!(["keep"]))),
        ] {
            let object = json!({ "metadata": { "finalizers": ["keep", "orphan"] } });
            let options = DeleteOptions { propagation: Some(policy), ..DeleteOptions::default() };
            let marked = mark(&object, &options, Timestamp::UNIX_EPOCH);
            assert_eq!(marked["metadata"].get("finalizers").cloned(), want);
            assert!(!metadata::may_go(&marked));
        }
    }
}
