//! The server: `GET /any/path/N` is answered with N bytes and the address that was asked, on one thread.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::answer::end_of_head;
use crate::poll::Poll;

/// Longest body that is answered.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Longest header of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The token of the listening socket; connections have their place.
const LISTENER: usize = usize::MAX;

struct Client {
    stream: TcpStream,
    /// The address it asked.
    asked: String,
    request: Vec<u8>,
    head: Vec<u8>,
    /// Length of the body that is being answered.
    bytes: usize,
    /// What of header and body is out.
    sent: usize,
    answering: bool,
}

/// Serves until it is ended.
pub fn serve(listen: SocketAddr) -> io::Result<String> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    poll.add(listener.as_raw_fd(), LISTENER)?;
    let mut clients: HashMap<usize, Client> = HashMap::new();
    let mut next = 0;
    let body = vec![b'x'; BODY_BYTES_MAX];
    let mut buffer = vec![0; 16 << 10];
    let mut ready = Vec::new();
    loop {
        poll.wait(Duration::from_secs(3600), &mut ready)?;
        for token in ready.drain(..) {
            if token == LISTENER {
                accept(&listener, &poll, &mut clients, &mut next)?;
            } else if let Some(client) = clients.get_mut(&token)
                && !client.advance(&mut buffer, &body).unwrap_or(false)
            {
                clients.remove(&token);
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    clients: &mut HashMap<usize, Client>,
    next: &mut usize,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => continue,
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let asked = stream.local_addr()?.ip().to_string();
        // What has come already is announced by this.
        poll.add(stream.as_raw_fd(), *next)?;
        let client = Client {
            stream,
            asked,
            request: Vec::new(),
            head: Vec::new(),
            bytes: 0,
            sent: 0,
            answering: false,
        };
        clients.insert(*next, client);
        *next += 1;
    }
}

impl Client {
    /// Goes on as far as it can. Gives whether the connection is open still.
    fn advance(&mut self, buffer: &mut [u8], body: &[u8]) -> io::Result<bool> {
        loop {
            if self.answering && !self.answer(body)? {
                return Ok(true);
            }
            if self.begin()? {
                continue;
            }
            match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => self.request.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
            if !self.begin()? {
                continue;
            }
            // Nobody sends a second request before the answer: one more read would find nothing, and
            // what comes later is announced.
            return self.answer(body).map(|_| true);
        }
    }

    /// Begins to answer if a request is there.
    fn begin(&mut self) -> io::Result<bool> {
        let Some(end) = end_of_head(&self.request) else {
            if self.request.len() > HEAD_BYTES_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
            return Ok(false);
        };
        let target = self.request.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let bytes = std::str::from_utf8(last).ok().and_then(|text| text.parse().ok());
        let bytes = bytes.filter(|bytes| *bytes <= BODY_BYTES_MAX).unwrap_or(0);
        self.request.drain(..end);
        self.head.clear();
        write!(
            self.head,
            "HTTP/1.1 200 OK\r\nServer: loadgen\r\nContent-Type: text/plain\r\nContent-Length: {bytes}\r\n\
             X-Served-By: {}\r\n\r\n",
            self.asked
        )?;
        (self.bytes, self.sent, self.answering) = (bytes, 0, true);
        Ok(true)
    }

    /// Sends what can be sent now; gives whether that was all.
    fn answer(&mut self, body: &[u8]) -> io::Result<bool> {
        let all = self.head.len() + self.bytes;
        while self.sent < all {
            let head = &self.head[self.sent.min(self.head.len())..];
            let rest = &body[self.sent.saturating_sub(self.head.len())..self.bytes];
            match self.stream.write_vectored(&[IoSlice::new(head), IoSlice::new(rest)]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.answering = false;
        Ok(true)
    }
}
