//! `mirror-*`: a copy of every request for another server.

use crate::annotations::values::{Refusal, header_value};
use crate::variables::{Template, Variable};

/// The mirror of a location.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// `mirror-target`: where copies go.
    pub target: Option<Target>,
    /// `mirror-host`: their Host; that of the target by default.
    pub host: Option<Template>,
    /// `mirror-request-body`: copies have the request's body.
    pub body: bool,
}

impl Default for Mirror {
    fn default() -> Mirror {
        Mirror { target: None, host: None, body: true }
    }
}

/// A URL that copies are sent to.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Speak TLS.
    pub https: bool,
    /// Host or address; IPv6 addresses in brackets.
    pub host: Box<str>,
    /// Port.
    pub port: u16,
    /// Path and query; empty for those of the request.
    pub path: Template,
}

impl Mirror {
    /// Takes the value of an annotation of this group.
    pub fn apply(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "mirror-target" if value.is_empty() => self.target = None,
            "mirror-target" => self.target = Some(Target::parse(value)?),
            "mirror-host" => self.host = Some(template(&header_value(value)?)?),
            "mirror-request-body" => {
                self.body = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(Refusal::invalid("want on or off")),
                }
            }
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }
}

impl Target {
    fn parse(url: &str) -> Result<Target, Refusal> {
        let wrong = || Refusal::invalid("want http:// or https:// with a host, a port and a path");
        let (https, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(wrong()),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '$']).unwrap_or(rest.len()));
        let path = template(path)?;
        let parsed: http::uri::Authority = authority.parse().map_err(|_| wrong())?;
        if parsed.host().is_empty() || authority.contains('@') {
            return Err(wrong());
        }
        let port = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((_, port)) => port.parse().map_err(|_| wrong())?,
            None if https => 443,
            None => 80,
        };
        // What follows the host must be a path in every request.
        let begins = path.source().is_empty()
            || path.source().starts_with(['/', '?'])
            || path.starts_with(&Variable::RequestUri)
            || path.starts_with(&Variable::Uri);
        if !begins {
            return Err(Refusal::Refused(format!(
                "{url:?} names a host by a variable: a mirror has one host; variables may stand in the path"
            )));
        }
        Ok(Target { https, host: parsed.host().into(), port, path })
    }
}

fn template(text: &str) -> Result<Template, Refusal> {
    Template::parse(text).map_err(|error| Refusal::Refused(format!("{text:?} {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for (url, expected) in [
            ("https://test.example/$request_uri", "true test.example 443 \"/$request_uri\""),
            ("https://test.example$request_uri", "true test.example 443 \"$request_uri\""),
            ("http://10.0.0.1:8080", "false 10.0.0.1 8080 \"\""),
            ("http://[::1]:8080/x", "false [::1] 8080 \"/x\""),
            ("http://[::1]", "false [::1] 80 \"\""),
        ] {
            let Target { https, host, port, path } = Target::parse(url).unwrap();
            assert_eq!(format!("{https} {host} {port} {path:?}"), expected);
        }
        for url in
            ["test.example", "ftp://x", "http://", "http://$host/", "http://a:b", "http://u@a/"]
        {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
