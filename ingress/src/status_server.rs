//! `/healthz`, `/readyz`, `/livez` and `/metrics` on a port of their own.
//!
//! `/healthz` fails once shutdown has begun, as in ingress-nginx, so that load balancers look elsewhere;
//! `/livez` does not, as a process that drains is well.

use crate::metrics::Metrics;
use async_trait::async_trait;
use http::{Response, StatusCode, header};
use pingora::apps::ServerApp;
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::Stream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What the status port knows.
pub struct StatusServer {
    /// A first snapshot is in effect and the process is not draining.
    pub ready: Arc<AtomicBool>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
}

#[async_trait]
impl ServeHttp for StatusServer {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let ready = self.ready.load(Ordering::Relaxed);
        let (status, body) = match session.req_header().uri.path() {
            "/livez" => (StatusCode::OK, b"ok".to_vec()),
            "/healthz" | "/readyz" if ready => (StatusCode::OK, b"ok".to_vec()),
            "/healthz" | "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, b"not ready".to_vec()),
            "/metrics" => (StatusCode::OK, self.metrics.render()),
            _ => (StatusCode::NOT_FOUND, b"not found".to_vec()),
        };
        let length = body.len();
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let text = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        response
    }
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
