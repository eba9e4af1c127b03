//! Cross-origin requests: preflights are answered, and answers say who may read them.

use super::answers::Answer;
use crate::annotations::response::cors::Cors;
use http::{HeaderName, HeaderValue, Method, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

/// What `Access-Control-Allow-Origin` says to a request, if its origin may ask.
pub fn allowed_origin(cors: &Cors, request: &RequestHeader) -> Option<HeaderValue> {
    cors.allowed(request.headers.get(header::ORIGIN))
}

/// Answers an OPTIONS request of an origin that may ask; those of others go to the endpoint.
pub fn preflight(request: &RequestHeader) -> Result<(), Answer> {
    if request.method != Method::OPTIONS {
        return Ok(());
    }
    // nginx says so in spite of the status.
    let headers = vec![(header::CONTENT_LENGTH, HeaderValue::from_static("0"))];
    Err(Answer { headers, ..Answer::status(204) })
}

/// Sets the headers in an answer, in place of the endpoint's own.
pub fn mark(answer: &mut ResponseHeader, cors: &Cors, origin: &HeaderValue) -> Result<()> {
    let mut set = |name: HeaderName, value: &HeaderValue| answer.insert_header(name, value.clone());
    set(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)?;
    if cors.credentials {
        let allowed = HeaderValue::from_static("true");
        set(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, &allowed)?;
    }
    set(header::ACCESS_CONTROL_ALLOW_METHODS, &cors.methods)?;
    set(header::ACCESS_CONTROL_ALLOW_HEADERS, &cors.headers)?;
    if let Some(exposed) = &cors.exposed {
        set(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed)?;
    }
    set(header::ACCESS_CONTROL_MAX_AGE, &cors.max_age)
}
