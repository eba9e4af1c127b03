//! Where the body of an endpoint's answer ends (RFC 9112 section 6.3), and how it is framed for the client.
//! Bytes in, bytes out: no socket.

use std::io::Write;

/// The longest line of a chunk's size with its extensions, and the longest trailer.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// A body on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none, or all of it went by.
    Done,
    /// So much is left.
    Length(u64),
    /// In chunks.
    Chunked(Chunks),
    /// Until the endpoint closes.
    UntilClose,
}

/// What comes next of a chunked body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunks {
    /// The line with the size; so much of it went by.
    Size(usize, Option<u64>, SizePart),
    /// The rest of a chunk.
    Data(u64),
    /// The end of a chunk's data.
    DataEnd(u8),
    /// Trailers: so much of them went by, so much of the line.
    Trailers(usize, usize),
}

/// Where in the line with the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizePart {
    /// Its digits.
    Digits,
    /// White space or an extension.
    Rest,
    /// After the carriage return.
    End,
}

/// A body framed wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFraming;

/// What was done with some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// So many were of the body.
    pub used: usize,
    /// So many of those, from the first on, go to the client as they are.
    pub direct: usize,
    /// So many were content.
    pub payload: usize,
}

impl Body {
    /// The body begins with the next byte, as chunks.
    pub fn chunked() -> Body {
        Body::Chunked(Chunks::Size(0, None, SizePart::Digits))
    }

    /// Whether all of it went by.
    pub fn is_done(&self) -> bool {
        *self == Body::Done
    }

    /// The client gets it in chunks.
    pub fn is_chunked(&self) -> bool {
        matches!(self, Body::Chunked(_) | Body::UntilClose)
    }

    /// Takes what the endpoint sent. What does not go to the client as it is, is written to `out` as the
    /// client is to get it.
    pub fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Step, BadFraming> {
        match self {
            Body::Done => Ok(Step { used: 0, direct: 0, payload: 0 }),
            Body::Length(left) => {
                let count = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                if *left == 0 {
                    *self = Body::Done;
                }
                Ok(Step { used: count, direct: count, payload: count })
            }
            Body::UntilClose => {
                chunk(out, input);
                Ok(Step { used: input.len(), direct: 0, payload: input.len() })
            }
            Body::Chunked(chunks) => {
                let (step, done) = chunks.take(input, out)?;
                if done {
                    *self = Body::Done;
                }
                Ok(step)
            }
        }
    }

    /// The endpoint closed.
    pub fn close(&mut self, out: &mut Vec<u8>) -> Result<(), BadFraming> {
        match self {
            Body::Done => Ok(()),
            Body::UntilClose => {
                out.extend_from_slice(LAST_CHUNK);
                *self = Body::Done;
                Ok(())
            }
            Body::Length(_) | Body::Chunked(_) => Err(BadFraming),
        }
    }
}

