//! Reading and writing the metadata every object has. Nothing here knows a kind.

use jiff::Timestamp;
use rand::Rng;
use serde_json::{Map, Value};

/// What upstream makes generated names of: no vowels, nothing that looks like something else.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Length of the generated part of a name.
const SUFFIX_CHARS: usize = 5;

/// A generated name is cut so that it stays within this, suffix included.
const GENERATED_NAME_CHARS_MAX: usize = 63;

fn meta<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object.get("metadata")?.get(key)
}

fn meta_text<'a>(object: &'a Value, key: &str) -> &'a str {
    meta(object, key).and_then(Value::as_str).unwrap_or_default()
}

/// `kind`, or "".
pub fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// `apiVersion`, or "".
pub fn api_version(object: &Value) -> &str {
    object.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
}

/// `metadata.name`, or "".
pub fn name(object: &Value) -> &str {
    meta_text(object, "name")
}

/// `metadata.namespace`, or "".
pub fn namespace(object: &Value) -> &str {
    meta_text(object, "namespace")
}

/// `metadata.generateName`, or "".
pub fn generate_name(object: &Value) -> &str {
    meta_text(object, "generateName")
}

/// `metadata.uid`, or "".
pub fn uid(object: &Value) -> &str {
    meta_text(object, "uid")
}

/// `metadata.resourceVersion`, or "".
pub fn resource_version(object: &Value) -> &str {
    meta_text(object, "resourceVersion")
}

/// `metadata.generation`, or 0.
pub fn generation(object: &Value) -> i64 {
    meta(object, "generation").and_then(Value::as_i64).unwrap_or_default()
}

/// `metadata.deletionTimestamp`, or "" when the object is not being deleted.
pub fn deletion_timestamp(object: &Value) -> &str {
    meta_text(object, "deletionTimestamp")
}

/// Whether the object is being deleted.
pub fn is_terminating(object: &Value) -> bool {
    !deletion_timestamp(object).is_empty()
}

/// The value of a label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    meta(object, "labels")?.get(key)?.as_str()
}

/// All labels, in order.
pub fn labels(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    pairs(meta(object, "labels"))
}

/// The value of an annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    meta(object, "annotations")?.get(key)?.as_str()
}

/// All annotations, in order.
pub fn annotations(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    pairs(meta(object, "annotations"))
}

fn pairs(map: Option<&Value>) -> impl Iterator<Item = (&str, &str)> {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    entries.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    let list = meta(object, "finalizers").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str)
}

/// `metadata.ownerReferences`.
pub fn owner_references(object: &Value) -> &[Value] {
    let list = meta(object, "ownerReferences").and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

/// The metadata, made if there is none. Anything else than an object in its place is replaced: that
/// it is one has been checked before objects are written to.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    child_mut(object, "metadata")
}

/// The struct at a key of a struct, made if there is none.
///
/// # Panics
/// When `object` is not a JSON object; callers have read it as one.
pub fn child_mut<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let map = object.as_object_mut().expect("an API object is a JSON object");
    let child = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    child.as_object_mut().expect("it was made an object just now")
}

/// Sets a field of the metadata.
pub fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    metadata_mut(object).insert(key.to_owned(), value.into());
}

/// Removes a field of the metadata.
pub fn unset(object: &mut Value, key: &str) {
    metadata_mut(object).remove(key);
}

/// A time as `metav1.Time` has it: RFC 3339 in UTC, whole seconds.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time as `metav1.MicroTime` has it: RFC 3339 in UTC, six decimals.
pub fn micro_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// A name from `metadata.generateName`: the prefix, cut if need be, and five random characters.
pub fn generated_name(prefix: &str, random: &mut impl Rng) -> String {
    let kept = GENERATED_NAME_CHARS_MAX - SUFFIX_CHARS;
    let mut name: String = prefix.chars().take(kept).collect();
    for _ in 0..SUFFIX_CHARS {
        name.push(char::from(NAME_ALPHABET[random.random_range(0..NAME_ALPHABET.len())]));
    }
    name
}

/// A version 4 UUID (RFC 9562).
pub fn new_uid(random: &mut impl Rng) -> String {
    let bits: u128 = random.random();
    let version_4 = (bits & !(0xf << 76)) | (0x4 << 76);
    let uuid = (version_4 & !(0x3 << 62)) | (0x2 << 62);
    let hex = format!("{uuid:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_uids_have_upstreams_form() {
        let mut random = StdRng::seed_from_u64(1);
        let name = generated_name("web-", &mut random);
        assert_eq!(name.len(), 9);
        assert!(name[4..].bytes().all(|byte| NAME_ALPHABET.contains(&byte)));
        assert_eq!(generated_name(&"x".repeat(200), &mut random).len(), 63);
        let uid = new_uid(&mut random);
        assert_eq!((uid.len(), &uid[14..15]), (36, "4"));
        assert!(matches!(&uid[19..20], "8" | "9" | "a" | "b"));
    }

    #[test]
    fn times_have_upstreams_precision() {
        let at: Timestamp = "2026-01-02T03:04:05.678901234Z".parse().unwrap();
        assert_eq!(time(at), "2026-01-02T03:04:05Z");
        assert_eq!(micro_time(at), "2026-01-02T03:04:05.678901Z");
    }

    #[test]
    fn metadata_is_read_leniently_and_made_when_missing() {
        let mut object = json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["f"]}});
        assert_eq!(label(&object, "a"), Some("b"));
        assert_eq!(finalizers(&object).collect::<Vec<_>>(), ["f"]);
        assert_eq!((name(&object), is_terminating(&object)), ("", false));
        set(&mut object, "name", "n");
        unset(&mut object, "labels");
        assert_eq!((name(&object), label(&object, "a")), ("n", None));
        let mut bare = json!({});
        set(&mut bare, "uid", "u");
        assert_eq!(uid(&bare), "u");
    }
}
