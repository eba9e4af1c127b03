//! The guards of a location: who may use it.

use super::RequestState;
use super::answers::Answer;
use crate::snapshot::Route;
use pingora::proxy::Session;

/// Lets a request in, or answers it.
pub async fn check(route: &Route, _: &Session, state: &mut RequestState) -> Result<(), Answer> {
    if !route.settings.access.admits(state.forwarded.client) {
        return Err(Answer::status(403));
    }
    Ok(())
}
