//! What is changed in answers on their way to the client.

use super::{RequestState, access};
use http::header;
use pingora::Result;
use pingora::http::ResponseHeader;

/// Changes an endpoint's answer.
pub fn from_endpoint(answer: &mut ResponseHeader) {
    // As ingress-nginx with its default `server-tokens: false`.
    answer.remove_header(&header::SERVER);
}

/// Changes any answer, an endpoint's as well as our own.
pub fn to_client(answer: &mut ResponseHeader, state: &RequestState) -> Result<()> {
    if let (Some(said), Some(route)) = (&state.said, &state.route) {
        access::to_client(answer, route, said)?;
    }
    Ok(())
}
