//! The server: answers each request with as many bytes. Connections that ask once are served on the
//! accepting thread, without the noise of starting another; who asks again gets a thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use crate::client::{AGAIN, REQUEST_BYTES};

/// Serves TCP and UDP until it is ended.
pub fn serve(listen: SocketAddr) -> io::Result<String> {
    let datagrams = UdpSocket::bind(listen)?;
    thread::spawn(move || echo(&datagrams));
    let listener = TcpListener::bind(listen)?;
    for stream in listener.incoming() {
        // A client that went away is its own loss.
        let _ended = stream.and_then(first_request);
    }
    Ok("{}".to_owned())
}

fn echo(socket: &UdpSocket) {
    let mut bytes = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut bytes) {
        let _sent = socket.send_to(&bytes[..length], from);
    }
}

/// Answers and closes first, so that the client's ports are free again at once.
fn first_request(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; REQUEST_BYTES];
    stream.read_exact(&mut request)?;
    stream.write_all(&request)?;
    if request[0] == AGAIN {
        thread::spawn(move || while answer(&mut stream, &mut request).is_ok() {});
    }
    Ok(())
}

fn answer(stream: &mut TcpStream, request: &mut [u8]) -> io::Result<()> {
    stream.read_exact(request)?;
    stream.write_all(request)
}
