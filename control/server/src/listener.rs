//! The API over TLS: HTTP/1.1 and HTTP/2, client certificates if the client has one.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::authentication::certificate_identity;
use crate::pki::{Authority, Credentials};
use crate::server::Api;
use crate::service::ClientService;

const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Waited after an accept that failed, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_STREAMS_MAX: u32 = 1_000;

/// TLS settings: our certificate, and client certificates of our own authority.
pub(crate) fn tls_config(
    authority: &Authority,
    serving: &Credentials,
) -> Result<Arc<ServerConfig>, String> {
    let root = CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes())
        .map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    roots.add(root).map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| error.to_string())?;
    let chain = vec![CertificateDer::from(serving.certificate_der.clone())];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(serving.key_der.clone()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts connections until the server stops, then waits for those that are open.
pub(crate) async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, api: Arc<Api>) {
    let acceptor = TlsAcceptor::from(tls);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = api.stopping.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (acceptor, api) = (acceptor.clone(), api.clone());
                connections.spawn(async move {
                    if let Err(error) = connection(stream, &acceptor, api).await {
                        tracing::debug!(%peer, error, "connection");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn connection(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    api: Arc<Api>,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|error| format!("set TCP_NODELAY: {error}"))?;
    let handshake = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream));
    let stream = handshake
        .await
        .map_err(|_| "TLS handshake timed out".to_owned())?
        .map_err(|error| format!("TLS handshake: {error}"))?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let identity = certificates.first().and_then(|der| certificate_identity(der));
    let stopping = api.stopping.clone();
    let service = TowerToHyperService::new(ClientService::new(api, identity));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .max_concurrent_streams(HTTP2_STREAMS_MAX);
    builder.http1().timer(TokioTimer::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        served = connection.as_mut() => return served.map_err(|error| error.to_string()),
        () = stopping.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(|error| error.to_string())
}
