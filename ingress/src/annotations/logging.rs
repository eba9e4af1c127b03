//! What is logged of requests.

use super::values::{Refusal, boolean};
use super::{Group, Row, harmless, honoured, refused};
use crate::objects::ObjectKey;

const ROWS: &[Row] = &[
    honoured("enable-access-log"),
    harmless("enable-rewrite-log", "there is no rewrite module whose steps could be logged"),
    refused("enable-opentelemetry", TRACING),
    refused("opentelemetry-trust-incoming-span", TRACING),
    refused("opentelemetry-operation-name", TRACING),
];

const TRACING: &str = "there is no tracing here; X-Request-ID and traceparent headers are passed on, so let endpoints trace";

/// Logs of a location.
#[derive(Clone, Debug, PartialEq)]
pub struct Logging {
    /// `enable-access-log`.
    pub access_log: bool,
}

impl Default for Logging {
    fn default() -> Logging {
        Logging { access_log: true }
    }
}

impl Group for Logging {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, _: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "enable-access-log" => self.access_log = boolean(value)?,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }
}
