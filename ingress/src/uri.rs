//! Request targets as nginx reads them: splitting, normalising and escaping.
//!
//! Locations and rewrites of ingress-nginx work on nginx's `$uri`: percent-decoded, with repeated
//! slashes merged and dot segments resolved. The rules here follow `ngx_http_parse_complex_uri` and
//! `ngx_escape_uri`. What is sent to an endpoint without a rewrite stays as the client sent it.

use std::borrow::Cow;

/// The parts of a request target that routing needs, borrowed from the request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// `host:port` of an absolute-form target (RFC 9112 section 3.2.2).
    pub authority: Option<&'a [u8]>,
    /// The path as sent, with its leading slash.
    pub path: &'a [u8],
    /// What follows the first `?`, without it.
    pub query: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    /// Splits a raw request target. `None` for what is neither origin-form, absolute-form nor `*`.
    pub fn parse(raw: &'a [u8]) -> Option<Target<'a>> {
        let (authority, rest) = if raw.first() == Some(&b'/') || raw == b"*" {
            (None, raw)
        } else {
            let rest = strip_scheme(raw)?;
            let end =
                rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            (Some(&rest[..end]), &rest[end..])
        };
        let rest = match rest.iter().position(|b| *b == b'#') {
            Some(fragment) => &rest[..fragment],
            None => rest,
        };
        let (path, query) = match rest.iter().position(|b| *b == b'?') {
            Some(mark) => (&rest[..mark], Some(&rest[mark + 1..])),
            None => (rest, None),
        };
        let path: &[u8] = if path.is_empty() { b"/" } else { path };
        Some(Target { authority, path, query })
    }
}

fn strip_scheme(raw: &[u8]) -> Option<&[u8]> {
    [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
        let head = raw.get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then(|| &raw[scheme.len()..])
    })
}

/// A path after nginx's normalisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalized<'a> {
    /// The decoded path; borrowed when there was nothing to do, which is the usual case.
    pub path: Cow<'a, [u8]>,
    /// The path held a percent escape, so a path made from it has to be escaped again.
    pub quoted: bool,
}

/// Decodes a path, merges slashes and resolves dot segments. `None` where nginx answers 400: a broken
/// escape, an encoded NUL, or `..` above the root.
pub fn normalize(path: &[u8]) -> Option<Normalized<'_>> {
    if !needs_work(path) {
        return Some(Normalized { path: Cow::Borrowed(path), quoted: false });
    }
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut quoted = false;
    let mut at = 0;
    while at < path.len() {
        let (byte, literal, width) = decode(&path[at..])?;
        quoted |= width > 1;
        at += width;
        // An encoded slash or dot acts like a plain one; encoded `%`, `#`, `?` are ordinary characters.
        if byte == b'/' && !literal {
            close_segment(&mut out)?;
            if out.last() != Some(&b'/') {
                out.push(b'/');
            }
        } else {
            out.push(byte);
        }
    }
    close_segment(&mut out)?;
    Some(Normalized { path: Cow::Owned(out), quoted })
}

/// One character of a path: its value, whether it stands only for itself, how many bytes it took.
fn decode(rest: &[u8]) -> Option<(u8, bool, usize)> {
    if rest[0] != b'%' {
        return Some((rest[0], false, 1));
    }
    let high = hex_digit(*rest.get(1)?)?;
    let low = hex_digit(*rest.get(2)?)?;
    let byte = high << 4 | low;
    if byte == 0 {
        return None;
    }
    Some((byte, matches!(byte, b'%' | b'#' | b'?'), 3))
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Resolves the segment that just ended when it is `.` or `..`.
fn close_segment(out: &mut Vec<u8>) -> Option<()> {
    if out.ends_with(b"/..") {
        let parent_end = out.len() - 3;
        let parent = out[..parent_end].iter().rposition(|b| *b == b'/')?;
        out.truncate(parent + 1);
    } else if out.ends_with(b"/.") {
        out.truncate(out.len() - 1);
    }
    Some(())
}

fn needs_work(path: &[u8]) -> bool {
    let mut previous = 0u8;
    for &byte in path {
        if byte == b'%' || (previous == b'/' && matches!(byte, b'/' | b'.')) {
            return true;
        }
        previous = byte;
    }
    false
}

/// Which characters an escape leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// A path (`NGX_ESCAPE_URI`).
    Path,
    /// A value placed into the query (`NGX_ESCAPE_ARGS`).
    Args,
    /// A value placed into a Location: what nginx leaves of `NGX_ESCAPE_ARGS` after
    /// `NGX_UNESCAPE_REDIRECT`.
    Location,
}

