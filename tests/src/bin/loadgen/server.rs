//! The server: answers each request with as many bytes. Connections that ask once are served on the
//! accepting thread, without the noise of starting another; who asks again gets a thread.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use crate::client::{AGAIN, REQUEST_BYTES, WHO};

/// Serves UDP at each of these addresses, and TCP at their ports, until it is ended.
///
/// Each address has a datagram socket of its own: an answer that left by the first address of the
/// device, whichever was asked, would belong to no translated flow.
pub fn serve(listen: &[SocketAddr]) -> io::Result<String> {
    let first = listen.first().ok_or(io::ErrorKind::InvalidInput)?;
    for address in listen {
        let socket = UdpSocket::bind(address)?;
        let ip = address.ip();
        thread::spawn(move || echo(&socket, ip));
    }
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, first.port()))?;
    for stream in listener.incoming() {
        // A client that went away is its own loss.
        let _ended = stream.and_then(first_request);
    }
    Ok("{}".to_owned())
}

fn echo(socket: &UdpSocket, own: IpAddr) {
    let mut bytes = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut bytes) {
        if bytes[0] == WHO {
            name(&mut bytes, own, from.ip());
        }
        let _sent = socket.send_to(&bytes[..length], from);
    }
}

/// Answers and closes first, so that the client's ports are free again at once.
fn first_request(mut stream: TcpStream) -> io::Result<()> {
    let mut request = [0; REQUEST_BYTES];
    stream.read_exact(&mut request)?;
    if request[0] == WHO {
        name(&mut request, stream.local_addr()?.ip(), stream.peer_addr()?.ip());
    }
    stream.write_all(&request)?;
    if request[0] == AGAIN {
        stream.set_nodelay(true)?;
        thread::spawn(move || while answer(&mut stream, &mut request).is_ok() {});
    }
    Ok(())
}

fn answer(stream: &mut TcpStream, request: &mut [u8]) -> io::Result<()> {
    stream.read_exact(request)?;
    stream.write_all(request)
}

/// Writes who was asked, and by whom, as text that ends with a zero.
fn name(answer: &mut [u8], own: IpAddr, from: IpAddr) {
    let text = format!("{own} {from}\0");
    let length = text.len().min(answer.len());
    answer[..length].copy_from_slice(&text.as_bytes()[..length]);
}
