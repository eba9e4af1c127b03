//! OpenAPI documents of what is served, made from the tables of [`crate::decode::schema`]: version 3,
//! one document a group version, which kubectl 1.27 and later read (for `explain`, and to learn that
//! the server validates fields), and version 2, one document for all, which older ones read before
//! they create or apply. Fields have types and patch strategies, but no descriptions.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::discovery::{self, Root};
use crate::resource::{self, Resource};

mod definitions;
mod gnostic;

/// The media type of [`v2_protobuf`], as answers must give it.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The two dialects of JSON Schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// Where a document keeps its definitions.
    fn reference_prefix(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }
}

/// `/openapi/v3`: where the document of each group version is. The hash in each address changes with
/// the document, so that clients may keep what they have.
pub fn v3_index() -> Value {
    static INDEX: OnceLock<Value> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let mut paths = Map::new();
        for root in [Root::Core, Root::Groups] {
            for group in discovery::groups(root) {
                for version in discovery::versions(group) {
                    let path = api_path(group, version);
                    let mut hasher = DefaultHasher::new();
                    v3(group, version).unwrap_or_default().to_string().hash(&mut hasher);
                    let address = format!("/openapi/v3{path}?hash={:016X}", hasher.finish());
                    paths.insert(path[1..].to_owned(), json!({"serverRelativeURL": address}));
                }
            }
        }
        json!({"paths": paths})
    });
    index.clone()
}

/// `/openapi/v3/api/v1`, `/openapi/v3/apis/apps/v1`, …; `None` if nothing of it is served.
pub fn v3(group: &str, version: &str) -> Option<Value> {
    let resources: Vec<&'static Resource> = discovery::of_version(group, version).collect();
    if resources.is_empty() {
        return None;
    }
    let mut paths = Map::new();
    for resource in &resources {
        add_paths(&mut paths, resource, version, Dialect::V3);
    }
    let roots = definitions::roots(resources.iter().copied(), Some(version));
    Some(json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths,
        "components": {"schemas": definitions::of(&roots, Dialect::V3)},
    }))
}

/// `/openapi/v2` in JSON: all group versions at once.
pub fn v2() -> Value {
    let mut paths = Map::new();
    for resource in resource::all() {
        for version in resource.versions {
            add_paths(&mut paths, resource, version, Dialect::V2);
        }
    }
    let roots = definitions::roots(resource::all().iter(), None);
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths,
        "definitions": definitions::of(&roots, Dialect::V2),
    })
}

/// `/openapi/v2` in protobuf: the only form kubectl 1.20 and older ask for.
pub fn v2_protobuf() -> &'static [u8] {
    static ENCODED: OnceLock<Vec<u8>> = OnceLock::new();
    ENCODED.get_or_init(|| gnostic::encode(&v2()))
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.36.0"})
}

/// `/api/v1`, `/apis/apps/v1`, …
fn api_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

fn add_paths(
    paths: &mut Map<String, Value>,
    resource: &'static Resource,
    version: &str,
    dialect: Dialect,
) {
    let base = api_path(resource.group, version);
    let collection = if resource.namespaced {
        format!("{base}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{base}/{}", resource.plural)
    };
    let own_kind = (resource.group, version, resource.kind);
    let operation_on = |kind, action: &str| operation(kind, action, dialect);
    let operation = |action: &str| operation_on(own_kind, action);
    if resource.namespaced {
        paths.insert(format!("{base}/{}", resource.plural), json!({"get": operation("list")}));
    }
    let item = json!({
        "get": operation("get"),
        "put": operation("put"),
        "patch": operation("patch"),
        "delete": operation("delete"),
    });
    for subresource in resource.subresources {
        let mut operations = Map::new();
        for verb in subresource.verbs() {
            let (method, action) = match *verb {
                "create" => ("post", "connect"),
                "update" => ("put", "put"),
                same => (same, same),
            };
            let kind = subresource.kind().unwrap_or(own_kind);
            operations.insert(method.to_owned(), operation_on(kind, action));
        }
        paths.insert(
            format!("{collection}/{{name}}/{}", subresource.name()),
            Value::Object(operations),
        );
    }
    paths.insert(format!("{collection}/{{name}}"), item);
    paths.insert(
        collection,
        json!({
            "get": operation("list"),
            "post": operation("post"),
            "delete": operation("deletecollection"),
        }),
    );
}

/// One method of a path. Clients look for its kind and for the names of its query parameters.
fn operation((group, version, kind): (&str, &str, &str), action: &str, dialect: Dialect) -> Value {
    let parameters: &[&str] = match action {
        "list" => &[
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "resourceVersion",
            "resourceVersionMatch",
            "sendInitialEvents",
            "timeoutSeconds",
            "watch",
        ],
        "post" | "put" => &["dryRun", "fieldManager", "fieldValidation"],
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
        "delete" | "deletecollection" => {
            &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"]
        }
        _ => &[],
    };
    let parameters: Vec<Value> =
        parameters.iter().map(|name| query_parameter(name, dialect)).collect();
    json!({
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    })
}

fn query_parameter(name: &str, dialect: Dialect) -> Value {
    let kind = match name {
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
        "watch" | "force" | "sendInitialEvents" | "orphanDependents" => "boolean",
        _ => "string",
    };
    match dialect {
        Dialect::V2 => json!({"name": name, "in": "query", "type": kind, "uniqueItems": true}),
        Dialect::V3 => {
            json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
        }
    }
}

#[cfg(test)]
mod tests;
