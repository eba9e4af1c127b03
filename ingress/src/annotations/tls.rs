//! TLS with the client: its certificate, versions and ciphers, and connections passed through.

use super::values::Refusal;
use super::{Group, Row, honoured, refused};
use crate::objects::ObjectKey;

const NOT_YET: &str = "not honoured yet";

const ROWS: &[Row] = &[
    honoured("auth-tls-secret"),
    honoured("auth-tls-verify-client"),
    refused("auth-tls-verify-depth", NOT_YET),
    refused("auth-tls-error-page", NOT_YET),
    refused("auth-tls-pass-certificate-to-upstream", NOT_YET),
    refused("auth-tls-match-cn", NOT_YET),
    refused("ssl-ciphers", NOT_YET),
    refused("ssl-prefer-server-ciphers", NOT_YET),
    refused("ssl-passthrough", NOT_YET),
];

/// TLS of a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {}

impl Group for Tls {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, _: &str, _: &str, _: &ObjectKey) -> Result<(), Refusal> {
        Err(Refusal::closes("client certificates are not honoured yet"))
    }
}
