//! One request, from the wire or from memory: identity, limits, time, log, metrics.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, Response, request};
use http_body::Body;
use podium_api::object;
use podium_api::status::Status;
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

use crate::answer::{self, AnswerBody};
use crate::body::{self, BoxError};
use crate::identity::{ANONYMOUS, Identity};
use crate::request::{self as target, Query, Target};
use crate::server::Api;
use crate::{impersonation, objects, reviews, system};

/// Seconds after which a client refused for load may come back.
const RETRY_AFTER_SECONDS: u32 = 1;

/// The API for one client: a connection, or a part of this process.
#[derive(Clone)]
pub struct ClientService {
    api: Arc<Api>,
    /// Who the client is, where the way it came tells.
    identity: Option<Identity>,
}

impl ClientService {
    pub(crate) fn new(api: Arc<Api>, identity: Option<Identity>) -> Self {
        Self { api, identity }
    }
}

impl<B> tower::Service<Request<B>> for ClientService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (api, identity) = (self.api.clone(), self.identity.clone());
        Box::pin(async move { Ok(handle(api, identity, request).await) })
    }
}

/// What handlers know of a request.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) parts: request::Parts,
    pub(crate) query: Query,
    pub(crate) identity: Identity,
    pub(crate) body: Bytes,
}

/// How a request counts.
struct Label {
    verb: &'static str,
    resource: &'static str,
    long_running: bool,
}

async fn handle<B>(
    api: Arc<Api>,
    connection: Option<Identity>,
    request: Request<B>,
) -> Response<AnswerBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query = Query::parse(parts.uri.query());
    if let Some(response) = system::public(&path, &query, api.stopping.is_cancelled()) {
        return response;
    }
    let method = parts.method.clone();
    let audit_id = object::new_uid(&mut rand::rng());
    let label = label(&method, &path, &query);
    let answered = answer(&api, connection, parts, query, body, &label).await;
    let (user, mut response) = match answered {
        Ok((user, response)) => (user, response),
        Err(status) => (String::new(), answer::failure(&status)),
    };
    answer::audit_id(&mut response, &audit_id);
    let (took, code) = (started.elapsed(), response.status().as_u16());
    api.metrics.answered(label.verb, label.resource, code, took);
    tracing::debug!(%method, path, code, ?took, user, audit_id, "request");
    response
}

fn label(method: &Method, path: &str, query: &Query) -> Label {
    match target::target(path) {
        Target::Objects(path) => {
            let verb = target::verb(method, &path, query);
            let log = path.subresource.as_deref() == Some("log");
            Label { verb, resource: path.resource.plural, long_running: verb == "watch" || log }
        }
        _ => Label { verb: "other", resource: "", long_running: false },
    }
}

async fn answer<B>(
    api: &Arc<Api>,
    connection: Option<Identity>,
    parts: request::Parts,
    query: Query,
    body: B,
    label: &Label,
) -> Result<(String, Response<AnswerBody>), Status>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let caller = identify(api, connection, &parts).await?;
    let identity = impersonation::apply(caller, &parts.headers)?;
    let user = identity.user.clone();
    let method = parts.method.clone();
    let _permit = if label.long_running { None } else { Some(admit(api, &method)?) };
    let work = async {
        let body = body::read(body).await?;
        let call = Call { method, parts, query, identity, body };
        route(api, call).await
    };
    if label.long_running {
        return work.await.map(|response| (user, response));
    }
    match tokio::time::timeout(api.config.request_timeout, work).await {
        Ok(result) => result.map(|response| (user, response)),
        Err(_) => {
            let message = "request did not complete within the requested timeout";
            Err(Status::timeout(message))
        }
    }
}

/// A place among the requests in flight, or 429.
fn admit(
    api: &Api,
    method: &Method,
) -> Result<(OwnedSemaphorePermit, crate::metrics::Guard), Status> {
    let (semaphore, kind) = match *method {
        Method::GET | Method::HEAD => (&api.reads, "readOnly"),
        _ => (&api.writes, "mutating"),
    };
    match semaphore.clone().try_acquire_owned() {
        Ok(permit) => Ok((permit, api.metrics.in_flight(kind))),
        Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
            let message = "Too many requests, please try again later.";
            Err(Status::too_many_requests(message, RETRY_AFTER_SECONDS))
        }
    }
}

/// Who asks: as the request's extensions say, which only this process can set; by client
/// certificate; by bearer token.
async fn identify(
    api: &Api,
    connection: Option<Identity>,
    parts: &request::Parts,
) -> Result<Identity, Status> {
    if let Some(identity) = parts.extensions.get::<Identity>() {
        return Ok(identity.clone());
    }
    if let Some(identity) = connection {
        return Ok(identity);
    }
    let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(|header| {
        let (scheme, token) = header.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    if let Some(token) = token
        && let Some(identity) = api.authenticator.bearer(token).await
    {
        return Ok(identity);
    }
    tracing::debug!(user = ANONYMOUS, path = parts.uri.path(), "refused");
    Err(Status::unauthorized())
}

async fn route(api: &Arc<Api>, call: Call) -> Result<Response<AnswerBody>, Status> {
    let path = call.parts.uri.path();
    if let Some(review) = target::review(path) {
        return reviews::answer(api, &call, review).await;
    }
    match target::target(path) {
        Target::Objects(path) => objects::answer(api, call, &path).await,
        Target::Discovery(path) if matches!(call.method, Method::GET | Method::HEAD) => {
            system::discover(&path, &call.parts.headers, &api.server_address)
        }
        Target::Discovery(_) => Err(Status::method_not_allowed()),
        Target::Other if path == "/metrics" => {
            let text = api.metrics.render().map_err(Status::internal)?;
            Ok(answer::raw(200, "text/plain; version=0.0.4", text))
        }
        Target::Other => {
            system::openapi(path, &call.parts.headers).ok_or_else(Status::path_not_found)
        }
        Target::Unknown => Err(Status::path_not_found()),
    }
}
