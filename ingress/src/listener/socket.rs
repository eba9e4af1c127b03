//! A client's TCP connection: small writes are gathered, and bytes can be put back to be read again.

use super::gathered::Gathered;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The connection.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    unread: Vec<u8>,
    gathered: Gathered,
}

impl Socket {
    /// A connection just accepted.
    pub fn new(stream: TcpStream) -> Socket {
        Socket { stream, unread: Vec::new(), gathered: Gathered::default() }
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Puts bytes back: they are read next.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.unread.splice(0..0, bytes.iter().copied());
    }

    /// What was put back and not read again, and the connection.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.unread)
    }

    /// Writes as much as is possible without waiting; for the end.
    pub fn flush_now(&mut self) {
        if !self.gathered.rest().is_empty() {
            let _ = self.stream.try_write(self.gathered.rest());
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..count]);
        self.unread.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = &mut *self;
        socket.gathered.poll_write(&mut socket.stream, cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = &mut *self;
        socket.gathered.poll_write_vectored(&mut socket.stream, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = &mut *self;
        socket.gathered.poll_send_all(&mut socket.stream, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn what_is_written_and_put_back_arrives_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut client, mut socket) = (client, Socket::new(listener.accept().await.unwrap().0));
        let all: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let expected = all.clone();
        let reader = tokio::spawn(async move {
            let mut received = Vec::new();
            client.write_all(b"56789").await.unwrap();
            client.read_to_end(&mut received).await.unwrap();
            received
        });
        let mut rest = all.as_slice();
        for length in [1, 4095, 4096, 1, 100_000, 17, 2_000_000].into_iter().cycle() {
            let (now, later) = rest.split_at(length.min(rest.len()));
            socket.write_all(now).await.unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        socket.flush().await.unwrap();
        socket.unread(b"34");
        socket.unread(b"12");
        let mut put_back = [0; 9];
        socket.read_exact(&mut put_back).await.unwrap();
        assert_eq!(&put_back, b"123456789");
        socket.shutdown().await.unwrap();
        assert!(reader.await.unwrap() == expected);
    }
}
