//! Clients: they ask a [`crate::server::Server`] who it is, and say what became of that in one
//! line, so that it can pass from another process too.
//!
//! An answer is `NAME saw ADDRESS:PORT`; anything else is the name of an error.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Error, ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use nix::sys::{
    socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
        sockopt,
    },
    time::TimeVal,
};

use crate::{sctp, server::pattern};

/// How long to wait for what should come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for what should not: more than the first retransmission takes.
const IMPATIENCE: Duration = Duration::from_millis(1300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

pub const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A question: over which protocol, where to, and where from if that matters.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    protocol: Protocol,
    to: SocketAddr,
    from: Option<SocketAddr>,
    size: usize,
    patience: Duration,
}

impl Question {
    pub fn new(protocol: Protocol, to: &str) -> Self {
        let to = to.parse().unwrap_or_else(|error| panic!("{to}: {error}"));
        Self { protocol, to, from: None, size: 0, patience: PATIENCE }
    }

    /// From this address, and port if it is not 0.
    pub const fn from(self, ip: IpAddr, port: u16) -> Self {
        Self { from: Some(SocketAddr::new(ip, port)), ..self }
    }

    /// As large as this; a datagram's answer will be too.
    pub const fn size(self, size: usize) -> Self {
        Self { size, ..self }
    }

    /// With the expectation that no answer comes.
    pub const fn in_vain(self) -> Self {
        Self { patience: IMPATIENCE, ..self }
    }

    /// Asks.
    pub fn ask(self) -> String {
        let result = match self.protocol {
            Protocol::Tcp => self.ask_stream(),
            Protocol::Udp => self.ask_datagram(),
            Protocol::Sctp => self.ask_sctp(),
        };
        result.unwrap_or_else(|error| error_name(&error))
    }

    fn ask_stream(self) -> Result<String, Error> {
        let mut connection = self.connect()?;
        connection.who()
    }

    /// A TCP connection that stays.
    pub fn connect(self) -> Result<Connection, Error> {
        let socket = self.open(SockType::Stream)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        self.timeouts(&socket)?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(self.to))?;
        Ok(Connection { stream: BufReader::new(TcpStream::from(socket)) })
    }

    /// A connected UDP socket that stays.
    pub fn flow(self) -> Result<Flow, Error> {
        let socket = self.open(SockType::Datagram)?;
        self.timeouts(&socket)?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(self.to))?;
        Ok(Flow { socket: UdpSocket::from(socket) })
    }

    fn ask_datagram(self) -> Result<String, Error> {
        self.flow()?.who(self.size)
    }

    fn ask_sctp(self) -> Result<String, Error> {
        let port = match self.from {
            Some(from) if from.port() != 0 => from.port(),
            _ => free_port(),
        };
        let socket = sctp::socket(self.from.map_or(any(self.to), |from| from.ip()));
        socket.connect(SocketAddr::new(self.to.ip(), 0))?;
        socket.set_read_timeout(Some(self.patience))?;
        let text = " ".repeat(self.size);
        socket.send(&sctp::packet(port, self.to.port(), sctp::INIT, &text))?;
        let mut buffer = vec![0; 4096];
        loop {
            let len = socket.recv(&mut buffer)?;
            let packet = sctp::Packet::parse(&buffer[..len], self.to.is_ipv4());
            match packet {
                None => return Ok("wrong checksum".to_owned()),
                Some(packet) if packet.to_port != port => {}
                Some(packet) if packet.chunk == sctp::ABORT => {
                    return Err(ErrorKind::ConnectionRefused.into());
                }
                Some(packet) if packet.from_port != self.to.port() => {
                    return Ok(format!("answer from port {}", packet.from_port));
                }
                Some(packet) => return Ok(packet.text),
            }
        }
    }

    fn open(&self, kind: SockType) -> Result<OwnedFd, Error> {
        let family = if self.to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
        if let Some(from) = self.from {
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
            bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
        }
        Ok(socket)
    }

    fn timeouts(&self, socket: &OwnedFd) -> Result<(), Error> {
        let patience = TimeVal::new(
            self.patience.as_secs().cast_signed(),
            i64::from(self.patience.subsec_micros()),
        );
        setsockopt(socket, sockopt::SendTimeout, &patience)?;
        setsockopt(socket, sockopt::ReceiveTimeout, &patience)?;
        Ok(())
    }
}

fn any(to: SocketAddr) -> IpAddr {
    if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// A port for a protocol that the kernel gives none for.
fn free_port() -> u16 {
    let socket = UdpSocket::bind("[::]:0").unwrap();
    socket.local_addr().unwrap().port()
}

/// An open TCP connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Asks, once more.
    pub fn who(&mut self) -> Result<String, Error> {
        self.say("who\n")?;
        self.line()
    }

    /// Sends so many bytes; the answer is `all` if they arrived as they were.
    pub fn send(&mut self, len: usize) -> Result<String, Error> {
        self.say(&format!("take {len}\n"))?;
        self.stream.get_mut().write_all(&pattern(len))?;
        self.line()
    }

    /// Fetches so many bytes; `all` if they are the right ones.
    pub fn fetch(&mut self, len: usize) -> Result<String, Error> {
        self.say(&format!("give {len}\n"))?;
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes)?;
        Ok(if bytes == pattern(len) { "all" } else { "corrupt" }.to_owned())
    }

    fn say(&mut self, line: &str) -> Result<(), Error> {
        self.stream.get_mut().write_all(line.as_bytes())
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim().to_owned())
    }
}

/// A connected UDP socket.
pub struct Flow {
    socket: UdpSocket,
}

impl Flow {
    /// Asks with a datagram of this size, once more.
    pub fn who(&mut self, size: usize) -> Result<String, Error> {
        self.socket.send(&pattern(size))?;
        let mut buffer = vec![0; 65_536];
        let len = self.socket.recv(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..len]);
        if len < size {
            return Ok(format!("{len} bytes for {size}: {text}"));
        }
        Ok(text.trim_end_matches('.').to_owned())
    }
}

/// The name of an error as tests write it.
pub fn error_name(error: &Error) -> String {
    match error.kind() {
        // What SO_SNDTIMEO and SO_RCVTIMEO end in.
        _ if error.raw_os_error() == Some(libc::EINPROGRESS) => "TimedOut".to_owned(),
        ErrorKind::WouldBlock => "TimedOut".to_owned(),
        kind => format!("{kind:?}"),
    }
}

/// Asks over a protocol.
pub fn ask(protocol: Protocol, to: &str) -> String {
    Question::new(protocol, to).ask()
}

/// The name of the server that answered, or the error.
pub fn who(answer: &str) -> &str {
    answer.split_once(" saw ").map_or(answer, |(name, _)| name)
}

/// The client's address as the server saw it.
pub fn seen(answer: &str) -> SocketAddr {
    let (_, peer) = answer.split_once(" saw ").unwrap_or_else(|| panic!("no answer: {answer}"));
    peer.parse().unwrap_or_else(|_| panic!("no peer: {answer}"))
}
