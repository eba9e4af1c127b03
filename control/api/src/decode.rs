//! Reading a request's object the way a Go server decodes it: types are checked against the tables of
//! [`schema`], quantities and times are written canonically, unknown fields are dropped and reported,
//! `null` means absent. What to do about unknown fields is left to the caller (`fieldValidation`).

use serde_json::{Map, Number, Value};

use crate::resource::Resource;
use crate::status::Status;

pub use duplicates::duplicate_fields;
pub use quantity::{Quantity, QuantityError};

mod duplicates;
mod quantity;
pub mod schema;

use schema::{Message, Type};

/// An object whose every field has the type it should have.
#[derive(Debug, PartialEq)]
pub struct Checked {
    /// The object, without the unknown fields.
    pub value: Value,
    /// A complaint for each unknown field, such as `unknown field "spec.foo"`.
    pub unknown: Vec<String>,
}

/// Checks an object of a served kind, as sent in `version`. The error is upstream's 400.
pub fn check(resource: &Resource, version: &str, object: &Value) -> Result<Checked, Status> {
    check_kind(resource.group, version, resource.kind, object)
}

/// Checks an object of any kind the tables know: also `Binding`, `Eviction`, `Scale`, `TokenRequest`
/// and, in the group `meta`, `DeleteOptions`. An object of a kind without a table passes as it is.
pub fn check_kind(
    group: &str,
    version: &str,
    kind: &str,
    object: &Value,
) -> Result<Checked, Status> {
    let Some(message) = schema::message(group, version, kind) else {
        return Ok(Checked { value: object.clone(), unknown: Vec::new() });
    };
    let mut decoder = Decoder::default();
    match decoder.root(message, object) {
        Ok(value) => Ok(Checked { value, unknown: decoder.unknown }),
        Err(error) => Err(Status::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {error}"
        ))),
    }
}

/// Where the decoder is: the struct and dotted field names Go's errors carry, and the indexed path
/// strict decoding's complaints carry.
#[derive(Clone)]
struct Place {
    owner: &'static str,
    dotted: String,
    indexed: String,
}

impl Place {
    fn field(&self, owner: &'static str, name: &str) -> Self {
        let join = |prefix: &str| {
            if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
        };
        Self { owner, dotted: join(&self.dotted), indexed: join(&self.indexed) }
    }

    fn item(&self, index: usize) -> Self {
        Self { indexed: format!("{}[{index}]", self.indexed), ..self.clone() }
    }

    fn entry(&self, key: &str) -> Self {
        Self { indexed: format!("{}.{key}", self.indexed), ..self.clone() }
    }

    fn mismatch(&self, value: &Value, kind: &Type) -> String {
        let found = describe(value);
        let expected = go_type(kind);
        match self.dotted.is_empty() {
            true => format!("json: cannot unmarshal {found} into Go value of type {expected}"),
            false => format!(
                "json: cannot unmarshal {found} into Go struct field {}.{} of type {expected}",
                self.owner, self.dotted
            ),
        }
    }
}

#[derive(Default)]
struct Decoder {
    unknown: Vec<String>,
}

impl Decoder {
    fn root(&mut self, message: &'static Message, object: &Value) -> Result<Value, String> {
        let place = Place { owner: message.name, dotted: String::new(), indexed: String::new() };
        let Value::Object(fields) = object else {
            let version = message.version;
            return Err(format!(
                "json: cannot unmarshal {} into Go value of type {version}.{}",
                describe(object),
                message.name
            ));
        };
        self.message(message, fields, &place, true)
    }

    /// A struct. `typed` structs carry apiVersion and kind besides the fields of their table.
    fn message(
        &mut self,
        message: &'static Message,
        fields: &Map<String, Value>,
        place: &Place,
        typed: bool,
    ) -> Result<Value, String> {
        let mut decoded = Map::new();
        for (name, value) in fields {
            let place = place.field(message.name, name);
            let kind = match message.field(name) {
                Some(kind) => kind,
                None if typed && (name == "apiVersion" || name == "kind") => &Type::String,
                None => {
                    self.unknown.push(format!("unknown field \"{}\"", place.indexed));
                    continue;
                }
            };
            if !value.is_null() {
                decoded.insert(name.clone(), self.value(kind, value, &place)?);
            }
        }
        Ok(Value::Object(decoded))
    }

