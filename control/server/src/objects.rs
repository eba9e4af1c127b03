//! Requests for objects: from method, path and body to the registry, and back to an answer.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Response};
use podium_api::resource::Subresource;
use podium_api::status::{self, Status};
use podium_api::{decode, object, patch, version};
use podium_store::ListOptions;
use serde_json::{Value, json};

use crate::answer::{self, AnswerBody, Presenter};
use crate::body;
use crate::failure;
use crate::kind::Kind;
use crate::negotiate::{self, Answer, Form};
use crate::read;
use crate::registry::{Change, DeleteOptions, Deleted, Scope, WriteOptions};
use crate::request::{ObjectsPath, Query};
use crate::selection::Selection;
use crate::server::Api;
use crate::service::Call;
use crate::subresources;
use crate::watching;

/// What an answer can be written as.
const OFFERED: &[&str] = &["application/json", "application/yaml"];
/// What a patch can be written as.
const PATCHES: &[&str] =
    &[patch::JSON_MEDIA_TYPE, patch::MERGE_MEDIA_TYPE, patch::STRATEGIC_MEDIA_TYPE];
/// The kinds whose delete answers with the object rather than with a Status, as upstream's do.
const DELETE_RETURNS_OBJECT: &[&str] = &["Pod", "Service", "ServiceAccount"];

/// A request for objects, read.
pub(crate) struct ObjectsCall<'a> {
    pub(crate) api: &'a Arc<Api>,
    pub(crate) call: &'a Call,
    pub(crate) path: &'a ObjectsPath,
    pub(crate) kind: Kind,
    pub(crate) answer: Answer,
    pub(crate) options: WriteOptions,
}

/// Answers a request for objects.
pub(crate) async fn answer(
    api: &Arc<Api>,
    call: Call,
    path: &ObjectsPath,
) -> Result<Response<AnswerBody>, Status> {
    let accept = call.parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    // A log is text, whatever is accepted.
    let answer = if path.subresource.as_deref() == Some("log") {
        Answer::JSON
    } else {
        negotiate::answer(accept).ok_or_else(|| Status::not_acceptable(OFFERED))?
    };
    let objects = ObjectsCall {
        api,
        kind: Kind::new(path.resource, path.version),
        options: write_options(&call.query)?,
        call: &call,
        path,
        answer,
    };
    let mut warnings = Vec::new();
    warnings.extend(version::deprecation_warning(path.resource, path.version));
    let mut response = objects.dispatch(&mut warnings).await?;
    answer::warn(&mut response, &warnings);
    Ok(response)
}

fn write_options(query: &Query) -> Result<WriteOptions, Status> {
    match query.get("dryRun") {
        None => Ok(WriteOptions { dry_run: false }),
        Some("All") => Ok(WriteOptions { dry_run: true }),
        Some(other) => Err(Status::bad_request(format!(
            "dryRun: Unsupported value: \"{other}\": supported values: \"All\""
        ))),
    }
}

