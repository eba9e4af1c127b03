//! Listening sockets: accepting, TLS, handing connections to pingora, and draining at the end.

pub mod activity;
pub mod client_stream;
mod gathered;
mod hello;
pub mod link;
mod passthrough;
pub mod proxy_protocol;
mod socket;

use crate::metrics::Metrics;
use crate::metrics::traffic::connection_opened;
use crate::options::Options;
use crate::proxy::fast_path::{FastPath, Next};
use crate::proxy::{PingoraProxy, RequestState};
use crate::snapshot::Snapshot;
use crate::tls::policy::TlsContext;
use activity::{Activity, Limits, Look};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use client_stream::{ClientStream, Transport};
use link::{Link, TlsLink};
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::protocols::{ALPN, Shutdown, Ssl};
use pingora::proxy::HttpProxy;
use socket::Socket;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::StartHandshake;

const BACKLOG: u32 = 4096;
/// From the first byte to the end of the handshake; nginx gives it `client_header_timeout`.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Any time at all lets a connection go on; how long it may wait is `activity`'s.
const KEEP_ALIVE_S: u64 = 60;
/// What one stream of HTTP/2 may have under way; the connection has room for that of all streams, so that
/// one that is not read holds up no other.
const HTTP_2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;

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

/// What all connections share.
pub struct Edge {
    /// Routes and certificates.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Serves requests.
    pub app: Arc<App>,
    /// Serves plain ones.
    pub fast_path: FastPath,
    /// Makes TLS configurations.
    pub tls: TlsContext,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// One permit for each connection.
    pub room: Arc<Semaphore>,
}

/// The proxy with the settings of HTTP/2 of the moment.
pub struct App {
    proxy: Arc<HttpProxy<PingoraProxy>>,
    options: HttpServerOptions,
    snapshot: Arc<ArcSwap<Snapshot>>,
}

impl App {
    /// Serves with a proxy.
    pub fn new(proxy: Arc<HttpProxy<PingoraProxy>>, snapshot: Arc<ArcSwap<Snapshot>>) -> App {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        App { proxy, options, snapshot }
    }

    /// Serves one request of HTTP/1 that was begun elsewhere. Gives the connection if it goes on.
    async fn finish(
        &self,
        stream: ClientStream,
        begun: Box<RequestState>,
        stopping: &watch::Receiver<bool>,
    ) -> Option<ClientStream> {
        let mut session = ServerSession::new_http1(Box::new(stream));
        session.set_keepalive((!*stopping.borrow()).then_some(KEEP_ALIVE_S));
        session.set_connection_user_context(Some(begun));
        let reused = self.proxy.process_new_http(session, stopping).await?;
        let (stream, _) = reused.consume();
        stream.into_any().downcast().ok().map(|stream| *stream)
    }
}