    fn value(&mut self, kind: &Type, value: &Value, place: &Place) -> Result<Value, String> {
        let mismatch = || place.mismatch(value, kind);
        match (kind, value) {
            (Type::String, Value::String(_)) | (Type::Bool, Value::Bool(_)) | (Type::Raw, _) => {
                Ok(value.clone())
            }
            (Type::Double, Value::Number(_)) | (Type::Fields, Value::Object(_)) => {
                Ok(value.clone())
            }
            (Type::Int32, Value::Number(number)) if fits_int32(number) => Ok(value.clone()),
            (Type::Int64, Value::Number(number)) if number.is_i64() => Ok(value.clone()),
            (Type::Bytes, Value::String(text)) => bytes(text),
            (Type::Quantity, _) => quantity(value),
            (Type::IntOrString, _) => int_or_string(value),
            (Type::Time | Type::MicroTime, _) => time(kind, value),
            (Type::List(item), Value::Array(items)) => {
                let decoded: Result<Vec<Value>, String> = items
                    .iter()
                    .enumerate()
                    .map(|(index, value)| self.item(item, value, &place.item(index)))
                    .collect();
                decoded.map(Value::Array)
            }
            (Type::Map(item), Value::Object(entries)) => {
                let decoded: Result<Map<String, Value>, String> = entries
                    .iter()
                    .map(|(key, value)| {
                        Ok((key.clone(), self.item(item, value, &place.entry(key))?))
                    })
                    .collect();
                decoded.map(Value::Object)
            }
            (Type::Message(key), Value::Object(fields)) => match schema::message_by_key(key) {
                Some(message) => {
                    self.message(message, fields, place, message.name == "DeleteOptions")
                }
                None => Err(mismatch()),
            },
            _ => Err(mismatch()),
        }
    }

    /// An item of a list or a map: Go reads `null` there as the type's zero value.
    fn item(&mut self, kind: &Type, value: &Value, place: &Place) -> Result<Value, String> {
        if !value.is_null() {
            return self.value(kind, value, place);
        }
        Ok(match kind {
            Type::String | Type::Bytes => Value::from(""),
            Type::Quantity => Value::from("0"),
            Type::Int32 | Type::Int64 | Type::IntOrString | Type::Double => Value::from(0),
            Type::Bool => Value::from(false),
            Type::List(_) | Type::Raw | Type::Time | Type::MicroTime => Value::Null,
            Type::Map(_) | Type::Message(_) | Type::Fields => Value::Object(Map::new()),
        })
    }
}

fn fits_int32(number: &Number) -> bool {
    number.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
}

/// The value as Go's JSON errors call it.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number)
            if number.is_f64() || number.as_i64().is_none_or(|n| i32::try_from(n).is_err()) =>
        {
            format!("number {number}")
        }
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

/// The type as Go prints it.
fn go_type(kind: &Type) -> String {
    match kind {
        Type::String => "string".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Double => "float64".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Raw => "runtime.RawExtension".to_owned(),
        Type::Fields => "v1.FieldsV1".to_owned(),
        Type::Message(key) => match schema::message_by_key(key) {
            Some(message) => format!("{}.{}", message.version, message.name),
            None => key.clone(),
        },
        Type::List(item) => format!("[]{}", go_type(item)),
        Type::Map(item) if **item == Type::Quantity => "v1.ResourceList".to_owned(),
        Type::Map(item) => format!("map[string]{}", go_type(item)),
    }
}

fn quantity(value: &Value) -> Result<Value, String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    match text.parse::<Quantity>() {
        Ok(quantity) => Ok(Value::from(quantity.to_string())),
        Err(error) => Err(error.to_string()),
    }
}

fn int_or_string(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(_) => Ok(value.clone()),
        Value::Number(number) if fits_int32(number) => Ok(value.clone()),
        _ => Err(format!("json: cannot unmarshal {} into Go value of type int32", describe(value))),
    }
}

fn bytes(text: &str) -> Result<Value, String> {
    use base64::{DecodeError, Engine as _, engine::general_purpose::STANDARD};

    let packed: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&packed) {
        Ok(_) => Ok(Value::from(packed)),
        Err(DecodeError::InvalidByte(offset, _) | DecodeError::InvalidLastSymbol(offset, _)) => {
            Err(format!("illegal base64 data at input byte {offset}"))
        }
        // Go stops at the start of the incomplete group of four.
        Err(_) => Err(format!("illegal base64 data at input byte {}", packed.len() / 4 * 4)),
    }
}

