//! `/healthz`, `/readyz`, `/livez` and `/metrics` on a port of their own.
//!
//! `/healthz` fails once shutdown has begun, as in ingress-nginx, so that load balancers look elsewhere;
//! `/livez` does not, as a process that drains is well.

use crate::metrics::Metrics;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Version, header};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::Stream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How long a connection waits for the next request.
const KEEP_ALIVE_S: u64 = 60;

/// What the status port knows.
pub struct StatusServer {
    /// A first snapshot is in effect and the process is not draining.
    pub ready: Arc<AtomicBool>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
}

#[async_trait]
impl HttpServerApp for StatusServer {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _: &watch::Receiver<bool>,
    ) -> Option<ReusedHttpStream> {
        if !session.read_request().await.is_ok_and(|read| read) {
            return None;
        }
        session.set_keepalive(Some(KEEP_ALIVE_S));
        if let Err(error) = self.answer(&mut session).await {
            tracing::debug!("answering on the status port: {error}");
            return None;
        }
        let settings = HttpPersistentSettings::for_session(&session);
        let reusable = session.finish().await.ok()?;
        reusable.map(|stream| ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

impl StatusServer {
    async fn answer(&self, session: &mut ServerSession) -> pingora::Result<()> {
        let ready = self.ready.load(Ordering::Relaxed);
        let (status, body) = match session.req_header().uri.path() {
            "/metrics" => return self.scrape(session).await,
            "/livez" => (200, "ok"),
            "/healthz" | "/readyz" if ready => (200, "ok"),
            "/healthz" | "/readyz" => (503, "not ready"),
            _ => (404, "not found"),
        };
        let mut head = head(status)?;
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
        session.write_response_header(Box::new(head)).await?;
        session.write_response_body(Bytes::from_static(body.as_bytes()), true).await
    }

    /// Writes pieces as they are rendered: others get their turn between them.
    async fn scrape(&self, session: &mut ServerSession) -> pingora::Result<()> {
        let mut head = head(200)?;
        if session.req_header().version == Version::HTTP_11 {
            head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
        } else {
            session.set_keepalive(None);
        }
        session.write_response_header(Box::new(head)).await?;
        for piece in self.metrics.pieces() {
            if !piece.is_empty() {
                session.write_response_body(piece.into(), false).await?;
            }
            tokio::task::yield_now().await;
        }
        session.finish_body().await
    }
}

fn head(status: u16) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(status, Some(2))?;
    head.insert_header(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")?;
    Ok(head)
}

/// Serves until the process ends: probes and the last scrape may come while connections drain.
pub async fn serve(listener: TcpListener, server: StatusServer) {
    let server = Arc::new(server);
    // pingora wants a shutdown signal; this port has none.
    let (_running, shutdown) = watch::channel(false);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (server, shutdown) = (server.clone(), shutdown.clone());
                tokio::spawn(async move {
                    server.process_new(Box::new(Stream::from(stream)), &shutdown).await
                });
            }
            Err(error) => {
                tracing::warn!("accepting a connection to the status port: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}
