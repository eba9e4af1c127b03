//! Strategic merge patch: a merge patch that knows which lists are really maps, by the merge keys of
//! upstream's types, and takes the directives `$patch`, `$retainKeys`, `$deleteFromPrimitiveList/…`
//! and `$setElementOrder/…`.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::does_not_apply;
use crate::decode::schema::{self, Type};
use crate::resource::Resource;
use crate::status::Status;

const STRATEGIES: &str = include_str!("strategies.txt");

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Applies `patch` to `current`, both in the storage version.
///
/// # Errors
/// 400 when the patch is no object; 422 when a list item lacks its merge key or a directive is unknown.
pub fn apply(resource: &'static Resource, current: &Value, patch: &Value) -> Result<Value, Status> {
    let (Some(current_map), Some(patch)) = (current.as_object(), patch.as_object()) else {
        return Err(Status::bad_request("a strategic merge patch must be a JSON object"));
    };
    let stored = resource.stored_as();
    let key = schema::key(stored.group, stored.storage_version, stored.kind);
    let merged = merge_struct(current_map.clone(), patch, Some(&key))
        .map_err(|why| does_not_apply(resource, current, why))?;
    Ok(Value::Object(merged))
}

/// How one field of a struct is patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strategy {
    /// Lists are merged item by item instead of replaced.
    pub merge: bool,
    /// Only the keys a patch names stay.
    pub retain_keys: bool,
    /// The field that identifies an item; `None` for lists of plain values.
    pub merge_key: Option<&'static str>,
}

/// The strategy of a field of the struct with this key (`core/v1.PodSpec`), also through structs
/// that are inlined into it.
pub fn strategy(struct_key: &str, field: &str) -> Option<Strategy> {
    static TABLE: OnceLock<HashMap<(&'static str, &'static str), Strategy>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let rows = STRATEGIES.lines().filter(|line| !line.starts_with('#'));
        rows.filter_map(|row| {
            let mut words = row.split(' ');
            let (key, field) = (words.next()?, words.next()?);
            let (strategy, merge_key) = (words.next()?, words.next()?);
            let strategy = Strategy {
                merge: strategy.split(',').any(|word| word == "merge"),
                retain_keys: strategy.split(',').any(|word| word == "retainKeys"),
                merge_key: (merge_key != "-").then_some(merge_key),
            };
            Some(((key, field), strategy))
        })
        .collect()
    });
    let inlined = || {
        schema::message_by_key(struct_key)?.fields.iter().find_map(|outer| match &outer.kind {
            Type::Message(key) if outer.inline => strategy(key, field),
            _ => None,
        })
    };
    table.get(&(struct_key, field)).copied().or_else(inlined)
}

/// The key of the struct a field holds, in itself or in its list.
fn struct_of(struct_key: Option<&str>, field: &str) -> Option<&'static str> {
    let mut kind = schema::message_by_key(struct_key?)?.field(field)?;
    while let Type::List(item) | Type::Map(item) = kind {
        kind = item;
    }
    match kind {
        Type::Message(key) => Some(key),
        _ => None,
    }
}

fn merge_struct(
    mut current: Map<String, Value>,
    patch: &Map<String, Value>,
    key: Option<&str>,
) -> Result<Map<String, Value>, String> {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            let mut whole = patch.clone();
            whole.remove(DIRECTIVE);
            return Ok(whole);
        }
        Some("delete") => return Ok(Map::new()),
        Some(other) => return Err(format!("Unknown patch type: {other}")),
    }
    if let Some(kept) = patch.get(RETAIN_KEYS) {
        let kept = kept.as_array().ok_or("Invalid patch: $retainKeys is not a list")?;
        current.retain(|field, _| kept.iter().any(|name| name.as_str() == Some(field)));
    }
    for (name, value) in patch {
        if name == DIRECTIVE || name == RETAIN_KEYS || name.starts_with(ELEMENT_ORDER) {
            continue;
        }
        if let Some(field) = name.strip_prefix(DELETE_FROM_LIST) {
            delete_from_list(&mut current, field, value)?;
            continue;
        }
        let strategy = key.and_then(|key| strategy(key, name));
        let inner = struct_of(key, name);
        match (value, strategy) {
            (Value::Null, _) => {
                current.remove(name);
            }
            (Value::Object(patch), _) => {
                let before = match current.remove(name) {
                    Some(Value::Object(before)) => before,
                    _ => Map::new(),
                };
                let is_deleted = patch.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
                if !is_deleted {
                    let merged = merge_struct(before, patch, inner)?;
                    current.insert(name.clone(), Value::Object(merged));
                }
            }
            (Value::Array(items), Some(Strategy { merge: true, merge_key, .. })) => {
                let before = match current.remove(name) {
                    Some(Value::Array(before)) => before,
                    _ => Vec::new(),
                };
                let order = patch.get(&format!("{ELEMENT_ORDER}{name}")).and_then(Value::as_array);
                let list = List { merge_key, item: inner, order };
                current.insert(name.clone(), Value::Array(list.merge(before, items)?));
            }
            (value, _) => {
                current.insert(name.clone(), value.clone());
            }
        }
    }
    reorder_untouched(&mut current, patch, key);
    Ok(current)
}

