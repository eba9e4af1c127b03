//! Client certificates (`auth-tls-*`): judged with each request, since only then the host is known.
//!
//! As in nginx this comes before everything else about a host, paths and redirects included.

use super::RequestState;
use super::answers::{Answer, pages};
use super::target::RequestTarget;
use crate::listener::link::Link;
use crate::snapshot::Snapshot;
use crate::tls::client_auth::{Checks, ClientAuth, Denial};
use bytes::Bytes;
use http::{HeaderValue, header};
use pingora::Result;
use pingora::http::RequestHeader;
use std::borrow::Cow;

/// What endpoints are told; clients cannot say it themselves.
pub const HEADERS: [&str; 4] =
    ["ssl-client-verify", "ssl-client-subject-dn", "ssl-client-issuer-dn", "ssl-client-cert"];

/// Lets a client in, or answers it. The error page of a host that is one of its paths takes the place of
/// the path asked for.
pub fn check(
    snapshot: &Snapshot,
    link: Option<&Link>,
    target: &mut RequestTarget<'_>,
    state: &mut RequestState,
) -> Result<(), Answer> {
    let Some(auth) = snapshot.certificates.client_auth(&target.host) else {
        return Ok(());
    };
    let ClientAuth::Checks(checks) = &**auth else {
        return Err(Answer::status(403));
    };
    let Some(tls) = link.and_then(|link| link.tls.as_ref()) else {
        // Nobody asks without TLS; there is no subject either.
        return if auth.admits_plain() { Ok(()) } else { Err(wrong_subject()) };
    };
    let same_host = tls.server_name.as_deref().is_none_or(|name| name == target.host);
    if checks.asks() && !same_host {
        return Err(Answer::status(421));
    }
    let judged = tls.judged(auth);
    let denial = judged.as_ref().and_then(|judged| judged.denial);
    state.client_certificate = judged;
    match denial {
        None => Ok(()),
        Some(Denial::WrongSubject) => Err(wrong_subject()),
        Some(denial) => refuse(checks, denial, target),
    }
}

fn refuse(checks: &Checks, denial: Denial, target: &mut RequestTarget<'_>) -> Result<(), Answer> {
    match &checks.error_page {
        Some(path) if path.starts_with('/') => {
            target.path = Cow::Owned(path.clone().into_bytes());
            target.query = None;
            target.origin_form = Some(path.clone().into_bytes());
            Ok(())
        }
        Some(url) => Err(Answer::redirect(302, url.clone().into_bytes())),
        // nginx's statuses 496 and 495, which it sends as 400.
        None => {
            let why = match denial {
                Denial::NoCertificate => "No required SSL certificate was sent",
                _ => "The SSL certificate error",
            };
            Err(html(400, pages::bad_request(why)))
        }
    }
}

fn wrong_subject() -> Answer {
    html(403, Bytes::from_static(b"client certificate unauthorized"))
}

fn html(status: u16, body: Bytes) -> Answer {
    let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("text/html"))];
    Answer { status, headers, body: Some(body) }
}

/// Tells an endpoint about the client's certificate.
pub fn write(upstream: &mut RequestHeader, state: &RequestState) -> Result<()> {
    for name in HEADERS {
        upstream.remove_header(name);
    }
    for (name, value) in headers(state) {
        upstream.insert_header(name, value.clone())?;
    }
    Ok(())
}

/// What endpoints and authorities are told about the client's certificate.
pub fn headers(state: &RequestState) -> impl Iterator<Item = (&'static str, &HeaderValue)> {
    let told = state.client_certificate.iter().flat_map(|judged| {
        let values = [&judged.subject, &judged.issuer, &judged.certificate];
        std::iter::once(Some(&judged.verify)).chain(values.map(Option::as_ref))
    });
    HEADERS.into_iter().zip(told).filter_map(|(name, value)| Some((name, value?)))
}
