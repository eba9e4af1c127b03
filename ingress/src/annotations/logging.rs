//! What is logged of requests.

use super::values::Refusal;
use super::{Group, Row, refused};
use crate::objects::ObjectKey;

const NOT_YET: &str = "not honoured yet";

const ROWS: &[Row] = &[
    refused("enable-access-log", NOT_YET),
    refused("enable-rewrite-log", NOT_YET),
    refused("enable-opentelemetry", NOT_YET),
];

/// Logs of a location.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logging {}

impl Group for Logging {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, _: &str, _: &str, _: &ObjectKey) -> Result<(), Refusal> {
        Err(Refusal::Unknown)
    }
}
