//! Connections that go to an endpoint as they are, TLS and all (`ssl-passthrough`).

use super::socket::Socket;
use crate::balance::Backend;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

/// As long as `proxy-connect-timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Endpoints that are tried.
const TRIES_MAX: usize = 3;
const BUFFER_BYTES: usize = 16 * 1024;

/// Carries a connection to an endpoint and back until both sides ended it. Returns the bytes received
/// from the client and from the endpoint.
pub async fn relay(
    socket: Socket,
    already_received: &[u8],
    backend: &Backend,
) -> io::Result<(u64, u64)> {
    let mut endpoint = connect(backend).await?;
    endpoint.set_nodelay(true)?;
    endpoint.write_all(already_received).await?;
    let (mut client, unread) = socket.into_parts();
    endpoint.write_all(&unread).await?;
    let copied =
        copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER_BYTES, BUFFER_BYTES);
    copied.await
}

async fn connect(backend: &Backend) -> io::Result<TcpStream> {
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut error = io::Error::new(io::ErrorKind::NotConnected, "no endpoints");
    for _ in 0..TRIES_MAX {
        let Some(address) = backend.endpoints().any(&tried).map(|endpoint| endpoint.address) else {
            break;
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(failed)) => error = failed,
            Err(_) => error = io::ErrorKind::TimedOut.into(),
        }
        tried.push(address);
    }
    Err(error)
}
