//! `NETLINK_SOCK_DIAG` (`linux/sock_diag.h`, `linux/inet_diag.h`): lists the connected UDP sockets
//! of a network namespace, and ends them.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
        sockopt::ReceiveTimeout,
    },
    time::{TimeVal, TimeValLike as _},
};
use podium_proxy_ebpf::{AddressPort, address};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `TCP_ESTABLISHED`, which a connected UDP socket is in too.
const CONNECTED: u32 = 1 << 1;
/// `INET_DIAG_CGROUP_ID`, since 5.8.
const CGROUP_ID: u16 = 21;

/// `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// `struct inet_diag_sockid`.
const ID_LEN: usize = 48;
/// `struct inet_diag_msg`, and where its id begins.
const MSG_LEN: usize = 72;
const MSG_ID_AT: usize = 4;
/// `struct nlattr`.
const ATTR_LEN: usize = 4;

/// Longest datagram: the kernel puts as many sockets into one as fit, up to this.
const BUFFER_LEN: usize = 32 << 10;
/// The kernel answers within the call; longer than this means never.
const ANSWER_SECS_MAX: i64 = 5;

/// `AF_INET` and `AF_INET6`, in the width they have here.
const FAMILIES: [u8; 2] = [2, 10];
const IPPROTO_UDP: u8 = 17;

/// A connected UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// `AF_INET` or `AF_INET6`.
    family: u8,
    id: [u8; ID_LEN],
    /// Its cookie.
    pub cookie: u64,
    /// Whom it sends to; of an IPv6 socket that talks IPv4, in mapped form as all addresses here.
    pub peer: AddressPort,
    /// The cgroup it was made in, where the kernel tells.
    pub cgroup_id: Option<u64>,
}

/// A netlink socket into one namespace.
#[derive(Debug)]
pub struct Diag {
    socket: OwnedFd,
    sequence: u32,
}

impl Diag {
    /// Into the namespace that the calling thread is in; it may leave it afterwards.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(ANSWER_SECS_MAX))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The connected UDP sockets of both families.
    pub fn connected(&mut self) -> io::Result<Vec<Connected>> {
        let mut found = Vec::new();
        for family in FAMILIES {
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
            self.request(SOCK_DIAG_BY_FAMILY, flags, family, &[0; ID_LEN])?;
            while self.receive(|body| found.extend(parse(body)))? == Answer::More {}
        }
        Ok(found)
    }

    /// Ends a socket: what waits on it, and its next call, fails with ECONNABORTED.
    pub fn destroy(&mut self, victim: &Connected) -> io::Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        self.request(SOCK_DESTROY, flags, victim.family, &victim.id)?;
        while self.receive(|_| ())? == Answer::More {}
        Ok(())
    }

    fn request(&mut self, kind: u16, flags: i32, family: u8, id: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = Vec::with_capacity(HEADER_LEN + 8 + ID_LEN);
        let len = u32::try_from(HEADER_LEN + 8 + ID_LEN).unwrap_or(u32::MAX);
        message.extend(len.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(u16::try_from(flags).unwrap_or(0).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        // struct inet_diag_req_v2: family, protocol, wanted attributes, padding, states, id.
        message.extend([family, IPPROTO_UDP, 0, 0]);
        message.extend(CONNECTED.to_ne_bytes());
        message.extend(id);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(())
    }

    /// Takes one datagram, which may hold many messages.
    fn receive(&self, mut each: impl FnMut(&[u8])) -> io::Result<Answer> {
        let mut buffer = vec![0; BUFFER_LEN];
        let len = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..len.min(BUFFER_LEN)];
        while let Some((kind, sequence, body)) = take_message(&mut rest) {
            if sequence != self.sequence {
                // Late, of a request that was given up.
                continue;
            }
            match i32::from(kind) {
                libc::NLMSG_ERROR => {
                    let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return match code {
                        0 => Ok(Answer::Complete),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                libc::NLMSG_DONE => return Ok(Answer::Complete),
                _ => each(body),
            }
        }
        Ok(Answer::More)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    More,
    Complete,
}

/// Type, sequence number and body of the next message.
fn take_message<'a>(rest: &mut &'a [u8]) -> Option<(u16, u32, &'a [u8])> {
    let len = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
    let message = rest.get(..len)?;
    let body = message.get(HEADER_LEN..)?;
    let kind = u16::from_ne_bytes(*message[4..].first_chunk()?);
    let sequence = u32::from_ne_bytes(*message[8..].first_chunk()?);
    *rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, sequence, body))
}

/// Reads a `struct inet_diag_msg` and its attributes.
fn parse(body: &[u8]) -> Option<Connected> {
    let mut attrs = body.get(MSG_LEN..)?;
    let family = *body.first()?;
    let id: [u8; ID_LEN] = *body[MSG_ID_AT..].first_chunk()?;
    // Ports, source, destination, device, cookie.
    let port: [u8; 2] = *id[2..].first_chunk()?;
    let ip: [u8; 16] = *id[20..].first_chunk()?;
    let ip = match i32::from(family) {
        libc::AF_INET => address::map(std::net::IpAddr::from(*ip.first_chunk::<4>()?)),
        libc::AF_INET6 => ip,
        _ => return None,
    };
    let cookie = {
        let low = u32::from_ne_bytes(*id[40..].first_chunk()?);
        let high = u32::from_ne_bytes(*id[44..].first_chunk()?);
        u64::from(high) << 32 | u64::from(low)
    };
    let mut cgroup_id = None;
    while let Some((kind, value)) = take_attr(&mut attrs) {
        if kind == CGROUP_ID {
            cgroup_id = value.first_chunk().map(|id| u64::from_ne_bytes(*id));
        }
    }
    Some(Connected { family, id, cookie, peer: AddressPort::new(ip, port), cgroup_id })
}

fn take_attr<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let len = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
    let attr = rest.get(..len)?;
    let kind = u16::from_ne_bytes(*attr.get(2..)?.first_chunk()?);
    let value = attr.get(ATTR_LEN..)?;
    *rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, value))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn sockets_of_this_process_are_found() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = peer.local_addr().unwrap();
        let four = UdpSocket::bind("127.0.0.1:0").unwrap();
        four.connect(to).unwrap();
        let six = UdpSocket::bind("[::ffff:127.0.0.1]:0").unwrap();
        six.connect(format!("[::ffff:127.0.0.1]:{}", to.port())).unwrap();
        let found = Diag::open().unwrap().connected().unwrap();
        let mine: Vec<_> = found.iter().filter(|one| one.peer == AddressPort::from(to)).collect();
        assert_eq!(mine.len(), 2, "{mine:?}");
        assert_ne!(mine[0].cookie, mine[1].cookie);
    }

    #[test]
    fn cut_messages_are_no_sockets() {
        let mut whole = vec![0; MSG_LEN];
        whole[0] = 2;
        whole.extend([12, 0, 21, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse(&whole).unwrap().cgroup_id, Some(7));
        for len in 0..MSG_LEN {
            assert_eq!(parse(&whole[..len]), None);
        }
        for len in MSG_LEN..whole.len() {
            assert_eq!(parse(&whole[..len]).unwrap().cgroup_id, None);
        }
        let mut rest: &[u8] = &[200, 0, 0, 0, 1, 2];
        assert_eq!(take_message(&mut rest), None);
        let mut none: &[u8] = &[0; 32];
        assert_eq!(take_message(&mut none), None, "a length of zero does not loop");
    }
}
