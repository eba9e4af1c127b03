//! What the endpoint sees as path.

use super::values::{Refusal, boolean, header_value, list};
use super::{Group, Row, honoured};
use crate::objects::ObjectKey;
use crate::variables::Template;

const ROWS: &[Row] = &[
    honoured("rewrite-target"),
    honoured("use-regex"),
    honoured("x-forwarded-prefix"),
    honoured("server-alias"),
];

/// Rewriting of a location.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewriting {
    /// `rewrite-target`, unparsed: it needs the path it belongs to.
    pub target: Option<String>,
    /// `use-regex`.
    pub use_regex: bool,
    /// `x-forwarded-prefix`.
    pub forwarded_prefix: Option<Template>,
    /// `server-alias`: other names of the hosts, lower-case.
    pub server_aliases: Vec<String>,
}

impl Group for Rewriting {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, _: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "rewrite-target" => self.target = Some(value.to_owned()).filter(|v| !v.is_empty()),
            "use-regex" => self.use_regex = boolean(value)?,
            "x-forwarded-prefix" => self.forwarded_prefix = Some(prefix(value)?),
            "server-alias" => self.server_aliases = aliases(value)?,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }
}

/// A text that may name captures of the path.
fn prefix(value: &str) -> Result<Template, Refusal> {
    let value = header_value(value)?;
    Template::parse_with_captures(&value)
        .map_err(|error| Refusal::Refused(format!("{value:?} {error}")))
}

/// Names of hosts; expressions, which nginx would take, are refused.
fn aliases(value: &str) -> Result<Vec<String>, Refusal> {
    let mut names: Vec<String> = list(value).map(str::to_ascii_lowercase).collect();
    names.sort();
    names.dedup();
    let is_name =
        |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.*_".contains(&b));
    if !names.iter().all(is_name) {
        let why = "it holds a name that is not one of a host: expressions are not taken here; \
                   write the hosts out, or use a wildcard such as *.example.com";
        return Err(Refusal::Refused(why.into()));
    }
    Ok(names)
}
