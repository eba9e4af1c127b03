//! Requests whose body could be framed in two ways. Each has one possible length here, or is refused.
//!
//! The HTTP library prefers chunks to a length (RFC 9112 section 6.3), and takes a list of equal lengths for
//! one. Something in front of us or an endpoint may decide otherwise, and find another request in what is
//! body here. nginx refuses all of these as well.

use super::answers::Answer;
use http::header;
use pingora::protocols::http::ServerSession;

/// Refuses a request with more than one way to find its end.
pub fn check(session: &ServerSession) -> Result<(), Answer> {
    let headers = &session.req_header().headers;
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let one_length = match (lengths.next(), lengths.next()) {
        (None, _) => true,
        (Some(length), None) => length.as_bytes().iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let chunked = match (codings.next(), codings.next()) {
        (None, _) => return if one_length { Ok(()) } else { Err(Answer::status(400)) },
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    // The library has taken a length beside chunks out of the header already.
    let http1 = session.as_http1();
    let sent_length = http1.is_some_and(|http1| names_length(&http1.get_headers_raw_bytes()));
    if chunked && one_length && !sent_length { Ok(()) } else { Err(Answer::status(400)) }
}

/// Whether a line of a raw header is a `Content-Length`.
fn names_length(raw: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length:";
    raw.split(|byte| *byte == b'\n')
        .any(|line| line.len() >= NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_found_in_raw_headers() {
        assert!(names_length(b"POST / HTTP/1.1\r\nContent-LENGTH: 5\r\n\r\n"));
        assert!(names_length(b"POST / HTTP/1.1\nX: y\ncontent-length:5\n\n"));
        assert!(!names_length(b"POST /content-length:5 HTTP/1.1\r\nX-Content-Length: 5\r\n\r\n"));
    }
}
