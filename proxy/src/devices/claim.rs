//! One agent only works on the devices of a network namespace.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use super::places::Error;

/// Held by whoever works on the devices of a network namespace: an abstract socket address, of
/// which each namespace has its own. It is free again when the process ends, however it does.
#[derive(Debug)]
pub(super) struct Claim(
    #[expect(dead_code, reason = "open as long as this is there")] UnixDatagram,
);

impl Claim {
    const NAME: &str = "podium-proxy-devices";

    pub(super) fn new() -> Result<Self, Error> {
        let claimed = SocketAddr::from_abstract_name(Self::NAME)
            .and_then(|address| UnixDatagram::bind_addr(&address));
        match claimed {
            Ok(socket) => Ok(Self(socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Error::InUse),
            Err(error) => Err(Error::netlink("claim the devices")(error)),
        }
    }
}