/// Trailers are not passed on, as in nginx.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    // A Vec takes everything.
    let _ = write!(out, "{:x}\r\n", data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

impl Chunks {
    /// Also says whether the body ended.
    fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(Step, bool), BadFraming> {
        let (mut at, mut payload) = (0, 0);
        while at < input.len() {
            match &mut *self {
                Chunks::Data(left) => {
                    let rest = &input[at..];
                    let count = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    chunk(out, &rest[..count]);
                    (at, payload) = (at + count, payload + count);
                    *left -= count as u64;
                    if *left == 0 {
                        *self = Chunks::DataEnd(b'\r');
                    }
                }
                framing => {
                    let done = framing.byte(input[at])?;
                    at += 1;
                    if done {
                        out.extend_from_slice(LAST_CHUNK);
                        return Ok((Step { used: at, direct: 0, payload }, true));
                    }
                }
            }
        }
        Ok((Step { used: at, direct: 0, payload }, false))
    }

    /// Takes a byte that is not data; whether it is the last one.
    fn byte(&mut self, byte: u8) -> Result<bool, BadFraming> {
        *self = match (&*self, byte) {
            (Chunks::Size(LINE_BYTES_MAX.., ..) | Chunks::Trailers(LINE_BYTES_MAX.., _), _) => {
                return Err(BadFraming);
            }
            (
                Chunks::Size(length, size, SizePart::Digits),
                b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F',
            ) => {
                let digit = u64::from(char::from(byte).to_digit(16).unwrap_or(0));
                let size = size.unwrap_or(0);
                if size >> 60 != 0 {
                    return Err(BadFraming);
                }
                Chunks::Size(length + 1, Some(size << 4 | digit), SizePart::Digits)
            }
            (Chunks::Size(length, Some(size), SizePart::Digits | SizePart::Rest), b'\r') => {
                Chunks::Size(length + 1, Some(*size), SizePart::End)
            }
            (Chunks::Size(_, Some(0), SizePart::End), b'\n') => Chunks::Trailers(0, 0),
            (Chunks::Size(_, Some(size), SizePart::End), b'\n') => Chunks::Data(*size),
            (Chunks::Size(length, Some(size), SizePart::Digits), b';' | b' ' | b'\t') => {
                Chunks::Size(length + 1, Some(*size), SizePart::Rest)
            }
            (Chunks::Size(length, Some(size), SizePart::Rest), _) if byte != b'\n' => {
                Chunks::Size(length + 1, Some(*size), SizePart::Rest)
            }
            (Chunks::DataEnd(b'\r'), b'\r') => Chunks::DataEnd(b'\n'),
            (Chunks::DataEnd(b'\n'), b'\n') => Chunks::Size(0, None, SizePart::Digits),
            (Chunks::Trailers(_, 0), b'\n') => return Ok(true),
            (Chunks::Trailers(all, 0), b'\r') => Chunks::Trailers(all + 1, 0),
            (Chunks::Trailers(all, _), b'\n') => Chunks::Trailers(all + 1, 0),
            (Chunks::Trailers(all, line), _) => Chunks::Trailers(all + 1, line + 1),
            _ => return Err(BadFraming),
        };
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds bytes in pieces; what the client gets, how much was used, and whether it ended.
    fn feed(
        mut body: Body,
        input: &[u8],
        piece: usize,
    ) -> Result<(Vec<u8>, usize, bool), BadFraming> {
        let (mut out, mut used) = (Vec::new(), 0);
        for piece in input.chunks(piece.max(1)) {
            let step = body.take(piece, &mut out)?;
            out.extend_from_slice(&piece[..step.direct]);
            used += step.used;
            if body.is_done() {
                break;
            }
        }
        Ok((out, used, body.is_done()))
    }

    #[test]
    fn bodies_end_where_they_say() {
        for piece in [1, 3, 1000] {
            let (out, used, done) = feed(Body::Length(5), b"helloHTTP/1.1", piece).unwrap();
            assert_eq!((&*out, used, done), (&b"hello"[..], 5, true));
            let (out, used, done) =
                feed(Body::chunked(), b"5;x=y\r\nhello\r\n0\r\nX-T: v\r\n\r\nHTTP", piece).unwrap();
            assert!(out.ends_with(b"0\r\n\r\n") && !out.windows(3).any(|part| part == b"X-T"));
            assert_eq!((used, done), (27, true));
        }
        assert!(!feed(Body::Length(5), b"hell", 9).unwrap().2);
    }

    #[test]
    fn chunks_framed_wrongly_are_refused() {
        for input in [
            &b"\r\n"[..],
            b"x\r\n",
            b"5\nhello",
            b"-5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"5\r\nhelloX\n",
            b"5\r\nhello\n",
            b"5 \n",
            b"10000000000000000\r\n",
            b"5\rX",
        ] {
            assert_eq!(feed(Body::chunked(), input, 4), Err(BadFraming), "{input:?}");
        }
        let endless = vec![b'0'; LINE_BYTES_MAX + 2];
        assert_eq!(feed(Body::chunked(), &endless, 100), Err(BadFraming));
    }

    #[test]
    fn only_a_body_without_an_end_ends_with_the_connection() {
        let mut out = Vec::new();
        let mut body = Body::UntilClose;
        body.take(b"abc", &mut out).unwrap();
        body.close(&mut out).unwrap();
        assert_eq!(out, b"3\r\nabc\r\n0\r\n\r\n");
        assert_eq!(Body::Length(1).close(&mut out), Err(BadFraming));
        assert_eq!(Body::chunked().close(&mut out), Err(BadFraming));
    }

    proptest! {
        #[test]
        fn content_survives_any_cut(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            piece in 1_usize..50,
        ) {
            let mut input = Vec::new();
            for one in &chunks {
                chunk(&mut input, one);
            }
            input.extend_from_slice(LAST_CHUNK);
            let (out, used, done) = feed(Body::chunked(), &input, piece).unwrap();
            prop_assert_eq!((used, done), (input.len(), true));
            // What we write is read by ourselves to the same content.
            let content = chunks.concat();
            let mut read = Vec::new();
            let mut at = 0;
            while let Some(end) = out[at..].windows(2).position(|pair| pair == b"\r\n") {
                let size = std::str::from_utf8(&out[at..at + end]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                read.extend_from_slice(&out[at + end + 2..at + end + 2 + size]);
                at += end + 2 + size + 2;
            }
            prop_assert_eq!(read, content);
        }

        #[test]
        fn garbage_is_no_panic(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = feed(Body::chunked(), &input, 7);
        }
    }
}
