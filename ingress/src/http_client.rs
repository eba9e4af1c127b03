//! Requests of our own to other servers: authorities, mirrors. One client with its kept connections for
//! the whole process.
//!
//! HTTP/1.1, over TLS without looking at the certificate, as nginx does by default. What to send and what
//! to make of an answer is left to those who ask.

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A body of a request.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle connections kept to one server.
const IDLE_CONNECTIONS_MAX: usize = 320;
/// The longest any connection may take; whoever asks usually gives up earlier.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How much of an unwanted body is read to keep its connection, and how long that may take.
const DISCARDED_BYTES_MAX: usize = 64 << 10;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Speak TLS.
    pub https: bool,
    /// Its name or address; IPv6 addresses in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Where it is, when that is known; else the name is looked up.
    pub address: Option<SocketAddr>,
}

impl Destination {
    /// The authority of a URL. With a known address it stands for the server, and the name goes before
    /// it where TLS needs it: the pool tells connections apart by the authority, and the connector sees
    /// nothing else.
    fn authority(&self) -> String {
        match self.address {
            None => format!("{}:{}", self.host, self.port),
            Some(address) if self.https && !self.host.starts_with('[') => {
                format!("{}@{address}", self.host)
            }
            Some(address) => address.to_string(),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpClientError {
    /// What was asked for is no URL.
    #[error("not a URL: {0}")]
    Url(#[from] http::Error),
    /// The server did not answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// There is no connection, or it broke.
    #[error("{}", root_cause(.0))]
    Failed(#[from] legacy::Error),
}

impl HttpClientError {
    /// Nothing was sent: there was no connection.
    pub fn is_connect(&self) -> bool {
        matches!(self, HttpClientError::Failed(error) if error.is_connect())
    }
}

/// The last of a chain of errors: it says what happened, the others where.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// The client.
#[derive(Clone, Debug)]
pub struct HttpClient {
    inner: legacy::Client<Connector, Body>,
}

impl HttpClient {
    /// A client without connections.
    pub fn new() -> Result<HttpClient, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(AnyCertificate(provider.clone()));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .set_host(false)
            .build(Connector { tls: TlsConnector::from(Arc::new(config)) });
        Ok(HttpClient { inner })
    }

    /// Sends a request, whose URI is a path with its query, and waits for the head of the answer.
    pub async fn send(
        &self,
        destination: &Destination,
        mut request: Request<Body>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, HttpClientError> {
        let scheme = if destination.https { Scheme::HTTPS } else { Scheme::HTTP };
        let authority = Authority::try_from(destination.authority()).map_err(http::Error::from)?;
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or(PathAndQuery::from_static("/"));
        *request.uri_mut() =
            Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build()?;
        match tokio::time::timeout(timeout, self.inner.request(request)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(HttpClientError::Timeout(timeout)),
        }
    }
}

/// Reads a body nobody wants, so that its connection can be used again; gives up on long ones.
pub fn discard(body: Incoming) {
    if hyper::body::Body::is_end_stream(&body) {
        return;
    }
    tokio::spawn(tokio::time::timeout(DISCARD_TIMEOUT, async move {
        let mut body = body;
        let mut read_bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read_bytes += frame.data_ref().map_or(0, Bytes::len);
            if read_bytes > DISCARDED_BYTES_MAX {
                return;
            }
        }
    }));
}

#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone();
        Box::pin(async move {
            let timed = tokio::time::timeout(CONNECT_TIMEOUT, connect(&uri, tls));
            timed.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }
}

async fn connect(uri: &Uri, tls: TlsConnector) -> io::Result<Stream> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let authority = uri.authority().ok_or_else(invalid)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let https = uri.scheme() == Some(&Scheme::HTTPS);
    let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
    let tcp = match host.parse::<IpAddr>() {
        Ok(address) => TcpStream::connect((address, port)).await?,
        Err(_) => TcpStream::connect((host, port)).await?,
    };
    tcp.set_nodelay(true)?;
    if !https {
        return Ok(Stream::Plain(TokioIo::new(tcp)));
    }
    let name = authority.as_str().rsplit_once('@').map_or(host, |(name, _)| name);
    let name = ServerName::try_from(name.to_owned()).map_err(|_| invalid())?;
    let tls = tls.connect(name, tcp).await?;
    Ok(Stream::Tls(Box::new(TokioIo::new(tls))))
}

/// A connection, with or without TLS.
enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Takes any certificate, as nginx does unless told to verify; signatures are checked all the same.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_address_stands_for_the_server() {
        let mut server =
            Destination { https: false, host: "auth.shop.svc".into(), port: 80, address: None };
        assert_eq!(server.authority(), "auth.shop.svc:80");
        server.address = Some("10.0.0.1:8080".parse().unwrap());
        assert_eq!(server.authority(), "10.0.0.1:8080");
        server.https = true;
        assert_eq!(server.authority(), "auth.shop.svc@10.0.0.1:8080");
    }
}
