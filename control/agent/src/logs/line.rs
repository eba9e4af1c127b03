//! One line of a CRI log: `<RFC 3339 time> <stdout|stderr> <P|F> <content>`. `P` marks a part of a
//! line that continues in the next record. Pure.

use jiff::Timestamp;

/// A record, borrowed from its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// The time as it stands in the log.
    pub(crate) time_text: &'a str,
    pub(crate) time: Timestamp,
    pub(crate) stderr: bool,
    /// The line goes on in the next record.
    pub(crate) partial: bool,
    pub(crate) content: &'a [u8],
}

/// Reads one record, given without its newline; `None` where it is none.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time_text = std::str::from_utf8(parts.next()?).ok()?;
    let time = time_text.parse().ok()?;
    let stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    // Tags are separated by colons; only the first one is defined.
    let partial = match parts.next()?.first()? {
        b'P' => true,
        b'F' => false,
        _ => return None,
    };
    Some(Line { time_text, time, stderr, partial, content: parts.next().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        for (text, expected) in [
            (
                "2026-01-02T03:04:05.678901234Z stdout F hello world",
                Some((false, false, "hello world")),
            ),
            ("2026-01-02T03:04:05Z stderr P part", Some((true, true, "part"))),
            ("2026-01-02T03:04:05+01:00 stdout F ", Some((false, false, ""))),
            ("2026-01-02T03:04:05Z stdout F:x two  blanks", Some((false, false, "two  blanks"))),
            ("yesterday stdout F x", None),
            ("2026-01-02T03:04:05Z stdin F x", None),
            ("2026-01-02T03:04:05Z stdout", None),
            ("", None),
        ] {
            let got = parse(text.as_bytes()).map(|line| {
                (line.stderr, line.partial, std::str::from_utf8(line.content).unwrap())
            });
            assert_eq!(got, expected, "{text}");
        }
    }
}
