//! How much a client may ask for: bodies, rates, connections.

use super::values::{Refusal, parse_size};
use super::{Group, Row, honoured, refused};
use crate::objects::ObjectKey;

const NOT_YET: &str = "not honoured yet";

const ROWS: &[Row] = &[
    honoured("proxy-body-size"),
    refused("limit-rps", NOT_YET),
    refused("limit-rpm", NOT_YET),
    refused("limit-connections", NOT_YET),
    refused("limit-whitelist", NOT_YET),
    refused("limit-allowlist", NOT_YET),
    refused("limit-burst-multiplier", NOT_YET),
    refused("limit-rate", NOT_YET),
    refused("limit-rate-after", NOT_YET),
];

/// Limits of a location.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// `proxy-body-size` in bytes; 0 is unlimited.
    pub body_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { body_bytes_max: 1 << 20 }
    }
}

impl Group for Limits {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, _: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "proxy-body-size" => {
                self.body_bytes_max = parse_size(value)
                    .ok_or_else(|| Refusal::invalid("want a number of bytes with k, m or g"))?;
            }
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }
}
