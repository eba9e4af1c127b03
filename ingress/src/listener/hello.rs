//! The first message of TLS: read before anything is decided, because the host a client asks for decides.

use super::socket::Socket;
use rustls::server::{Accepted, Acceptor};
use std::io;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// More is no message of a client that wants to be served.
const HELLO_BYTES_MAX: usize = 64 * 1024;

/// A first message, understood and as it came.
pub struct Hello {
    /// What rustls goes on with.
    pub accepted: Accepted,
    /// The bytes, for connections that are passed through.
    pub received: Vec<u8>,
}

/// Why there is no first message.
#[derive(Debug, Error)]
pub enum HelloError {
    /// The connection ended or broke.
    #[error("reading: {0}")]
    Read(#[from] io::Error),
    /// It is no TLS, or one we do not speak.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Reads the first message.
pub async fn read(socket: &mut Socket) -> Result<Hello, HelloError> {
    let mut acceptor = Acceptor::default();
    let mut received = Vec::with_capacity(1024);
    loop {
        let mut chunk = [0; 2048];
        let count = socket.read(&mut chunk).await?;
        if count == 0 || received.len() > HELLO_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        received.extend_from_slice(&chunk[..count]);
        let mut rest = &chunk[..count];
        while !rest.is_empty() {
            acceptor.read_tls(&mut rest)?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(Hello { accepted, received }),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                alert.write_all(&mut bytes)?;
                // The client is told why; whether it listens does not matter.
                let _ = socket.write_all(&bytes).await;
                let _ = socket.flush().await;
                return Err(error.into());
            }
        }
    }
}
