//! How much a client may ask for.

use super::RequestState;
use super::answers::Answer;
use crate::annotations::limits::Limits;
use crate::metrics::traffic::TRAFFIC;
use crate::snapshot::Route;
use http::header;
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};
use std::time::{Duration, Instant};

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

/// Refuses a client that asks too often or too much at once. In nginx's order: the rates first.
pub fn rates(route: &Route, state: &mut RequestState) -> Result<(), Answer> {
    let Some(clients) = &route.resources.clients else {
        return Ok(());
    };
    let limits = &route.settings.limits;
    let statuses = &route.options.limits;
    let client = state.forwarded.client;
    if limits.unlimited.contains(client) {
        return Ok(());
    }
    if !clients.count(client, limits.rates, Instant::now()) {
        TRAFFIC.limited.add(1);
        return Err(Answer::status(statuses.rate_status));
    }
    if limits.connections_max > 0 {
        let slot = clients.enter(client, limits.connections_max);
        if slot.is_none() {
            TRAFFIC.limited.add(1);
            return Err(Answer::status(statuses.connection_status));
        }
        state.slot = slot;
    }
    Ok(())
}

/// How long the next piece of an answer has to wait (`limit-rate`): what was sent stays within the rate, one
/// second of it ahead, as in nginx.
pub fn pace(limits: &Limits, paced: &mut Option<Paced>, piece_bytes: usize) -> Option<Duration> {
    let rate = limits.answer_bytes_per_second;
    if rate == 0 || piece_bytes == 0 {
        return None;
    }
    let now = Instant::now();
    let answer = paced.get_or_insert(Paced { started: now, bytes: 0 });
    answer.bytes += piece_bytes as u64;
    let paid = answer.bytes.saturating_sub(limits.answer_bytes_free);
    let due_ms = (paid.saturating_mul(1000) / rate).saturating_sub(1000);
    let due = answer.started + Duration::from_millis(due_ms);
    due.checked_duration_since(now).filter(|wait| !wait.is_zero())
}

/// An answer that is sent at a limited rate.
#[derive(Debug)]
pub struct Paced {
    started: Instant,
    bytes: u64,
}

fn content_length(request: &RequestHeader) -> Option<u64> {
    request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
