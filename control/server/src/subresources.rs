//! Subresources that are more than a part of the object: scale, binding, eviction, log, token,
//! finalize.

use http::{Method, Response};
use podium_api::resource::Subresource;
use podium_api::status::Status;
use podium_api::{decode, object, selector, table};
use serde_json::{Value, json};

use crate::answer::{self, AnswerBody};
use crate::body;
use crate::kind::Kind;
use crate::negotiate::Form;
use crate::objects::{ObjectsCall, apply_patch, field_validation};
use crate::registry::{Change, DeleteOptions, Scope};
use crate::token::Claims;

const TOKEN_SECONDS_DEFAULT: i64 = 3_600;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// Answers a request for a subresource.
pub(crate) async fn answer(
    objects: &ObjectsCall<'_>,
    subresource: Subresource,
    name: &str,
    warnings: &mut Vec<String>,
) -> Result<Response<AnswerBody>, Status> {
    match (subresource, &objects.call.method) {
        (Subresource::Scale, &Method::GET) => {
            let found =
                objects.api.registry.get(&objects.kind, &objects.path.namespace, name).await?;
            Ok(present_scale(objects, &scale_of(&found.value)))
        }
        (Subresource::Scale, &Method::PUT | &Method::PATCH) => {
            write_scale(objects, name, warnings).await
        }
        (Subresource::Binding, &Method::POST) => bind(objects, name).await,
        (Subresource::Eviction, &Method::POST) => evict(objects, name).await,
        (Subresource::Token, &Method::POST) => issue_token(objects, name).await,
        (Subresource::Finalize, &Method::PUT) => {
            let sent = decoded(objects, "", "v1", "Namespace")?;
            let finalized =
                objects.api.registry.finalize(&objects.kind, name, &sent, objects.options).await?;
            objects.present(200, &finalized)
        }
        (Subresource::Log, &Method::GET) => crate::node_log::answer(objects, name).await,
        _ => Err(Status::method_not_allowed()),
    }
}

fn decoded(
    objects: &ObjectsCall<'_>,
    group: &str,
    version: &str,
    kind: &str,
) -> Result<Value, Status> {
    let media_type = body::media_type(&objects.call.parts.headers);
    let sent = body::decode(media_type, &objects.call.body)?.value;
    Ok(decode::check_kind(group, version, kind, &sent)?.value)
}

/// The `autoscaling/v1` Scale of a Deployment or ReplicaSet.
fn scale_of(stored: &Value) -> Value {
    let metadata = &stored["metadata"];
    let selected = selector::LabelSelector::from_spec(&stored["spec"]["selector"])
        .map(|selector| selector.to_string())
        .unwrap_or_default();
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": { "replicas": stored["spec"]["replicas"].as_i64().unwrap_or(1) },
        "status": {
            "replicas": stored["status"]["replicas"].as_i64().unwrap_or(0),
            "selector": selected,
        },
    })
}

async fn write_scale(
    objects: &ObjectsCall<'_>,
    name: &str,
    warnings: &mut Vec<String>,
) -> Result<Response<AnswerBody>, Status> {
    let target = Change {
        kind: &objects.kind,
        namespace: &objects.path.namespace,
        name,
        scope: Scope::Scale,
    };
    let media_type = body::media_type(&objects.call.parts.headers).to_owned();
    let sent = if objects.call.method == Method::PUT {
        body::decode(&media_type, &objects.call.body)?.value
    } else {
        body::json(&objects.call.body)?
    };
    let mut complaints = Vec::new();
    if objects.call.method == Method::PUT {
        complaints = decode::check_kind("autoscaling", "v1", "Scale", &sent)?.unknown;
    }
    field_validation(&objects.call.query, complaints, warnings)?;
    let updated = objects
        .api
        .registry
        .update(target, objects.options, |current| {
            let scale = if objects.call.method == Method::PUT {
                sent.clone()
            } else {
                apply_patch(&objects.kind, &media_type, &scale_of(current), &sent)?
            };
            let scale = decode::check_kind("autoscaling", "v1", "Scale", &scale)?.value;
            let mut new = current.clone();
            let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
            if replicas < 0 {
                let path = podium_api::field::Path::new("spec").child("replicas");
                let detail = "must be greater than or equal to 0";
                let error = podium_api::field::Error::invalid(&path, replicas, detail);
                return Err(Status::invalid_kind("autoscaling", "Scale", name, &[error]));
            }
            new["spec"]["replicas"] = json!(replicas);
            for field in ["uid", "resourceVersion"] {
                if let Some(text) = scale["metadata"][field].as_str() {
                    object::set(&mut new, field, text);
                }
            }
            Ok(new)
        })
        .await?;
    Ok(present_scale(objects, &scale_of(&updated)))
}

fn present_scale(objects: &ObjectsCall<'_>, scale: &Value) -> Response<AnswerBody> {
    let shown = match objects.answer.form {
        Form::Table(version) => {
            let mut table = table::scale(scale, jiff::Timestamp::now());
            table["apiVersion"] = json!(format!("meta.k8s.io/{version}"));
            table
        }
        Form::Object | Form::Metadata => scale.clone(),
    };
    answer::encoded(200, objects.answer.encoding, &shown)
}

