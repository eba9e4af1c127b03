//! Answers that send the client elsewhere.

use super::values::{Refusal, boolean};
use super::{Group, Row, honoured, refused};
use crate::objects::ObjectKey;

const NOT_YET: &str = "not honoured yet";

const ROWS: &[Row] = &[
    honoured("ssl-redirect"),
    honoured("force-ssl-redirect"),
    honoured("preserve-trailing-slash"),
    refused("app-root", NOT_YET),
    honoured("from-to-www-redirect"),
    refused("permanent-redirect", NOT_YET),
    refused("permanent-redirect-code", NOT_YET),
    refused("temporal-redirect", NOT_YET),
    refused("temporal-redirect-code", NOT_YET),
    refused("relative-redirects", NOT_YET),
];

/// Redirects of a location.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirects {
    /// `ssl-redirect`: 308 to https where the host has a certificate.
    pub to_https: bool,
    /// `force-ssl-redirect`: 308 to https whether or not the host has one.
    pub to_https_always: bool,
    /// `from-to-www-redirect`: `HostRoutes::www_redirect` of the other host is what it leads to.
    pub from_to_www: bool,
    /// `preserve-trailing-slash`, of redirects to https.
    pub keep_trailing_slash: bool,
}

impl Default for Redirects {
    fn default() -> Redirects {
        Redirects {
            to_https: true,
            to_https_always: false,
            from_to_www: false,
            keep_trailing_slash: false,
        }
    }
}

impl Group for Redirects {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, _: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "ssl-redirect" => self.to_https = boolean(value)?,
            "force-ssl-redirect" => self.to_https_always = boolean(value)?,
            "from-to-www-redirect" => self.from_to_www = boolean(value)?,
            "preserve-trailing-slash" => self.keep_trailing_slash = boolean(value)?,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }
}