impl ObjectsCall<'_> {
    async fn dispatch(&self, warnings: &mut Vec<String>) -> Result<Response<AnswerBody>, Status> {
        let subresource = match self.path.subresource.as_deref() {
            None => None,
            Some(name) => {
                let found = self.path.resource.subresource(name);
                Some(found.ok_or_else(Status::path_not_found)?)
            }
        };
        match (subresource, self.path.name.as_deref(), &self.call.method) {
            (None, None, &Method::GET | &Method::HEAD) if self.call.query.flag("watch") => {
                self.watch().await
            }
            (None, None, &Method::GET | &Method::HEAD) => self.list().await,
            (None, None, &Method::POST) => self.create(warnings).await,
            (None, None, &Method::DELETE) => self.delete_collection().await,
            (None | Some(Subresource::Status), Some(name), &Method::GET | &Method::HEAD) => {
                if self.call.query.flag("watch") && subresource.is_none() {
                    return self.watch().await;
                }
                self.get(name).await
            }
            (None, Some(name), &Method::PUT) => self.put(name, Scope::Main, warnings).await,
            (None, Some(name), &Method::PATCH) => self.patch(name, Scope::Main, warnings).await,
            (Some(Subresource::Status), Some(name), &Method::PUT) => {
                self.put(name, Scope::Status, warnings).await
            }
            (Some(Subresource::Status), Some(name), &Method::PATCH) => {
                self.patch(name, Scope::Status, warnings).await
            }
            (None, Some(name), &Method::DELETE) => self.delete(name).await,
            (Some(subresource), Some(name), _) => {
                subresources::answer(self, subresource, name, warnings).await
            }
            _ => Err(Status::method_not_allowed()),
        }
    }

    fn presenter(&self) -> Result<Presenter, Status> {
        Presenter::new(self.kind.served, self.answer, &self.call.query)
    }

    /// One object in the form asked for.
    pub(crate) fn present(
        &self,
        code: u16,
        stored: &Value,
    ) -> Result<Response<AnswerBody>, Status> {
        let object = self.presenter()?.one(&self.kind.outward(stored));
        Ok(answer::encoded(code, self.answer.encoding, &object))
    }

    async fn get(&self, name: &str) -> Result<Response<AnswerBody>, Status> {
        read::Age::parse(&self.call.query)?.check(&*self.api.registry.store).await?;
        let found = self.api.registry.get(&self.kind, &self.path.namespace, name).await?;
        self.present(200, &found.value)
    }

    async fn list(&self) -> Result<Response<AnswerBody>, Status> {
        let selection = Selection::parse(self.path.resource, &self.call.query)?;
        let store = &*self.api.registry.store;
        let listed =
            read::list(store, &self.kind, &self.path.namespace, &selection, &self.call.query);
        let page = match listed.await {
            Ok(page) => page,
            Err(refused) => {
                let (code, value) = refused.to_value();
                return Ok(answer::document(code, &value));
            }
        };
        let items: Vec<Cow<'_, Value>> =
            page.objects.iter().map(|object| self.kind.outward(&object.value)).collect();
        let api_version = self.kind.served.api_version(self.kind.version);
        let list = self.presenter()?.list(&api_version, &items, page.metadata);
        Ok(answer::encoded(200, self.answer.encoding, &list))
    }

    async fn watch(&self) -> Result<Response<AnswerBody>, Status> {
        let mut selection = Selection::parse(self.path.resource, &self.call.query)?;
        if let Some(name) = &self.path.name {
            selection = selection.named(name);
        }
        let lens = watching::Lens { kind: self.kind, selection, presenter: self.presenter()? };
        let (store, config) = (self.api.registry.store.clone(), &self.api.config);
        let guard = self.api.metrics.long_running(self.path.resource.plural);
        let stream = watching::start(
            store,
            lens,
            &self.path.namespace,
            &self.call.query,
            config.bookmark_interval,
            self.api.stopping.clone(),
        )
        .await?;
        use futures::StreamExt as _;
        let counted = stream.map(move |frame| {
            let _ = &guard;
            frame
        });
        let mut response = Response::new(answer::streamed(counted));
        let content_type = match self.answer.form {
            Form::Object => "application/json",
            _ => "application/json;stream=watch",
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(response)
    }

    async fn create(&self, warnings: &mut Vec<String>) -> Result<Response<AnswerBody>, Status> {
        let namespaced = self.kind.served.namespaced;
        if namespaced && self.path.namespace.is_empty() {
            return Err(Status::method_not_allowed());
        }
        let media_type = body::media_type(&self.call.parts.headers);
        let decoded = body::decode(media_type, &self.call.body)?;
        let sent = self.checked(decoded.value, decoded.duplicates, warnings)?;
        if object::name(&sent).is_empty() && object::generate_name(&sent).is_empty() {
            let path = podium_api::field::Path::new("metadata").child("name");
            let error =
                podium_api::field::Error::required(&path, "name or generateName is required");
            return Err(Status::invalid(self.kind.served, "", &[error]));
        }
        let registry = &self.api.registry;
        let created = registry.create(&self.kind, &self.path.namespace, sent, self.options).await?;
        self.present(201, &created)
    }

    /// Decodes an object as sent into storage form, and tells of unknown fields the way
    /// `fieldValidation` asks for.
    fn checked(
        &self,
        mut sent: Value,
        duplicates: Vec<String>,
        warnings: &mut Vec<String>,
    ) -> Result<Value, Status> {
        self.kind.claim(&mut sent)?;
        let checked = decode::check(self.kind.served, self.kind.version, &sent)?;
        let mut complaints = duplicates;
        complaints.extend(checked.unknown);
        field_validation(&self.call.query, complaints, warnings)?;
        self.kind.inward(checked.value)
    }

    async fn put(
        &self,
        name: &str,
        scope: Scope,
        warnings: &mut Vec<String>,
    ) -> Result<Response<AnswerBody>, Status> {
        let media_type = body::media_type(&self.call.parts.headers);
        let decoded = body::decode(media_type, &self.call.body)?;
        let sent = self.checked(decoded.value, decoded.duplicates, warnings)?;
        if object::name(&sent).is_empty() {
            return Err(Status::bad_request(format!(
                "the name of the object ({name} based on URL) was undeterminable: name must be \
                 provided"
            )));
        }
        let target = Change { kind: &self.kind, namespace: &self.path.namespace, name, scope };
        let registry = &self.api.registry;
        if scope == Scope::Main
            && let Some(created) = registry.put_new(target, &sent, self.options).await?
        {
            return self.present(201, &created);
        }
        let updated = registry.update(target, self.options, |_| Ok(sent.clone())).await?;
        self.present(200, &updated)
    }

    async fn patch(
        &self,
        name: &str,
        scope: Scope,
        warnings: &mut Vec<String>,
    ) -> Result<Response<AnswerBody>, Status> {
        let media_type = body::media_type(&self.call.parts.headers);
        if !PATCHES.contains(&media_type) {
            return Err(Status::unsupported_media_type(PATCHES));
        }
        let patch = body::json(&self.call.body)?;
        let mut complaints = Vec::new();
        let target = Change { kind: &self.kind, namespace: &self.path.namespace, name, scope };
        let updated = self
            .api
            .registry
            .update(target, self.options, |current| {
                let current = self.kind.outward(current);
                let mut patched = apply_patch(&self.kind, media_type, &current, &patch)?;
                self.kind.claim(&mut patched)?;
                let checked = decode::check(self.kind.served, self.kind.version, &patched)?;
                complaints = checked.unknown;
                field_validation(&self.call.query, complaints.clone(), &mut Vec::new())?;
                self.kind.inward(checked.value)
            })
            .await?;
        field_validation(&self.call.query, complaints, warnings)?;
        self.present(200, &updated)
    }

    /// The wishes of a delete: from the body, and from the query on top.
    fn delete_options(&self) -> Result<DeleteOptions, Status> {
        let mut options = if self.call.body.is_empty() {
            DeleteOptions::default()
        } else {
            let media_type = body::media_type(&self.call.parts.headers);
            let sent = body::decode(media_type, &self.call.body)?.value;
            let checked = decode::check_kind("meta", "v1", "DeleteOptions", &sent)?;
            DeleteOptions::read(&checked.value)?
        };
        let query = &self.call.query;
        if let Some(seconds) = query.number("gracePeriodSeconds").map_err(Status::bad_request)? {
            options.grace_seconds = Some(seconds);
        }
        if let Some(policy) = query.get("propagationPolicy") {
            options.propagation = Some(DeleteOptions::policy(policy)?);
        }
        options.dry_run |= self.options.dry_run;
        Ok(options)
    }

    async fn delete(&self, name: &str) -> Result<Response<AnswerBody>, Status> {
        let options = self.delete_options()?;
        let namespace = &self.path.namespace;
        match self.api.registry.delete(&self.kind, namespace, name, &options).await? {
            Deleted::Marked(object) => self.present(200, &object),
            Deleted::Gone(object) => {
                if DELETE_RETURNS_OBJECT.contains(&self.kind.stored.kind) {
                    return self.present(200, &object);
                }
                let uid = object::uid(&object);
                let status = status::success(self.kind.served, name, uid);
                Ok(answer::encoded(200, self.answer.encoding, &status))
            }
        }
    }

    async fn delete_collection(&self) -> Result<Response<AnswerBody>, Status> {
        let options = self.delete_options()?;
        let selection = Selection::parse(self.path.resource, &self.call.query)?;
        let registry = &self.api.registry;
        let prefix = self.kind.prefix(&self.path.namespace);
        let listing = registry
            .store
            .list(&prefix, ListOptions::default())
            .await
            .map_err(failure::of_store)?;
        let mut deleted = Vec::new();
        for found in listing.objects.iter().filter(|found| selection.matches(&found.value)) {
            let (namespace, name) = (object::namespace(&found.value), object::name(&found.value));
            match registry.delete(&self.kind, namespace, name, &options).await {
                Ok(Deleted::Gone(object) | Deleted::Marked(object)) => deleted.push(object),
                Err(status) if status.reason == "NotFound" => {}
                Err(status) => return Err(status),
            }
        }
        let items: Vec<Cow<'_, Value>> =
            deleted.iter().map(|object| self.kind.outward(object)).collect();
        let metadata = json!({ "resourceVersion": listing.revision.to_string() });
        let api_version = self.kind.served.api_version(self.kind.version);
        let list = self.presenter()?.list(&api_version, &items, metadata);
        Ok(answer::encoded(200, self.answer.encoding, &list))
    }
}

