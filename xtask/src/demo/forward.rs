//! Reaching into the demo from the host: a TCP forwarder that accepts on the host's loopback and
//! connects from inside a network namespace.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use anyhow::Context;
use nix::sched::{CloneFlags, setns};

/// Forwards a port of the host's loopback to `target` as seen from inside `netns`; gives the port's
/// address. Lives until the process ends.
pub fn start(netns: File, target: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on loopback")?;
    let address = listener.local_addr().context("find the port listened on")?;
    std::thread::Builder::new()
        .name("forward".to_owned())
        .spawn(move || {
            // The socket listened on stays the host's; what this thread opens from now on is not.
            match setns(&netns, CloneFlags::CLONE_NEWNET) {
                Ok(()) => accept(&listener, target),
                Err(error) => eprintln!("forwarding to {target}: enter namespace: {error}"),
            }
        })
        .context("start a thread")?;
    Ok(address)
}

fn accept(listener: &TcpListener, target: SocketAddr) {
    for stream in listener.incoming().flatten() {
        if let Err(error) = connect(stream, target) {
            eprintln!("forwarding to {target}: {error}");
        }
    }
}

fn connect(client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    let (client_again, server_again) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || copy(client, server));
    std::thread::spawn(move || copy(server_again, client_again));
    Ok(())
}

/// One direction. Either side may go away at any time; the other is then told.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ended = io::copy(&mut from, &mut to);
    let _told = to.shutdown(Shutdown::Write);
}