fn time(kind: &Type, value: &Value) -> Result<Value, String> {
    let Value::String(text) = value else {
        return Err(format!(
            "json: cannot unmarshal {} into Go value of type string",
            describe(value)
        ));
    };
    let (layout, format) = match kind {
        Type::MicroTime => ("2006-01-02T15:04:05.000000Z07:00", "%Y-%m-%dT%H:%M:%S%.6fZ"),
        _ => ("2006-01-02T15:04:05Z07:00", "%Y-%m-%dT%H:%M:%SZ"),
    };
    match text.parse::<jiff::Timestamp>() {
        Ok(timestamp) => Ok(Value::from(timestamp.strftime(format).to_string())),
        Err(_) => Err(format!(
            "parsing time \"{text}\" as \"{layout}\": cannot parse \"{text}\" as \"2006\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Checked, check_kind};

    fn message(group: &str, version: &str, kind: &str, object: &Value) -> String {
        match check_kind(group, version, kind, object) {
            Ok(Checked { unknown, .. }) => unknown.join(", "),
            Err(status) => status.message,
        }
    }

    #[test]
    fn wrong_types_are_named_as_go_names_them() {
        let container =
            |container: Value| json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        let cases = [
            (
                json!({"spec": {"replicas": "3"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"replicas": 1.5}}),
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"replicas": 3_000_000_000_i64}}),
                "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                container(json!({"env": [{"name": "A", "value": 1}]})),
                "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
            ),
            (
                json!({"metadata": {"annotations": {"a": true}}}),
                "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.annotations of type string",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": {"name": "x"}}}}}),
                "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
            (
                container(json!("x")),
                "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.containers of type v1.Container",
            ),
            (
                container(json!({"resources": {"limits": {"cpu": "1Gb"}}})),
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            (
                json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": true}}}}),
                "json: cannot unmarshal bool into Go value of type int32",
            ),
            (
                json!({"metadata": {"creationTimestamp": "yesterday"}}),
                "parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\"",
            ),
            (json!([]), "json: cannot unmarshal array into Go value of type v1.Deployment"),
        ];
        for (object, text) in cases {
            let text =
                format!("Deployment in version \"v1\" cannot be handled as a Deployment: {text}");
            assert_eq!(message("apps", "v1", "Deployment", &object), text);
        }
    }

    #[test]
    fn unknown_fields_are_dropped_and_named() {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"foo": 1, "replicas": 2,
            "template": {"kind": "Pod", "spec": {"containers": [{"name": "a", "restartPolicy": "Always", "imag": "b"}]}}}});
        let checked = check_kind("apps", "v1", "Deployment", &object).expect("types are right");
        assert_eq!(
            checked.unknown,
            [
                "unknown field \"spec.foo\"",
                "unknown field \"spec.template.kind\"",
                "unknown field \"spec.template.spec.containers[0].imag\"",
            ]
        );
        assert_eq!(
            checked.value,
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 2,
                "template": {"spec": {"containers": [{"name": "a", "restartPolicy": "Always"}]}}}})
        );
    }

    #[test]
    fn values_are_written_canonically() {
        let pod = json!({"metadata": {"name": "a", "creationTimestamp": null, "labels": {"a": null},
                "deletionTimestamp": "2024-01-01T01:00:00+01:00"},
            "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
                "livenessProbe": {"httpGet": {"port": "http"}}}]}});
        assert_eq!(
            check_kind("", "v1", "Pod", &pod).expect("types are right").value,
            json!({"metadata": {"name": "a", "labels": {"a": ""}, "deletionTimestamp": "2024-01-01T00:00:00Z"},
                "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                    "livenessProbe": {"httpGet": {"port": "http"}}}]}})
        );
    }

    #[test]
    fn the_old_forms_have_their_own_tables() {
        let ingress = json!({"spec": {"backend": {"serviceName": "a", "servicePort": 80}}});
        assert_eq!(message("networking.k8s.io", "v1beta1", "Ingress", &ingress), "");
        assert_eq!(
            message("networking.k8s.io", "v1", "Ingress", &ingress),
            "unknown field \"spec.backend\""
        );
        assert_eq!(
            message(
                "apps",
                "v1beta1",
                "Deployment",
                &json!({"spec": {"rollbackTo": {"revision": 1}}})
            ),
            ""
        );
    }

    #[test]
    fn secrets_carry_base64() {
        let bad = json!({"data": {"a": "not base64"}});
        assert_eq!(
            message("", "v1", "Secret", &bad),
            "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 3"
        );
        assert_eq!(
            message("", "v1", "Secret", &json!({"data": {"a": "YQ=="}, "stringData": {"b": "c"}})),
            ""
        );
    }
}