/// Applies a patch of any kind, in the version the client sees.
pub(crate) fn apply_patch(
    kind: &Kind,
    media_type: &str,
    current: &Value,
    patch: &Value,
) -> Result<Value, Status> {
    match media_type {
        patch::JSON_MEDIA_TYPE => patch::json::apply(kind.served, current, patch),
        patch::MERGE_MEDIA_TYPE => patch::merge::apply(kind.served, current, patch),
        patch::STRATEGIC_MEDIA_TYPE => patch::strategic::apply(kind.served, current, patch),
        _ => Err(Status::unsupported_media_type(PATCHES)),
    }
}

/// What `fieldValidation` says about fields nobody knows: refuse, warn (the default), or nothing.
pub(crate) fn field_validation(
    query: &Query,
    complaints: Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    match query.get("fieldValidation") {
        Some("Ignore") => Ok(()),
        None | Some("Warn") => {
            warnings.extend(complaints);
            Ok(())
        }
        Some("Strict") if complaints.is_empty() => Ok(()),
        Some("Strict") => {
            let message = format!("strict decoding error: {}", complaints.join(", "));
            Err(Status::bad_request(message))
        }
        Some(other) => Err(Status::bad_request(format!(
            "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \
             \"Strict\", \"Warn\""
        ))),
    }
}
