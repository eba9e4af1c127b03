//! `metav1.Status`: every answer that is not an object, in upstream's words. Clients match on the
//! reason, and people on the message, so both are upstream's to the letter.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::field;
use crate::resource::Resource;

/// A failure the API server answers with.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// Machine-readable: `NotFound`, `AlreadyExists`, …
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// What the failure is about. Boxed, so that a `Result` of a failure stays small.
    pub details: Box<Details>,
}

/// `Status.details`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Its resource (its kind for reason `Invalid`).
    pub kind: String,
    /// Its uid.
    pub uid: String,
    /// The single causes of reason `Invalid` and a few others.
    pub causes: Vec<Cause>,
    /// How long the client should wait before it tries again; 0 says nothing.
    pub retry_after_seconds: u32,
}

/// One of several causes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, `ResourceVersionTooLarge`, …
    pub reason: String,
    /// For people.
    pub message: String,
    /// The field, where there is one.
    pub field: String,
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Box::default() }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.details = Box::new(Details {
            name: name.to_owned(),
            group: resource.group.to_owned(),
            kind: resource.plural.to_owned(),
            ..Details::default()
        });
        self
    }

    /// 404: no such object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", resource.group_resource());
        Self::new(404, "NotFound", message).about(resource, name)
    }

    /// 404: nothing is served at this path.
    pub fn path_not_found() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.group_resource());
        Self::new(409, "AlreadyExists", message).about(resource, name)
    }

    /// 409: the operation does not fit the state of the object.
    pub fn conflict(resource: &Resource, name: &str, why: impl fmt::Display) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            resource.group_resource()
        );
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// 409: the object was written since the client read it.
    pub fn conflict_modified(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        Self::conflict(resource, name, why)
    }

    /// 422: fields are wrong; every one of them becomes a cause.
    pub fn invalid(resource: &Resource, name: &str, errors: &[field::Error]) -> Self {
        Self::invalid_kind(resource.group, resource.kind, name, errors)
    }

    /// [`Self::invalid`] for a kind that is no resource, such as `Scale`.
    pub fn invalid_kind(group: &str, kind: &str, name: &str, errors: &[field::Error]) -> Self {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        // Upstream aggregates: one error alone, several in brackets, equal ones once.
        let mut texts: Vec<String> = Vec::new();
        for error in errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let what = match &texts[..] {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut status =
            Self::new(422, "Invalid", format!("{qualified} {name:?} is invalid: {what}"));
        status.details = Box::new(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes: errors.iter().map(Cause::from).collect(),
            ..Details::default()
        });
        status
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: nobody known asks.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403: the object may not be written, for this reason.
    pub fn forbidden(resource: &Resource, name: &str, why: impl fmt::Display) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", resource.group_resource())
        } else {
            format!("{} {name:?} is forbidden: {why}", resource.group_resource())
        };
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    /// 403: the request itself is not allowed, whatever it is about.
    pub fn forbidden_request(why: impl fmt::Display) -> Self {
        Self::new(403, "Forbidden", format!("forbidden: {why}"))
    }

    /// 405: the resource does not do this.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message)
    }

    /// 406: none of the forms the client accepts can be had.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message =
            format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, "NotAcceptable", message)
    }

    /// 408 in upstream's table is 504: the server gave up waiting.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }

    /// 410: the resource version, or the continue token, is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413: the body is too large.
    pub fn request_entity_too_large(bytes_max: usize) -> Self {
        let message = format!("Request entity too large: limit is {bytes_max}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 415: the body is in no form the server reads.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 429: too many requests are in flight.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::new(429, "TooManyRequests", message);
        status.details.retry_after_seconds = retry_after_seconds;
        status
    }

    /// 500: the server's fault.
    pub fn internal(message: impl fmt::Display) -> Self {
        let text = format!("Internal error occurred: {message}");
        let mut status = Self::new(500, "InternalError", text);
        status.details.causes = vec![Cause {
            reason: String::new(),
            message: message.to_string(),
            field: String::new(),
        }];
        status
    }

    /// 503: something the server needs is not there.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504: a resource version newer than the newest was asked for.
    pub fn resource_version_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut status = Self::timeout(message);
        status.details.retry_after_seconds = 1;
        status.details.causes = vec![Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        }];
        status
    }

    /// The object as it is sent.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        let details = self.details.to_map();
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status
    }
}

/// The Status a delete answers with when the object itself is gone.
pub fn success(resource: &Resource, name: &str, uid: &str) -> Value {
    let details = Details {
        name: name.to_owned(),
        group: resource.group.to_owned(),
        kind: resource.plural.to_owned(),
        uid: uid.to_owned(),
        ..Details::default()
    };
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details.to_map(),
    })
}

impl Details {
    fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let texts = [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ];
        for (key, text) in texts {
            if !text.is_empty() {
                map.insert(key.to_owned(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            map.insert("causes".to_owned(), self.causes.iter().map(Cause::to_value).collect());
        }
        if self.retry_after_seconds > 0 {
            map.insert("retryAfterSeconds".to_owned(), json!(self.retry_after_seconds));
        }
        map
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        let texts = [("reason", &self.reason), ("message", &self.message), ("field", &self.field)];
        for (key, text) in texts {
            if !text.is_empty() {
                map.insert(key.to_owned(), json!(text));
            }
        }
        Value::Object(map)
    }
}

impl From<&field::Error> for Cause {
    fn from(error: &field::Error) -> Self {
        // A cause names its field apart, so its message is the error without the path.
        let (path, text) = (error.path.to_string(), error.to_string());
        let message = text.strip_prefix(&path).and_then(|rest| rest.strip_prefix(": "));
        Self {
            reason: error.kind.reason().to_owned(),
            message: message.unwrap_or(&text).to_owned(),
            field: path,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Path;
    use crate::resource::find_kind;

    #[test]
    fn messages_are_upstreams() {
        let deployment = find_kind("apps", "Deployment").unwrap();
        let pod = find_kind("", "Pod").unwrap();
        let port = field::Error::invalid(&Path::new("spec").child("port"), 0, "must be positive");
        let name = field::Error::required(&Path::new("metadata").child("name"), "");
        let cases = [
            (Status::not_found(deployment, "d"), r#"deployments.apps "d" not found"#),
            (Status::already_exists(pod, "p"), r#"pods "p" already exists"#),
            (
                Status::conflict_modified(pod, "p"),
                r#"Operation cannot be fulfilled on pods "p": the object has been modified; please apply your changes to the latest version and try again"#,
            ),
            (
                Status::invalid(pod, "p", std::slice::from_ref(&port)),
                r#"Pod "p" is invalid: spec.port: Invalid value: 0: must be positive"#,
            ),
            (
                Status::invalid(deployment, "d", &[port.clone(), name]),
                r#"Deployment.apps "d" is invalid: [spec.port: Invalid value: 0: must be positive, metadata.name: Required value]"#,
            ),
        ];
        for (status, message) in cases {
            assert_eq!(status.to_string(), message);
        }
        let causes = Status::invalid(pod, "p", &[port]).details.causes;
        assert_eq!(causes[0].field, "spec.port");
        assert_eq!(causes[0].message, "Invalid value: 0: must be positive");
    }
}
