//! The PROXY protocol, versions 1 and 2: what a load balancer in front says of a connection.
//!
//! `parse` looks at bytes and nothing else; it is what the fuzzer feeds. Extensions (TLVs) are skipped.

use super::socket::Socket;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use thiserror::Error;
use tokio::io::AsyncReadExt;

const SIGNATURE_V2: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const LINE_BYTES_MAX: usize = 107;
/// The longest header that is read, as nginx has it.
const HEADER_BYTES_MAX: usize = 4096;

/// Who speaks to whom, as the proxy in front sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// The client.
    pub source: SocketAddr,
    /// What it connected to.
    pub destination: SocketAddr,
}

/// What some bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A header of that many bytes; `None` where the proxy speaks for itself.
    Complete(usize, Option<Proxied>),
    /// The beginning of a header.
    Incomplete,
    /// No header.
    Malformed,
}

/// Why there is no header.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// The connection ended or broke.
    #[error("reading the PROXY header: {0}")]
    Read(#[from] io::Error),
    /// Something else came.
    #[error("what came first is no PROXY header")]
    Malformed,
    /// Nothing complete came in time.
    #[error("no PROXY header in time")]
    Timeout,
}

/// Reads the header of a connection. What follows it is put back.
pub async fn read(socket: &mut Socket, limit: Duration) -> Result<Option<Proxied>, HeaderError> {
    tokio::time::timeout(limit, read_header(socket)).await.map_err(|_| HeaderError::Timeout)?
}

async fn read_header(socket: &mut Socket) -> Result<Option<Proxied>, HeaderError> {
    let mut received = Vec::with_capacity(256);
    loop {
        let mut chunk = [0; 512];
        let count = socket.read(&mut chunk).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        received.extend_from_slice(&chunk[..count]);
        match parse(&received) {
            Parsed::Complete(length, proxied) => {
                socket.unread(&received[length..]);
                return Ok(proxied);
            }
            Parsed::Incomplete if received.len() <= HEADER_BYTES_MAX => {}
            _ => return Err(HeaderError::Malformed),
        }
    }
}

/// Reads the header at the beginning of some bytes.
pub fn parse(bytes: &[u8]) -> Parsed {
    let signature = &SIGNATURE_V2[..bytes.len().min(SIGNATURE_V2.len())];
    if bytes.starts_with(signature) {
        return parse_v2(bytes);
    }
    let start = b"PROXY ";
    if !bytes.starts_with(&start[..bytes.len().min(start.len())]) {
        return Parsed::Malformed;
    }
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    match line.windows(2).position(|pair| pair == b"\r\n") {
        Some(end) => match std::str::from_utf8(&line[start.len()..end]).ok().and_then(parse_line) {
            Some(proxied) => Parsed::Complete(end + 2, proxied),
            None => Parsed::Malformed,
        },
        None if bytes.len() < LINE_BYTES_MAX => Parsed::Incomplete,
        None => Parsed::Malformed,
    }
}

/// What follows `PROXY ` in version 1. The outer `None` is for what is no such line.
#[expect(clippy::option_option, reason = "a line may be right and say nothing")]
fn parse_line(line: &str) -> Option<Option<Proxied>> {
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let mut words = line.split(' ');
    let family = words.next()?;
    let (source, destination) = (words.next()?, words.next()?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    let (source, destination): (IpAddr, IpAddr) = match family {
        "TCP4" => {
            (source.parse::<Ipv4Addr>().ok()?.into(), destination.parse::<Ipv4Addr>().ok()?.into())
        }
        "TCP6" => {
            (source.parse::<Ipv6Addr>().ok()?.into(), destination.parse::<Ipv6Addr>().ok()?.into())
        }
        _ => return None,
    };
    Some(Some(Proxied {
        source: SocketAddr::new(source.to_canonical(), source_port),
        destination: SocketAddr::new(destination.to_canonical(), destination_port),
    }))
}

/// A port in decimal digits; a sign is none.
fn port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn parse_v2(bytes: &[u8]) -> Parsed {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
        return Parsed::Incomplete;
    };
    let (command, family) = (head[12], head[13]);
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if head.len() + length > HEADER_BYTES_MAX || !matches!(command, 0x20 | 0x21) {
        return Parsed::Malformed;
    }
    let Some(body) = rest.get(..length) else {
        return Parsed::Incomplete;
    };
    let complete = |proxied| Parsed::Complete(head.len() + length, proxied);
    // LOCAL is the proxy itself; other families than TCP over IP have no address we could use.
    let proxied = match (command, family) {
        (0x21, 0x11) => addresses::<4, 12>(body),
        (0x21, 0x21) => addresses::<16, 36>(body),
        _ => return complete(None),
    };
    proxied.map_or(Parsed::Malformed, |proxied| complete(Some(proxied)))
}

