//! As much of rtnetlink(7) as devices and their filters need: requests, dumps, notifications.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
        socket,
    },
};

/// Message types and flags of `linux/netlink.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
/// Replace what is there.
pub const NLM_F_REPLACE: u16 = 0x100;
/// Fail if it is there.
pub const NLM_F_EXCL: u16 = 0x200;
/// Make it if it is not there.
pub const NLM_F_CREATE: u16 = 0x400;

const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// Flag bits of an attribute's type.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// The kernel fills at most 32 KiB at a time.
const BUFFER_LEN: usize = 64 * 1024;

/// How often a dump that changes interrupted is begun anew.
const DUMP_ATTEMPTS: usize = 5;

/// A message: its type, and what follows the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `RTM_…`.
    pub kind: u16,
    /// Fixed part and attributes.
    pub body: Vec<u8>,
}

impl Message {
    /// The fixed part; `None` if the message is too short for it.
    pub fn fixed<const N: usize>(&self) -> Option<&[u8; N]> {
        self.body.first_chunk()
    }

    /// The attributes behind a fixed part of this length.
    pub fn attributes(&self, fixed: usize) -> Attributes<'_> {
        Attributes(self.body.get(fixed..).unwrap_or_default())
    }
}

/// Attributes, one after the other; ends at the first that does not fit.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [a, b, c, d] = *self.0.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.0.get(ATTRIBUTE_HEADER_LEN..len)?;
        self.0 = self.0.get(aligned(len)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & NLA_TYPE_MASK, value))
    }
}

impl<'a> Attributes<'a> {
    /// The value of one attribute.
    pub fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The attributes within one.
    pub fn nested(self, kind: u16) -> Self {
        Attributes(self.get(kind).unwrap_or_default())
    }

    /// A number.
    pub fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.get(kind)?.first_chunk()?))
    }

    /// A text, which the kernel ends with a zero byte.
    pub fn text(self, kind: u16) -> Option<String> {
        let bytes = self.get(kind)?;
        let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..len]).ok().map(str::to_owned)
    }
}

const fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// A message in the making.
#[derive(Clone, Debug)]
pub struct Body(Vec<u8>);

impl Body {
    /// Begins with the fixed part.
    pub fn new(fixed: &[u8]) -> Self {
        Self(fixed.to_vec())
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(ATTRIBUTE_HEADER_LEN + value.len()).unwrap_or(u16::MAX);
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(aligned(self.0.len()), 0);
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds attributes within an attribute.
    #[must_use]
    pub fn nested(self, kind: u16, attributes: &Self) -> Self {
        self.attribute(kind, &attributes.0)
    }
}

/// A socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// For requests.
    pub fn open() -> io::Result<Self> {
        Self::with(0, SockFlag::SOCK_CLOEXEC)
    }

    /// For notifications of these groups (bits `RTMGRP_…`); never blocks.
    pub fn subscribe(groups: u32) -> io::Result<Self> {
        Self::with(groups, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)
    }

    fn with(groups: u32, flags: SockFlag) -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER_LEN] })
    }

    /// Asks for a change and waits for the kernel's answer.
    pub fn request(&mut self, kind: u16, flags: u16, body: &Body) -> io::Result<()> {
        self.send(kind, flags | NLM_F_ACK, body)?;
        loop {
            for part in self.receive()? {
                if part.sequence == self.sequence && part.message.kind == NLMSG_ERROR {
                    return answer(&part.message);
                }
            }
        }
    }

    /// Asks for everything of a kind. Begins anew if changes came in between.
    pub fn dump(&mut self, kind: u16, body: &Body) -> io::Result<Vec<Message>> {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(kind, NLM_F_DUMP, body)?;
            let (messages, interrupted) = self.rest_of_dump()?;
            if !interrupted {
                return Ok(messages);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "changes faster than it can be listed"))
    }

    fn rest_of_dump(&mut self) -> io::Result<(Vec<Message>, bool)> {
        let (mut messages, mut interrupted) = (Vec::new(), false);
        loop {
            for part in self.receive()? {
                if part.sequence != self.sequence {
                    continue;
                }
                interrupted |= part.flags & NLM_F_DUMP_INTR != 0;
                match part.message.kind {
                    NLMSG_DONE => return Ok((messages, interrupted)),
                    NLMSG_ERROR => answer(&part.message)?,
                    _ => messages.push(part.message),
                }
            }
        }
    }

    /// The next notifications. `WouldBlock`: there are none. `ENOBUFS`: some were lost.
    pub fn notifications(&mut self) -> io::Result<Vec<Message>> {
        Ok(self.receive()?.into_iter().map(|part| part.message).collect())
    }

    fn send(&mut self, kind: u16, flags: u16, body: &Body) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let len = u32::try_from(HEADER_LEN + body.0.len()).map_err(io::Error::other)?;
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&body.0);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<Vec<Part>> {
        let len = loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => {}
                result => break result?,
            }
        };
        let bytes = self.buffer.get(..len);
        let bytes = bytes.ok_or_else(|| io::Error::other("a netlink message was cut off"))?;
        Ok(parts(bytes))
    }
}

struct Part {
    flags: u16,
    sequence: u32,
    message: Message,
}

fn parts(mut bytes: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    while let Some(header) = bytes.first_chunk::<HEADER_LEN>() {
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let Some(body) = bytes.get(HEADER_LEN..len) else { break };
        parts.push(Part {
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            message: Message { kind: u16::from_ne_bytes([k0, k1]), body: body.to_vec() },
        });
        bytes = bytes.get(aligned(len)..).unwrap_or_default();
    }
    parts
}

/// An error message carries a negative errno, or 0 as the acknowledgement.
fn answer(message: &Message) -> io::Result<()> {
    match message.fixed::<4>().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        None => Err(io::Error::other("an answer of netlink was cut off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let inner = Body::new(&[]).text(1, "veth").attribute(2, &7_u32.to_ne_bytes());
        let body = Body::new(&[9; 4]).text(3, "eth0").nested(18, &inner);
        let message = Message { kind: 16, body: body.0 };
        assert_eq!(message.fixed::<4>(), Some(&[9; 4]));
        let attributes = message.attributes(4);
        assert_eq!(attributes.text(3).as_deref(), Some("eth0"));
        assert_eq!(attributes.nested(18).text(1).as_deref(), Some("veth"));
        assert_eq!(attributes.nested(18).u32(2), Some(7));
        assert_eq!(attributes.get(4), None);
    }

    #[test]
    fn cut_off_messages_end_the_list() {
        let whole = Body::new(&[]).attribute(1, &[1; 6]).attribute(2, &[2; 4]).0;
        for len in 0..whole.len() {
            let found = Attributes(&whole[..len]).count();
            assert_eq!(found, usize::from(len >= 10), "{len}");
        }
        assert!(Attributes(&[3, 0, 1, 0]).next().is_none(), "shorter than its own header");
        assert!(parts(&[15, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_empty());
        assert!(parts(&[255; 20]).is_empty());
    }

    #[test]
    fn kernel_lists_loopback() {
        let mut socket = Socket::open().unwrap();
        let links = socket.dump(18, &Body::new(&[0; 16])).unwrap();
        let names: Vec<_> = links.iter().filter_map(|link| link.attributes(16).text(3)).collect();
        assert!(names.iter().any(|name| name == "lo"), "{names:?}");
        let missing = socket.request(19, 0, &Body::new(&[0; 16])).unwrap_err();
        assert!(missing.raw_os_error().is_some(), "{missing}");
    }
}
