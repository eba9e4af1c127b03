//! Cookies and addresses in endpoints' answers, rewritten as `proxy_cookie_*` and `proxy_redirect` do it.

use super::redirects;
use crate::annotations::response::Response;
use crate::snapshot::Route;
use crate::variables::Values;
use bytes::Bytes;
use http::{HeaderValue, header};
use pingora::Result;
use pingora::http::ResponseHeader;

/// Rewrites what the location asks for.
pub fn rewrite(answer: &mut ResponseHeader, route: &Route, values: &Values<'_>) -> Result<()> {
    let response = &route.settings.response;
    if response.cookie_domain.is_some() || response.cookie_path.is_some() {
        cookies(answer, response, values)?;
    }
    if let Some(redirect) = &response.redirect {
        let location = answer.headers.get(header::LOCATION).map(HeaderValue::as_bytes);
        if let Some(location) = location.and_then(|text| redirect.of_beginning(text, values)) {
            let location = redirects::absolute(location, route, values);
            set(answer, &header::LOCATION, location)?;
        }
        let refresh = answer.headers.get(header::REFRESH).map(HeaderValue::as_bytes);
        let refresh = refresh.and_then(|text| {
            let url = text.windows(4).position(|part| part.eq_ignore_ascii_case(b"url="))? + 4;
            let rewritten = redirect.of_beginning(&text[url..], values)?;
            Some([&text[..url], &rewritten].concat())
        });
        if let Some(refresh) = refresh {
            set(answer, &header::REFRESH, refresh)?;
        }
    }
    Ok(())
}

/// What cannot be a header's value is left as it was.
fn set(answer: &mut ResponseHeader, name: &http::HeaderName, value: Vec<u8>) -> Result<()> {
    match HeaderValue::from_maybe_shared(Bytes::from(value)) {
        Ok(value) => answer.insert_header(name, value),
        Err(_) => Ok(()),
    }
}

fn cookies(answer: &mut ResponseHeader, response: &Response, values: &Values<'_>) -> Result<()> {
    let mut changed = false;
    let lines: Vec<HeaderValue> = answer
        .headers
        .get_all(header::SET_COOKIE)
        .iter()
        .map(|line| {
            let rewritten = cookie(line.as_bytes(), response, values);
            let rewritten =
                rewritten.and_then(|line| HeaderValue::from_maybe_shared(Bytes::from(line)).ok());
            changed |= rewritten.is_some();
            rewritten.unwrap_or_else(|| line.clone())
        })
        .collect();
    if changed {
        answer.remove_header(&header::SET_COOKIE);
        for line in lines {
            answer.append_header(header::SET_COOKIE, line)?;
        }
    }
    Ok(())
}

/// A Set-Cookie line with its attributes rewritten; `None` if they stay.
fn cookie(line: &[u8], response: &Response, values: &Values<'_>) -> Option<Vec<u8>> {
    let mut changed = false;
    let mut out = Vec::with_capacity(line.len() + 16);
    for (at, part) in line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).enumerate() {
        if at > 0 {
            out.extend_from_slice(b"; ");
        }
        let equals = part.iter().position(|byte| *byte == b'=').filter(|_| at > 0);
        let rewritten = equals.and_then(|equals| {
            let (name, value) = (part[..equals].trim_ascii(), part[equals + 1..].trim_ascii());
            let value = if name.eq_ignore_ascii_case(b"path") {
                response.cookie_path.as_ref()?.of_beginning(value, values)?
            } else if name.eq_ignore_ascii_case(b"domain") {
                response.cookie_domain.as_ref()?.of_domain(value, values)?
            } else {
                return None;
            };
            Some([name, b"=", &value].concat())
        });
        changed |= rewritten.is_some();
        out.extend_from_slice(rewritten.as_deref().unwrap_or(part));
    }
    changed.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotations::response::replacement::Replacement;
    use pingora::http::RequestHeader;

    #[test]
    fn attributes_of_cookies() {
        let request = RequestHeader::build("GET", b"/x", None).unwrap();
        let values = Values {
            request: &request,
            request_uri: b"/x",
            path: b"/x",
            host: "shop.example",
            tls: false,
            forwarded_scheme: "http",
            client: "192.0.2.7".parse().unwrap(),
            port: 80,
            request_id: "",
            route: None,
        };
        let response = Response {
            cookie_domain: Replacement::parse("inner shop.example").unwrap(),
            cookie_path: Replacement::parse("/two/ /").unwrap(),
            ..Response::default()
        };
        for (line, expected) in [
            ("a=b; Path=/two/some; HttpOnly", Some("a=b; Path=/some; HttpOnly")),
            ("a=b;domain=.Inner;path=/two/", Some("a=b; domain=.shop.example; path=/")),
            ("path=/two/; Max-Age=1", None),
            ("a=b; Path=/other; Domain=inner2", None),
            ("a=b=c; Secure; PATH = /two/x", Some("a=b=c; Secure; PATH=/x")),
        ] {
            let out = cookie(line.as_bytes(), &response, &values);
            assert_eq!(
                out.map(|out| String::from_utf8(out).unwrap()).as_deref(),
                expected,
                "{line}"
            );
        }
    }
}