/// Two addresses of `N` bytes and two ports, `TOTAL` bytes together.
fn addresses<const N: usize, const TOTAL: usize>(body: &[u8]) -> Option<Proxied> {
    let body = body.first_chunk::<TOTAL>()?;
    let address = |at: usize| -> Option<IpAddr> {
        let bytes = body.get(at..at + N)?;
        match N {
            4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
            _ => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()),
        }
    };
    let port = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    Some(Proxied {
        source: SocketAddr::new(address(0)?, port(2 * N)?),
        destination: SocketAddr::new(address(N)?, port(2 * N + 2)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proxied(source: &str, destination: &str) -> Option<Proxied> {
        Some(Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE_V2.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        header.extend(body);
        header
    }

    #[test]
    fn lines() {
        let four = proxied("192.0.2.1:5000", "198.51.100.1:443");
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n", Some(four)),
            (
                "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
                Some(proxied("[2001:db8::1]:1", "[2001:db8::2]:65535")),
            ),
            ("PROXY UNKNOWN\r\n", Some(None)),
            ("PROXY UNKNOWN whatever comes here\r\n", Some(None)),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 5000\r\n", None),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 5000 443 1\r\n", None),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 +5000 443\r\n", None),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 5000 65536\r\n", None),
            ("PROXY TCP4 2001:db8::1 198.51.100.1 5000 443\r\n", None),
            ("PROXY TCP5 192.0.2.1 198.51.100.1 5000 443\r\n", None),
            ("PROXY  TCP4 192.0.2.1 198.51.100.1 5000 443\r\n", None),
            ("proxy TCP4 192.0.2.1 198.51.100.1 5000 443\r\n", None),
            ("GET / HTTP/1.1\r\n", None),
        ] {
            let found = parse(format!("{line}GET /").as_bytes());
            let wanted = expected.map_or(Parsed::Malformed, |p| Parsed::Complete(line.len(), p));
            assert_eq!(found, wanted, "{line}");
        }
        assert_eq!(
            parse(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat()),
            Parsed::Malformed
        );
    }

    #[test]
    fn binary_headers() {
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 1, 0xbb];
        let tlv = [&four[..], &[3, 0, 4, 0xde, 0xad, 0xbe, 0xef]].concat();
        let expected = proxied("192.0.2.1:5000", "198.51.100.1:443");
        assert_eq!(parse(&v2(0x21, 0x11, &four)), Parsed::Complete(28, expected));
        assert_eq!(parse(&v2(0x21, 0x11, &tlv)), Parsed::Complete(35, expected));
        assert_eq!(parse(&v2(0x20, 0x00, &[])), Parsed::Complete(16, None));
        assert_eq!(parse(&v2(0x20, 0x11, &four)), Parsed::Complete(28, None));
        assert_eq!(parse(&v2(0x21, 0x31, &[0; 216])), Parsed::Complete(232, None));
        assert_eq!(parse(&v2(0x21, 0x11, &four[..11])), Parsed::Malformed);
        assert_eq!(parse(&v2(0x22, 0x11, &four)), Parsed::Malformed);
        assert_eq!(parse(&v2(0x11, 0x11, &four)), Parsed::Malformed);
        assert_eq!(parse(&v2(0x21, 0x11, &[0; 5000])), Parsed::Malformed);
    }

    proptest! {
        /// Whatever comes, a header is never longer than what came, and what follows it does not matter.
        #[test]
        fn any_bytes(start in 0..3usize, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let starts: [&[u8]; 3] = [b"", b"PROXY ", &SIGNATURE_V2];
            let all = [starts[start], &bytes].concat();
            if let Parsed::Complete(length, proxied) = parse(&all) {
                prop_assert!(length <= all.len());
                prop_assert_eq!(parse(&all[..length]), Parsed::Complete(length, proxied));
                for cut in 0..length {
                    prop_assert_eq!(parse(&all[..cut]), Parsed::Incomplete);
                }
            }
        }

        /// What is written is read.
        #[test]
        fn both_versions_say_the_same(
            source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), rest: Vec<u8>,
        ) {
            let expected = Proxied {
                source: SocketAddr::new(source.0.into(), source.1),
                destination: SocketAddr::new(destination.0.into(), destination.1),
            };
            let line = format!(
                "PROXY TCP4 {} {} {} {}\r\n", source.0, destination.0, source.1, destination.1
            );
            let body = [
                &source.0.octets()[..], &destination.0.octets(), &source.1.to_be_bytes(),
                &destination.1.to_be_bytes(),
            ].concat();
            for header in [line.into_bytes(), v2(0x21, 0x11, &body)] {
                let found = parse(&[&header[..], &rest].concat());
                prop_assert_eq!(found, Parsed::Complete(header.len(), Some(expected)));
            }
        }
    }
}
