//! Reading an answer: its status, its length, whether the connection goes on.

/// Longest header of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// An answer as far as it has come.
#[derive(Debug, Default)]
pub struct Answer {
    /// The header while its end has not come.
    head: Vec<u8>,
    /// What is left of the body, once the header is there.
    body_left: Option<usize>,
    /// The server closes after this answer.
    closes: bool,
}

/// How an answer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More is to come.
    Partial,
    /// All is there; whether the connection can be used again.
    Whole {
        /// It can.
        again: bool,
    },
}

impl Answer {
    /// Forgets what it read.
    pub fn reset(&mut self) {
        self.head.clear();
        self.body_left = None;
        self.closes = false;
    }

    /// Whether nothing has come yet.
    pub fn is_new(&self) -> bool {
        self.head.is_empty() && self.body_left.is_none()
    }

    /// Takes in the next bytes. Anything but a 200 with a body of this length is an error.
    pub fn take(&mut self, bytes: &[u8], length: usize) -> Result<Progress, String> {
        let mut body = bytes.len();
        if self.body_left.is_none() {
            let before = self.head.len();
            // Most headers come whole, and are not copied.
            let end = if before == 0 {
                end_of_head(bytes)
            } else {
                self.head.extend_from_slice(bytes);
                end_of_head(&self.head)
            };
            let Some(end) = end else {
                if before == 0 {
                    self.head.extend_from_slice(bytes);
                }
                if self.head.len() > HEAD_BYTES_MAX {
                    return Err("a header without an end".to_owned());
                }
                return Ok(Progress::Partial);
            };
            let whole = if before == 0 { &bytes[..end] } else { &self.head[..end] };
            self.closes = check_head(whole, length)?;
            self.body_left = Some(length);
            body = bytes.len() - (end - before);
        }
        let left = self.body_left.unwrap_or_default();
        let left = left.checked_sub(body).ok_or("more bytes than the header says")?;
        self.body_left = Some(left);
        if left > 0 {
            return Ok(Progress::Partial);
        }
        Ok(Progress::Whole { again: !self.closes })
    }
}

/// Where the body begins.
pub fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut at = 3;
    while at < bytes.len() {
        // Only every fourth byte is looked at while none of them can belong to the end.
        match bytes[at] {
            b'\n' if &bytes[at - 3..=at] == b"\r\n\r\n" => return Some(at + 1),
            b'\r' | b'\n' => at += 1,
            _ => at += 4,
        }
    }
    None
}

/// Gives whether the server closes the connection.
fn check_head(head: &[u8], length: usize) -> Result<bool, String> {
    let shown = || String::from_utf8_lossy(&head[..head.len().min(200)]).into_owned();
    if head.get(..12) != Some(b"HTTP/1.1 200") {
        return Err(shown());
    }
    let (mut closes, mut found) = (false, None);
    for line in head.split(|byte| *byte == b'\n') {
        if let Some(value) = value_of(line, b"content-length:") {
            found = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
        } else if let Some(value) = value_of(line, b"connection:") {
            closes = value.trim_ascii().eq_ignore_ascii_case(b"close");
        }
    }
    if found != Some(length) {
        return Err(format!("not {length} bytes: {}", shown()));
    }
    Ok(closes)
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pieces: &[&[u8]], length: usize) -> Result<Progress, String> {
        let mut answer = Answer::default();
        let mut last = Ok(Progress::Partial);
        for piece in pieces {
            last = answer.take(piece, length);
            if last.is_err() {
                break;
            }
        }
        last
    }

    #[test]
    fn an_answer_may_come_in_any_pieces() {
        let text = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-Length: 3\r\n\r\nabc";
        for at in 0..text.len() {
            let (first, rest) = text.split_at(at);
            assert_eq!(take(&[first, rest], 3), Ok(Progress::Whole { again: true }), "{at}");
            assert_eq!(take(&[first], 3), Ok(Progress::Partial), "{at}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(take(&bytes, 3), Ok(Progress::Whole { again: true }));
    }

    #[test]
    fn what_was_not_asked_for_is_an_error() {
        let head = |lines: &str| format!("HTTP/1.1 {lines}\r\n\r\n").into_bytes();
        for (wrong, bytes) in [
            ("status", head("404 Not Found\r\nContent-Length: 0")),
            ("length", head("200 OK\r\nContent-Length: 4")),
            ("no length", head("200 OK\r\nTransfer-Encoding: chunked")),
        ] {
            assert!(take(&[&bytes], 0).is_err(), "{wrong}");
        }
        let mut long = head("200 OK\r\nContent-Length: 1");
        long.extend_from_slice(b"ab");
        assert!(take(&[&long], 1).is_err());
    }

    #[test]
    fn the_last_answer_of_a_connection_says_so() {
        let text = b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(take(&[text], 0), Ok(Progress::Whole { again: false }));
    }

    #[test]
    fn the_end_of_a_header_is_found_wherever_it_lies() {
        for before in 0..9 {
            let mut text = vec![b'x'; before];
            assert_eq!(end_of_head(&text), None);
            text.extend_from_slice(b"\r\n\r\nrest");
            assert_eq!(end_of_head(&text), Some(before + 4), "{before}");
            text.truncate(before + 3);
            assert_eq!(end_of_head(&text), None, "{before}");
        }
        assert_eq!(end_of_head(b"a\n\r\n\r\n"), Some(6));
    }
}
