//! Request bodies: read up to a limit, decoded by content type.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use podium_api::status::Status;
use podium_api::{decode, protobuf};
use serde_json::Value;

/// What upstream accepts at most (`--max-request-bytes` of etcd, twice over).
pub(crate) const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

const ACCEPTED: &[&str] =
    &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// Any error a body can end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The media type of a request's body, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.split(';').next()).unwrap_or_default().trim()
}

/// All of a body, or 413.
pub(crate) async fn read<B>(body: B) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Status::request_entity_too_large(BODY_BYTES_MAX))
        }
        Err(error) => Err(Status::bad_request(format!("request body: {error}"))),
    }
}

/// A decoded body and what a strict reader would complain about.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) value: Value,
    pub(crate) duplicates: Vec<String>,
}

/// Decodes an object. Without a content type it is JSON.
pub(crate) fn decode(media_type: &str, body: &[u8]) -> Result<Decoded, Status> {
    let (value, duplicates) = match media_type {
        "" | "application/json" => (json(body)?, duplicates(body)),
        "application/yaml" | "application/apply-patch+yaml" => (yaml(body)?, Vec::new()),
        "application/vnd.kubernetes.protobuf" => (protobuf::decode(body)?, Vec::new()),
        _ => return Err(Status::unsupported_media_type(ACCEPTED)),
    };
    if value.is_object() {
        Ok(Decoded { value, duplicates })
    } else {
        let found = match value {
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Bool(_) => "bool",
            _ => "null",
        };
        Err(Status::bad_request(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into Go \
             value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind \
             string \"json:\\\"kind,omitempty\\\"\" }}"
        )))
    }
}

fn duplicates(body: &[u8]) -> Vec<String> {
    decode::duplicate_fields(body)
}

/// Parses JSON.
pub(crate) fn json(body: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(body).map_err(|error| {
        Status::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
    })
}

fn yaml(body: &[u8]) -> Result<Value, Status> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: {error}")))?;
    serde_saphyr::from_str(text)
        .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: {error}")))
}
