//! Passwords, and authorities that are asked about each request.

use super::values::Refusal;
use super::{Group, Row, honoured, refused};
use crate::objects::ObjectKey;

const ROWS: &[Row] = &[
    honoured("auth-type"),
    honoured("auth-secret"),
    honoured("auth-url"),
    refused(
        "auth-snippet",
        "snippets are refused: there is no nginx to run them; use auth-response-headers or auth-proxy-set-headers",
    ),
];

/// Guards that ask who the client is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authentication {}

impl Group for Authentication {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, _: &str, _: &str, _: &ObjectKey) -> Result<(), Refusal> {
        Err(Refusal::closes("authentication is not honoured yet"))
    }
}