/// Gives a Pod its node: the scheduler's decision.
async fn bind(objects: &ObjectsCall<'_>, name: &str) -> Result<Response<AnswerBody>, Status> {
    let binding = decoded(objects, "", "v1", "Binding")?;
    let node = binding["target"]["name"].as_str().unwrap_or_default().to_owned();
    if node.is_empty() {
        let path = podium_api::field::Path::new("target").child("name");
        let error = podium_api::field::Error::required(&path, "");
        return Err(Status::invalid_kind("", "Binding", name, &[error]));
    }
    let target = Change {
        kind: &objects.kind,
        namespace: &objects.path.namespace,
        name,
        scope: Scope::Internal,
    };
    let now = object::time(jiff::Timestamp::now());
    objects
        .api
        .registry
        .update(target, objects.options, |pod| bound(&objects.kind, pod, &binding, &node, &now))
        .await?;
    let success = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Ok(answer::encoded(201, objects.answer.encoding, &success))
}

fn bound(
    kind: &Kind,
    pod: &Value,
    binding: &Value,
    node: &str,
    now: &str,
) -> Result<Value, Status> {
    let name = object::name(pod);
    let (wanted, uid) = (object::uid(binding), object::uid(pod));
    if !wanted.is_empty() && wanted != uid {
        let why = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        );
        return Err(Status::conflict(kind.served, name, why));
    }
    if object::is_terminating(pod) {
        let why = format!("pod {name} is being deleted, cannot be assigned to a host");
        return Err(Status::conflict(kind.served, name, why));
    }
    let current = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if !current.is_empty() {
        let why = format!("pod {name} is already assigned to node \"{current}\"");
        return Err(Status::conflict(kind.served, name, why));
    }
    let mut new = pod.clone();
    new["spec"]["nodeName"] = json!(node);
    for (key, value) in object::annotations(binding) {
        object::child_mut(&mut new, "metadata");
        new["metadata"]["annotations"][key] = json!(value);
    }
    let status = object::child_mut(&mut new, "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(json!({
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": null,
            "lastTransitionTime": now,
        }));
    }
    Ok(new)
}

/// Deletes a Pod the polite way.
async fn evict(objects: &ObjectsCall<'_>, name: &str) -> Result<Response<AnswerBody>, Status> {
    let eviction = decoded(objects, "policy", "v1", "Eviction")?;
    let mut options = DeleteOptions::read(&eviction["deleteOptions"])?;
    options.dry_run |= objects.options.dry_run;
    objects.api.registry.delete(&objects.kind, &objects.path.namespace, name, &options).await?;
    let success = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Ok(answer::encoded(201, objects.answer.encoding, &success))
}

/// `kubectl create token`: a token of a ServiceAccount.
async fn issue_token(
    objects: &ObjectsCall<'_>,
    name: &str,
) -> Result<Response<AnswerBody>, Status> {
    let mut request = decoded(objects, "authentication.k8s.io", "v1", "TokenRequest")?;
    let registry = &objects.api.registry;
    let namespace = objects.path.namespace.as_str();
    let account = registry.get(&objects.kind, namespace, name).await?;
    let key = &objects.api.token_key;
    let spec = &request["spec"];
    let listed = spec["audiences"].as_array().into_iter().flatten();
    let mut audiences: Vec<String> = listed.filter_map(Value::as_str).map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences.push(key.own_audience().to_owned());
    }
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(TOKEN_SECONDS_DEFAULT);
    if !(TOKEN_SECONDS_MIN..=TOKEN_SECONDS_MAX).contains(&seconds) {
        let path = podium_api::field::Path::new("spec").child("expirationSeconds");
        let detail = if seconds < TOKEN_SECONDS_MIN {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let error = podium_api::field::Error::invalid(&path, seconds, detail);
        return Err(Status::invalid_kind("authentication.k8s.io", "TokenRequest", name, &[error]));
    }
    let bound = bound_object(objects, &spec["boundObjectRef"]).await?;
    let now = jiff::Timestamp::now();
    let claims = Claims {
        audiences: audiences.clone(),
        issued_seconds: now.as_second(),
        expires_seconds: now.as_second() + seconds,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: object::uid(&account.value).to_owned(),
        bound,
    };
    let token = key.sign(&claims).map_err(Status::internal)?;
    let expires = jiff::Timestamp::from_second(claims.expires_seconds).map_err(Status::internal)?;
    request["apiVersion"] = json!("authentication.k8s.io/v1");
    request["kind"] = json!("TokenRequest");
    request["metadata"] = json!({
        "name": name, "namespace": namespace, "creationTimestamp": object::time(now),
    });
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(seconds);
    request["status"] = json!({ "token": token, "expirationTimestamp": object::time(expires) });
    Ok(answer::encoded(201, objects.answer.encoding, &request))
}

/// The object a token is to be bound to, which must be there.
async fn bound_object(
    objects: &ObjectsCall<'_>,
    reference: &Value,
) -> Result<Option<(String, String, String)>, Status> {
    let Some(kind_name) = reference["kind"].as_str() else { return Ok(None) };
    if !matches!(kind_name, "Pod" | "Secret" | "Node") {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount to object of type {kind_name:?}"
        )));
    }
    let kind = Kind::internal("", kind_name)?;
    let name = reference["name"].as_str().unwrap_or_default();
    let found = objects.api.registry.get(&kind, &objects.path.namespace, name).await?;
    let uid = object::uid(&found.value);
    let wanted = reference["uid"].as_str().unwrap_or_default();
    if !wanted.is_empty() && wanted != uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(kind.served, name, why));
    }
    Ok(Some((kind_name.to_lowercase(), name.to_owned(), uid.to_owned())))
}
