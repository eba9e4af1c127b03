//! A client's connection as pingora wants it, with or without TLS.

use super::gathered::Gathered;
use super::link::Link;
use super::socket::Socket;
use async_trait::async_trait;
use bytes::BytesMut;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::server::TlsStream;

/// The bytes below HTTP.
#[derive(Debug)]
pub enum Transport {
    /// TCP.
    Plain(Socket),
    /// TLS on it.
    Tls(Box<TlsStream<Socket>>),
}

/// The connection.
#[derive(Debug)]
pub struct ClientStream {
    transport: Transport,
    /// Read and put back.
    unread: BytesMut,
    /// Not encrypted yet.
    gathered: Gathered,
    link: Arc<Link>,
    carrier: Arc<ProxyDigest>,
    socket: Arc<SocketDigest>,
    ssl: Option<Arc<SslDigest>>,
    established: SystemTime,
}

impl ClientStream {
    /// A connection ready for HTTP.
    pub fn new(transport: Transport, link: Arc<Link>) -> pingora::Result<ClientStream> {
        // The one thing pingora hands from a connection to its requests, on HTTP/1 and HTTP/2 alike.
        let carrier = ProxyDigest::new(
            Box::new(ResponseHeader::build(200, Some(0))?),
            Some(Box::new(link.clone())),
        );
        let ssl = match &transport {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => {
                let suite = stream.get_ref().1.negotiated_cipher_suite();
                let cipher = suite.and_then(|suite| suite.suite().as_str()).unwrap_or_default();
                let version = link.tls.as_ref().map_or("", |tls| tls.version);
                Some(Arc::new(SslDigest::new(cipher, version, None, None, Vec::new())))
            }
        };
        let mut stream = ClientStream {
            socket: Arc::new(SocketDigest::from_raw_fd(-1)),
            transport,
            unread: BytesMut::new(),
            gathered: Gathered::default(),
            link,
            carrier: Arc::new(carrier),
            ssl,
            established: SystemTime::now(),
        };
        stream.socket = Arc::new(SocketDigest::from_raw_fd(stream.tcp().stream().as_raw_fd()));
        if stream.selected_alpn_proto() == Some(ALPN::H2) {
            stream.link.activity.is_multiplexed();
        }
        Ok(stream)
    }

    /// Puts bytes back: they are read next.
    pub fn unread(&mut self, bytes: &[u8]) {
        if self.unread.is_empty() {
            self.unread.extend_from_slice(bytes);
        } else {
            let rest = self.unread.split();
            self.unread.extend_from_slice(bytes);
            self.unread.unsplit(rest);
        }
    }

    /// Completes when the client closes the connection, or at least its half of it; nginx, too, takes that
    /// for the end. While the client is quiet this costs no system call.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut byte = [0];
        match self.tcp().stream().poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0)) => Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Err(error)) => Poll::Ready(error),
            // The next request is there already.
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }

    fn tcp(&self) -> &Socket {
        match &self.transport {
            Transport::Plain(socket) => socket,
            Transport::Tls(stream) => stream.get_ref().0,
        }
    }

    fn tcp_mut(&mut self) -> &mut Socket {
        match &mut self.transport {
            Transport::Plain(socket) => socket,
            Transport::Tls(stream) => stream.get_mut().0,
        }
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if !self.gathered.rest().is_empty() {
            // Encrypting does not wait; what it comes to goes as far as there is room.
            let _ = futures::FutureExt::now_or_never(self.flush());
        }
        self.tcp_mut().flush_now();
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let count = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let result = match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        ready!(result)?;
        if buffer.filled().len() > before {
            self.link.activity.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match &mut this.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Transport::Tls(stream) => this.gathered.poll_write(&mut **stream, cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match &mut this.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Transport::Tls(stream) => this.gathered.poll_write_vectored(&mut **stream, cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match &mut this.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Transport::Tls(stream) => {
                ready!(this.gathered.poll_send_all(&mut **stream, cx))?;
                Pin::new(stream).poll_flush(cx)
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match &mut this.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Transport::Tls(stream) => {
                ready!(this.gathered.poll_send_all(&mut **stream, cx))?;
                Pin::new(stream).poll_shutdown(cx)
            }
        }
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        if let Err(error) = AsyncWriteExt::shutdown(self).await {
            tracing::debug!("ending a connection: {error}");
        }
    }
}

#[async_trait]
impl Peek for ClientStream {
    /// Looks whether what comes first is `HTTP/2`'s preface, for which alone pingora asks. Shorter
    /// requests are not waited for: at the first byte that differs the answer is no, told by bytes that
    /// are none of the preface.
    async fn try_peek(&mut self, wanted: &mut [u8]) -> io::Result<bool> {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let mut seen = Vec::with_capacity(wanted.len());
        let mut byte = [0; 24];
        let found = loop {
            let left = wanted.len().saturating_sub(seen.len()).min(byte.len());
            let count = if left == 0 { 0 } else { self.read(&mut byte[..left]).await? };
            seen.extend_from_slice(&byte[..count]);
            if !PREFACE.starts_with(&seen) {
                break false;
            }
            if seen.len() == PREFACE.len() || count == 0 {
                break seen.len() == PREFACE.len();
            }
        };
        self.unread(&seen);
        wanted.fill(0);
        if found && wanted.len() == seen.len() {
            wanted.copy_from_slice(&seen);
            self.link.activity.is_multiplexed();
        }
        Ok(true)
    }
}

impl UniqueID for ClientStream {
    fn id(&self) -> UniqueIDType {
        self.tcp().stream().as_raw_fd()
    }
}

impl Ssl for ClientStream {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.ssl.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        match &self.transport {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Some(ALPN::H2),
                Some(b"http/1.1") => Some(ALPN::H1),
                _ => None,
            },
        }
    }
}

impl GetTimingDigest for ClientStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest { established_ts: self.established, ..TimingDigest::default() })]
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.carrier.clone())
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket.clone())
    }
}
