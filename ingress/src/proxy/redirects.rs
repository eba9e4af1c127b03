//! Answers that send the client elsewhere.

use super::IngressProxy;
use super::answers::Answer;
use super::headers::Forwarded;
use super::target::RequestTarget;
use crate::snapshot::Route;

/// What redirects need to know of the host.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// It can be reached by https with a certificate of its own.
    pub certified: bool,
}

/// Sends a client elsewhere where the route says so.
pub fn check(
    proxy: &IngressProxy,
    route: &Route,
    host: Host,
    target: &RequestTarget<'_>,
    forwarded: &Forwarded,
) -> Result<(), Answer> {
    let redirects = &route.settings.redirects;
    if forwarded.scheme() == "http" && !route.is_default() && !target.is_acme_challenge() {
        let wanted = redirects.to_https_always || (redirects.to_https && host.certified);
        if wanted {
            let location =
                target.https_location(proxy.https_redirect_port, redirects.keep_trailing_slash);
            return Err(Answer::redirect(308, &location));
        }
    }
    Ok(())
}
