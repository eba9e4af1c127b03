//! Kubernetes' protobuf bodies: `k8s\0`, then a `runtime.Unknown` that carries the object. kubectl
//! 1.32 and later send them for `create deployment` and its kin, and do not try JSON when refused.
//!
//! Only reading is done here, into the JSON object the same client would have sent; answers are JSON.
//! The shapes come from [`crate::decode::schema`], shared with the reading of JSON.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde_json::{Map, Value, json};

use crate::decode::schema::{self, Field, Message, Type};
use crate::status::Status;

/// The media type of these bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

/// Messages may nest this deep: twice as deep as any served kind does.
const DEPTH_MAX: u32 = 40;

/// Which scalars keep their zero value, see the table.
const OPTIONAL: &str = include_str!("protobuf/optional.txt");

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
enum Malformed {
    #[error("the body does not start with the magic bytes of Kubernetes' protobuf encoding")]
    NoMagic,
    #[error("the wire format is broken: {0}")]
    Wire(#[from] DecodeError),
    #[error("it ends in the middle of a field")]
    CutOff,
    #[error("the field {message}.{field} is not valid: {why}")]
    Field { message: &'static str, field: &'static str, why: &'static str },
    #[error("no kind {kind:?} is known in version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
    #[error("messages are nested more than {DEPTH_MAX} deep")]
    TooDeep,
}

/// Reads a body into the object it stands for, with `apiVersion` and `kind` set.
///
/// # Errors
/// 400 BadRequest when the bytes are not such a body, or are of a kind that is not served.
pub fn decode(body: &[u8]) -> Result<Value, Status> {
    read_envelope(body).map_err(|error| {
        Status::bad_request(format!("unable to decode the protobuf request body: {error}"))
    })
}

fn read_envelope(body: &[u8]) -> Result<Value, Malformed> {
    let mut rest = body.strip_prefix(MAGIC).ok_or(Malformed::NoMagic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while rest.has_remaining() {
        match decode_key(&mut rest)? {
            (1, WireType::LengthDelimited) => {
                let mut type_meta = take_bytes(&mut rest)?;
                while type_meta.has_remaining() {
                    match decode_key(&mut type_meta)? {
                        (1, WireType::LengthDelimited) => api_version = take_text(&mut type_meta)?,
                        (2, WireType::LengthDelimited) => kind = take_text(&mut type_meta)?,
                        (tag, wire) => {
                            skip_field(wire, tag, &mut type_meta, DecodeContext::default())?;
                        }
                    }
                }
            }
            (2, WireType::LengthDelimited) => raw = take_bytes(&mut rest)?,
            (tag, wire) => skip_field(wire, tag, &mut rest, DecodeContext::default())?,
        }
    }
    let message = root_message(&api_version, &kind).ok_or_else(|| Malformed::UnknownKind {
        api_version: api_version.clone(),
        kind: kind.clone(),
    })?;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), Value::String(api_version));
    object.insert("kind".to_owned(), Value::String(kind));
    read_message(message, raw, 0, &mut object)?;
    Ok(Value::Object(object))
}

/// The table of a kind. The options of `meta/v1` are sent under the version of the kind they are for.
fn root_message(api_version: &str, kind: &str) -> Option<&'static Message> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    schema::message(group, version, kind).or_else(|| match kind {
        "DeleteOptions" | "Status" => schema::message("meta", "v1", kind),
        _ => None,
    })
}

/// Reads one message into `object`. Fields nobody knows are skipped, as Go's decoder does.
fn read_message(
    message: &'static Message,
    mut rest: &[u8],
    depth: u32,
    object: &mut Map<String, Value>,
) -> Result<(), Malformed> {
    if depth > DEPTH_MAX {
        return Err(Malformed::TooDeep);
    }
    while rest.has_remaining() {
        let (tag, wire) = decode_key(&mut rest)?;
        let Some(field) = message.fields.iter().find(|field| field.tag == tag) else {
            skip_field(wire, tag, &mut rest, DecodeContext::default())?;
            continue;
        };
        if let (Type::Message(key), true) = (&field.kind, field.inline) {
            let inner = take_bytes(&mut rest)?;
            if let Some(message) = schema::message_by_key(key) {
                read_message(message, inner, depth + 1, object)?;
            }
            continue;
        }
        read_field(message, field, wire, &mut rest, depth, object)?;
    }
    Ok(())
}

