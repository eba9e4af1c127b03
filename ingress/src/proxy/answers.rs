//! Answers of our own, worded and framed as nginx's.

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType, Result};

/// Answers a request with nginx's page for a status.
pub async fn respond(session: &mut Session, status: u16, location: Option<&[u8]>) -> Result<()> {
    // After a bad request nothing on the connection can be trusted, and what is left of a body would
    // have to be read before the connection can be used again.
    if status == 400 || !session.as_downstream_mut().is_body_empty() {
        session.set_keepalive(None);
    }
    let reason = reason(status);
    let body = page(status, reason);
    let mut response = ResponseHeader::build(status, Some(4))?;
    response.set_reason_phrase(Some(reason))?;
    response.insert_header(header::CONTENT_TYPE, HeaderValue::from_static("text/html"))?;
    response.insert_header(header::CONTENT_LENGTH, body.len())?;
    if let Some(location) = location.and_then(|location| HeaderValue::from_bytes(location).ok()) {
        response.insert_header(header::LOCATION, location)?;
    }
    if session.req_header().method == Method::HEAD {
        return session.write_response_header(Box::new(response), true).await;
    }
    session.write_response_header(Box::new(response), false).await?;
    session.write_response_body(Some(body), true).await
}

fn page(status: u16, reason: &str) -> Bytes {
    let title = format!("{status} {reason}");
    Bytes::from(format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n\
         <hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    ))
}

/// nginx's own names for statuses.
fn reason(status: u16) -> &'static str {
    match status {
        302 => "Found",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
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
