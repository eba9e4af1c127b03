//! Small writes gathered, so that an answer's header and a small body are one packet, and one record of TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Writes are gathered up to this size.
const BYTES_MAX: usize = 4096;
/// More slices than this are left for the next write.
const SLICES_MAX: usize = 32;

/// What is not written yet.
#[derive(Debug, Default)]
pub struct Gathered {
    bytes: Vec<u8>,
    written: usize,
}

impl Gathered {
    /// What is left to write.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Takes bytes, or writes them after what was gathered.
    pub fn poll_write(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.bytes.len() + bytes.len() <= BYTES_MAX {
            self.bytes.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        if self.bytes.is_empty() {
            return Pin::new(writer).poll_write(cx, bytes);
        }
        self.poll_send(writer, cx, &[IoSlice::new(bytes)])
    }

    /// The same for several pieces.
    pub fn poll_write_vectored(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.bytes.len() + total <= BYTES_MAX {
            for slice in slices {
                self.bytes.extend_from_slice(slice);
            }
            return Poll::Ready(Ok(total));
        }
        if self.bytes.is_empty() {
            return Pin::new(writer).poll_write_vectored(cx, slices);
        }
        let slices: Vec<IoSlice<'_>> =
            slices.iter().filter(|slice| !slice.is_empty()).map(|s| IoSlice::new(s)).collect();
        self.poll_send(writer, cx, &slices)
    }

    /// Writes everything.
    pub fn poll_send_all(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.bytes.is_empty() {
            ready!(self.poll_send(writer, cx, &[]))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what was gathered together with `more`; how much of `more` went out.
    fn poll_send(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        more: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let waiting = self.rest().len();
            let sent = if more.is_empty() {
                ready!(Pin::new(&mut *writer).poll_write(cx, self.rest()))?
            } else {
                let mut slices = Vec::with_capacity(1 + more.len().min(SLICES_MAX));
                slices.push(IoSlice::new(self.rest()));
                slices.extend(more.iter().take(SLICES_MAX).map(|slice| IoSlice::new(slice)));
                ready!(Pin::new(&mut *writer).poll_write_vectored(cx, &slices))?
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if sent < waiting {
                self.written += sent;
                continue;
            }
            self.bytes.clear();
            self.written = 0;
            if sent > waiting || more.is_empty() {
                return Poll::Ready(Ok(sent - waiting));
            }
        }
    }
}
