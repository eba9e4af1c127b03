//! Host and path of a request, checked and normalised for routing.

use crate::uri::{self, Target};
use http::{Version, header};
use pingora::http::RequestHeader;
use std::borrow::Cow;

/// What routing reads of a request.
pub struct RequestTarget<'a> {
    /// Lower-case, without port; empty when an HTTP/1.0 client sent none.
    pub host: Cow<'a, str>,
    /// Decoded and normalised.
    pub path: Cow<'a, [u8]>,
    /// As sent.
    pub query: Option<Cow<'a, [u8]>>,
    /// The path held percent escapes.
    pub quoted: bool,
    /// The target to send on when the client's own form must not be passed.
    pub origin_form: Option<Vec<u8>>,
    raw: &'a [u8],
}

impl<'a> RequestTarget<'a> {
    /// Reads a request; `None` where it has to be answered 400.
    pub fn read(request: &'a RequestHeader) -> Option<RequestTarget<'a>> {
        // nginx knows no other characters in methods, and no `*` for a path.
        let known = |byte: u8| byte.is_ascii_uppercase() || matches!(byte, b'_' | b'-');
        if !request.method.as_str().bytes().all(known) {
            return None;
        }
        let target = Target::parse(request.raw_path()).filter(|t| t.path.starts_with(b"/"))?;
        let normalized = uri::normalize(target.path)?;
        let named = match target.authority {
            Some(authority) => Some(authority),
            None => match request.headers.get(header::HOST) {
                Some(host) => Some(host.as_bytes()),
                None => request.uri.authority().map(|authority| authority.as_str().as_bytes()),
            },
        };
        let host = match named {
            Some(named) => host_name(named)?,
            None if request.version == Version::HTTP_10 => Cow::Borrowed(""),
            None => return None,
        };
        let origin_form = target.authority.map(|_| {
            let mut form = target.path.to_vec();
            if let Some(query) = target.query {
                form.push(b'?');
                form.extend_from_slice(query);
            }
            form
        });
        Some(RequestTarget {
            host,
            path: normalized.path,
            query: target.query.map(Cow::Borrowed),
            quoted: normalized.quoted,
            origin_form,
            raw: request.raw_path(),
        })
    }

    /// Path and query as sent.
    pub fn request_uri(&self) -> &[u8] {
        self.origin_form.as_deref().unwrap_or(self.raw)
    }
}

/// The host of an authority without its port, lower-case, without a final dot. `None` where nginx
/// refuses it.
fn host_name(authority: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(authority).ok()?;
    let host = if text.starts_with('[') {
        &text[..=text.find(']')?]
    } else {
        text.split_once(':').map_or(text, |(host, _)| host)
    };
    let forbidden =
        |b: u8| b <= b' ' || b >= 0x7f || matches!(b, b'/' | b'\\' | b'@' | b'?' | b'#');
    if host.is_empty() || host.contains("..") || host.bytes().any(forbidden) {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return None;
    }
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some(Cow::Owned(host.to_ascii_lowercase()));
    }
    Some(Cow::Borrowed(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, host: Option<&str>) -> RequestHeader {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        request.set_version(Version::HTTP_11);
        if let Some(host) = host {
            request.insert_header("Host", host).unwrap();
        }
        request
    }

    #[test]
    fn hosts_are_cleaned_or_refused() {
        for (sent, host) in [
            ("Shop.Example:8080", Some("shop.example")),
            ("shop.example.", Some("shop.example")),
            ("[::1]:80", Some("[::1]")),
            ("a..b", None),
            ("..", None),
            (".", None),
            ("", None),
            ("a/b", None),
            (":80", None),
        ] {
            assert_eq!(host_name(sent.as_bytes()).as_deref(), host, "{sent}");
        }
    }

    #[test]
    fn other_methods_and_targets_are_refused() {
        for (method, sent) in [("get", "/"), ("G.T", "/"), ("OPTIONS", "*"), ("GET", "x")] {
            let mut request = request("/", Some("a.example"));
            request.set_raw_path(sent.as_bytes()).unwrap();
            request.set_method(method.parse().unwrap());
            assert!(RequestTarget::read(&request).is_none(), "{method} {sent}");
        }
        let mut search = request("/", Some("a.example"));
        search.set_method("M-SEARCH".parse().unwrap());
        assert!(RequestTarget::read(&search).is_some());
    }

    #[test]
    fn http_1_1_needs_a_host() {
        assert!(RequestTarget::read(&request("/", None)).is_none());
        let mut old = request("/", None);
        old.set_version(Version::HTTP_10);
        assert_eq!(RequestTarget::read(&old).unwrap().host, "");
    }
}
