//! What is wrong with an object: one value per finding, made by pure code, told to people by `report`.

use crate::objects::{Kind, ObjectKey};
use std::fmt;

/// How much of the object is affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The object works, but not entirely as written.
    Warning,
    /// The named part of the object does not take effect.
    Error,
}

impl Severity {
    /// Lower-case name for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One finding about one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Problem {
    /// What the object is.
    pub kind: Kind,
    /// Which one.
    pub object: ObjectKey,
    /// The field, as a path into the object; empty for the object as a whole.
    pub field: String,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence without a final stop.
    pub message: String,
}

impl Problem {
    /// A part of the object that does not take effect.
    pub fn error(
        kind: Kind,
        object: &ObjectKey,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Problem {
        Problem {
            kind,
            object: object.clone(),
            field: field.into(),
            severity: Severity::Error,
            message: message.into(),
        }
    }

    /// Something that works differently than the object says.
    pub fn warning(
        kind: Kind,
        object: &ObjectKey,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::error(kind, object, field, message) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.object)?;
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}
