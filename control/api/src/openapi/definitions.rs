//! JSON Schemas of the structs in the tables, under upstream's names, with the extensions clients act
//! on: which kind a struct is, and how patches treat its lists.

use serde_json::{Map, Value, json};

use super::Dialect;
use crate::decode::schema::{self, Message, Type, message_by_key};
use crate::patch::strategic;
use crate::resource::Resource;

/// A struct that is a kind of its own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    group: &'static str,
    version: String,
    kind: &'static str,
}

/// The kinds of these resources and of their subresources, in one version or in all.
pub(super) fn roots(
    resources: impl Iterator<Item = &'static Resource>,
    version: Option<&str>,
) -> Vec<Kind> {
    let mut roots = Vec::new();
    for resource in resources {
        for served in resource.versions {
            if version.is_some_and(|version| version != *served) {
                continue;
            }
            let own =
                Kind { group: resource.group, version: (*served).to_owned(), kind: resource.kind };
            let others = resource.subresources.iter().filter_map(|subresource| {
                let (group, version, kind) = subresource.kind()?;
                Some(Kind { group, version: version.to_owned(), kind })
            });
            for kind in std::iter::once(own).chain(others) {
                if !roots.contains(&kind) {
                    roots.push(kind);
                }
            }
        }
    }
    roots
}

/// The schemas of these kinds and of all they are made of.
pub(super) fn of(roots: &[Kind], dialect: Dialect) -> Map<String, Value> {
    let mut collected = Definitions { dialect, schemas: scalars(dialect) };
    for Kind { group, version, kind } in roots {
        let key = schema::key(group, version, kind);
        collected.add(&key);
        let Some(schema) = collected.schemas.get_mut(&name(&key)) else { continue };
        for field in ["apiVersion", "kind"] {
            schema["properties"][field] = json!({"type": "string"});
        }
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": group, "version": version, "kind": kind}]);
    }
    collected.schemas
}

/// `core/v1.PodSpec` under the name every client knows it by.
fn name(key: &str) -> String {
    let dotted = key.replace('/', ".");
    match dotted.strip_prefix("meta.") {
        Some(meta) => format!("io.k8s.apimachinery.pkg.apis.meta.{meta}"),
        None => format!("io.k8s.api.{dotted}"),
    }
}

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";

/// The types that are no structs but have names of their own.
fn scalars(dialect: Dialect) -> Map<String, Value> {
    let either = |number: &str, format: Option<&str>| match (dialect, format) {
        (Dialect::V2, Some(format)) => json!({"type": "string", "format": format}),
        (Dialect::V2, None) => json!({"type": "string"}),
        (Dialect::V3, Some(format)) => {
            json!({"oneOf": [{"type": number}, {"type": "string"}], "format": format})
        }
        (Dialect::V3, None) => json!({"oneOf": [{"type": "string"}, {"type": number}]}),
    };
    let time = json!({"type": "string", "format": "date-time"});
    [
        (QUANTITY, either("number", None)),
        (INT_OR_STRING, either("integer", Some("int-or-string"))),
        (TIME, time.clone()),
        (MICRO_TIME, time),
    ]
    .into_iter()
    .map(|(name, schema)| (name.to_owned(), schema))
    .collect()
}

struct Definitions {
    dialect: Dialect,
    schemas: Map<String, Value>,
}

impl Definitions {
    /// Adds the struct and everything it is made of; structs may hold themselves.
    fn add(&mut self, key: &str) {
        let name = name(key);
        let Some(message) = message_by_key(key).filter(|_| !self.schemas.contains_key(&name))
        else {
            return;
        };
        self.schemas.insert(name.clone(), Value::Null);
        let mut properties = Map::new();
        self.add_fields(key, message, &mut properties);
        self.schemas.insert(name, json!({"type": "object", "properties": properties}));
    }

    fn add_fields(&mut self, key: &str, message: &Message, properties: &mut Map<String, Value>) {
        for field in &message.fields {
            if let (Type::Message(inner_key), true) = (&field.kind, field.inline) {
                if let Some(inner) = message_by_key(inner_key) {
                    self.add_fields(inner_key, inner, properties);
                }
                continue;
            }
            let mut schema = self.schema(&field.kind);
            if let Some(strategy) = strategic::strategy(key, field.name) {
                let words = [(strategy.merge, "merge"), (strategy.retain_keys, "retainKeys")];
                let words: Vec<&str> =
                    words.into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect();
                schema["x-kubernetes-patch-strategy"] = json!(words.join(","));
                if let Some(merge_key) = strategy.merge_key {
                    schema["x-kubernetes-patch-merge-key"] = json!(merge_key);
                }
            }
            properties.insert(field.name.to_owned(), schema);
        }
    }

    fn schema(&mut self, kind: &Type) -> Value {
        match kind {
            Type::String => json!({"type": "string"}),
            Type::Int32 => json!({"type": "integer", "format": "int32"}),
            Type::Int64 => json!({"type": "integer", "format": "int64"}),
            Type::Bool => json!({"type": "boolean"}),
            Type::Double => json!({"type": "number", "format": "double"}),
            Type::Bytes => json!({"type": "string", "format": "byte"}),
            Type::Raw | Type::Fields => json!({"type": "object"}),
            Type::Quantity => self.reference(QUANTITY),
            Type::IntOrString => self.reference(INT_OR_STRING),
            Type::Time => self.reference(TIME),
            Type::MicroTime => self.reference(MICRO_TIME),
            Type::Message(key) => {
                self.add(key);
                self.reference(&name(key))
            }
            Type::List(item) => json!({"type": "array", "items": self.schema(item)}),
            Type::Map(item) => json!({"type": "object", "additionalProperties": self.schema(item)}),
        }
    }

    fn reference(&self, name: &str) -> Value {
        json!({"$ref": format!("{}{name}", self.dialect.reference_prefix())})
    }
}
