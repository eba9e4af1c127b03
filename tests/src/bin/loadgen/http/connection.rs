//! One connection of the client, plain or in TLS, that never blocks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::poll::Poll;

/// What one read of a socket takes.
pub const READ_BYTES: usize = 64 << 10;

/// A connection.
pub struct Connection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// What has still to be sent; of TLS the session holds it.
    unsent: Vec<u8>,
}

impl Connection {
    /// Begins to connect, and lets `poll` tell how it goes.
    pub fn open(
        to: SocketAddr,
        tls: Option<(&Arc<ClientConfig>, &str)>,
        poll: &Poll,
        token: usize,
    ) -> io::Result<Connection> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd: OwnedFd = socket(family, SockType::Stream, flags, None)?;
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(nix::Error::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(fd);
        stream.set_nodelay(true)?;
        poll.add(stream.as_raw_fd(), token)?;
        let tls = match tls {
            None => None,
            Some((config, host)) => {
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                let session = ClientConnection::new(config.clone(), name);
                Some(Box::new(session.map_err(io::Error::other)?))
            }
        };
        Ok(Connection { stream, tls, unsent: Vec::new() })
    }

    /// Sends what can be sent now; the rest with the next [`Self::advance`].
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(session) => session.writer().write_all(bytes)?,
            None => self.unsent.extend_from_slice(bytes),
        }
        self.advance()
    }

    /// Sends what was left.
    pub fn advance(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.tls {
            while session.wants_write() {
                match session.write_tls(&mut self.stream) {
                    Err(error) if is_early(&error) => return Ok(()),
                    Err(error) => return Err(error),
                    Ok(_) => {}
                }
            }
            return Ok(());
        }
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Err(error) if is_early(&error) => return Ok(()),
                Err(error) => return Err(error),
                Ok(count) => drop(self.unsent.drain(..count)),
            }
        }
        Ok(())
    }

    /// Reads what has come, and gives it to `take` in pieces. Gives whether more may come: not after
    /// the peer's end.
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> io::Result<bool> {
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if is_early(&error) => return Ok(true),
                Err(error) => return Err(error),
            };
            match &mut self.tls {
                None => take(&buffer[..count]).map_err(io::Error::other)?,
                Some(session) => decrypt(session, &buffer[..count], &mut take)?,
            }
            if self.tls.is_some() {
                self.advance()?;
            }
            if count < buffer.len() {
                // What comes later is announced again.
                return Ok(true);
            }
        }
    }
}

fn decrypt(
    session: &mut ClientConnection,
    mut bytes: &[u8],
    take: &mut impl FnMut(&[u8]) -> Result<(), String>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        session.read_tls(&mut bytes)?;
        session.process_new_packets().map_err(io::Error::other)?;
        let mut reader = session.reader();
        loop {
            let mut plain = [0; 16 << 10];
            match reader.read(&mut plain) {
                Ok(0) => break,
                Ok(count) => take(&plain[..count]).map_err(io::Error::other)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Nothing is wrong, it is only too early.
fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}
