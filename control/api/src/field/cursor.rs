//! A value together with its path, so that validation reads a field and reports on it in one go.
//! Absent fields, `null` and the empty value of a type read alike, as they do in Go's structs.

use serde_json::{Map, Value};

use super::{Error, Path};

static NULL: Value = Value::Null;

/// A place in an object: the value there (`null` where there is none) and the path to it.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    /// The value; `null` where the field is absent.
    pub value: &'a Value,
    /// The path errors about this value carry.
    pub path: Path,
}

impl<'a> Cursor<'a> {
    /// The whole object.
    pub fn root(value: &'a Value) -> Self {
        Self { value, path: Path::default() }
    }

    /// A field of the struct here.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self { value: self.value.get(name).unwrap_or(&NULL), path: self.path.child(name) }
    }

    /// A field further down: one name a level.
    #[must_use]
    pub fn descend(&self, names: &[&str]) -> Self {
        names.iter().fold(self.clone(), |cursor, name| cursor.child(name))
    }

    /// The same value, reported under another path.
    #[must_use]
    pub fn with_path(self, path: Path) -> Self {
        Self { path, ..self }
    }

    /// The items of the list here.
    pub fn items(&self) -> impl Iterator<Item = Cursor<'a>> + use<'a> {
        let path = self.path.clone();
        let items = self.value.as_array().map_or(&[] as &[Value], Vec::as_slice);
        items
            .iter()
            .enumerate()
            .map(move |(index, value)| Cursor { value, path: path.index(index) })
    }

    /// The entries of the map here, with keyed paths (`labels[app]`).
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, Cursor<'a>)> + use<'a> {
        let path = self.path.clone();
        self.map()
            .into_iter()
            .flatten()
            .map(move |(key, value)| (key.as_str(), Cursor { value, path: path.key(key) }))
    }

    /// The map or struct here, if there is one.
    pub fn map(&self) -> Option<&'a Map<String, Value>> {
        self.value.as_object()
    }

    /// How many items or entries there are.
    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            _ => 0,
        }
    }

    /// Whether there are no items, entries or characters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the field is there at all (a pointer that is not nil).
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// The string here, or the empty one.
    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The number here, if there is one.
    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// The number here, or 0.
    pub fn int_or_zero(&self) -> i64 {
        self.int().unwrap_or(0)
    }

    /// The boolean here, or false.
    pub fn flag(&self) -> bool {
        self.value.as_bool().unwrap_or(false)
    }

    /// An error: the field is required.
    pub fn required(&self, detail: impl Into<String>) -> Error {
        Error::required(&self.path, detail)
    }

    /// An error: this value is malformed.
    pub fn invalid(&self, detail: impl Into<String>) -> Error {
        Error::invalid(&self.path, self.value.clone(), detail)
    }

    /// An error: this value is none of the supported ones.
    pub fn not_supported(&self, supported: &[&str]) -> Error {
        Error::not_supported(&self.path, self.value.clone(), supported)
    }

    /// An error: this value was there before.
    pub fn duplicate(&self) -> Error {
        Error::duplicate(&self.path, self.value.clone())
    }

    /// An error: this value is not permitted.
    pub fn forbidden(&self, detail: impl Into<String>) -> Error {
        Error::forbidden(&self.path, detail)
    }

    /// An error: this value names something that does not exist.
    pub fn not_found(&self) -> Error {
        Error::not_found(&self.path, self.value.clone())
    }
}
