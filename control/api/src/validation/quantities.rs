//! Amounts of resources: requests, limits, and references to them.

use crate::decode::Quantity;
use crate::field::{Cursor, Error};

use super::{complain, format};

const STANDARD: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
const FIELD_REFS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTE_DIVISORS: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// The `resources` of a container.
pub fn requirements(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let (limits, requests) = (at.child("limits"), at.child("requests"));
    for (name, value) in limits.entries() {
        resource_name(name, &value, errors);
        amount(name, &value, errors);
    }
    for (name, value) in requests.entries() {
        resource_name(name, &value, errors);
        amount(name, &value, errors);
        let limit = limits.value.get(name).and_then(|limit| limit.as_str());
        match limit {
            Some(limit) => within_limit(name, &requests, value.text(), limit, errors),
            None if !may_overcommit(name) => {
                errors.push(limits.required("Limit must be set for non overcommitable resources"));
            }
            None => {}
        }
    }
    let names: Vec<&str> =
        limits.entries().chain(requests.entries()).map(|(name, _)| name).collect();
    let huge_pages = names.iter().any(|name| name.starts_with("hugepages-"));
    if huge_pages && !names.contains(&"cpu") && !names.contains(&"memory") {
        errors.push(at.forbidden("HugePages require cpu or memory"));
    }
}

fn within_limit(
    name: &str,
    requests: &Cursor<'_>,
    request: &str,
    limit: &str,
    errors: &mut Vec<Error>,
) {
    let (Ok(asked), Ok(allowed)) = (request.parse::<Quantity>(), limit.parse::<Quantity>()) else {
        return;
    };
    let detail = match (asked == allowed, may_overcommit(name)) {
        (true, _) => return,
        (false, false) => format!("must be equal to {name} limit of {limit}"),
        (false, true) if asked > allowed => {
            format!("must be less than or equal to {name} limit of {limit}")
        }
        (false, true) => return,
    };
    errors.push(Error::invalid(&requests.path, request, detail));
}

/// Only native resources other than huge pages may be promised more often than they exist.
fn may_overcommit(name: &str) -> bool {
    (!name.contains('/') || name.contains("kubernetes.io/")) && !name.starts_with("hugepages-")
}

fn resource_name(name: &str, value: &Cursor<'_>, errors: &mut Vec<Error>) {
    let complaints = format::label_key(name);
    let well_formed = complaints.is_empty();
    errors.extend(
        complaints.into_iter().map(|complaint| Error::invalid(&value.path, name, complaint)),
    );
    if well_formed
        && !name.contains('/')
        && !STANDARD.contains(&name)
        && !name.starts_with("hugepages-")
    {
        errors.push(Error::invalid(
            &value.path,
            name,
            "must be a standard resource type or fully qualified",
        ));
        errors.push(Error::invalid(
            &value.path,
            name,
            "must be a standard resource for containers",
        ));
    }
}

/// One amount: not negative, and whole where the resource has no parts.
pub fn amount(name: &str, value: &Cursor<'_>, errors: &mut Vec<Error>) {
    let Ok(quantity) = value.text().parse::<Quantity>() else {
        complain(value, vec!["must be a valid resource quantity".to_owned()], errors);
        return;
    };
    if quantity.is_negative() {
        errors.push(value.invalid("must be greater than or equal to 0"));
    }
    let whole_only = name == "pods" || !may_overcommit(name);
    if whole_only && !quantity.is_whole() {
        errors.push(value.invalid("must be an integer"));
    }
}

/// A reference to a request or limit of a container; in volumes the container must be named.
pub fn resource_field(at: &Cursor<'_>, in_volume: bool, errors: &mut Vec<Error>) {
    let (container, resource) = (at.child("containerName"), at.child("resource"));
    let name = resource.text();
    let huge_pages =
        ["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| name.starts_with(prefix));
    if in_volume && container.is_empty() {
        errors.push(container.required(""));
    } else if name.is_empty() {
        errors.push(resource.required(""));
    } else if !FIELD_REFS.contains(&name) && !huge_pages {
        errors.push(resource.not_supported(&FIELD_REFS));
    }
    let divisor = at.child("divisor");
    if divisor.text().parse::<Quantity>().is_ok_and(|divisor| !divisor.is_zero()) {
        let (supported, list, of): (&[&str], &str, &str) = match name {
            "limits.cpu" | "requests.cpu" => (&["1m", "1"], "1m and 1", "cpu"),
            "limits.memory" | "requests.memory" => (&BYTE_DIVISORS, "", "memory"),
            _ if huge_pages => (&BYTE_DIVISORS, "", "hugepages"),
            _ => (&BYTE_DIVISORS, "", "local ephemeral storage"),
        };
        if !supported.contains(&divisor.text()) {
            let list = if list.is_empty() { BYTE_DIVISORS.join(", ") } else { list.to_owned() };
            let detail =
                format!("only divisor's values {list} are supported with the {of} resource");
            errors.push(Error::invalid(&divisor.path, name, detail));
        }
    }
}
