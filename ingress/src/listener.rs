//! Listening sockets: accepting, TLS, handing connections to pingora, and draining at the end.

pub mod header_deadline;

use crate::certificates::SnapshotResolver;
use crate::metrics::traffic::connection_opened;
use crate::proxy::IngressProxy;
use crate::snapshot::Snapshot;
use arc_swap::ArcSwap;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::listeners::tls::Acceptor;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::{ALPN, GetSocketDigest, SocketDigest};
use pingora::proxy::HttpProxy;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

const BACKLOG: u32 = 4096;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A socket could not be opened.
#[derive(Debug, Error)]
#[error("listening on {address}: {source}")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// Opens a listening socket.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|source| BindError { address, source })
}

/// TLS 1.2 and 1.3 with the certificates of the current snapshot; HTTP/2 and HTTP/1.1 by ALPN.
pub fn tls_acceptor(snapshot: Arc<ArcSwap<Snapshot>>) -> Result<Arc<Acceptor>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SnapshotResolver(snapshot)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(Acceptor::from_server_config(Arc::new(config))))
}

/// Connections in progress, and the signal that ends them.
#[derive(Clone)]
pub struct Connections {
    /// Turns true when draining starts.
    pub draining: watch::Receiver<bool>,
    /// Held by every connection; the receiver ends when the last one is gone.
    pub _alive: mpsc::Sender<()>,
    /// How long an HTTP/1 connection may wait for the complete header of a request.
    pub header_timeout: Duration,
}

/// Accepts connections until draining starts.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Acceptor>>,
    proxy: Arc<HttpProxy<IngressProxy>>,
    mut connections: Connections,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = connections.draining.wait_for(|draining| *draining) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, tls.clone(), proxy.clone(), connections.clone()));
            }
            Err(error) => {
                // Out of file descriptors: wait for connections to end instead of spinning.
                tracing::warn!("accepting a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<Arc<Acceptor>>,
    proxy: Arc<HttpProxy<IngressProxy>>,
    connections: Connections,
) {
    let _counted = connection_opened();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("setting TCP_NODELAY: {error}");
    }
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    let mut stream = Stream::from(stream);
    stream.set_socket_digest(digest);
    let Some(acceptor) = tls else {
        return http(Box::new(stream), &proxy, &connections).await;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.tls_handshake(stream)).await {
        Ok(Ok(stream)) => http(Box::new(stream), &proxy, &connections).await,
        Ok(Err(error)) => tracing::debug!("TLS handshake: {error}"),
        Err(_) => {
            tracing::debug!("TLS handshake: not done after {} s", HANDSHAKE_TIMEOUT.as_secs());
        }
    }
}

async fn http(
    stream: pingora::protocols::Stream,
    proxy: &Arc<HttpProxy<IngressProxy>>,
    connections: &Connections,
) {
    // HTTP/2 has many requests under way at once and limits of its own.
    if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
        proxy.process_new(stream, &connections.draining).await;
        return;
    }
    let served = proxy.process_new(stream, &connections.draining);
    if !header_deadline::enforce(connections.header_timeout, served).await {
        tracing::debug!("no complete header after {} s", connections.header_timeout.as_secs());
    }
}

/// Ends connections: idle ones at once, busy ones after their request, all of them after `timeout`.
pub async fn drain(
    proxy: &HttpProxy<IngressProxy>,
    mut alive: mpsc::Receiver<()>,
    timeout: Duration,
) {
    proxy.http_cleanup().await;
    if tokio::time::timeout(timeout, alive.recv()).await.is_err() {
        tracing::warn!("connections still open after {} s are cut", timeout.as_secs());
    }
}
