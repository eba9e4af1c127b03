//! One agent only works on the devices of a network namespace.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    thread,
    time::{Duration, Instant},
};

use super::places::Error;

/// How long the one before may take to end. Even then the address is taken for a moment, where a
/// process was just forked and is yet to execute another program.
const PATIENCE: Duration = Duration::from_secs(2);

/// Held by whoever works on the devices of a network namespace: an abstract socket address, of
/// which each namespace has its own. It is free again when the process ends, however it does.
#[derive(Debug)]
pub(super) struct Claim(
    #[expect(dead_code, reason = "open as long as this is there")] UnixDatagram,
);

impl Claim {
    const NAME: &str = "podium-proxy-devices";

    pub(super) fn new() -> Result<Self, Error> {
        let last = Instant::now() + PATIENCE;
        loop {
            let claimed = SocketAddr::from_abstract_name(Self::NAME)
                .and_then(|address| UnixDatagram::bind_addr(&address));
            match claimed {
                Ok(socket) => return Ok(Self(socket)),
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    return Err(Error::netlink("claim the devices")(error));
                }
                Err(_) if Instant::now() > last => return Err(Error::InUse),
                Err(_) => thread::sleep(PATIENCE / 100),
            }
        }
    }
}
