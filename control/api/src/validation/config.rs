//! ConfigMaps and Secrets.

use serde_json::Value;

use crate::field::{Cursor, Error, Path};

use super::{format, immutable, same};

/// All the values of a ConfigMap or Secret together, in bytes.
const DATA_SIZE_MAX: usize = 1024 * 1024;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";

/// A ConfigMap: its keys, and the size of its values.
pub fn config_map(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let (data, binary_data) = (at.child("data"), at.child("binaryData"));
    let mut size = 0;
    for (key, value) in data.entries() {
        keys(&value, key, errors);
        if binary_data.value.get(key).is_some() {
            errors.push(Error::invalid(&value.path, key, "duplicate of key present in binaryData"));
        }
        size += value.len();
    }
    for (key, value) in binary_data.entries() {
        keys(&value, key, errors);
        size += decoded_len(value.text());
    }
    if size > DATA_SIZE_MAX {
        errors.push(Error::too_long(&Path::default(), DATA_SIZE_MAX));
    }
}

/// A ConfigMap marked immutable stays as it is.
pub fn config_map_update(at: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    unchanged_if_immutable(at, old, &["data", "binaryData"], errors);
}

/// A Secret: its keys, the size of its values, and what its type asks for.
pub fn secret(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let data = at.child("data");
    let mut size = 0;
    for (key, value) in data.entries() {
        keys(&value, key, errors);
        size += decoded_len(value.text());
    }
    if size > DATA_SIZE_MAX {
        errors.push(Error::too_long(&data.path, DATA_SIZE_MAX));
    }
    let has = |key: &str| data.value.get(key).is_some();
    let mut require = |key: &str| errors.push(Error::required(&data.path.key(key), ""));
    match at.child("type").text() {
        "kubernetes.io/service-account-token" => service_account_name(at, errors),
        "kubernetes.io/dockercfg" => json_document(&data, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => json_document(&data, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            require("username");
            require("password");
        }
        "kubernetes.io/ssh-auth" if data.child("ssh-privatekey").is_empty() => {
            require("ssh-privatekey")
        }
        "kubernetes.io/tls" => {
            ["tls.crt", "tls.key"].into_iter().filter(|key| !has(key)).for_each(require)
        }
        _ => {}
    }
}

/// A Secret keeps its type; one marked immutable stays as it is.
pub fn secret_update(at: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    immutable(&at.child("type"), &old.child("type"), errors);
    unchanged_if_immutable(at, old, &["data"], errors);
}

fn unchanged_if_immutable(
    at: &Cursor<'_>,
    old: &Cursor<'_>,
    fields: &[&str],
    errors: &mut Vec<Error>,
) {
    if !old.child("immutable").flag() {
        return;
    }
    if !at.child("immutable").flag() {
        errors.push(at.child("immutable").forbidden(IMMUTABLE));
    }
    let changed = fields.iter().filter(|name| !same(at.child(name).value, old.child(name).value));
    errors.extend(changed.map(|name| at.child(name).forbidden(IMMUTABLE)));
}

fn keys(value: &Cursor<'_>, key: &str, errors: &mut Vec<Error>) {
    let complaints = format::config_key(key);
    errors.extend(
        complaints.into_iter().map(|complaint| Error::invalid(&value.path, key, complaint)),
    );
}

fn service_account_name(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    const KEY: &str = "kubernetes.io/service-account.name";
    let annotations = at.descend(&["metadata", "annotations"]);
    if annotations.child(KEY).is_empty() {
        errors.push(Error::required(&annotations.path.key(KEY), ""));
    }
}

fn json_document(data: &Cursor<'_>, key: &str, errors: &mut Vec<Error>) {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    let path = data.path.key(key);
    let Some(text) = data.value.get(key).and_then(Value::as_str) else {
        errors.push(Error::required(&path, ""));
        return;
    };
    let bytes = STANDARD.decode(text).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        errors.push(Error::invalid(&path, "<secret contents redacted>", error.to_string()));
    }
}

/// How many bytes a base64 text stands for.
fn decoded_len(base64: &str) -> usize {
    let padding = base64.bytes().rev().take_while(|b| *b == b'=').count();
    (base64.len() / 4 * 3).saturating_sub(padding)
}