/// A patch may only reorder a list: it names the order and no item.
fn reorder_untouched(
    current: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    key: Option<&str>,
) {
    for (name, order) in patch {
        let Some(field) = name.strip_prefix(ELEMENT_ORDER) else { continue };
        let merge_key = key.and_then(|key| strategy(key, field)).and_then(|s| s.merge_key);
        let untouched = !patch.contains_key(field);
        if let (true, Some(Value::Array(items)), Value::Array(order)) =
            (untouched, current.get_mut(field), order)
        {
            let before = items.clone();
            *items = in_order(std::mem::take(items), &before, order, merge_key);
        }
    }
}

fn delete_from_list(
    current: &mut Map<String, Value>,
    field: &str,
    deleted: &Value,
) -> Result<(), String> {
    let deleted = deleted
        .as_array()
        .ok_or_else(|| format!("Invalid patch: {DELETE_FROM_LIST}{field} is not a list"))?;
    if let Some(Value::Array(items)) = current.get_mut(field) {
        items.retain(|item| !deleted.contains(item));
    }
    Ok(())
}

/// A list that is merged item by item.
struct List<'a> {
    merge_key: Option<&'static str>,
    item: Option<&'static str>,
    order: Option<&'a Vec<Value>>,
}

impl List<'_> {
    fn merge(&self, before: Vec<Value>, patch: &[Value]) -> Result<Vec<Value>, String> {
        let merged = match self.merge_key {
            None => merge_plain(before.clone(), patch),
            Some(merge_key) => self.merge_structs(before.clone(), patch, merge_key)?,
        };
        Ok(match self.order {
            Some(order) => in_order(merged, &before, order, self.merge_key),
            None => merged,
        })
    }

    fn merge_structs(
        &self,
        mut merged: Vec<Value>,
        patch: &[Value],
        merge_key: &str,
    ) -> Result<Vec<Value>, String> {
        let directive = |item: &Value| item.get(DIRECTIVE)?.as_str().map(str::to_owned);
        if patch.iter().any(|item| directive(item).as_deref() == Some("replace")) {
            let items = patch.iter().filter(|item| directive(item).is_none());
            return Ok(items.cloned().collect());
        }
        for item in patch {
            let Some(identity) = item.get(merge_key) else {
                return Err(format!(
                    "map: {item} does not contain declared merge key: {merge_key}"
                ));
            };
            let found = merged.iter().position(|other| other.get(merge_key) == Some(identity));
            match (directive(item).as_deref(), found, item) {
                (Some("delete"), _, _) => {
                    merged.retain(|other| other.get(merge_key) != Some(identity))
                }
                (None | Some("merge"), found, Value::Object(item)) => {
                    let before = match found.map(|at| merged[at].take()) {
                        Some(Value::Object(before)) => before,
                        _ => Map::new(),
                    };
                    let result = Value::Object(merge_struct(before, item, self.item)?);
                    match found {
                        Some(at) => merged[at] = result,
                        None => merged.push(result),
                    }
                }
                (Some(other), _, _) => return Err(format!("Unknown patch type: {other}")),
                (None, _, _) => return Err(format!("list item {item} is not a struct")),
            }
        }
        Ok(merged)
    }
}

fn merge_plain(mut merged: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    for item in patch {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    merged
}

/// Puts the items the patch orders into that order, and leaves the others where they stood before
/// relative to them.
fn in_order(
    items: Vec<Value>,
    before: &[Value],
    order: &[Value],
    merge_key: Option<&str>,
) -> Vec<Value> {
    let identity = |item: &Value| match merge_key {
        Some(key) => item.get(key).cloned().unwrap_or_default(),
        None => item.clone(),
    };
    let place = |list: &[Value], item: &Value| {
        list.iter().position(|other| identity(other) == identity(item))
    };
    let (mut ordered, others): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| place(order, item).is_some());
    ordered.sort_by_key(|item| place(order, item));
    let (mut ordered, mut others) = (ordered.into_iter().peekable(), others.into_iter().peekable());
    let mut result = Vec::new();
    loop {
        let other_first = match (others.peek(), ordered.peek()) {
            (Some(other), Some(next)) => match (place(before, other), place(before, next)) {
                (Some(other), Some(next)) => other < next,
                _ => false,
            },
            (Some(_), None) => true,
            (None, _) => false,
        };
        match if other_first { others.next() } else { ordered.next() } {
            Some(item) => result.push(item),
            None => return result,
        }
    }
}

#[cfg(test)]
mod tests;
