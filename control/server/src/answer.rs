//! Answers: objects, lists and errors in the form and encoding the client asked for.

use std::borrow::Cow;

use bytes::Bytes;
use futures::Stream;
use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER, WARNING};
use http::{HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use podium_api::resource::Resource;
use podium_api::status::Status;
use podium_api::{object, table};
use serde_json::{Value, json};

use crate::body::BoxError;
use crate::negotiate::{Answer, Encoding, Form};
use crate::request::Query;

/// The body of every answer.
pub type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is there at once.
pub(crate) fn full(content: impl Into<Bytes>) -> AnswerBody {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that comes piece by piece.
pub(crate) fn streamed(
    stream: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
) -> AnswerBody {
    use futures::TryStreamExt as _;
    StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync()
}

/// An answer of any content type.
pub(crate) fn raw(
    code: u16,
    content_type: &'static str,
    content: impl Into<Bytes>,
) -> Response<AnswerBody> {
    let mut response = Response::new(full(content));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON document.
pub(crate) fn document(code: u16, value: &Value) -> Response<AnswerBody> {
    raw(code, "application/json", value.to_string())
}

/// An error.
pub(crate) fn failure(status: &Status) -> Response<AnswerBody> {
    let mut response = document(status.code, &status.to_value());
    let seconds = status.details.retry_after_seconds;
    if seconds > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A value in the encoding the client asked for.
pub(crate) fn encoded(code: u16, encoding: Encoding, value: &Value) -> Response<AnswerBody> {
    match encoding {
        Encoding::Json => document(code, value),
        Encoding::Yaml => match serde_saphyr::to_string(value) {
            Ok(text) => raw(code, "application/yaml", text),
            Err(error) => failure(&Status::internal(format!("encode YAML: {error}"))),
        },
    }
}

/// Adds Warning headers (RFC 7234, code 299), which kubectl prints.
pub(crate) fn warn(response: &mut Response<AnswerBody>, warnings: &[String]) {
    for text in warnings {
        let quoted: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .flat_map(|c| {
                matches!(c, '"' | '\\').then_some('\\').into_iter().chain(std::iter::once(c))
            })
            .collect();
        if let Ok(value) = HeaderValue::try_from(format!("299 - \"{quoted}\"").into_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// Headers that go with every answer and help to find a request in the log.
pub(crate) fn audit_id(response: &mut Response<AnswerBody>, id: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(HeaderName::from_static("audit-id"), value);
    }
}

/// How objects of one request are presented.
pub(crate) struct Presenter {
    pub(crate) resource: &'static Resource,
    pub(crate) answer: Answer,
    include_object: table::IncludeObject,
}

impl Presenter {
    pub(crate) fn new(
        resource: &'static Resource,
        answer: Answer,
        query: &Query,
    ) -> Result<Self, Status> {
        let include_object = match query.get("includeObject") {
            None | Some("Metadata") => table::IncludeObject::Metadata,
            Some("Object") => table::IncludeObject::Object,
            Some("None") => table::IncludeObject::None,
            Some(other) => {
                return Err(Status::bad_request(format!(
                    "unrecognized includeObject value: \"{other}\""
                )));
            }
        };
        Ok(Self { resource, answer, include_object })
    }

    /// One object, already in the version asked for.
    pub(crate) fn one(&self, object: &Value) -> Value {
        match self.answer.form {
            Form::Object => object.clone(),
            Form::Metadata => partial(object),
            Form::Table(version) => {
                let meta = json!({ "resourceVersion": object::resource_version(object) });
                self.table(version, &[object], meta)
            }
        }
    }

    /// A list with the metadata given.
    pub(crate) fn list(
        &self,
        api_version: &str,
        items: &[Cow<'_, Value>],
        metadata: Value,
    ) -> Value {
        match self.answer.form {
            Form::Object => json!({
                "kind": self.resource.list_kind(),
                "apiVersion": api_version,
                "metadata": metadata,
                "items": items,
            }),
            Form::Metadata => {
                let items: Vec<Value> = items.iter().map(|item| partial(item)).collect();
                json!({
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata,
                    "items": items,
                })
            }
            Form::Table(version) => {
                let items: Vec<&Value> = items.iter().map(AsRef::as_ref).collect();
                self.table(version, &items, metadata)
            }
        }
    }

    fn table(&self, version: &str, items: &[&Value], metadata: Value) -> Value {
        let now = jiff::Timestamp::now();
        let mut table = table::render(self.resource, items, now, self.include_object);
        table["apiVersion"] = format!("meta.k8s.io/{version}").into();
        table["metadata"] = metadata;
        table
    }
}

fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}
