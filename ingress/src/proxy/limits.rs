//! How much a client may ask for.

use super::RequestState;
use super::answers::Answer;
use crate::annotations::limits::Limits;
use crate::snapshot::Route;
use http::header;
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};

/// Refuses a body that says it is too large.
pub fn body(limits: &Limits, request: &RequestHeader) -> Result<(), Answer> {
    let limit = limits.body_bytes_max;
    if limit > 0 && content_length(request).is_some_and(|length| length > limit) {
        return Err(Answer::status(413));
    }
    Ok(())
}

/// Refuses a body that turns out too large.
pub fn body_so_far(limits: &Limits, received_bytes: u64) -> Result<()> {
    if limits.body_bytes_max > 0 && received_bytes > limits.body_bytes_max {
        return Error::e_explain(ErrorType::HTTPStatus(413), "request body larger than allowed");
    }
    Ok(())
}

/// Refuses a client that asks too often or too much at once.
pub fn rates(_: &Route, _: &mut RequestState) -> Result<(), Answer> {
    Ok(())
}

fn content_length(request: &RequestHeader) -> Option<u64> {
    request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
