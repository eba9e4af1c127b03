//! A client's TCP connection: small writes are gathered, and bytes can be put back to be read again.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Writes are gathered up to this size, so that an answer's header and a small body are one packet.
const GATHER_BYTES_MAX: usize = 4096;
/// More slices than this are left for the next write.
const SLICES_MAX: usize = 32;

/// The connection.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    unread: Vec<u8>,
    gathered: Vec<u8>,
    written: usize,
}

impl Socket {
    /// A connection just accepted.
    pub fn new(stream: TcpStream) -> Socket {
        Socket { stream, unread: Vec::new(), gathered: Vec::new(), written: 0 }
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
        if self.written < self.gathered.len() {
            let _ = self.stream.try_write(&self.gathered[self.written..]);
            self.gathered.clear();
            self.written = 0;
        }
    }

    /// Sends what was gathered together with `more`; how much of `more` went out.
    fn poll_send(&mut self, cx: &mut Context<'_>, more: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let waiting = self.gathered.len() - self.written;
            let slices: Vec<IoSlice<'_>> = [IoSlice::new(&self.gathered[self.written..])]
                .into_iter()
                .filter(|slice| !slice.is_empty())
                .chain(more.iter().take(SLICES_MAX).map(|slice| IoSlice::new(slice)))
                .collect();
            let sent = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if sent >= waiting {
                self.gathered.clear();
                self.written = 0;
                if sent > waiting || more.is_empty() {
                    return Poll::Ready(Ok(sent - waiting));
                }
            } else {
                self.written += sent;
            }
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
        if self.gathered.len() + bytes.len() <= GATHER_BYTES_MAX {
            self.gathered.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        if self.gathered.is_empty() {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        self.poll_send(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.gathered.len() + total <= GATHER_BYTES_MAX {
            for slice in slices {
                self.gathered.extend_from_slice(slice);
            }
            return Poll::Ready(Ok(total));
        }
        if self.gathered.is_empty() {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        }
        let slices: Vec<IoSlice<'_>> =
            slices.iter().filter(|slice| !slice.is_empty()).map(|s| IoSlice::new(s)).collect();
        self.poll_send(cx, &slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.gathered.is_empty() {
            ready!(self.poll_send(cx, &[]))?;
        }
        Poll::Ready(Ok(()))
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