/// Appends `text` to `out`, percent-encoding what nginx encodes there.
pub fn escape_into(out: &mut Vec<u8>, text: &[u8], escape: Escape) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        let special = match byte {
            0..=b' ' | 0x7f..=0xff | b'"' | b'#' | b'%' => true,
            b'<' | b'>' | b'?' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                escape != Escape::Location
            }
            b'&' | b'+' | b';' => escape == Escape::Args,
            _ => false,
        };
        if special {
            out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        } else {
            out.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(path: &str) -> Option<String> {
        normalize(path.as_bytes()).map(|n| String::from_utf8_lossy(&n.path).into_owned())
    }

    #[test]
    fn paths_are_normalised_as_nginx_does() {
        for (sent, uri) in [
            ("/", Some("/")),
            ("/a/b", Some("/a/b")),
            ("//a///b", Some("/a/b")),
            ("/a/./b", Some("/a/b")),
            ("/a/../b", Some("/b")),
            ("/a/b/..", Some("/a/")),
            ("/a/.", Some("/a/")),
            ("/a/..", Some("/")),
            ("/..", None),
            ("/a/../../b", None),
            ("/.../x", Some("/.../x")),
            ("/.well-known/x", Some("/.well-known/x")),
            ("/a..b", Some("/a..b")),
            ("/%61%20b", Some("/a b")),
            ("/a%2Fb", Some("/a/b")),
            ("/a%2f%2fb", Some("/a/b")),
            ("/a/%2e%2e/b", Some("/b")),
            ("/%2e%2e/b", None),
            ("/a%3Fb", Some("/a?b")),
            ("/a%23b", Some("/a#b")),
            ("/a%252e", Some("/a%2e")),
            ("/a%00b", None),
            ("/a%zz", None),
            ("/a%4", None),
        ] {
            assert_eq!(normal(sent).as_deref(), uri, "{sent}");
        }
    }

    #[test]
    fn nothing_to_do_borrows() {
        let normalized = normalize(b"/plain/path").unwrap();
        assert!(matches!(normalized.path, Cow::Borrowed(_)) && !normalized.quoted);
    }

    #[test]
    fn targets_split() {
        let target = Target::parse(b"HTTP://shop.example:8080/a?b=/c?d#e").unwrap();
        assert_eq!(target.authority, Some(&b"shop.example:8080"[..]));
        assert_eq!((target.path, target.query), (&b"/a"[..], Some(&b"b=/c?d"[..])));
        assert_eq!(Target::parse(b"http://host").unwrap().path, b"/");
        assert_eq!(Target::parse(b"*").unwrap().path, b"*");
        assert_eq!(Target::parse(b"ftp://host/"), None);
        assert_eq!(Target::parse(b"relative"), None);
        assert_eq!(Target::parse(b"http:///x"), None);
    }

    #[test]
    fn escapes_follow_the_tables() {
        let mut path = Vec::new();
        escape_into(&mut path, "/a b&c+é%".as_bytes(), Escape::Path);
        assert_eq!(path, b"/a%20b&c+%C3%A9%25");
        let mut args = Vec::new();
        escape_into(&mut args, b"a&b=c+d", Escape::Args);
        assert_eq!(args, b"a%26b=c%2Bd");
        let mut location = Vec::new();
        escape_into(&mut location, b"a b&c+<d>%", Escape::Location);
        assert_eq!(location, b"a%20b&c+<d>%25");
    }
}
