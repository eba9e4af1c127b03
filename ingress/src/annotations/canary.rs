//! An Ingress that is a variant of another: which requests it gets.

use super::values::{Refusal, boolean};
use super::{Group, Row, honoured, refused};
use crate::objects::ObjectKey;

const NOT_YET: &str = "not honoured yet";

const ROWS: &[Row] = &[
    honoured("canary"),
    refused("canary-by-header", NOT_YET),
    refused("canary-by-header-value", NOT_YET),
    refused("canary-by-header-pattern", NOT_YET),
    refused("canary-by-cookie", NOT_YET),
    refused("canary-weight", NOT_YET),
    refused("canary-weight-total", NOT_YET),
];

/// `canary-*`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Canary {
    /// `canary`: the Ingress claims no paths for itself.
    pub enabled: bool,
}

impl Group for Canary {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, _: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "canary" => self.enabled = boolean(value)?,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }
}
