//! Answers of our own, worded and framed as nginx's.

use super::{RequestState, response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType, Result};

/// An answer of our own, in place of an endpoint's.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Headers beside those of its body.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What to send instead of nginx's page for the status.
    pub body: Option<Bytes>,
}

impl Answer {
    /// nginx's page for a status.
    pub const fn status(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: None }
    }

    /// A redirect.
    pub fn redirect(status: u16, location: &[u8]) -> Answer {
        let location = HeaderValue::from_bytes(location);
        let headers = location.into_iter().map(|location| (header::LOCATION, location)).collect();
        Answer { status, headers, body: None }
    }
}

/// Answers a request.
pub async fn respond(session: &mut Session, answer: Answer, state: &RequestState) -> Result<()> {
    // After a bad request nothing on the connection can be trusted, and what is left of a body would
    // have to be read before the connection can be used again.
    if answer.status == 400 || !session.as_downstream_mut().is_body_empty() {
        session.set_keepalive(None);
    }
    let reason = reason(answer.status);
    let mut head = ResponseHeader::build(answer.status, Some(4 + answer.headers.len()))?;
    head.set_reason_phrase(Some(reason))?;
    // A 204 has no body, and says nothing of one.
    let body = match answer.body {
        _ if answer.status == 204 => None,
        Some(body) => Some(body),
        None => {
            head.insert_header(header::CONTENT_TYPE, HeaderValue::from_static("text/html"))?;
            Some(page(answer.status, reason))
        }
    };
    if let Some(body) = &body {
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
    }
    for (name, value) in answer.headers {
        head.append_header(name, value)?;
    }
    response::to_client(&mut head, state)?;
    match body.filter(|_| session.req_header().method != Method::HEAD) {
        Some(body) => {
            session.write_response_header(Box::new(head), false).await?;
            session.write_response_body(Some(body), true).await
        }
        None => session.write_response_header(Box::new(head), true).await,
    }
}

fn page(status: u16, reason: &str) -> Bytes {
    // nginx's status line of a 302 says something else than its page.
    let reason = if status == 302 { "Found" } else { reason };
    let title = format!("{status} {reason}");
    Bytes::from(format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n\
         <hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    ))
}

/// nginx's own names for statuses.
fn reason(status: u16) -> &'static str {
    match status {
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Not Allowed",
        408 => "Request Time-out",
        413 => "Request Entity Too Large",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        _ => "Internal Server Error",
    }
}

/// The status for a request that failed on its way; 0 when the client is gone.
pub fn status_of(error: &Error) -> u16 {
    use ErrorType::{
        ConnectTimedout, ConnectionClosed, HTTPStatus, ReadError, ReadTimedout,
        TLSHandshakeTimedout, WriteError, WriteTimedout,
    };
    match (error.etype(), error.esource()) {
        (HTTPStatus(status), _) => *status,
        (
            ConnectTimedout | ReadTimedout | WriteTimedout | TLSHandshakeTimedout,
            ErrorSource::Upstream,
        ) => 504,
        (_, ErrorSource::Upstream) => 502,
        (WriteError | ReadError | ConnectionClosed, ErrorSource::Downstream) => 0,
        (ReadTimedout, ErrorSource::Downstream) => 408,
        (_, ErrorSource::Downstream) => 400,
        (_, ErrorSource::Internal | ErrorSource::Unset) => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_the_one_ingress_nginx_serves() {
        // 146 bytes, as every user of its default backend has seen in a log.
        assert_eq!(page(404, reason(404)).len(), 146);
    }
}
