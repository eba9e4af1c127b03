//! Paths to fields of an object and the errors validation reports about them, in upstream's words
//! (`k8s.io/apimachinery/pkg/util/validation/field`). What makes a field wrong is decided in
//! [`crate::validation`]; how a list of errors becomes an answer, in [`crate::status`].

use std::fmt;

use serde_json::{Value, json};

pub use cursor::Cursor;

mod cursor;

/// Where in an object a field lies; prints as `spec.ports[0].name` or `metadata.labels[app]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path(String);

impl Path {
    /// The path of a field of the object itself, such as `spec`.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// A field of the struct at this path.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            return Self::new(name);
        }
        Self(format!("{}.{name}", self.0))
    }

    /// An item of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// An entry of the map at this path.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

impl From<&str> for Path {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}

/// What is wrong with a field, in the classes `Status.details.causes` reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A required value is missing or empty.
    Required,
    /// A value is malformed or out of its range.
    Invalid,
    /// A value is not one of the enumerated ones.
    NotSupported,
    /// A value that must be unique occurs twice.
    Duplicate,
    /// A well-formed value is not permitted here.
    Forbidden,
    /// A value is longer than allowed.
    TooLong,
    /// A list has more items than allowed.
    TooMany,
    /// A value refers to something that does not exist.
    NotFound,
    /// A value has another type than its schema says.
    TypeInvalid,
}

impl Kind {
    /// The machine-readable reason of the cause (`FieldValueInvalid`, …).
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong)
    }
}

/// One wrong field. Displays as upstream does:
/// `spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive`.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// The class of the error.
    pub kind: Kind,
    /// The field.
    pub path: Path,
    /// The offending value; shown by the kinds for which upstream shows it.
    pub bad_value: Value,
    /// What the value should have been; may be empty.
    pub detail: String,
}

impl Error {
    fn new(
        kind: Kind,
        path: &Path,
        bad_value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, path: path.clone(), bad_value: bad_value.into(), detail: detail.into() }
    }

    /// A required field is missing.
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(Kind::Required, path, "", detail)
    }

    /// A value is malformed.
    pub fn invalid(path: &Path, bad_value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, path, bad_value, detail)
    }

    /// A value is none of the `supported` ones, which are listed in the order given.
    pub fn not_supported(path: &Path, bad_value: impl Into<Value>, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|value| go_quoted(value)).collect();
        let detail = match quoted.is_empty() {
            true => String::new(),
            false => format!("supported values: {}", quoted.join(", ")),
        };
        Self::new(Kind::NotSupported, path, bad_value, detail)
    }

    /// A value that must be unique occurs again.
    pub fn duplicate(path: &Path, bad_value: impl Into<Value>) -> Self {
        Self::new(Kind::Duplicate, path, bad_value, "")
    }

    /// A value is not permitted under the present conditions.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, path, "", detail)
    }

    /// A value is longer than `bytes_max`.
    pub fn too_long(path: &Path, bytes_max: usize) -> Self {
        let detail = format!("may not be more than {bytes_max} bytes");
        Self::new(Kind::TooLong, path, "<value omitted>", detail)
    }

    /// A list has `count` items where `count_max` are allowed.
    pub fn too_many(path: &Path, count: usize, count_max: usize) -> Self {
        let items = if count_max == 1 { "item" } else { "items" };
        Self::new(Kind::TooMany, path, count, format!("must have at most {count_max} {items}"))
    }

    /// A value names something that does not exist.
    pub fn not_found(path: &Path, bad_value: impl Into<Value>) -> Self {
        Self::new(Kind::NotFound, path, bad_value, "")
    }

    /// A value has the wrong type.
    pub fn type_invalid(
        path: &Path,
        bad_value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(Kind::TypeInvalid, path, bad_value, detail)
    }

    /// The message without the field's path: what a cause carries.
    pub fn body(&self) -> String {
        let mut body = self.kind.title().to_owned();
        if self.kind.shows_value() {
            body += ": ";
            body += &match &self.bad_value {
                Value::String(text) => go_quoted(text),
                other => other.to_string(),
            };
        }
        if !self.detail.is_empty() {
            body += ": ";
            body += &self.detail;
        }
        body
    }

    /// The error as an entry of `Status.details.causes`.
    pub fn to_cause(&self) -> Value {
        json!({"reason": self.kind.reason(), "message": self.body(), "field": self.path.to_string()})
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

impl std::error::Error for Error {}

/// A string as Go's `%q` prints it.
pub(crate) fn go_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Error, Path};

    #[test]
    fn errors_read_as_upstream_prints_them() {
        let port = Path::new("spec").child("ports").index(0).child("port");
        let cases = [
            (
                Error::invalid(&port, 70000, "must be between 1 and 65535, inclusive"),
                "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (Error::required(&port, ""), "spec.ports[0].port: Required value"),
            (Error::duplicate(&port, "a\"b"), r#"spec.ports[0].port: Duplicate value: "a\"b""#),
            (
                Error::not_supported(&port, "X", &["TCP", "UDP"]),
                r#"spec.ports[0].port: Unsupported value: "X": supported values: "TCP", "UDP""#,
            ),
            (
                Error::invalid(
                    &Path::new("metadata").child("labels").key("app"),
                    json!({"a": [1]}),
                    "no",
                ),
                r#"metadata.labels[app]: Invalid value: {"a":[1]}: no"#,
            ),
            (
                Error::too_long(&port, 10),
                "spec.ports[0].port: Too long: may not be more than 10 bytes",
            ),
            (
                Error::too_many(&port, 3, 1),
                "spec.ports[0].port: Too many: 3: must have at most 1 item",
            ),
            (Error::forbidden(&Path::default(), "never"), "<nil>: Forbidden: never"),
            (Error::not_found(&port, "data"), r#"spec.ports[0].port: Not found: "data""#),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_cause_carries_reason_message_and_field() {
        let error = Error::required(&Path::new("spec").child("selector"), "");
        assert_eq!(
            error.to_cause(),
            json!({"reason": "FieldValueRequired", "message": "Required value", "field": "spec.selector"})
        );
    }
}
