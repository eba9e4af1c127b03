//! `mirror-target`: a copy of each request to another server, whose answer nobody waits for.
//!
//! Copies are bounded, in number and in size: where the mirror is slow, requests are not copied.

use super::IngressProxy;
use super::forwarded::Forwarded;
use super::headers::{identify, remove_hop_by_hop};
use crate::http_client::{Body, Destination, HttpClient, discard};
use crate::snapshot::Route;
use crate::variables::Values;
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Copies under way at once, of all locations.
const COPIES_MAX: usize = 512;
/// The largest body that is copied.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How long a mirror may take to answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Room for copies.
#[derive(Debug)]
pub struct Mirrors(Arc<Semaphore>);

impl Default for Mirrors {
    fn default() -> Mirrors {
        Mirrors(Arc::new(Semaphore::new(COPIES_MAX)))
    }
}

/// A copy that is being made.
#[derive(Debug)]
pub struct Copy {
    client: HttpClient,
    destination: Destination,
    head: Request<()>,
    body: Vec<Bytes>,
    body_bytes: usize,
    _room: OwnedSemaphorePermit,
}

/// Begins a copy of a request, if the location has a mirror and there is room.
pub fn begin(
    proxy: &IngressProxy,
    route: &Route,
    forwarded: &Forwarded,
    values: &Values<'_>,
) -> Option<Box<Copy>> {
    let mirror = &route.settings.response.mirror;
    let target = mirror.target.as_ref()?;
    let Ok(room) = proxy.mirrors.0.clone().try_acquire_owned() else {
        tracing::debug!("too many copies under way: a request is not mirrored");
        return None;
    };
    let path = match target.path.source() {
        "" => values.request_uri.to_vec(),
        _ => match target.path.expand(values) {
            path if path.starts_with(b"?") => [b"/", &*path].concat(),
            path => path,
        },
    };
    let constant = target.path.constant().is_some_and(|path| !path.is_empty());
    let path = match values.query() {
        query if constant && !query.is_empty() && !path.contains(&b'?') => {
            [&path, b"?".as_slice(), query].concat()
        }
        _ => path,
    };
    let host = match &mirror.host {
        Some(host) => HeaderValue::from_maybe_shared(Bytes::from(host.expand(values))).ok()?,
        None => HeaderValue::from_str(&target.host).ok()?,
    };
    let mut head = values.request.clone();
    identify(&mut head, forwarded, &route.options).ok()?;
    let mut headers = head.headers.clone();
    remove_hop_by_hop(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::HOST, host);
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = http::Uri::from_maybe_shared(path).ok()?;
    *request.headers_mut() = headers;
    let destination = Destination {
        https: target.https,
        host: target.host.to_string(),
        port: target.port,
        address: None,
    };
    Some(Box::new(Copy {
        client: proxy.http_client.clone(),
        destination,
        head: request,
        body: Vec::new(),
        body_bytes: 0,
        _room: room,
    }))
}

/// Gives a copy its part of the body, and sends it with the last one.
pub fn body(copy: &mut Option<Box<Copy>>, bytes: Option<&Bytes>, end_of_stream: bool) {
    let fits = match (copy.as_mut(), bytes) {
        (Some(copy), Some(bytes)) => copy.take(bytes),
        _ => true,
    };
    if !fits {
        tracing::debug!("a request with a large body is not mirrored");
        *copy = None;
    }
    if end_of_stream && let Some(copy) = copy.take() {
        copy.send();
    }
}

impl Copy {
    /// Takes a part of the body; `false` when it is too large to be copied.
    fn take(&mut self, bytes: &Bytes) -> bool {
        self.body_bytes += bytes.len();
        if !bytes.is_empty() {
            self.body.push(bytes.clone());
        }
        self.body_bytes <= BODY_BYTES_MAX
    }

    /// The body comes again from its beginning.
    pub fn restart(&mut self) {
        self.body.clear();
        self.body_bytes = 0;
    }

    /// Sends the copy and forgets about it.
    pub fn send(self: Box<Self>) {
        tokio::spawn(async move {
            let body: Body = Full::new(Bytes::from(self.body.concat())).boxed_unsync();
            let request = self.head.map(|()| body);
            match self.client.send(&self.destination, request, TIMEOUT).await {
                Ok(answer) => discard(answer.into_body()),
                Err(error) => tracing::debug!(host = self.destination.host, "mirror: {error}"),
            }
        });
    }
}