fn read_field(
    message: &'static Message,
    field: &'static Field,
    wire: WireType,
    rest: &mut &[u8],
    depth: u32,
    object: &mut Map<String, Value>,
) -> Result<(), Malformed> {
    let reader = Reader { message, field, depth };
    match &field.kind {
        Type::List(item) => {
            let list = object.entry(field.name).or_insert_with(|| json!([]));
            let Some(list) = list.as_array_mut() else { return Err(reader.refused("not a list")) };
            // Numbers may come packed: many values in one field.
            if wire == WireType::LengthDelimited && matches!(**item, Type::Int32 | Type::Int64) {
                let mut packed = take_bytes(rest)?;
                while packed.has_remaining() {
                    list.push(reader.value(item, WireType::Varint, &mut packed)?);
                }
            } else {
                list.push(reader.value(item, wire, rest)?);
            }
        }
        Type::Map(item) => {
            let map = object.entry(field.name).or_insert_with(|| json!({}));
            let Some(map) = map.as_object_mut() else { return Err(reader.refused("not a map")) };
            let mut entry = take_bytes(rest)?;
            let (mut key, mut value) = (String::new(), None);
            while entry.has_remaining() {
                match decode_key(&mut entry)? {
                    (1, WireType::LengthDelimited) => key = take_text(&mut entry)?,
                    (2, wire) => value = Some(reader.value(item, wire, &mut entry)?),
                    (tag, wire) => skip_field(wire, tag, &mut entry, DecodeContext::default())?,
                }
            }
            map.insert(key, value.unwrap_or_else(|| json!("")));
        }
        kind => {
            let value = reader.value(kind, wire, rest)?;
            if !says_nothing(&value) || is_optional(message, field) {
                object.insert(field.name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// Reads values of one field, and names it in errors.
struct Reader {
    message: &'static Message,
    field: &'static Field,
    depth: u32,
}

impl Reader {
    fn refused(&self, why: &'static str) -> Malformed {
        Malformed::Field { message: self.message.name, field: self.field.name, why }
    }

    fn value(&self, kind: &Type, wire: WireType, rest: &mut &[u8]) -> Result<Value, Malformed> {
        let expected = match kind {
            Type::Int32 | Type::Int64 | Type::Bool => WireType::Varint,
            Type::Double => WireType::SixtyFourBit,
            _ => WireType::LengthDelimited,
        };
        if wire != expected {
            return Err(self.refused("it has another wire type"));
        }
        Ok(match kind {
            Type::String => Value::String(take_text(rest)?),
            Type::Int32 | Type::Int64 => json!(decode_varint(rest)?.cast_signed()),
            Type::Bool => Value::Bool(decode_varint(rest)? != 0),
            Type::Double => {
                let bytes = rest.first_chunk().ok_or_else(|| self.refused("it is cut off"))?;
                let number = f64::from_le_bytes(*bytes);
                rest.advance(bytes.len());
                json!(number)
            }
            Type::Bytes => Value::String(BASE64_STANDARD.encode(take_bytes(rest)?)),
            Type::Quantity => Value::String(text(single_bytes(take_bytes(rest)?)?)),
            Type::IntOrString => int_or_string(take_bytes(rest)?)?,
            Type::Time => self.time(take_bytes(rest)?, 0)?,
            Type::MicroTime => self.time(take_bytes(rest)?, 6)?,
            Type::Raw | Type::Fields => {
                let inner = single_bytes(take_bytes(rest)?)?;
                serde_json::from_slice(inner).map_err(|_| self.refused("it holds no JSON"))?
            }
            Type::Message(key) => {
                let inner = take_bytes(rest)?;
                let message = schema::message_by_key(key)
                    .ok_or_else(|| self.refused("its type is not in the tables"))?;
                let mut object = Map::new();
                read_message(message, inner, self.depth + 1, &mut object)?;
                Value::Object(object)
            }
            Type::List(_) | Type::Map(_) => return Err(self.refused("lists do not nest")),
        })
    }

    /// A `Timestamp {seconds = 1, nanos = 2}`; the zero time is Go's `null`.
    fn time(&self, mut rest: &[u8], decimals: u8) -> Result<Value, Malformed> {
        let (mut seconds, mut nanos) = (0_i64, 0_i64);
        while rest.has_remaining() {
            match decode_key(&mut rest)? {
                (1, WireType::Varint) => seconds = decode_varint(&mut rest)?.cast_signed(),
                (2, WireType::Varint) => nanos = decode_varint(&mut rest)?.cast_signed(),
                (tag, wire) => skip_field(wire, tag, &mut rest, DecodeContext::default())?,
            }
        }
        if seconds == 0 && nanos == 0 {
            return Ok(Value::Null);
        }
        let out_of_range = || self.refused("the time is out of range");
        let nanos = i32::try_from(nanos).map_err(|_| out_of_range())?;
        let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| out_of_range())?;
        Ok(Value::String(format!("{time:.*}", usize::from(decimals))))
    }
}

/// `IntOrString {type = 1, intVal = 2, strVal = 3}`; type 1 means the string.
fn int_or_string(mut rest: &[u8]) -> Result<Value, Malformed> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    while rest.has_remaining() {
        match decode_key(&mut rest)? {
            (1, WireType::Varint) => is_text = decode_varint(&mut rest)? == 1,
            (2, WireType::Varint) => number = decode_varint(&mut rest)?.cast_signed(),
            (3, WireType::LengthDelimited) => text = take_text(&mut rest)?,
            (tag, wire) => skip_field(wire, tag, &mut rest, DecodeContext::default())?,
        }
    }
    Ok(if is_text { Value::String(text) } else { json!(number) })
}

/// The content of a message that only wraps its field 1.
fn single_bytes(mut rest: &[u8]) -> Result<&[u8], Malformed> {
    let mut content = &[][..];
    while rest.has_remaining() {
        match decode_key(&mut rest)? {
            (1, WireType::LengthDelimited) => content = take_bytes(&mut rest)?,
            (tag, wire) => skip_field(wire, tag, &mut rest, DecodeContext::default())?,
        }
    }
    Ok(content)
}

fn take_text(rest: &mut &[u8]) -> Result<String, Malformed> {
    take_bytes(rest).map(text)
}

/// Go's strings are any bytes; JSON's are not, and Go's JSON encoder replaces what is no UTF-8.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(decode_varint(rest)?).unwrap_or(usize::MAX);
    let (taken, left) = rest.split_at_checked(length).ok_or(Malformed::CutOff)?;
    *rest = left;
    Ok(taken)
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn is_optional(message: &'static Message, field: &'static Field) -> bool {
    static TABLE: OnceLock<HashMap<&'static str, HashSet<&'static str>>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let rows = OPTIONAL.lines().filter(|line| !line.starts_with('#'));
        rows.filter_map(|row| {
            let (message, fields) = row.split_once(' ')?;
            let (_, name) = message.rsplit_once('.')?;
            Some((name, fields.split(' ').collect()))
        })
        .collect()
    });
    table.get(message.name).is_some_and(|fields| fields.contains(field.name))
}

#[cfg(test)]
mod tests;
