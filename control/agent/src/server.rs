//! The HTTPS server of the node (port 10250): health, the list of pods and container logs, for
//! clients whose certificate the cluster's authority has signed. Who may do what is in [`access`].

mod access;
mod containers;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::error::Error;
use crate::host::Host;
use crate::supervisor::Registry;

/// What the handlers work with.
#[derive(Clone)]
struct State {
    host: Arc<Host>,
    registry: Registry,
}

/// A server that listens already.
pub(crate) struct Server {
    listener: TcpListener,
    tls: TlsAcceptor,
    routes: Router,
}

/// Begins to listen; `None` where the configuration names no authority for clients.
pub(crate) async fn bind(host: &Arc<Host>, registry: Registry) -> Result<Option<Server>, Error> {
    let config = &host.config;
    let Some(client_ca) = &config.client_ca_pem else {
        tracing::warn!("no client authority given: logs cannot be read from this node");
        return Ok(None);
    };
    let address = format!("{}:{}", bracketed(config.kubelet_address), config.kubelet_port);
    let failed = |why: String| Error::Serve { address: address.clone(), why };
    let tls = access::tls(config, client_ca).map_err(failed)?;
    let failed = |why: String| Error::Serve { address: address.clone(), why };
    let listener = TcpListener::bind((config.kubelet_address, config.kubelet_port))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let state = State { host: host.clone(), registry };
    let routes = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/pods", get(containers::pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(containers::logs))
        .with_state(state);
    Ok(Some(Server { listener, tls: TlsAcceptor::from(Arc::new(tls)), routes }))
}

fn bracketed(ip: std::net::IpAddr) -> String {
    if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() }
}

impl Server {
    /// Serves until shutdown.
    pub(crate) async fn serve(self, shutdown: CancellationToken) {
        while let Some(accepted) = shutdown.run_until_cancelled(self.listener.accept()).await {
            match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(converse(stream, self.tls.clone(), self.routes.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    // Out of descriptors, most likely: give others time to close theirs.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn converse(stream: TcpStream, tls: TlsAcceptor, routes: Router) {
    const HANDSHAKE_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);
    let stream = match tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let allowed = certificates.and_then(<[_]>::first).is_some_and(|c| access::is_allowed(c));
    let service =
        hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let routes = routes.clone();
            async move {
                if !allowed && request.uri().path() != "/healthz" {
                    return Ok(access::forbidden());
                }
                routes.oneshot(request.map(axum::body::Body::new)).await
            }
        });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "connection ended");
    }
}
