//! The shapes of the served types, as tables of facts: JSON name, protobuf tag and type of every
//! field. The tables lie beside this file, one a group version; reading objects with them is left to
//! [`crate::decode`] (JSON) and [`crate::protobuf`].

use std::collections::HashMap;
use std::sync::OnceLock;

const TABLES: &[(&str, &str)] = &[
    ("apps/v1", include_str!("schema/apps_v1.txt")),
    ("apps/v1beta1", include_str!("schema/apps_v1beta1.txt")),
    ("authentication/v1", include_str!("schema/authentication_v1.txt")),
    ("authorization/v1", include_str!("schema/authorization_v1.txt")),
    ("autoscaling/v1", include_str!("schema/autoscaling_v1.txt")),
    ("batch/v1", include_str!("schema/batch_v1.txt")),
    ("coordination/v1", include_str!("schema/coordination_v1.txt")),
    ("core/v1", include_str!("schema/core_v1.txt")),
    ("discovery/v1", include_str!("schema/discovery_v1.txt")),
    ("events/v1", include_str!("schema/events_v1.txt")),
    ("meta/v1", include_str!("schema/meta_v1.txt")),
    ("networking/v1", include_str!("schema/networking_v1.txt")),
    ("networking/v1beta1", include_str!("schema/networking_v1beta1.txt")),
    ("policy/v1", include_str!("schema/policy_v1.txt")),
];

/// A struct type of the API.
#[derive(Debug)]
pub struct Message {
    /// Its name, such as `PodSpec`.
    pub name: &'static str,
    /// The version it belongs to, such as `v1`: Go prints types as `v1.PodSpec`.
    pub version: &'static str,
    /// Its fields, in the order of the table.
    pub fields: Vec<Field>,
}

/// A field of a struct.
#[derive(Debug)]
pub struct Field {
    /// The name in JSON.
    pub name: &'static str,
    /// The protobuf tag.
    pub tag: u32,
    /// The type.
    pub kind: Type,
    /// Whether JSON shows the fields of this struct as the outer one's own (Go's `inline`).
    pub inline: bool,
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A string or an enumeration of strings.
    String,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A boolean.
    Bool,
    /// A floating-point number.
    Double,
    /// Bytes, base64 in JSON.
    Bytes,
    /// `resource.Quantity`.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// `metav1.Time`: RFC 3339, whole seconds.
    Time,
    /// `metav1.MicroTime`: RFC 3339 with six decimals.
    MicroTime,
    /// Any JSON (`runtime.RawExtension`).
    Raw,
    /// `metav1.FieldsV1`: any JSON object.
    Fields,
    /// Another struct; the key for [`message_by_key`].
    Message(String),
    /// A list.
    List(Box<Type>),
    /// A map from strings.
    Map(Box<Type>),
}

/// The struct that a kind of a group version is, if its table is known. `group` is the API group as
/// in `apiVersion` (`""`, `apps`, `networking.k8s.io`, …), or `meta`.
pub fn message(group: &str, version: &str, kind: &str) -> Option<&'static Message> {
    message_by_key(&key(group, version, kind))
}

/// The key of that struct for [`message_by_key`], such as `apps/v1.Deployment`.
pub fn key(group: &str, version: &str, kind: &str) -> String {
    let package = match group.split('.').next() {
        None | Some("") => "core",
        Some(package) => package,
    };
    format!("{package}/{version}.{kind}")
}

/// The struct of a [`Type::Message`].
pub fn message_by_key(key: &str) -> Option<&'static Message> {
    static MESSAGES: OnceLock<HashMap<String, Message>> = OnceLock::new();
    MESSAGES.get_or_init(parse_tables).get(key)
}

impl Message {
    /// The type of the field of this name, also looking into inlined structs.
    pub fn field(&'static self, name: &str) -> Option<&'static Type> {
        self.fields.iter().find_map(|field| match (&field.kind, field.inline) {
            (Type::Message(key), true) => message_by_key(key)?.field(name),
            (kind, _) => (field.name == name).then_some(kind),
        })
    }
}

fn parse_tables() -> HashMap<String, Message> {
    let mut messages = HashMap::new();
    for (package, table) in TABLES {
        let version = package.rsplit('/').next().unwrap_or_default();
        let mut current: Option<Message> = None;
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            if let Some(field) = line.strip_prefix("  ") {
                let field = parse_field(package, field);
                if let Some(message) = &mut current {
                    message.fields.extend(field);
                }
                continue;
            }
            let next = Message { name: line, version, fields: Vec::new() };
            if let Some(done) = current.replace(next) {
                messages.insert(format!("{package}.{}", done.name), done);
            }
        }
        if let Some(done) = current {
            messages.insert(format!("{package}.{}", done.name), done);
        }
    }
    messages
}

fn parse_field(package: &str, line: &'static str) -> Option<Field> {
    let mut words = line.splitn(3, ' ');
    let (name, tag, kind) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    let (inline, kind) = match kind.strip_prefix("inline ") {
        Some(kind) => (true, kind),
        None => (false, kind),
    };
    Some(Field { name, tag, kind: parse_type(package, kind), inline })
}

fn parse_type(package: &str, text: &str) -> Type {
    if let Some(item) = text.strip_prefix("list ") {
        return Type::List(Box::new(parse_type(package, item)));
    }
    if let Some(item) = text.strip_prefix("map ") {
        return Type::Map(Box::new(parse_type(package, item)));
    }
    match text {
        "string" => Type::String,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "bool" => Type::Bool,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "quantity" => Type::Quantity,
        "intorstring" => Type::IntOrString,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "raw" => Type::Raw,
        "fields" => Type::Fields,
        name => Type::Message(match name.split_once('.') {
            // Only core and meta types are used by other groups, and both have one version.
            Some((other, name)) => format!("{other}/v1.{name}"),
            None => format!("{package}.{name}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{TABLES, Type, message, message_by_key, parse_tables};

    /// Every struct a field refers to is in the tables, and no line of them was skipped.
    #[test]
    fn the_tables_are_closed() {
        let messages = parse_tables();
        for (key, message) in &messages {
            for field in &message.fields {
                let mut kind = &field.kind;
                while let Type::List(item) | Type::Map(item) = kind {
                    kind = item;
                }
                if let Type::Message(target) = kind {
                    assert!(
                        message_by_key(target).is_some(),
                        "{key}.{} refers to {target}",
                        field.name
                    );
                }
            }
        }
        let fields: usize = messages.values().map(|message| message.fields.len()).sum();
        let lines: usize = TABLES
            .iter()
            .map(|(_, table)| table.lines().filter(|line| line.starts_with("  ")).count())
            .sum();
        assert_eq!(fields, lines);
    }

    #[test]
    fn fields_are_found_through_inlined_structs() {
        let volume = message("", "v1", "Volume").expect("Volume is in the tables");
        assert_eq!(
            volume.field("emptyDir"),
            Some(&Type::Message("core/v1.EmptyDirVolumeSource".to_owned()))
        );
        assert_eq!(volume.field("volumeSource"), None);
        let ingress = message("networking.k8s.io", "v1beta1", "IngressBackend")
            .expect("IngressBackend is in the tables");
        assert_eq!(ingress.field("servicePort"), Some(&Type::IntOrString));
    }
}
