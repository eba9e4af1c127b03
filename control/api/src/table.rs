//! `meta.k8s.io/v1` Tables: what `kubectl get` shows. Columns and cells are upstream's
//! (`pkg/printers/internalversion`); the modules below hold them by area. Cells are computed with the
//! wide columns always there, and the client leaves out those of priority 1.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::object;
use crate::resource::Resource;

mod age;
mod cluster;
mod config;
mod network;
mod pod;
mod workload;

pub use age::human_duration;

/// How much of its object a row carries (the query parameter `includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata: what a client gets that does not ask.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter; `None` for a value there is not.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(Self::None),
            "Metadata" | "" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// A column, as upstream defines it.
#[derive(Debug)]
struct Column {
    name: &'static str,
    /// `string` or `integer`.
    kind: &'static str,
    /// `name` for the column with the name of the object.
    format: &'static str,
    description: &'static str,
    /// 0: always shown; 1: with `-o wide`.
    priority: u8,
}

const fn column(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 0 }
}

impl Column {
    const fn integer(self) -> Self {
        Self { kind: "integer", ..self }
    }

    const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }
}

const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name of the object, unique within its namespace.",
    priority: 0,
};

const AGE: Column = column("Age", "Time since the object was created.");

/// What a row says, one value a column.
type Cells = Vec<Value>;

/// How one kind is shown.
struct Printer {
    columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Cells,
}

fn printer(resource: &Resource) -> Printer {
    let (columns, cells): (_, fn(&Value, Timestamp) -> Cells) =
        match (resource.group, resource.kind) {
            ("", "Pod") => (pod::COLUMNS, pod::cells),
            ("", "Service") => (network::SERVICE, network::service),
            ("", "Endpoints") => (network::ENDPOINTS, network::endpoints),
            ("discovery.k8s.io", "EndpointSlice") => (network::SLICE, network::slice),
            ("networking.k8s.io", "Ingress") => (network::INGRESS, network::ingress),
            ("networking.k8s.io", "IngressClass") => (network::CLASS, network::class),
            ("networking.k8s.io", "ServiceCIDR") => (network::SERVICE_CIDR, network::service_cidr),
            ("apps", "Deployment") => (workload::DEPLOYMENT, workload::deployment),
            ("apps", "ReplicaSet") => (workload::REPLICA_SET, workload::replica_set),
            ("batch", "Job") => (workload::JOB, workload::job),
            ("", "Node") => (cluster::NODE, cluster::node),
            ("", "Namespace") => (cluster::NAMESPACE, cluster::namespace),
            ("coordination.k8s.io", "Lease") => (cluster::LEASE, cluster::lease),
            (_, "Event") => (cluster::EVENT, cluster::event),
            ("", "ConfigMap") => (config::CONFIG_MAP, config::config_map),
            ("", "Secret") => (config::SECRET, config::secret),
            ("", "ServiceAccount") => (config::SERVICE_ACCOUNT, config::service_account),
            _ => (config::ANY, config::any),
        };
    Printer { columns, cells }
}

/// The objects as a Table, one row each. `items` may be in any served version. The metadata of the
/// Table (`resourceVersion`, `continue`) is left to the caller, who knows the list.
pub fn render(
    resource: &Resource,
    items: &[&Value],
    now: Timestamp,
    include_object: IncludeObject,
) -> Value {
    table(&printer(resource), items, now, include_object, |item| {
        pod::row_conditions(resource, item)
    })
}

/// An `autoscaling/v1` Scale as a Table.
pub fn scale(scale: &Value, now: Timestamp) -> Value {
    let printer = Printer { columns: workload::SCALE, cells: workload::scale };
    table(&printer, &[scale], now, IncludeObject::Metadata, |_| None)
}

fn table(
    printer: &Printer,
    items: &[&Value],
    now: Timestamp,
    include_object: IncludeObject,
    conditions: impl Fn(&Value) -> Option<Value>,
) -> Value {
    let columns: Vec<Value> = printer.columns.iter().map(Column::to_value).collect();
    let rows: Vec<Value> = items
        .iter()
        .map(|item| {
            let mut row = Map::new();
            row.insert("cells".to_owned(), Value::Array((printer.cells)(item, now)));
            if let Some(conditions) = conditions(item) {
                row.insert("conditions".to_owned(), conditions);
            }
            let carried = match include_object {
                IncludeObject::None => None,
                IncludeObject::Metadata => Some(partial_object_metadata(item)),
                IncludeObject::Object => Some((*item).clone()),
            };
            row.insert("object".to_owned(), carried.unwrap_or_default());
            Value::Object(row)
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// The metadata of an object as an object of its own, for clients that want no more.
pub fn partial_object_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

impl Column {
    fn to_value(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }
}

/// What upstream prints where there is nothing.
const NONE: &str = "<none>";

/// As many items of a list as a cell shows; the rest is counted.
const SHOWN_MAX: usize = 3;

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn text_or_none<'a>(object: &'a Value, pointer: &str) -> &'a str {
    or_none(text(object, pointer))
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { NONE } else { text }
}

fn int(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn age(object: &Value, now: Timestamp) -> Value {
    json!(age::since(text(object, "/metadata/creationTimestamp"), now))
}

fn name(object: &Value) -> Value {
    json!(object::name(object))
}

/// `a,b,c`, or `a,b,c + 2 more...` when there are more than a cell shows.
fn shortened(items: &[String]) -> String {
    let shown = items.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(",");
    match items.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

/// `k=v,k=v`, or `<none>`: upstream's `labels.FormatLabels`.
fn labels(map: Option<&Value>) -> String {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    let mut pairs: Vec<String> = entries
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort_unstable();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

/// Whether the object reports this condition with status `True`.
fn has_condition(object: &Value, condition: &str) -> bool {
    list(object, "/status/conditions")
        .iter()
        .any(|reported| reported["type"] == condition && reported["status"] == "True")
}

#[cfg(test)]
mod tests;
