//! Reviews: questions about identity and rights, answered and forgotten.
//!
//! There is no role-based access control: whoever is authenticated may do everything, and that is
//! what access reviews say.

use std::sync::Arc;

use http::{Method, Response};
use podium_api::object;
use podium_api::status::Status;
use serde_json::{Value, json};

use crate::answer::{self, AnswerBody};
use crate::body;
use crate::identity::{ANONYMOUS, Identity};
use crate::server::Api;
use crate::service::Call;

/// Answers a review.
pub(crate) async fn answer(
    api: &Arc<Api>,
    call: &Call,
    review: &str,
) -> Result<Response<AnswerBody>, Status> {
    if call.method != Method::POST {
        return Err(Status::method_not_allowed());
    }
    let media_type = body::media_type(&call.parts.headers);
    let mut sent = body::decode(media_type, &call.body)?.value;
    let (group, kind, status) = match review {
        "selfsubjectreviews" => {
            let status = json!({ "userInfo": user_info(&call.identity) });
            ("authentication.k8s.io", "SelfSubjectReview", status)
        }
        "tokenreviews" => {
            let token = sent["spec"]["token"].as_str().unwrap_or_default();
            let status = match api.authenticator.bearer(token).await {
                Some(identity) => {
                    json!({ "authenticated": true, "user": user_info(&identity) })
                }
                None => json!({ "authenticated": false, "user": {} }),
            };
            ("authentication.k8s.io", "TokenReview", status)
        }
        "selfsubjectrulesreviews" => {
            let status = json!({
                "incomplete": false,
                "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }],
                "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
            });
            ("authorization.k8s.io", "SelfSubjectRulesReview", status)
        }
        "selfsubjectaccessreviews" => {
            ("authorization.k8s.io", "SelfSubjectAccessReview", json!({ "allowed": true }))
        }
        _ => {
            let allowed = sent["spec"]["user"].as_str().is_some_and(|user| user != ANONYMOUS);
            ("authorization.k8s.io", "SubjectAccessReview", json!({ "allowed": allowed }))
        }
    };
    sent["apiVersion"] = json!(format!("{group}/v1"));
    sent["kind"] = json!(kind);
    object::set(&mut sent, "creationTimestamp", object::time(jiff::Timestamp::now()));
    sent["status"] = status;
    Ok(answer::document(201, &sent))
}

fn user_info(identity: &Identity) -> Value {
    let mut info = json!({ "username": identity.user, "groups": identity.groups });
    if !identity.uid.is_empty() {
        info["uid"] = json!(identity.uid);
    }
    if !identity.extra.is_empty() {
        info["extra"] = json!(identity.extra);
    }
    info
}