#[async_trait]
impl HttpServerApp for App {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &watch::Receiver<bool>,
    ) -> Option<ReusedHttpStream> {
        self.proxy.process_new_http(session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        let streams_max = self.snapshot.load().options.connections.http2_streams_max;
        let mut options = default_h2_options();
        options.max_concurrent_streams(streams_max);
        options.initial_window_size(HTTP_2_STREAM_WINDOW_BYTES);
        let all = HTTP_2_STREAM_WINDOW_BYTES.saturating_mul(streams_max);
        options.initial_connection_window_size(all.min(i32::MAX.unsigned_abs()));
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

/// Connections in progress, and the signal that ends them.
#[derive(Clone)]
pub struct Connections {
    /// Turns true when draining starts.
    pub draining: watch::Receiver<bool>,
    /// Held by every connection; the receiver ends when the last one is gone.
    pub _alive: mpsc::Sender<()>,
}

/// Accepts connections until draining starts.
pub async fn serve(
    listener: TcpListener,
    secure: bool,
    edge: Arc<Edge>,
    mut connections: Connections,
) {
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &edge.room) => accepted,
            _ = connections.draining.wait_for(|draining| *draining) => break,
        };
        match accepted {
            Ok((stream, room)) => start(stream, room, secure, &edge, &connections),
            Err(error) if is_of_the_client(&error) => {
                tracing::debug!("a connection ended before it was accepted: {error}");
            }
            Err(error) => {
                // Out of file descriptors: wait for connections to end instead of spinning.
                tracing::warn!("accepting a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // Clients that were queued already would be reset with the socket.
    while let Some(Ok((stream, room))) =
        futures::FutureExt::now_or_never(accept(&listener, &edge.room))
    {
        start(stream, room, secure, &edge, &connections);
    }
}

/// Waits for room before it accepts: what is too much waits in the backlog.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Option<OwnedSemaphorePermit>)> {
    let permit = room.clone().acquire_owned().await.ok();
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn start(
    stream: TcpStream,
    room: Option<OwnedSemaphorePermit>,
    secure: bool,
    edge: &Arc<Edge>,
    connections: &Connections,
) {
    let (edge, connections) = (edge.clone(), connections.clone());
    tokio::spawn(async move {
        connection(stream, secure, &edge, &connections).await;
        drop(room);
    });
}

/// Both ends of a connection.
struct Ends {
    peer: SocketAddr,
    local: SocketAddr,
    tls_in_front: bool,
}

async fn connection(stream: TcpStream, secure: bool, edge: &Edge, connections: &Connections) {
    let _counted = connection_opened();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("setting TCP_NODELAY: {error}");
    }
    let mut socket = Socket::new(stream);
    let options = edge.snapshot.load().options.clone();
    let ends = match ends(&mut socket, &options).await {
        Ok(ends) => ends,
        Err(error) => return tracing::debug!("a connection ended: {error}"),
    };
    if secure {
        return secure_connection(socket, ends, options, edge, connections).await;
    }
    let link = link(ends, options, None);
    http(Transport::Plain(socket), link, edge, connections).await;
}

/// Who speaks to whom: the socket knows, or what is in front says so.
async fn ends(socket: &mut Socket, options: &Options) -> Result<Ends, proxy_protocol::HeaderError> {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let mut ends = Ends {
        peer: canonical(socket.stream().peer_addr()?),
        local: canonical(socket.stream().local_addr()?),
        tls_in_front: false,
    };
    if !options.connections.proxy_protocol {
        return Ok(ends);
    }
    let limit = options.connections.proxy_protocol_timeout;
    let proxied = proxy_protocol::read(socket, limit).await?;
    let trusted = options.forwarded.proxies.iter().any(|net| net.contains(&ends.peer.ip()));
    if let Some(proxied) = proxied.filter(|_| trusted) {
        // As ingress-nginx: what came to port 443 of the load balancer came by TLS.
        let tls_in_front = proxied.destination.port() == 443;
        ends = Ends { peer: proxied.source, local: proxied.destination, tls_in_front };
    }
    Ok(ends)
}

async fn secure_connection(
    socket: Socket,
    ends: Ends,
    options: Arc<Options>,
    edge: &Edge,
    connections: &Connections,
) {
    let shaking = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(socket, edge));
    let stream = match shaking.await {
        Ok(Ok(Handshake::Done(stream))) => stream,
        Ok(Ok(Handshake::Passthrough(socket, received, backend))) => {
            edge.metrics.passthrough(&backend.upstream_name);
            let relayed = passthrough::relay(socket, &received, &backend);
            match relayed.await {
                Ok((sent, received)) => {
                    tracing::debug!(client = %ends.peer, sent, received, "passed through");
                }
                Err(error) => tracing::debug!(client = %ends.peer, "passing through: {error}"),
            }
            return;
        }
        Ok(Err(error)) => {
            edge.metrics.handshake_failed();
            return tracing::debug!(client = %ends.peer, "TLS handshake: {error}");
        }
        Err(_) => {
            edge.metrics.handshake_failed();
            let limit_s = HANDSHAKE_TIMEOUT.as_secs();
            return tracing::debug!(client = %ends.peer, limit_s, "TLS handshake: not in time");
        }
    };
    let tls = TlsLink::of(stream.get_ref().1);
    let link = link(ends, options, Some(tls));
    http(Transport::Tls(stream), link, edge, connections).await;
}

enum Handshake {
    Done(Box<tokio_rustls::server::TlsStream<Socket>>),
    Passthrough(Socket, Vec<u8>, Arc<crate::balance::Backend>),
}

async fn handshake(mut socket: Socket, edge: &Edge) -> Result<Handshake, hello::HelloError> {
    let hello = hello::read(&mut socket).await?;
    let host = {
        let snapshot = edge.snapshot.load();
        let name = hello.accepted.client_hello().server_name().map(str::to_string);
        snapshot.certificates.named(name.as_deref()).cloned()
    };
    let Some(host) = host else {
        return Err(io::Error::from(io::ErrorKind::NotConnected).into());
    };
    if let Some(backend) = &host.passthrough {
        return Ok(Handshake::Passthrough(socket, hello.received, backend.clone()));
    }
    let config = host.policy.config(&edge.tls)?;
    let started = StartHandshake::from_parts(hello.accepted, socket);
    let done = started.into_stream(config).into_fallible().await;
    let stream = done.map_err(|(error, mut socket)| {
        // The client is told why.
        socket.flush_now();
        error
    })?;
    Ok(Handshake::Done(Box::new(stream)))
}

fn link(ends: Ends, options: Arc<Options>, tls: Option<TlsLink>) -> Arc<Link> {
    Arc::new(Link {
        peer: ends.peer,
        local: ends.local,
        tls_in_front: ends.tls_in_front,
        options,
        tls,
        activity: Activity::default(),
        stop: watch::Sender::new(false),
    })
}

async fn http(transport: Transport, link: Arc<Link>, edge: &Edge, connections: &Connections) {
    let stopping = link.stop.subscribe();
    let limits = Limits::of(&link.options.connections);
    let stream = match ClientStream::new(transport, link.clone()) {
        Ok(stream) => stream,
        Err(error) => return tracing::error!("taking a connection: {error}"),
    };
    tokio::select! {
        () = requests(stream, &link, edge, &stopping) => {}
        () = waits_too_long(&link, limits, connections.draining.clone()) => {
            tracing::debug!(client = %link.peer, "ended an idle connection");
        }
    }
}

/// Serves the requests of a connection.
async fn requests(
    mut stream: ClientStream,
    link: &Arc<Link>,
    edge: &Edge,
    stopping: &watch::Receiver<bool>,
) {
    if stream.selected_alpn_proto() == Some(ALPN::H2) {
        edge.app.process_new(Box::new(stream), stopping).await;
        return;
    }
    loop {
        match edge.fast_path.next(&mut stream, link).await {
            Next::Request => {}
            Next::End => return stream.shutdown().await,
            Next::Gone => return,
            Next::Http2 => {
                edge.app.process_new(Box::new(stream), stopping).await;
                return;
            }
            Next::Pingora(begun) => match edge.app.finish(stream, begun, stopping).await {
                Some(reused) => stream = reused,
                None => return,
            },
        }
    }
}

/// Completes when a connection has waited too long for a request. Passes on that the process drains.
async fn waits_too_long(link: &Link, limits: Limits, mut draining: watch::Receiver<bool>) {
    let mut ends_soon = false;
    loop {
        let again = match link.activity.look(limits, ends_soon) {
            Look::Close => return,
            Look::Again(again) => again,
        };
        tokio::select! {
            () = tokio::time::sleep(again) => {}
            _ = draining.wait_for(|draining| *draining), if !ends_soon => {
                ends_soon = true;
                link.stop.send_replace(true);
            }
        }
    }
}

/// Waits for connections to end, all of them after `timeout`.
pub async fn drain(mut alive: mpsc::Receiver<()>, timeout: Duration) {
    if tokio::time::timeout(timeout, alive.recv()).await.is_err() {
        tracing::warn!("connections still open after {} s are cut", timeout.as_secs());
    }
}
