//! What the endpoint sees as path.

use super::values::{Refusal, boolean, header_value};
use super::{Group, Row, honoured, refused};
use crate::objects::ObjectKey;

const NOT_YET: &str = "not honoured yet";

const ROWS: &[Row] = &[
    honoured("rewrite-target"),
    honoured("use-regex"),
    honoured("x-forwarded-prefix"),
    refused("server-alias", NOT_YET),
];

/// Rewriting of a location.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewriting {
    /// `rewrite-target`, unparsed: it needs the path it belongs to.
    pub target: Option<String>,
    /// `use-regex`.
    pub use_regex: bool,
    /// `x-forwarded-prefix`.
    pub forwarded_prefix: Option<String>,
}

impl Group for Rewriting {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, _: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "rewrite-target" => self.target = Some(value.to_owned()).filter(|v| !v.is_empty()),
            "use-regex" => self.use_regex = boolean(value)?,
            "x-forwarded-prefix" => self.forwarded_prefix = Some(header_value(value)?),
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }
}
