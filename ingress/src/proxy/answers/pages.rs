//! nginx's names of statuses, and its pages for them.

use bytes::Bytes;

/// The name on the status line; empty for a status nginx has no name for.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Time-out",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

/// What the page of a status says; `None` where nginx has no page and the answer has no body.
fn title(status: u16) -> Option<&'static str> {
    match status {
        302 => Some("Found"),
        401 => Some("Authorization Required"),
        301 | 303 | 307 | 308 | 400.. => Some(reason(status)).filter(|title| !title.is_empty()),
        _ => None,
    }
}

/// nginx's page for a status.
pub fn page(status: u16) -> Option<Bytes> {
    Some(render(&format!("{status} {}", title(status)?), None))
}

/// nginx's page for a kind of bad request that it explains.
pub fn bad_request(why: &str) -> Bytes {
    render(&format!("400 {why}"), Some(why))
}

fn render(title: &str, why: Option<&str>) -> Bytes {
    let heading = if why.is_some() { "400 Bad Request" } else { title };
    let why = why.map(|why| format!("<center>{why}</center>\r\n")).unwrap_or_default();
    Bytes::from(format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{heading}</h1></center>\r\n{why}\
         <hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_the_one_ingress_nginx_serves() {
        // 146 bytes, as every user of its default backend has seen in a log.
        assert_eq!(page(404).unwrap().len(), 146);
    }

    #[test]
    fn statuses_with_two_names_and_with_none() {
        let text = |status| String::from_utf8(page(status).unwrap_or_default().to_vec()).unwrap();
        assert!(text(302).contains("<h1>302 Found</h1>"));
        assert!(text(401).contains("<h1>401 Authorization Required</h1>"));
        for status in [200, 204, 304, 418, 499, 511] {
            assert_eq!(text(status), "", "{status}");
        }
        let explained = bad_request("No required SSL certificate was sent");
        let explained = String::from_utf8(explained.to_vec()).unwrap();
        assert_eq!(
            explained,
            "<html>\r\n<head><title>400 No required SSL certificate was sent</title></head>\r\n<body>\r\n\
             <center><h1>400 Bad Request</h1></center>\r\n\
             <center>No required SSL certificate was sent</center>\r\n\
             <hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
        );
    }
}
